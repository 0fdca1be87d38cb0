"""Who is told, in tests: a real HTTP receiver and a real SMTP server on free ports of this machine."""

from __future__ import annotations

import email
import email.policy
import http.server
import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from email.message import EmailMessage
from typing import Any

import pytest
from aiosmtpd.controller import Controller

from dims_worker.services import ports

TOKEN = "t0ken-nobody-may-read"


@dataclass
class Receiver:
    """An HTTP endpoint as Apprise's `json://` calls it. It answers `status`, while its door is open.

    `began` are the messages that reached it, `took` those that it answered 200.
    """

    port: int = 0
    status: int = 200
    door: threading.Event = field(default_factory=threading.Event)
    began: list[dict[str, Any]] = field(default_factory=list)
    took: list[dict[str, Any]] = field(default_factory=list)

    @property
    def url(self) -> str:
        return f"json://dims:{TOKEN}@127.0.0.1:{self.port}/{TOKEN}"

    @property
    def titles(self) -> list[str]:
        return [str(message["title"]) for message in self.took]

    @property
    def texts(self) -> list[str]:
        return [str(message["message"]) for message in self.took]


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    made = Receiver()
    made.door.set()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            message = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            made.began.append(message)
            made.door.wait(60)
            if made.status == 200:
                made.took.append(message)  # before it is answered: whoever hears the answer finds it here
            try:
                self.send_response(made.status)
                self.send_header("Content-Length", "0")
                self.end_headers()
            except OSError:  # who sent it was killed, or has given up
                if made.status == 200:
                    made.took.remove(message)

        def log_message(self, *_: Any) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    made.port = server.server_port
    yield made
    made.door.set()
    server.shutdown()
    server.server_close()
    thread.join()


@dataclass
class Mailbox:
    """An SMTP server that keeps what it is given; it refuses all while it is `full`."""

    port: int = 0
    full: bool = False
    mails: list[EmailMessage] = field(default_factory=list)
    to: list[list[str]] = field(default_factory=list)

    @property
    def url(self) -> str:
        return f"mailto://127.0.0.1:{self.port}/?from=dims@example.org&to=ops@example.org"

    async def handle_DATA(self, server: object, session: object, envelope: Any) -> str:
        if self.full:
            return "452 Requested action not taken: insufficient system storage"
        mail = email.message_from_bytes(envelope.content, policy=email.policy.default)
        assert isinstance(mail, EmailMessage)
        self.mails.append(mail)
        self.to.append(envelope.rcpt_tos)
        return "250 OK"


@pytest.fixture
def mailbox() -> Iterator[Mailbox]:
    made = Mailbox(port=ports.choose(None))
    controller = Controller(made, hostname="127.0.0.1", port=made.port)
    controller.start()
    yield made
    controller.stop()
