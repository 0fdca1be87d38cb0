"""What is sent now, what waits for the end of a mute or for the digest, and what is never sent."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dims_worker.notifications.selection import SendingLimits, select_notifications
from dims_worker.store.notifications import Notification
from tests.unit.notifications.incidents import HOUR, NOW

DAY = timedelta(days=1)


def row(number: int, metric: str = "m.a", at: datetime = NOW, **facts: Any) -> Notification:
    names = ("run_id", "ended_at", "ending", "sent_at", "end_sent_at")
    usual: dict[str, Any] = dict.fromkeys(names) | {"facts": {"incident": number}, "state": f"drift:{number}"}
    return Notification(id=number, channel="ops", metric=metric, since=at, **{**usual, **facts})


def limits(now: datetime = NOW, **facts: Any) -> SendingLimits:
    return SendingLimits(now, **{"max_per_day": 4, **facts})


def ago(*hours: float) -> Sequence[datetime]:
    return [NOW - number * HOUR for number in hours]


def numbers(rows: Sequence[Notification]) -> list[int]:
    return [each.id for each in rows]


def test_without_limits_everything_is_sent_at_once() -> None:
    selection = select_notifications([row(1), row(2, "m.b")], limits())
    assert numbers(selection.next_message(NOW)[0]) == [1, 2]
    assert selection.next_message(NOW)[1] is False
    assert (selection.waiting, selection.digest_at) == (0, None)


def test_a_muted_metric_waits_and_others_are_sent() -> None:
    selection = select_notifications([row(1), row(2, "m.b")], limits(muted={"m.a"}))
    assert numbers(selection.next_message(NOW)[0]) == [2]
    assert numbers(selection.muted) == [1]


def test_the_begin_of_an_acknowledged_incident_is_not_sent_and_its_end_is() -> None:
    ended = row(2, sent_at=NOW - HOUR, ended_at=NOW)
    selection = select_notifications([row(1), ended], limits(acknowledged={1, 2}))
    assert numbers(selection.acknowledged) == [1]
    assert numbers(selection.next_message(NOW)[0]) == [2]


@pytest.mark.parametrize(
    ("sent", "is_over"),
    [((), False), ((1, 2, 3), False), ((1, 2, 3, 4), True), ((1, 2, 3, 23.9), True), ((1, 2, 3, 24), False)],
)
def test_a_change_after_the_last_allowed_message_waits_for_the_digest(sent: Sequence[float], is_over: bool) -> None:
    selection = select_notifications([row(1)], limits(sent={"m.a": ago(*sent), "m.b": ago(1, 2, 3, 4)}))
    assert bool(selection.over_limit) == is_over
    assert bool(selection.next_message(NOW)[0]) != is_over


def test_the_digest_is_due_a_day_after_the_first_change_that_waits() -> None:
    sent = {"m.a": ago(1, 2, 3, 4), "m.b": ago(1, 2, 3, 4)}
    waiting = [row(1), row(2, "m.b", NOW + HOUR), row(3, "m.c", NOW + 2 * HOUR)]
    first = select_notifications(waiting, limits(NOW + 3 * HOUR, sent=sent))
    assert numbers(first.next_message(NOW + 3 * HOUR)[0]) == [3]
    assert first.digest_at == NOW + DAY
    for hours, due in ((4, False), (23.9, False), (24, True), (100, True)):
        later = NOW + hours * HOUR
        selection = select_notifications(waiting[:2], limits(later, sent=sent))
        rows, digest = selection.next_message(later)
        assert (numbers(rows), digest) == (([1, 2], True) if due else ([], False))
    assert numbers(first.next_message(NOW)[0]) == [3]


def test_a_person_gets_the_digest_before_it_is_due() -> None:
    selection = select_notifications([row(1)], limits(sent={"m.a": ago(1, 2, 3, 4)}))
    assert selection.next_message(NOW, digest_now=True) == ((row(1),), True)


def test_what_changed_while_a_message_was_on_its_way_counts_that_message() -> None:
    selection = select_notifications([row(1, at=NOW - HOUR)], limits(sent={"m.a": ago(0.5, 2, 3, 4)}))
    assert numbers(selection.over_limit) == [1]


@given(
    st.lists(st.tuples(st.sampled_from("ab"), st.floats(0, 100)), max_size=20),
    st.lists(st.floats(0, 100), max_size=10),
    st.sets(st.sampled_from("ab")),
)
def test_nothing_is_lost_or_sent_twice(changes: list[tuple[str, float]], sent: list[float], muted: set[str]) -> None:
    rows = [row(number, metric, NOW - hours * HOUR) for number, (metric, hours) in enumerate(changes)]
    selection = select_notifications(rows, limits(sent={"a": ago(*sent)}, muted=muted))
    parts = (selection.immediate, selection.muted, selection.acknowledged, selection.over_limit)
    assert sorted(each.id for part in parts for each in part) == list(range(len(rows)))
    assert {each.metric for each in selection.immediate}.isdisjoint(muted)


@given(st.lists(st.floats(0.01, 30), min_size=1, max_size=60), st.integers(1, 5))
def test_at_most_so_many_messages_and_a_digest_are_sent_in_any_day(gaps: list[float], most: int) -> None:
    """Each change is sent at once if it may be. The digest is sent when it is due."""
    now, waiting, sent = NOW, [], []
    for number, gap in enumerate(gaps):
        now += gap * HOUR
        waiting.append(row(number, at=now))
        while True:
            times = [time for time, _ in sent]
            rows, digest = select_notifications(
                waiting, limits(now, max_per_day=most, sent={"m.a": times})
            ).next_message(now)
            if not rows:
                break
            sent.append((now, digest))
            waiting = [each for each in waiting if each not in rows]
    for time, _ in sent:
        day = [is_digest for other, is_digest in sent if time - DAY < other <= time]
        assert len(day) <= most + 1
        assert day.count(True) <= 1
