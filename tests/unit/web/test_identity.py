"""Who somebody is: tokens, links, proxies, sessions, forms."""

from __future__ import annotations

import pytest
from pydantic import ValidationError
from starlette.datastructures import Headers

from dims_worker.config import WebSection
from dims_worker.web.identity import SignInPolicy, Viewer

ADA = "ada-token-" + "x" * 20
BOB = "bob-token-" + "y" * 20


def access(secret: str = "s", **keys: object) -> SignInPolicy:
    return SignInPolicy(WebSection.model_validate({"tokens": {"ada": ADA, "bob": BOB}, **keys}), secret)


def test_a_token_names_its_person_and_nothing_else_does() -> None:
    assert access().by_token(ADA) == Viewer("ada", "token")
    assert access().by_token(BOB) == Viewer("bob", "token")
    for wrong in ("", ADA[:-1], ADA + "x", ADA.upper(), "ä" * 30):
        assert access().by_token(wrong) is None


def test_a_token_that_is_not_set_lets_nobody_in() -> None:
    off = access(tokens={"ada": "", "bob": None})
    assert off.web.active_tokens == {}
    assert off.by_token("") is None
    assert not off.may_send_events("")


@pytest.mark.parametrize("bad", ["tiny-mark", "with space " + "x" * 20, "line\n" + "x" * 20, "ü" * 30])
def test_a_token_that_is_unfit_is_refused_and_not_quoted(bad: str) -> None:
    with pytest.raises(ValidationError) as error:
        access(tokens={"ada": bad})
    assert bad not in "\n".join(one["msg"] for one in error.value.errors())


def test_a_session_is_somebodys_until_its_token_or_the_secret_changes() -> None:
    cookie = access().session(Viewer("ada", "token"))
    assert access().by_session(cookie) == Viewer("ada", "token")
    assert access("another").by_session(cookie) is None
    assert access(tokens={"ada": "new-" + ADA}).by_session(cookie) is None
    assert access(tokens={"bob": BOB}).by_session(cookie) is None
    for wrong in ("", cookie[:-1], "x" + cookie, cookie.replace(".", "", 1), "a.b.c"):
        assert access().by_session(wrong) is None


def test_a_session_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    kept = access(session="60s")
    cookie = kept.session(Viewer("ada", "token"))
    now = __import__("time").time()
    monkeypatch.setattr("itsdangerous.timed.time.time", lambda: now + 59)
    assert kept.by_session(cookie)
    monkeypatch.setattr("itsdangerous.timed.time.time", lambda: now + 62)
    assert kept.by_session(cookie) is None


def test_a_link_opens_once_and_for_some_minutes(monkeypatch: pytest.MonkeyPatch) -> None:
    site = access()
    code = site.link("eve")
    assert site.by_link(code) == Viewer("eve", "link")  # to be shown, as often as the page is loaded
    assert site.by_link(code, use=True) == Viewer("eve", "link")
    assert site.by_link(code, use=True) is None
    assert site.by_link(code) is None
    late = site.link("eve")
    now = __import__("time").time()
    monkeypatch.setattr("itsdangerous.timed.time.time", lambda: now + 602)
    assert site.by_link(late) is None


def test_a_link_of_before_the_site_began_opens_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    before = access()
    code = before.link("eve")
    assert before.by_link(code, use=True)
    now = __import__("time").time()
    monkeypatch.setattr("itsdangerous.timed.time.time", lambda: now + 1)
    again = access()
    assert again.by_link(code) is None
    assert again.by_link(again.link("eve"), use=True) == Viewer("eve", "link")


def test_what_is_signed_for_one_thing_is_good_for_no_other() -> None:
    site, ada = access(), Viewer("ada", "token")
    session, link, form = site.session(ada), site.link("ada"), site.form_token(ada)
    assert [site.by_session(link), site.by_session(form), site.by_link(session), site.by_link(form)] == [None] * 4
    assert [site.is_form_of(ada, session), site.is_form_of(ada, link)] == [False, False]


def test_a_form_is_its_viewers_own() -> None:
    site, ada = access(), Viewer("ada", "token")
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
def test_a_header_is_believed_from_a_trusted_proxy_alone(peer: str | None, name: str, known: Viewer | None) -> None:
    site = access(proxy={"header": "X-User", "trusted": ["127.0.0.1", "10.1.0.0/16"]})
    assert site.by_proxy(peer, Headers({"X-User": name})) == known
    assert access().by_proxy(peer, Headers({"X-User": name})) is None


def test_a_name_in_a_header_is_bounded_text() -> None:
    site = access(proxy={"header": "X-User", "trusted": "127.0.0.1"})
    for said in (b"\xff", b"a\x1b[1m", b"a" * 201):
        assert site.by_proxy("127.0.0.1", Headers(raw=[(b"x-user", said)])) is None
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
def test_what_would_let_in_another_or_nobody_is_refused(keys: dict[str, object]) -> None:
    with pytest.raises(ValidationError) as error:
        access(**keys)
    assert ADA not in "\n".join(one["msg"] for one in error.value.errors())


def test_hosts_are_names_in_any_case() -> None:
    assert access(hosts=["Dims.Example.org", "::1"]).web.hosts == ("dims.example.org", "::1")


@pytest.mark.parametrize("keys", [{"trusted": ["nonsense"]}, {"trusted": [], "header": "X User"}, {"header": "X-User"}])
def test_a_proxy_that_is_unfit_is_refused(keys: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        access(proxy=keys)


def test_no_secret_shows() -> None:
    site = access("signing-mark")
    assert "signing-mark" not in repr(site)
    assert ADA not in repr(site)
