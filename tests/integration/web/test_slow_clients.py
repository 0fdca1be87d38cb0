"""Who calls without saying what they want, says too much or too slowly: let go, and nobody else waits."""

from __future__ import annotations

import logging
import socket

import pytest
from sqlalchemy import Engine

from dims_worker.config import Config
from dims_worker.web import request_body, server
from tests.conftest import Project, wait_for
from tests.integration.web.serving import Open, Served, serving

FORM = b"POST /sign-in HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/x-www-form-urlencoded\r\n"
CHUNK = b"10000\r\n" + b"x" * 0x10000 + b"\r\n"


@pytest.fixture
def config(project: Project) -> Config:
    project.write({"dims.yaml": ""})
    return project.config


def answered(served: Served) -> bytes:
    page = served.open("/healthz", cookie=False)
    page.until("ok\n")
    return page.said


def ended(page: Open) -> bool:
    try:
        page.read(1)
    except ConnectionResetError:
        page.ended = True
    return page.ended


def test_half_a_request_is_let_go(engine: Engine, config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "ASKING", 0.3)
    with serving(engine, config) as served:
        half = [served.send(b"GET / HTTP/1.1\r\nHost: loc"), served.send(b"")]
        again = served.open("/healthz", cookie=False)
        again.until("ok\n")
        again.connection.sendall(b"GET / HT")  # after a whole one
        for page in (*half, again):
            wait_for(lambda page=page: ended(page))  # type: ignore[misc]


def test_who_listens_is_not_let_go(engine: Engine, config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "ASKING", 0.2)
    with serving(engine, config) as served:
        page = served.live()
        page.read(1)
        assert not page.ended


def test_one_too_many_is_hung_up_on(engine: Engine, config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "CONNECTIONS", 3)
    with serving(engine, config) as served:
        pages = [served.send(b"GET ") for _ in range(3)]
        wait_for(lambda: ended(served.send(b"")))
        pages[0].connection.close()
        wait_for(lambda: not ended(served.open("/healthz", cookie=False)))


def test_a_form_is_bounded_whatever_its_head_says(engine: Engine, config: Config) -> None:
    with serving(engine, config) as served:
        page = served.send(FORM + b"Content-Length: 7\r\nTransfer-Encoding: chunked\r\n\r\n")
        for _ in range(4):
            page.connection.sendall(CHUNK)
        page.connection.sendall(b"0\r\n\r\n")
        page.until("HTTP/1.1 413")


def test_who_sends_too_much_hears_so(engine: Engine, config: Config) -> None:
    """What is on its way when the answer comes would reset the connection, and take the answer with it."""
    with serving(engine, config) as served:
        for path, status in (("/api/events", "403"), ("/sign-in", "413")):
            head = FORM.replace(b"/sign-in", path.encode()) + b"Content-Length: 5000000\r\n\r\n"
            page = served.send(head)
            page.connection.sendall(b"x" * 5_000_000)
            page.until(f"HTTP/1.1 {status}")


def test_a_body_that_does_not_come_is_not_waited_for(
    engine: Engine, config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(request_body, "SECONDS", 0.3)
    with serving(engine, config) as served:
        page = served.send(FORM + b"Content-Length: 70\r\n\r\ntoken=")
        page.until("HTTP/1.1 408")


def test_who_leaves_in_a_form_is_no_bug(engine: Engine, config: Config, caplog: pytest.LogCaptureFixture) -> None:
    with serving(engine, config) as served:
        page = served.send(FORM + b"Content-Length: 70\r\n\r\ntoken=")
        page.connection.shutdown(socket.SHUT_RDWR)
        page.connection.close()
        assert b"200 OK" in answered(served)
    assert [one for one in caplog.records if one.levelno >= logging.ERROR] == []
