"""Pending notifications are sent to a real receiver and a real mailbox, at least once, in one message."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from dims_worker.approvals.decisions import decide_request
from dims_worker.config import load_config
from dims_worker.domain.approvers import Decider
from dims_worker.notifications import sender
from dims_worker.store import notifications
from dims_worker.store.engine import clock, transaction
from tests.conftest import wait_for
from tests.fixtures.receivers import TOKEN, Mailbox, Receiver
from tests.integration.helpers import CONFIG, Down, Flow, Threads, outcome

WITH_CHANNEL = CONFIG + 'notify: {channels: {ops: {url: "${URL:-}"}}}\n'
MakeFlow = Callable[..., Flow]


@pytest.fixture
def make_flow_with_url(make_flow: Callable[[str], Flow], tmp_path: Path) -> MakeFlow:
    """Return a function that makes a flow whose channel `ops` has this URL."""

    def make(url: str, config: str = WITH_CHANNEL, **env: str) -> Flow:
        flow = make_flow(config)
        flow.config = load_config(None, {"URL": url, **env}, tmp_path)
        return flow

    return make


@pytest.fixture
def flow(make_flow_with_url: MakeFlow, receiver: Receiver) -> Flow:
    return make_flow_with_url(receiver.url)


def send(flow: Flow, channel: str = "ops", *, at_once: bool = False) -> str:
    with transaction(flow.engine) as connection:
        sender.queue_overdue(connection, flow.config)
    return str(sender.send_pending(flow.engine, flow.config, channel, at_once=at_once))


def channels_to_send(flow: Flow) -> list[str]:
    with transaction(flow.engine) as connection:
        return sender.queue_overdue(connection, flow.config)


def channel(flow: Flow) -> Any:
    (row,) = flow.rows("SELECT *, not_before - clock_timestamp() AS wait FROM dims_channels")
    return row


OPENS, ENDS = "DIMS: 1 value waits for approval", "DIMS: 1 resolved"
FLAPS, CALM = "DIMS: 1 flaps", "DIMS: 1 calm again"


def headlines(receiver: Receiver) -> list[str]:
    return [title.partition(" (")[0] for title in receiver.titles]


# --- once ------------------------------------------------------------------------------------------------


def test_ten_runs_with_the_same_drift_send_one_notification_and_the_eleventh_one_more(
    flow: Flow, receiver: Receiver
) -> None:
    flow.serve(c=100)
    answers = []
    for value in (*[150] * 10, 100):
        flow.serve(c=value)
        answers.append(send(flow))
    assert answers == ["1 notification sent in 1 message", *["nothing to send"] * 9, "1 notification sent in 1 message"]
    assert [title.partition(" (")[0] for title in receiver.titles] == [
        "DIMS: 1 value waits for approval",
        "DIMS: 1 resolved",
    ]
    assert "dims approvals approve 1 --version 1" in receiver.texts[0]
    assert receiver.texts[1] == (
        "resolved: m.c: 100 files -> 150 files (+50.0 %) was withdrawn, the value is now 100 files"
    )


def test_all_notifications_of_a_run_are_one_message(flow: Flow, receiver: Receiver) -> None:
    flow.serve(b=100)
    flow.serve(a=100, c=100)
    flow.serve(a=150, c=150)
    assert send(flow) == "3 notifications sent in 1 message"
    (title,), (text,) = receiver.titles, receiver.texts
    assert title.startswith("DIMS: 1 value waits for approval, 2 drifted (project ")
    head, *lines = [line for line in text.splitlines() if not line.startswith(" ")]
    assert head == "run 3 affects 3 metrics (m.c, m.a, m.sum): dims runs 3"
    assert [line.split(":")[0] for line in lines] == ["m.c", "m.a", "m.sum"]


def test_what_two_sources_measure_for_one_event_is_one_message(flow: Flow, receiver: Receiver) -> None:
    flow.serve(a=100, c=100)
    flow.serve(b=100)
    flow.ask("m.a", "m.b")
    one, two = flow.claim("one"), flow.claim("two")
    flow.record(one, {"m.a": 50})
    assert (send(flow), channels_to_send(flow)) == ("nothing to send", [])
    flow.record(two, {"m.b": 50})
    assert channels_to_send(flow) == ["ops"]
    assert send(flow) == "3 notifications sent in 1 message"
    assert headlines(receiver) == ["DIMS: 3 lost"]


def test_a_message_does_not_wait_long_for_a_source_that_is_still_measured(flow: Flow, receiver: Receiver) -> None:
    flow.serve(a=100)
    flow.serve(b=100)
    flow.ask("m.a", "m.b")
    flow.record(flow.claim("one"), {"m.a": 50})
    assert send(flow) == "nothing to send"
    flow.do("UPDATE dims_notifications SET since = since - interval '16 s'")
    assert channels_to_send(flow) == ["ops"]
    assert send(flow) == "1 notification sent in 1 message"


def test_an_approval_message_says_who_and_why(flow: Flow, receiver: Receiver) -> None:
    flow.serve(c=100)
    flow.serve(c=150)
    send(flow)
    ada = Decider("ada", "option")
    decide_request(flow.engine, flow.config, "m.c", "approved", version=1, person=ada, note="the backfill")
    send(flow)
    assert receiver.texts[1:] == ["resolved: m.c: 100 files -> 150 files (+50.0 %) was approved by ada: the backfill"]


def test_a_mailbox_gets_a_mail(make_flow_with_url: MakeFlow, mailbox: Mailbox) -> None:
    flow = make_flow_with_url(mailbox.url)
    flow.serve(c=100)
    flow.serve(c=150)
    assert send(flow) == "1 notification sent in 1 message"
    (mail,) = mailbox.mails
    assert mail["Subject"].startswith("DIMS: 1 value waits for approval (project ")
    assert "dims approvals approve 1 --version 1" in mail.get_content()


def test_each_channel_gets_what_it_is_configured_for(
    make_flow_with_url: MakeFlow, receiver: Receiver, mailbox: Mailbox
) -> None:
    channels = '{ops: {url: "${URL:-}", tiers: [approve]}, all: {url: "${MAIL:-}", metrics: ["m.a", "m.c"]}}'
    flow = make_flow_with_url(receiver.url, f"{CONFIG}notify: {{channels: {channels}}}\n", MAIL=mailbox.url)
    flow.serve(a=100, c=100)
    flow.serve(a=150, c=150)
    assert channels_to_send(flow) == ["all", "ops"]
    assert send(flow, "all") == "2 notifications sent in 1 message"
    assert send(flow, "ops") == "1 notification sent in 1 message"
    assert receiver.titles[0].startswith("DIMS: 1 value waits for approval (")
    assert "m.a" not in receiver.texts[0]
    assert channels_to_send(flow) == []


# --- a channel that is down ------------------------------------------------------------------------------


def test_a_failing_channel_is_tried_again_with_growing_delays_without_end(flow: Flow, receiver: Receiver) -> None:
    flow.serve(c=100)
    receiver.status = 500
    assert flow.serve(c=150)["m.c"].outcome == "held"  # no run is affected
    delays = []
    for number in range(9):
        assert send(flow) == "not sent: JSON: it answered HTTP 500"
        assert (send(flow), channels_to_send(flow)) == ("nothing to send", [])  # not yet
        row = channel(flow)
        assert (row.failures, row.error) == (number + 1, "JSON: it answered HTTP 500")
        delays.append(round(row.wait.total_seconds(), -1))
        flow.do("UPDATE dims_channels SET not_before = clock_timestamp()")
        assert channels_to_send(flow) == ["ops"]
    assert delays == [10, 20, 40, 80, 160, 320, 640, 900, 900]
    assert len(receiver.received) == 9
    receiver.status = 200
    assert send(flow) == "1 notification sent in 1 message"
    row = channel(flow)
    assert (row.failures, row.error, row.not_before, row.lease_until) == (0, None, None, None)
    assert row.sent_at is not None


def test_a_person_may_ignore_the_back_off(flow: Flow, receiver: Receiver) -> None:
    flow.serve(c=100)
    flow.serve(c=150)
    receiver.status = 500
    send(flow)
    receiver.status = 200
    assert send(flow) == "nothing to send"
    assert send(flow, at_once=True) == "1 notification sent in 1 message"


def test_a_channel_that_was_down_gets_one_message_with_the_current_state(flow: Flow, receiver: Receiver) -> None:
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
    (text,) = receiver.texts
    assert "m.c: 100 files -> 203 files, +103.0 %, urgent: waits for approval" in text  # its request as it is now
    assert "dims approvals approve 2 --version 2 " in text
    assert "began and ended: m.a was measured again: 300 files" in text
    assert "m.a: drifted: 100 -> 300 files, +200.0 %, urgent, since" in text  # its incident as it is now
    assert send(flow, at_once=True) == "nothing to send"


def test_a_channel_that_is_off_is_skipped_and_gets_its_message_once_it_is_on(
    make_flow_with_url: MakeFlow, receiver: Receiver, tmp_path: Path
) -> None:
    flow = make_flow_with_url("")
    flow.serve(c=100)
    flow.serve(c=150)
    assert (channels_to_send(flow), send(flow)) == ([], "nothing to send")
    flow.config = load_config(None, {"URL": receiver.url}, tmp_path)
    assert channels_to_send(flow) == ["ops"]
    assert send(flow) == "1 notification sent in 1 message"


def test_a_channel_that_is_not_configured_is_ignored(flow: Flow) -> None:
    assert send(flow, "other") == "nothing to send"
    assert flow.rows("SELECT 1 FROM dims_channels") == []


# --- concurrent and killed senders --------------------------------------------------------------------------


def test_of_two_senders_one_sends(flow: Flow, receiver: Receiver, beside: Threads) -> None:
    flow.serve(c=100)
    flow.serve(c=150)
    receiver.gate.clear()
    first = beside(send, flow)
    wait_for(lambda: receiver.received)
    assert (send(flow, at_once=True), channels_to_send(flow)) == ("nothing to send", [])
    receiver.gate.set()
    assert outcome(first) == "1 notification sent in 1 message"
    assert len(receiver.received) == 1


def test_concurrent_senders_and_runs_send_each_notification_once(
    flow: Flow, receiver: Receiver, beside: Threads
) -> None:
    flow.serve(c=100)
    for number in range(10):
        flow.serve(c=150 if number % 2 == 0 else 100)
        for call in [beside(send, flow) for _ in range(4)]:
            assert isinstance(outcome(call), str)
    send(flow)
    assert headlines(receiver) == [OPENS, ENDS, FLAPS]


def test_a_state_that_ends_while_its_begin_is_sent_is_in_the_next_message(
    flow: Flow, receiver: Receiver, beside: Threads
) -> None:
    flow.serve(c=100)
    flow.serve(c=150)
    receiver.gate.clear()
    sending = beside(send, flow)
    wait_for(lambda: receiver.received)
    flow.serve(c=100)  # a run waits for no channel
    receiver.gate.set()
    assert outcome(sending) == "2 notifications sent in 2 messages"
    assert [title.partition(" (")[0] for title in receiver.titles] == [
        "DIMS: 1 value waits for approval",
        "DIMS: 1 resolved",
    ]


def claim(flow: Flow, lease: float) -> notifications.ClaimedChannel | None:
    with transaction(flow.engine) as connection:
        failures = notifications.free_channel(connection, "ops", at_once=False)
        if failures is None:
            return None
        rows = notifications.unsent_notifications(connection, "ops")
        return notifications.claim_channel(connection, "ops", failures, rows, timedelta(seconds=lease), digest=False)


def test_a_sender_that_died_before_sending_is_replaced_and_one_message_arrives(flow: Flow, receiver: Receiver) -> None:
    flow.serve(c=100)
    flow.serve(c=150)
    assert claim(flow, lease=60) is not None  # then the sender is killed
    assert (send(flow), channels_to_send(flow)) == ("nothing to send", [])
    flow.do("UPDATE dims_channels SET lease_until = clock_timestamp() - interval '1 s'")
    assert channels_to_send(flow) == ["ops"]
    assert send(flow) == "1 notification sent in 1 message"
    assert len(receiver.accepted) == 1


def test_a_sender_whose_lease_expired_marks_what_it_sent_and_keeps_the_lease_of_another(flow: Flow) -> None:
    flow.serve(c=100)
    flow.serve(c=150)
    late = claim(flow, lease=0)
    flow.do("UPDATE dims_channels SET lease_until = lease_until - interval '1 s'")
    current = claim(flow, lease=60)
    assert late is not None
    assert current is not None
    with transaction(flow.engine) as connection:
        notifications.mark_failed(connection, late, "too late", timedelta(minutes=15))
        notifications.mark_sent(connection, late, clock(connection))
    row = channel(flow)
    assert (row.lease_until, row.failures, row.error) == (current.lease_until, 0, None)
    assert flow.scalar("SELECT sent_at IS NOT NULL FROM dims_notifications")


def test_notifications_that_do_not_fit_one_message_are_sent_in_several(
    flow: Flow, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(notifications, "MAX_PER_MESSAGE", 2)
    flow.serve(b=100)
    flow.serve(a=100, c=100)
    flow.serve(a=150, c=150)
    assert send(flow) == "3 notifications sent in 2 messages"
    assert len(receiver.accepted) == 2


# --- secrets --------------------------------------------------------------------------------


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
    assert "cannot send to the channel ops; DIMS tries again: JSON: it answered HTTP 500" in caplog.text
