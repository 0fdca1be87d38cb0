"""Tokens, links, proxies, sessions and form tokens."""

from __future__ import annotations

import pytest
from pydantic import ValidationError
from starlette.datastructures import Headers

from dims_worker.config import WebSection
from dims_worker.web.identity import SignInPolicy, Viewer

ADA = "ada-token-" + "x" * 20
BOB = "bob-token-" + "y" * 20


def policy(secret: str = "s", **keys: object) -> SignInPolicy:
    return SignInPolicy(WebSection.model_validate({"tokens": {"ada": ADA, "bob": BOB}, **keys}), secret)


def test_a_token_identifies_one_person() -> None:
    assert policy().by_token(ADA) == Viewer("ada", "token")
    assert policy().by_token(BOB) == Viewer("bob", "token")
    for wrong in ("", ADA[:-1], ADA + "x", ADA.upper(), "ä" * 30):
        assert policy().by_token(wrong) is None


def test_an_empty_token_signs_no_one_in() -> None:
    off = policy(tokens={"ada": "", "bob": None})
    assert off.web.active_tokens == {}
    assert off.by_token("") is None
    assert not off.may_send_events("")


@pytest.mark.parametrize("bad", ["tiny-mark", "with space " + "x" * 20, "line\n" + "x" * 20, "ü" * 30])
def test_an_invalid_token_is_refused_and_not_quoted(bad: str) -> None:
    with pytest.raises(ValidationError) as error:
        policy(tokens={"ada": bad})
    assert bad not in "\n".join(error_item["msg"] for error_item in error.value.errors())


def test_a_session_ends_when_its_token_or_the_secret_changes() -> None:
    cookie = policy().session(Viewer("ada", "token"))
    assert policy().by_session(cookie) == Viewer("ada", "token")
    assert policy("another").by_session(cookie) is None
    assert policy(tokens={"ada": "new-" + ADA}).by_session(cookie) is None
    assert policy(tokens={"bob": BOB}).by_session(cookie) is None
    for wrong in ("", cookie[:-1], "x" + cookie, cookie.replace(".", "", 1), "a.b.c"):
        assert policy().by_session(wrong) is None


def test_a_session_expires(monkeypatch: pytest.MonkeyPatch) -> None:
    kept = policy(session="60s")
    cookie = kept.session(Viewer("ada", "token"))
    now = __import__("time").time()
    monkeypatch.setattr("itsdangerous.timed.time.time", lambda: now + 59)
    assert kept.by_session(cookie)
    monkeypatch.setattr("itsdangerous.timed.time.time", lambda: now + 62)
    assert kept.by_session(cookie) is None


def test_a_link_works_once_and_for_ten_minutes(monkeypatch: pytest.MonkeyPatch) -> None:
    site = policy()
    code = site.link("eve")
    assert site.by_link(code) == Viewer("eve", "link")  # without `use`, as often as you like
    assert site.by_link(code, use=True) == Viewer("eve", "link")
    assert site.by_link(code, use=True) is None
    assert site.by_link(code) is None
    late = site.link("eve")
    now = __import__("time").time()
    monkeypatch.setattr("itsdangerous.timed.time.time", lambda: now + 602)
    assert site.by_link(late) is None


def test_a_link_from_before_a_restart_does_not_work(monkeypatch: pytest.MonkeyPatch) -> None:
    before = policy()
    code = before.link("eve")
    assert before.by_link(code, use=True)
    now = __import__("time").time()
    monkeypatch.setattr("itsdangerous.timed.time.time", lambda: now + 1)
    again = policy()
    assert again.by_link(code) is None
    assert again.by_link(again.link("eve"), use=True) == Viewer("eve", "link")


def test_a_signed_text_is_valid_for_its_own_purpose_only() -> None:
    site, ada = policy(), Viewer("ada", "token")
    session, link, form = site.session(ada), site.link("ada"), site.form_token(ada)
    assert [site.by_session(link), site.by_session(form), site.by_link(session), site.by_link(form)] == [None] * 4
    assert [site.is_form_of(ada, session), site.is_form_of(ada, link)] == [False, False]


def test_a_form_token_belongs_to_one_viewer() -> None:
    site, ada = policy(), Viewer("ada", "token")
    token = site.form_token(ada)
    assert site.is_form_of(ada, token)
    assert not site.is_form_of(Viewer("bob", "token"), token)
    assert not site.is_form_of(Viewer("ada", "proxy"), token)
    assert not site.is_form_of(ada, token + "x")


@pytest.mark.parametrize(
    ("peer", "name", "known"),
    [
        ("127.0.0.1", "ada", Viewer("ada", "proxy")),
        ("10.1.2.3", " ada@example.org ", Viewer("ada@example.org", "proxy")),
        ("10.2.2.3", "ada", None),
        ("::1", "ada", None),
        ("127.0.0.1", "", None),
        ("testclient", "ada", None),
        (None, "ada", None),
    ],
)
def test_a_header_counts_only_from_a_trusted_proxy(peer: str | None, name: str, known: Viewer | None) -> None:
    site = policy(proxy={"header": "X-User", "trusted": ["127.0.0.1", "10.1.0.0/16"]})
    assert site.by_proxy(peer, Headers({"X-User": name})) == known
    assert policy().by_proxy(peer, Headers({"X-User": name})) is None


def test_an_invalid_name_in_a_header_is_ignored() -> None:
    site = policy(proxy={"header": "X-User", "trusted": "127.0.0.1"})
    for header in (b"\xff", b"a\x1b[1m", b"a" * 201):
        assert site.by_proxy("127.0.0.1", Headers(raw=[(b"x-user", header)])) is None
    both = Headers(raw=[(b"x-user", b"eve"), (b"x-user", b"ada")])
    assert site.by_proxy("127.0.0.1", both) is None


@pytest.mark.parametrize(
    "keys",
    [
        {"tokens": {"ada": ADA, "bob": ADA}},
        {"tokens": {"ada": ADA}, "events_token": ADA},
        {"tokens": {"ada": "${x"}},
        {"hosts": [""]},
        {"hosts": ["https://dims.example.org"]},
        {"hosts": ["dims.example.org:8443"]},
        {"hosts": ["dims.example.org/x"]},
    ],
)
def test_ambiguous_tokens_and_invalid_hosts_are_refused(keys: dict[str, object]) -> None:
    with pytest.raises(ValidationError) as error:
        policy(**keys)
    assert ADA not in "\n".join(error_item["msg"] for error_item in error.value.errors())


def test_hosts_are_compared_in_lower_case() -> None:
    assert policy(hosts=["Dims.Example.org", "::1"]).web.hosts == ("dims.example.org", "::1")


@pytest.mark.parametrize("keys", [{"trusted": ["nonsense"]}, {"trusted": [], "header": "X User"}, {"header": "X-User"}])
def test_an_invalid_proxy_is_refused(keys: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        policy(proxy=keys)


def test_secrets_are_not_in_the_repr() -> None:
    site = policy("signing-mark")
    assert "signing-mark" not in repr(site)
    assert ADA not in repr(site)
