"""Access, security headers, signing in and signing out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
from starlette.routing import Route
from starlette.testclient import TestClient

from dims_worker.config import Config, load_config
from dims_worker.web.app import build_app
from dims_worker.web.identity import SignInPolicy
from tests.conftest import REPO
from tests.integration.web.conftest import EVENTS_TOKEN, TOKENS, form_token

Visit = Callable[..., TestClient]


@pytest.fixture(scope="module")
def config() -> Config:
    return load_config(REPO / "config" / "dims.yaml", {}, REPO)


def test_a_visitor_signs_in_and_returns_to_the_page(visit: Visit, config: Config) -> None:
    client = visit(config)
    answer = client.get("/metrics/a.b?days=7")
    assert (answer.status_code, answer.headers["location"]) == (303, "/sign-in?next=/metrics/a.b%3Fdays%3D7")
    page = client.get(answer.headers["location"])
    assert 'type="password"' in page.text
    done = client.post("/sign-in", data={"token": TOKENS["ada"], "next": "/metrics/a.b?days=7"})
    assert (done.status_code, done.headers["location"]) == (303, "/metrics/a.b?days=7")
    cookie = done.headers["set-cookie"]
    assert "HttpOnly" in cookie and "SameSite=lax" in cookie and "Secure" not in cookie
    assert TOKENS["ada"] not in cookie
    assert ">ada<" in client.get("/nowhere").text


def test_the_cookie_is_secure_if_the_browser_used_tls(visit: Visit, config: Config) -> None:
    done = visit(config).post("/sign-in", data={"token": TOKENS["ada"]}, headers={"x-forwarded-proto": "https"})
    assert "Secure" in done.headers["set-cookie"]
    done = visit(config).post("/sign-in", data={"token": TOKENS["ada"]}, headers={"x-forwarded-proto": "HTTPS, http"})
    assert "Secure" in done.headers["set-cookie"]


def test_a_wrong_token_is_refused_and_not_repeated(
    visit: Visit, config: Config, caplog: pytest.LogCaptureFixture
) -> None:
    answer = visit(config).post("/sign-in", data={"token": "wrong-mark"})
    assert answer.status_code == 403
    assert "This token is unknown. Check that you copied all of it" in answer.text
    assert "set-cookie" not in answer.headers
    assert "wrong-mark" not in answer.text + caplog.text
    assert "sign-in failed" in caplog.text


@pytest.mark.parametrize(
    "to", ["//evil.example", "https://evil.example/", "/\\evil.example", "javascript:1", "", "/\n/x"]
)
def test_signing_in_never_redirects_to_another_site(visit: Visit, config: Config, to: str) -> None:
    done = visit(config).post("/sign-in", data={"token": TOKENS["ada"], "next": to})
    assert done.headers["location"] == "/"


def test_a_link_signs_in_once(visit: Visit, config: Config) -> None:
    client = visit(config)
    code = client.app.state.site.access.link("<b>eve</b>")  # type: ignore[attr-defined]
    page = client.get("/sign-in", params={"code": code})
    assert "Sign in as &lt;b&gt;eve&lt;/b&gt;" in page.text
    assert client.post("/sign-in", data={"code": code, "next": "/"}).status_code == 303
    assert client.get("/nowhere").status_code == 404  # signed in
    client.cookies.clear()
    again = client.post("/sign-in", data={"code": code})
    assert again.status_code == 403
    for page_text in (
        again.text,
        client.get("/sign-in", params={"code": code}).text,
    ):  # from the button and from the link
        assert (
            "This link has expired or was used already." in page_text
            and "Run <code>dims web --link</code> on the machine" in page_text
        )


def test_signing_out_needs_the_form_and_ends_it(visit: Visit, config: Config) -> None:
    client = visit(config, "ada")
    assert client.post("/sign-out", data={"a": "b"}).status_code == 403
    token = form_token(client.get("/nowhere").text)
    done = client.post("/sign-out", data={"form_token": token})
    assert done.headers["location"] == "/sign-in"
    assert f'{client.app.state.site.access.cookie}=""' in done.headers["set-cookie"]  # type: ignore[attr-defined]


def test_two_dashboards_on_one_machine_keep_separate_sessions(visit: Visit, config: Config) -> None:
    """A browser sends the cookies of a host to all of its ports."""
    first, second = visit(config, "ada"), visit(config)
    access = SignInPolicy(second.app.state.site.access.web, "the secret of another dashboard")  # type: ignore[attr-defined]
    second = TestClient(
        build_app(replace(second.app.state.site, access=access)),  # type: ignore[attr-defined]
        base_url="http://localhost",
        follow_redirects=False,
        cookies=first.cookies,
    )
    assert second.post("/sign-in", data={"token": TOKENS["bob"]}).status_code == 303
    first.cookies = second.cookies
    assert ">ada<" in first.get("/nowhere").text and ">bob<" in second.get("/nowhere").text
    second.post("/sign-out", data={"form_token": form_token(second.get("/nowhere").text)})
    first.cookies = second.cookies
    assert ">ada<" in first.get("/nowhere").text and second.get("/nowhere").status_code == 303
    assert SignInPolicy(access.web, access.secret).cookie == access.cookie  # the same after a restart


@pytest.mark.parametrize(
    "headers",
    [
        {"sec-fetch-site": "cross-site"},
        {"sec-fetch-site": "same-site"},
        {"origin": "https://evil.example"},
        {"origin": "null"},
        {"origin": "http://localhost:9999"},
    ],
)
def test_a_form_of_another_site_is_refused(visit: Visit, config: Config, headers: dict[str, str]) -> None:
    client = visit(config, "ada")
    token = form_token(client.get("/nowhere").text)
    answer = client.post("/sign-out", data={"form_token": token}, headers=headers)
    assert answer.status_code == 403
    assert "another site" in answer.text
    same_origin = {"sec-fetch-site": "same-origin", "origin": "http://localhost"}
    assert client.post("/sign-out", data={"form_token": token}, headers=same_origin).status_code == 303


def test_anyone_may_read_only_where_the_configuration_says_so(visit: Visit, config: Config) -> None:
    assert visit(config).get("/nowhere").status_code == 303
    open_ = visit(config, read="anyone")
    assert open_.get("/nowhere").status_code == 404
    assert open_.post("/requests/1/approve").status_code == 403
    assert open_.post("/sign-out").status_code == 303


def test_the_api_says_how_to_authenticate(visit: Visit, config: Config) -> None:
    answer = visit(config).get("/api/nowhere")
    assert answer.status_code == 401
    assert answer.headers["www-authenticate"] == "Bearer"
    assert answer.headers["content-type"] == "application/problem+json"
    for token, status in ((TOKENS["bob"], 404), (EVENTS_TOKEN, 401), ("x", 401)):
        answer = visit(config).get("/api/nowhere", headers={"authorization": f"Bearer {token}"})
        assert answer.status_code == status, token
    # Tokens in headers count only for the API: pages have no other protection against forged forms
    assert visit(config).get("/nowhere", headers={"authorization": f"Bearer {TOKENS['bob']}"}).status_code == 303


def test_the_proxy_header_counts_only_from_a_trusted_address(visit: Visit, config: Config) -> None:
    header = {"x-forwarded-user": "carl"}
    far = visit(config, proxy={"trusted": "10.0.0.0/8"})
    assert far.get("/nowhere", headers=header).status_code == 303


@pytest.mark.parametrize("name", ["José", "李"])
def test_a_proxys_name_is_utf8(visit: Visit, config: Config, name: str) -> None:
    client = visit(config, proxy={"trusted": "127.0.0.1"}, peer="127.0.0.1")
    assert f">{name}<" in client.get("/nowhere", headers={"x-forwarded-user": name.encode()}).text
    twice = [("x-forwarded-user", "eve"), ("x-forwarded-user", name.encode())]
    assert client.get("/nowhere", headers=twice).status_code == 303  # ambiguous


def test_a_wrong_token_is_401_even_if_anyone_may_read_or_a_cookie_is_valid(visit: Visit, config: Config) -> None:
    wrong = {"authorization": "Bearer " + "w" * 30}
    assert visit(config, read="anyone").get("/api/nowhere", headers=wrong).status_code == 401
    assert visit(config, "ada").get("/api/nowhere", headers=wrong).status_code == 401


def test_an_invalid_form_is_refused(visit: Visit, config: Config) -> None:
    client = visit(config)
    for body, kind, status in (
        (b"--x\r\n", "multipart/form-data; boundary=x", 415),
        (b"token=x", "", 415),
        (b"token=\xff", "application/x-www-form-urlencoded", 400),
        (b"&a=b" * 60, "application/x-www-form-urlencoded", 400),
        (b"token=" + b"x" * 70_000, "application/x-www-form-urlencoded", 413),
        (b"token=%ED%A0%80", "application/x-www-form-urlencoded; charset=utf-7", 403),
    ):
        answer = client.post("/sign-in", content=body, headers={"content-type": kind})
        assert answer.status_code == status, (body[:20], answer.text)


def test_an_invalid_return_path_leads_to_the_first_page(visit: Visit, config: Config) -> None:
    assert visit(config, "ada").get("/sign-in?next=//[").headers["location"] == "/"
    assert visit(config, "ada").get("/sign-in?next=/[").headers["location"] == "/["
    assert visit(config).post("/sign-in", data={"token": "x"}, headers={"origin": "http://["}).status_code == 403


def test_a_trailing_slash_is_not_redirected(visit: Visit, config: Config) -> None:
    assert visit(config, "ada").get("/api/metrics/", headers={"x-forwarded-proto": "https"}).status_code == 404


def test_every_answer_has_the_security_headers(visit: Visit, config: Config) -> None:
    client = visit(config, "ada")
    for path in ("/nowhere", "/sign-in?code=x", "/static/site.css", "/static/page.css", "/healthz", "/api/nowhere"):
        headers = client.get(path).headers
        policy = headers["content-security-policy"]
        assert "default-src 'none'" in policy and "script-src 'self';" in policy and "unsafe" not in policy, path
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["referrer-policy"] == "no-referrer"
        assert headers["x-frame-options"] == "DENY"
        assert headers["cache-control"] == ("no-store" if "/static/" not in path else headers["cache-control"])


def test_a_page_has_no_inline_script_or_style(visit: Visit, config: Config) -> None:
    page = visit(config, "ada").get("/nowhere").text
    assert page.count("<script") == page.count('<script src="/static/')
    assert (
        "style=" not in page and "<style" not in page and " on" not in page.replace(" on the", "").partition("<main")[2]
    )


@pytest.mark.parametrize(
    ("address", "configured", "allowed", "refused"),
    [
        ("127.0.0.1", (), ["localhost:8420", "127.0.0.1", "[::1]:1"], ["evil.example", "", "[::1", "localhost.evil"]),
        ("127.0.0.1", ("dims.example",), ["dims.example", "localhost"], ["evil.example"]),
        ("0.0.0.0", (), ["anything.example"], []),
        ("0.0.0.0", ("dims.example",), ["dims.example:443"], ["evil.example"]),
    ],
)
def test_only_allowed_host_names_are_answered(
    visit: Visit, config: Config, address: str, configured: tuple[str, ...], allowed: list[str], refused: list[str]
) -> None:
    client = visit(config, address=address, hosts=configured)
    for host in allowed:
        assert client.get("/healthz", headers={"host": host}).text == "ok\n", host
    for host in refused:
        answer = client.get("/healthz", headers={"host": host})
        assert (answer.status_code, "web.hosts" in answer.text) == (400, True), host


def test_a_form_that_is_too_long_is_413(visit: Visit, config: Config) -> None:
    assert visit(config).post("/sign-in", data={"token": "x" * 70_000}).status_code == 413


def test_an_unexpected_error_is_500_without_details(visit: Visit, config: Config) -> None:
    client = visit(config, "ada")

    def broken(request: object) -> None:
        raise RuntimeError("the secret place")

    client.app.router.routes.insert(0, Route("/broken", broken))  # type: ignore[attr-defined,arg-type]
    quiet = TestClient(client.app, base_url="http://localhost", raise_server_exceptions=False, cookies=client.cookies)
    answer = quiet.get("/broken")
    assert answer.status_code == 500
    assert "secret place" not in answer.text
    assert "default-src 'none'" in answer.headers["content-security-policy"]
