"""Who may pass, what every answer forbids a browser, signing in and out."""

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


def test_who_did_not_sign_in_is_asked_to_and_comes_back(visit: Visit, config: Config) -> None:
    client = visit(config)
    answer = client.get("/metrics/a.b?days=7")
    assert (answer.status_code, answer.headers["location"]) == (303, "/sign-in?next=/metrics/a.b%3Fdays%3D7")
    page = client.get(answer.headers["location"])
    assert 'type="password"' in page.text
    done = client.post("/sign-in", data={"token": TOKENS["ada"], "next": "/metrics/a.b?days=7"})
    assert (done.status_code, done.headers["location"]) == (303, "/metrics/a.b?days=7")
    said = done.headers["set-cookie"]
    assert "HttpOnly" in said and "SameSite=lax" in said and "Secure" not in said
    assert TOKENS["ada"] not in said
    assert ">ada<" in client.get("/nowhere").text


def test_a_cookie_is_for_tls_alone_where_the_browser_came_by_it(visit: Visit, config: Config) -> None:
    done = visit(config).post("/sign-in", data={"token": TOKENS["ada"]}, headers={"x-forwarded-proto": "https"})
    assert "Secure" in done.headers["set-cookie"]
    done = visit(config).post("/sign-in", data={"token": TOKENS["ada"]}, headers={"x-forwarded-proto": "HTTPS, http"})
    assert "Secure" in done.headers["set-cookie"]


def test_a_wrong_token_opens_nothing_and_is_not_repeated(
    visit: Visit, config: Config, caplog: pytest.LogCaptureFixture
) -> None:
    answer = visit(config).post("/sign-in", data={"token": "wrong-mark"})
    assert answer.status_code == 403
    assert "Nobody has this token.\nWas all of it copied?" in answer.text
    assert "set-cookie" not in answer.headers
    assert "wrong-mark" not in answer.text + caplog.text
    assert "a sign-in failed" in caplog.text


@pytest.mark.parametrize(
    "to", ["//evil.example", "https://evil.example/", "/\\evil.example", "javascript:1", "", "/\n/x"]
)
def test_signing_in_leads_to_this_site_alone(visit: Visit, config: Config, to: str) -> None:
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
    for told in (again.text, client.get("/sign-in", params={"code": code}).text):  # from the button, and from the link
        assert "This link was used or is too old." in told and "<code>dims web --link</code> prints another" in told


def test_signing_out_needs_the_form_and_ends_it(visit: Visit, config: Config) -> None:
    client = visit(config, "ada")
    assert client.post("/sign-out", data={"a": "b"}).status_code == 403
    token = form_token(client.get("/nowhere").text)
    done = client.post("/sign-out", data={"form_token": token})
    assert done.headers["location"] == "/sign-in"
    assert f'{client.app.state.site.access.cookie}=""' in done.headers["set-cookie"]  # type: ignore[attr-defined]


def test_two_sites_of_one_machine_keep_their_sessions(visit: Visit, config: Config) -> None:
    """A browser sends a host's cookies to all of its ports."""
    one, other = visit(config, "ada"), visit(config)
    access = SignInPolicy(other.app.state.site.access.web, "the secret of another home")  # type: ignore[attr-defined]
    other = TestClient(
        build_app(replace(other.app.state.site, access=access)),  # type: ignore[attr-defined]
        base_url="http://localhost", follow_redirects=False, cookies=one.cookies,
    )  # fmt: skip
    assert other.post("/sign-in", data={"token": TOKENS["bob"]}).status_code == 303
    one.cookies = other.cookies
    assert ">ada<" in one.get("/nowhere").text and ">bob<" in other.get("/nowhere").text
    other.post("/sign-out", data={"form_token": form_token(other.get("/nowhere").text)})
    one.cookies = other.cookies
    assert ">ada<" in one.get("/nowhere").text and other.get("/nowhere").status_code == 303
    assert SignInPolicy(access.web, access.secret).cookie == access.cookie  # over a restart


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
    mine = {"sec-fetch-site": "same-origin", "origin": "http://localhost"}
    assert client.post("/sign-out", data={"form_token": token}, headers=mine).status_code == 303


def test_anyone_may_read_only_where_the_configuration_says_so(visit: Visit, config: Config) -> None:
    assert visit(config).get("/nowhere").status_code == 303
    open_ = visit(config, read="anyone")
    assert open_.get("/nowhere").status_code == 404
    assert open_.post("/requests/1/approve").status_code == 403
    assert open_.post("/sign-out").status_code == 303


def test_the_api_says_how_to_be_known(visit: Visit, config: Config) -> None:
    answer = visit(config).get("/api/nowhere")
    assert answer.status_code == 401
    assert answer.headers["www-authenticate"] == "Bearer"
    assert answer.headers["content-type"] == "application/problem+json"
    for token, status in ((TOKENS["bob"], 404), (EVENTS_TOKEN, 401), ("x", 401)):
        answer = visit(config).get("/api/nowhere", headers={"authorization": f"Bearer {token}"})
        assert answer.status_code == status, token
    # A page is no place for a script's token: nothing there protects it from being sent by a form
    assert visit(config).get("/nowhere", headers={"authorization": f"Bearer {TOKENS['bob']}"}).status_code == 303


def test_a_proxys_header_is_not_believed_from_everywhere(visit: Visit, config: Config) -> None:
    header = {"x-forwarded-user": "carl"}
    far = visit(config, proxy={"trusted": "10.0.0.0/8"})
    assert far.get("/nowhere", headers=header).status_code == 303


@pytest.mark.parametrize("name", ["José", "李"])
def test_a_proxys_name_is_utf8(visit: Visit, config: Config, name: str) -> None:
    client = visit(config, proxy={"trusted": "127.0.0.1"}, peer="127.0.0.1")
    assert f">{name}<" in client.get("/nowhere", headers={"x-forwarded-user": name.encode()}).text
    twice = [("x-forwarded-user", "eve"), ("x-forwarded-user", name.encode())]
    assert client.get("/nowhere", headers=twice).status_code == 303  # who of the two? Nobody


def test_a_wrong_token_is_told_where_anyone_may_read_and_a_cookie_is_not_looked_at(
    visit: Visit, config: Config
) -> None:
    wrong = {"authorization": "Bearer " + "w" * 30}
    assert visit(config, read="anyone").get("/api/nowhere", headers=wrong).status_code == 401
    assert visit(config, "ada").get("/api/nowhere", headers=wrong).status_code == 401


def test_a_form_that_is_none_of_ours_is_refused(visit: Visit, config: Config) -> None:
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


def test_a_place_that_is_none_leads_to_the_first_page(visit: Visit, config: Config) -> None:
    assert visit(config, "ada").get("/sign-in?next=//[").headers["location"] == "/"
    assert visit(config, "ada").get("/sign-in?next=/[").headers["location"] == "/["
    assert visit(config).post("/sign-in", data={"token": "x"}, headers={"origin": "http://["}).status_code == 403


def test_no_address_leads_to_another_by_a_slash(visit: Visit, config: Config) -> None:
    assert visit(config, "ada").get("/api/metrics/", headers={"x-forwarded-proto": "https"}).status_code == 404


def test_every_answer_forbids_what_a_page_does_not_need(visit: Visit, config: Config) -> None:
    client = visit(config, "ada")
    for path in ("/nowhere", "/sign-in?code=x", "/static/site.css", "/static/page.css", "/healthz", "/api/nowhere"):
        headers = client.get(path).headers
        policy = headers["content-security-policy"]
        assert "default-src 'none'" in policy and "script-src 'self';" in policy and "unsafe" not in policy, path
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["referrer-policy"] == "no-referrer"
        assert headers["x-frame-options"] == "DENY"
        assert headers["cache-control"] == ("no-store" if "/static/" not in path else headers["cache-control"])


def test_a_page_has_no_script_and_no_style_of_its_own(visit: Visit, config: Config) -> None:
    page = visit(config, "ada").get("/nowhere").text
    assert page.count("<script") == page.count('<script src="/static/')
    assert (
        "style=" not in page and "<style" not in page and " on" not in page.replace(" on the", "").partition("<main")[2]
    )


@pytest.mark.parametrize(
    ("address", "named", "known", "unknown"),
    [
        ("127.0.0.1", (), ["localhost:8420", "127.0.0.1", "[::1]:1"], ["evil.example", "", "[::1", "localhost.evil"]),
        ("127.0.0.1", ("dims.example",), ["dims.example", "localhost"], ["evil.example"]),
        ("0.0.0.0", (), ["anything.example"], []),
        ("0.0.0.0", ("dims.example",), ["dims.example:443"], ["evil.example"]),
    ],
)
def test_the_names_it_is_called_by(
    visit: Visit, config: Config, address: str, named: tuple[str, ...], known: list[str], unknown: list[str]
) -> None:
    client = visit(config, address=address, hosts=named)
    for host in known:
        assert client.get("/healthz", headers={"host": host}).text == "ok\n", host
    for host in unknown:
        answer = client.get("/healthz", headers={"host": host})
        assert (answer.status_code, "web.hosts" in answer.text) == (400, True), host


def test_a_form_is_bounded(visit: Visit, config: Config) -> None:
    assert visit(config).post("/sign-in", data={"token": "x" * 70_000}).status_code == 413


def test_a_bug_is_told_without_its_place(visit: Visit, config: Config) -> None:
    client = visit(config, "ada")

    def broken(request: object) -> None:
        raise RuntimeError("the secret place")

    client.app.router.routes.insert(0, Route("/broken", broken))  # type: ignore[attr-defined,arg-type]
    quiet = TestClient(client.app, base_url="http://localhost", raise_server_exceptions=False, cookies=client.cookies)
    answer = quiet.get("/broken")
    assert answer.status_code == 500
    assert "secret place" not in answer.text
    assert "default-src 'none'" in answer.headers["content-security-policy"]
