"""Clients that send nothing, too much, or too slowly are disconnected and do not delay others."""

from __future__ import annotations

import logging
import socket

import pytest
from sqlalchemy import Engine

from dims_worker.config import Config
from dims_worker.web import request_body, server
from tests.conftest import Project, wait_for
from tests.integration.web.serving import ClientConnection, Served, serving

FORM = b"POST /sign-in HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/x-www-form-urlencoded\r\n"
CHUNK = b"10000\r\n" + b"x" * 0x10000 + b"\r\n"


@pytest.fixture
def config(project: Project) -> Config:
    project.write({"dims.yaml": ""})
    return project.config


def answered(served: Served) -> bytes:
    page = served.open("/healthz", cookie=False)
    page.until("ok\n")
    return page.received


def ended(page: ClientConnection) -> bool:
    try:
        page.read(1)
    except ConnectionResetError:
        page.ended = True
    return page.ended


def test_an_incomplete_request_is_disconnected(engine: Engine, config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "REQUEST_SECONDS", 0.3)
    with serving(engine, config) as served:
        half = [served.send(b"GET / HTTP/1.1\r\nHost: loc"), served.send(b"")]
        again = served.open("/healthz", cookie=False)
        again.until("ok\n")
        again.connection.sendall(b"GET / HT")  # after a complete request
        for page in (*half, again):
            wait_for(lambda page=page: ended(page))  # type: ignore[misc]


def test_an_open_stream_is_not_disconnected(engine: Engine, config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "REQUEST_SECONDS", 0.2)
    with serving(engine, config) as served:
        page = served.live()
        page.read(1)
        assert not page.ended


def test_connections_beyond_the_limit_are_closed(
    engine: Engine, config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "MAX_CONNECTIONS", 3)
    with serving(engine, config) as served:
        pages = [served.send(b"GET ") for _ in range(3)]
        wait_for(lambda: ended(served.send(b"")))
        pages[0].connection.close()
        wait_for(lambda: not ended(served.open("/healthz", cookie=False)))


def test_a_long_form_is_413_whatever_its_headers_say(engine: Engine, config: Config) -> None:
    with serving(engine, config) as served:
        page = served.send(FORM + b"Content-Length: 7\r\nTransfer-Encoding: chunked\r\n\r\n")
        for _ in range(4):
            page.connection.sendall(CHUNK)
        page.connection.sendall(b"0\r\n\r\n")
        page.until("HTTP/1.1 413")


def test_a_client_that_sends_too_much_receives_the_answer(engine: Engine, config: Config) -> None:
    """Unread data would reset the connection, and the client would lose the answer."""
    with serving(engine, config) as served:
        for path, status in (("/api/events", "403"), ("/sign-in", "413")):
            head = FORM.replace(b"/sign-in", path.encode()) + b"Content-Length: 5000000\r\n\r\n"
            page = served.send(head)
            page.connection.sendall(b"x" * 5_000_000)
            page.until(f"HTTP/1.1 {status}")


def test_a_body_that_does_not_arrive_is_408(engine: Engine, config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(request_body, "SECONDS", 0.3)
    with serving(engine, config) as served:
        page = served.send(FORM + b"Content-Length: 70\r\n\r\ntoken=")
        page.until("HTTP/1.1 408")


def test_a_client_that_disconnects_in_a_form_is_no_error(
    engine: Engine, config: Config, caplog: pytest.LogCaptureFixture
) -> None:
    with serving(engine, config) as served:
        page = served.send(FORM + b"Content-Length: 70\r\n\r\ntoken=")
        page.connection.shutdown(socket.SHUT_RDWR)
        page.connection.close()
        assert b"200 OK" in answered(served)
    assert [record for record in caplog.records if record.levelno >= logging.ERROR] == []
