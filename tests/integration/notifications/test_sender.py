"""What is to be sent is sent: to a real receiver and a real mailbox, at least once, one message for all that waits."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from dims_worker.approvals.decisions import Decider, decide_request
from dims_worker.config import load_config
from dims_worker.notifications import sender
from dims_worker.store import notifications
from dims_worker.store.engine import transaction
from tests.conftest import wait_for
from tests.fixtures.receivers import TOKEN, Mailbox, Receiver
from tests.integration.helpers import CONFIG, Down, Flow, Threads, outcome

TOLD = CONFIG + 'notify: {channels: {ops: {url: "${URL:-}"}}}\n'
Telling = Callable[..., Flow]


@pytest.fixture
def telling(make_flow: Callable[[str], Flow], tmp_path: Path) -> Telling:
    """A flow whose channel `ops` is at this URL."""

    def make(url: str, text: str = TOLD, **env: str) -> Flow:
        flow = make_flow(text)
        flow.config = load_config(None, {"URL": url, **env}, tmp_path)
        return flow

    return make


@pytest.fixture
def flow(telling: Telling, receiver: Receiver) -> Flow:
    return telling(receiver.url)


def send(flow: Flow, channel: str = "ops", *, at_once: bool = False) -> str:
    with transaction(flow.engine) as connection:
        sender.queue_overdue(connection, flow.config)
    return str(sender.send_pending(flow.engine, flow.config, channel, at_once=at_once))


def waits(flow: Flow) -> list[str]:
    with transaction(flow.engine) as connection:
        return sender.queue_overdue(connection, flow.config)


def channel(flow: Flow) -> Any:
    (row,) = flow.rows("SELECT *, not_before - clock_timestamp() AS wait FROM dims_channels")
    return row


# --- once ------------------------------------------------------------------------------------------------


def test_ten_runs_with_the_same_drift_send_one_notification_and_the_eleventh_one_more(
    flow: Flow, receiver: Receiver
) -> None:
    flow.serve(c=100)
    answers = []
    for value in (*[150] * 10, 100):
        flow.serve(c=value)
        answers.append(send(flow))
    assert answers == ["1 notification sent in 1 message", *["nothing waits"] * 9, "1 notification sent in 1 message"]
    assert [title.partition(" (")[0] for title in receiver.titles] == [
        "DIMS: 1 value waits for you",
        "DIMS: 1 resolved",
    ]
    assert "dims approvals approve 1 --version 1" in receiver.texts[0]
    assert receiver.texts[1] == ("resolved: m.c: 100 files -> 150 files (+50.0 %) was withdrawn, it reads 100 files")


def test_all_that_a_run_tells_is_one_message(flow: Flow, receiver: Receiver) -> None:
    flow.serve(b=100)
    flow.serve(a=100, c=100)
    flow.serve(a=150, c=150)
    assert send(flow) == "3 notifications sent in 1 message"
    (title,), (said,) = receiver.titles, receiver.texts
    assert title.startswith("DIMS: 1 value waits for you, 2 drifted (project ")
    assert [line.split(":")[0] for line in said.splitlines() if not line.startswith(" ")] == ["m.c", "m.a", "m.sum"]


def test_an_approval_is_told_with_who_and_why(flow: Flow, receiver: Receiver) -> None:
    flow.serve(c=100)
    flow.serve(c=150)
    send(flow)
    ada = Decider("ada", "option")
    decide_request(flow.engine, flow.config, "m.c", "approved", version=1, person=ada, note="the backfill")
    send(flow)
    assert receiver.texts[1:] == ["resolved: m.c: 100 files -> 150 files (+50.0 %) was approved by ada: the backfill"]


def test_a_mailbox_gets_a_mail(telling: Telling, mailbox: Mailbox) -> None:
    flow = telling(mailbox.url)
    flow.serve(c=100)
    flow.serve(c=150)
    assert send(flow) == "1 notification sent in 1 message"
    (mail,) = mailbox.mails
    assert mail["Subject"].startswith("DIMS: 1 value waits for you (project ")
    assert "dims approvals approve 1 --version 1" in mail.get_content()


def test_each_channel_is_told_what_it_asks_for(telling: Telling, receiver: Receiver, mailbox: Mailbox) -> None:
    channels = '{ops: {url: "${URL:-}", tiers: [approve]}, all: {url: "${MAIL:-}", metrics: ["m.a", "m.c"]}}'
    flow = telling(receiver.url, f"{CONFIG}notify: {{channels: {channels}}}\n", MAIL=mailbox.url)
    flow.serve(a=100, c=100)
    flow.serve(a=150, c=150)
    assert waits(flow) == ["all", "ops"]
    assert send(flow, "all") == "2 notifications sent in 1 message"
    assert send(flow, "ops") == "1 notification sent in 1 message"
    assert receiver.titles[0].startswith("DIMS: 1 value waits for you (")
    assert "m.a" not in receiver.texts[0]
    assert waits(flow) == []


# --- a channel that is down ------------------------------------------------------------------------------


def test_a_channel_that_fails_is_tried_again_later_and_later_and_never_given_up(flow: Flow, receiver: Receiver) -> None:
    flow.serve(c=100)
    receiver.status = 500
    assert flow.serve(c=150)["m.c"].outcome == "held"  # no run knows of it
    waited = []
    for number in range(9):
        assert send(flow) == "not sent: JSON: it answered HTTP 500"
        assert (send(flow), waits(flow)) == ("nothing waits", [])  # not yet
        row = channel(flow)
        assert (row.failures, row.error) == (number + 1, "JSON: it answered HTTP 500")
        waited.append(round(row.wait.total_seconds(), -1))
        flow.do("UPDATE dims_channels SET not_before = clock_timestamp()")
        assert waits(flow) == ["ops"]
    assert waited == [10, 20, 40, 80, 160, 320, 640, 900, 900]
    assert len(receiver.received) == 9
    receiver.status = 200
    assert send(flow) == "1 notification sent in 1 message"
    row = channel(flow)
    assert (row.failures, row.error, row.not_before, row.lease_until) == (0, None, None, None)
    assert row.sent_at is not None


def test_a_person_waits_for_no_back_off(flow: Flow, receiver: Receiver) -> None:
    flow.serve(c=100)
    flow.serve(c=150)
    receiver.status = 500
    send(flow)
    receiver.status = 200
    assert send(flow) == "nothing waits"
    assert send(flow, at_once=True) == "1 notification sent in 1 message"


def test_a_channel_that_was_down_gets_one_message_of_how_it_is_now(flow: Flow, receiver: Receiver) -> None:
    flow.serve(b=100)
    flow.serve(a=100, c=100)
    receiver.status = 503
    for values in ({"a": 150}, {"a": 300}, {"c": 150}, {"c": 200}, {"c": 203}):
        flow.serve(**values)
        send(flow, at_once=True)
    for _ in range(3):
        flow.serve(a=Down("gone"))
    flow.serve(a=300)
    receiver.status = 200
    send(flow, at_once=True)
    (said,) = receiver.texts
    assert "m.c: 100 files -> 203 files, +103.0 %, urgent: waits for you" in said  # its request as it is now
    assert "dims approvals approve 2 --version 2 " in said
    assert "(1 change before that was not sent)" in said
    assert "came and went: m.a was measured again: 300 files" in said
    assert "m.a: 150 files -> 300 files" in said or "m.a: 100 files -> 150 files" in said
    assert send(flow, at_once=True) == "nothing waits"


def test_a_channel_that_is_off_is_left_alone_and_told_once_it_is_on(
    telling: Telling, receiver: Receiver, tmp_path: Path
) -> None:
    flow = telling("")
    flow.serve(c=100)
    flow.serve(c=150)
    assert (waits(flow), send(flow)) == ([], "nothing waits")
    flow.config = load_config(None, {"URL": receiver.url}, tmp_path)
    assert waits(flow) == ["ops"]
    assert send(flow) == "1 notification sent in 1 message"


def test_a_channel_that_nobody_configures_is_nobodys(flow: Flow) -> None:
    assert send(flow, "other") == "nothing waits"
    assert flow.rows("SELECT 1 FROM dims_channels") == []


# --- two at once, and what dies --------------------------------------------------------------------------


def test_of_two_senders_one_sends(flow: Flow, receiver: Receiver, beside: Threads) -> None:
    flow.serve(c=100)
    flow.serve(c=150)
    receiver.gate.clear()
    first = beside(send, flow)
    wait_for(lambda: receiver.received)
    assert (send(flow, at_once=True), waits(flow)) == ("nothing waits", [])
    receiver.gate.set()
    assert outcome(first) == "1 notification sent in 1 message"
    assert len(receiver.received) == 1


def test_many_senders_and_runs_at_once_send_each_notification_once(
    flow: Flow, receiver: Receiver, beside: Threads
) -> None:
    flow.serve(c=100)
    for number in range(10):
        flow.serve(c=150 if number % 2 == 0 else 100)
        for call in [beside(send, flow) for _ in range(4)]:
            assert isinstance(outcome(call), str)
    send(flow)
    waiting, resolved = (sum(what in title for title in receiver.titles) for what in ("waits for you", "resolved"))
    assert (waiting, resolved) == (5, 5)


def test_what_ends_while_its_beginning_is_sent_is_told_next(flow: Flow, receiver: Receiver, beside: Threads) -> None:
    flow.serve(c=100)
    flow.serve(c=150)
    receiver.gate.clear()
    sending = beside(send, flow)
    wait_for(lambda: receiver.received)
    flow.serve(c=100)  # a run waits for no channel
    receiver.gate.set()
    assert outcome(sending) == "2 notifications sent in 2 messages"
    assert [title.partition(" (")[0] for title in receiver.titles] == [
        "DIMS: 1 value waits for you",
        "DIMS: 1 resolved",
    ]


def claim(flow: Flow, lease: float) -> notifications.ClaimedChannel | None:
    with transaction(flow.engine) as connection:
        return notifications.claim_channel(connection, "ops", timedelta(seconds=lease), at_once=False)


def test_a_sender_that_died_before_it_sent_is_followed_by_another_and_one_message_comes(
    flow: Flow, receiver: Receiver
) -> None:
    flow.serve(c=100)
    flow.serve(c=150)
    assert claim(flow, lease=60) is not None  # and then it was killed
    assert (send(flow), waits(flow)) == ("nothing waits", [])
    flow.do("UPDATE dims_channels SET lease_until = clock_timestamp() - interval '1 s'")
    assert waits(flow) == ["ops"]
    assert send(flow) == "1 notification sent in 1 message"
    assert len(receiver.accepted) == 1


def test_a_sender_whose_lease_has_run_out_marks_what_it_sent_and_frees_nobodys_lease(flow: Flow) -> None:
    flow.serve(c=100)
    flow.serve(c=150)
    late = claim(flow, lease=0)
    flow.do("UPDATE dims_channels SET lease_until = lease_until - interval '1 s'")
    mine = claim(flow, lease=60)
    assert late is not None
    assert mine is not None
    with transaction(flow.engine) as connection:
        notifications.mark_failed(connection, late, "too late", timedelta(minutes=15))
        notifications.mark_sent(connection, late)
    row = channel(flow)
    assert (row.lease_until, row.failures, row.error) == (mine.lease_until, 0, None)
    assert flow.scalar("SELECT sent_at IS NOT NULL FROM dims_notifications")


def test_more_than_one_message_holds_are_sent_in_several(
    flow: Flow, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(notifications, "MAX_PER_MESSAGE", 2)
    flow.serve(b=100)
    flow.serve(a=100, c=100)
    flow.serve(a=150, c=150)
    assert send(flow) == "3 notifications sent in 2 messages"
    assert len(receiver.accepted) == 2


# --- what nobody may read --------------------------------------------------------------------------------


def test_the_url_is_in_no_table_no_log_and_no_repr(
    flow: Flow, receiver: Receiver, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG")
    flow.serve(c=100)
    flow.serve(c=150)
    for status in (500, 200):
        receiver.status = status
        send(flow, at_once=True)
    tables = flow.rows("SELECT c::text FROM dims_channels c UNION ALL SELECT n::text FROM dims_notifications n")
    assert len(tables) == 2
    assert TOKEN not in f"{tables} {caplog.text} {flow.config!r} {flow.config.notify.model_dump(mode='json')}"
    assert "the channel ops was not told, and is tried again: JSON: it answered HTTP 500" in caplog.text
