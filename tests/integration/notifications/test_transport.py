"""Apprise: a message arrives complete, a failure has a reason, a slow service blocks nothing, the URL stays secret."""

from __future__ import annotations

import logging
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from datetime import timedelta

import pytest
from pydantic import SecretStr

from dims_worker.errors import NotSent
from dims_worker.notifications import transport
from dims_worker.notifications.transport import Transport
from tests.fixtures.receivers import TOKEN, Mailbox, Receiver

TITLE = "DIMS: 1 value waits for approval (project naïve)"
BODY = """m.a: 1 file -> 2 files, +100.0 %: waits for approval
    dims approvals approve 1 --version 1   (or reject)
m_b_c: ‰ *x*"""


def send(url: str, **options: timedelta) -> None:
    Transport(SecretStr(url)).send(TITLE, BODY, "warning", **options)


def reason(url: str, **options: timedelta) -> str:
    with pytest.raises(NotSent) as error:
        send(url, **options)
    assert error.value.__cause__ is None
    return str(error.value)


# --- it arrives ------------------------------------------------------------------------------------------


def test_a_webhook_gets_the_text_as_it_is(receiver: Receiver) -> None:
    send(receiver.url)
    (message,) = receiver.accepted
    assert (message["title"], message["message"], message["type"]) == (TITLE, BODY, "warning")


def test_a_mail_is_plain_text(mailbox: Mailbox) -> None:
    send(mailbox.url)
    (mail,) = mailbox.mails
    assert mailbox.to == [["ops@example.org"]]
    assert (mail["Subject"], mail["From"], mail["To"]) == (TITLE, "dims@example.org", "ops@example.org")
    assert mail.get_content_type() == "text/plain"
    assert mail.get_content().split("\r\n") == [*BODY.split("\n"), ""]


def test_a_text_that_is_too_long_for_a_service_comes_in_parts(
    receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    from apprise.plugins.custom_json import NotifyJSON

    monkeypatch.setattr(NotifyJSON, "body_maxlen", 80)
    transport_ = Transport(SecretStr(receiver.url))
    assert transport_.longest == 80
    transport_.send(TITLE, BODY, "info")
    assert len(receiver.accepted) > 1
    assert "".join("".join(receiver.texts).split()) == "".join(BODY.split())


# --- it does not -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [400, 403, 404, 429, 500, 503])
def test_a_failure_is_reported_with_its_http_status(receiver: Receiver, status: int) -> None:
    receiver.status = status
    assert reason(receiver.url) == f"JSON: it answered HTTP {status}"
    assert len(receiver.received) == 1  # once: the caller retries


def test_a_server_that_is_unreachable(unused_port: int) -> None:
    assert reason(f"json://dims:{TOKEN}@127.0.0.1:{unused_port}/{TOKEN}") == "JSON: the connection failed"
    assert reason(f"mailto://127.0.0.1:{unused_port}/?from=a@example.org&to=b@example.org").startswith("E-Mail: ")


def test_a_mailbox_that_refuses_messages(mailbox: Mailbox) -> None:
    mailbox.full = True
    assert reason(mailbox.url).startswith("E-Mail: ")
    assert mailbox.mails == []


@pytest.mark.parametrize("url", [f"zzz://{TOKEN}", f"slack://{TOKEN}", "json://", f"json://a/{TOKEN},json://b/{TOKEN}"])
def test_a_url_that_apprise_does_not_know(url: str) -> None:
    assert reason(url) == "Apprise does not know its URL (set one URL for each channel)"


def test_without_apprise_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "apprise", None)
    assert reason("json://localhost") == "Apprise is not installed: pip install 'dims-worker[notify]'"


def test_apprise_is_not_loaded_before_something_is_sent() -> None:
    program = (
        "import sys, dims_worker.notifications.sender, dims_worker.worker.dispatcher; print('apprise' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == "False"


@pytest.fixture
def unused_port() -> Iterator[int]:
    """A reserved port without a listener."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        yield bound.getsockname()[1]


@pytest.fixture
def dripping() -> Iterator[int]:
    """The port of a server that never finishes its answer, and sends a byte before any timeout for one expires."""
    done = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as server:

        def drip() -> None:
            client, _ = server.accept()
            with client:
                client.sendall(b"HTTP/1.1 200 OK\r\nX: ")
                while not done.wait(0.1):
                    try:
                        client.sendall(b"y")
                    except OSError:
                        return

        thread = threading.Thread(target=drip, daemon=True)
        thread.start()
        yield server.getsockname()[1]
        done.set()
        thread.join(10)


def test_a_service_that_never_finishes_its_answer_is_abandoned(dripping: int) -> None:
    began = time.monotonic()
    assert reason(f"json://127.0.0.1:{dripping}", timeout=timedelta(seconds=1)) == "JSON: no answer within 1 s"
    assert time.monotonic() - began < 20  # the answer never ends


def test_a_process_ends_while_a_service_still_answers(dripping: int) -> None:
    program = f"""
from datetime import timedelta
from pydantic import SecretStr
from dims_worker.notifications.transport import Transport
from dims_worker.errors import NotSent
try:
    Transport(SecretStr("json://127.0.0.1:{dripping}")).send("t", "b", "info", timedelta(seconds=1))
except NotSent as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == "JSON: no answer within 1 s"


# --- the URL stays secret --------------------------------------------------------------------------------


def _everything(receiver: Receiver, unused_port: int) -> None:
    """Use URLs in every way that may log them."""
    send(receiver.url)
    receiver.status = 500
    for url in (
        receiver.url,
        f"json://u:{TOKEN}@127.0.0.1:{unused_port}/{TOKEN}",
        f"zzz://{TOKEN}",
        f"slack://{TOKEN}",
    ):
        assert TOKEN not in reason(url)


def test_no_url_reaches_a_log(receiver: Receiver, unused_port: int, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    _everything(receiver, unused_port)
    logging.getLogger("urllib3.connectionpool").debug("other logs work")
    assert caplog.messages == ["other logs work"]


def test_without_the_filter_the_url_would_be_logged(
    receiver: Receiver, unused_port: int, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Show that the test above can fail."""
    monkeypatch.setattr(transport, "_DROP", logging.Filter())
    caplog.handler.filters.clear()
    caplog.set_level(logging.DEBUG)
    _everything(receiver, unused_port)
    assert TOKEN in caplog.text


def test_what_a_plugin_raises_is_not_repeated(receiver: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
    import apprise

    def broken(*_: object, **__: object) -> None:
        raise RuntimeError(f"could not reach {receiver.url}")

    monkeypatch.setattr(apprise.Apprise, "notify", broken)
    assert reason(receiver.url) == "Apprise failed with RuntimeError"
