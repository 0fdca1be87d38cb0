"""What is to be sent is sent: to a real receiver and a real mailbox, at least once, one message for all that waits."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from dims_worker import notify
from dims_worker.config import load
from tests.integration.flow.kit import CONFIG, Flow
from tests.receivers import Mailbox, Receiver

TOLD = CONFIG + 'notify: {channels: {ops: {url: "${URL:-}"}}}\n'


@pytest.fixture
def telling(make_flow: Callable[[str], Flow], tmp_path: Path) -> Callable[[str], Flow]:
    def make(url: str, text: str = TOLD) -> Flow:
        flow = make_flow(text)
        flow.config = load(None, {"URL": url}, tmp_path)
        return flow

    return make


def send(flow: Flow) -> notify.Sent:
    return notify.send(flow.engine, flow.config, "ops")


def test_ten(telling, receiver: Receiver) -> None:
    flow = telling(receiver.url)
    flow.serve(c=100)
    for _ in range(10):
        flow.serve(c=150)
        print(send(flow))
    flow.serve(c=100)
    print(send(flow))
    for m in receiver.took:
        print(m["title"])
        print(m["message"])
    assert len(receiver.took) == 2


def test_mail(telling, mailbox: Mailbox) -> None:
    flow = telling(mailbox.url)
    flow.serve(c=100)
    flow.serve(c=150)
    print(send(flow))
    print(mailbox.mails[0])
