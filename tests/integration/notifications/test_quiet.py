"""DIMS asks people rarely: flapping, the daily limit and its digest, mutes, maintenance, acknowledgements, owners.

Each test sends to a real receiver. `Days` lets time pass: the record, the sweep and the sender get its time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from dims_worker.config import load_config
from dims_worker.domain.approvers import Decider
from dims_worker.incidents.decisions import acknowledge_incident, close_incident
from dims_worker.incidents.overdue import Sweep, sweep_incidents
from dims_worker.notifications import sender
from dims_worker.pipeline.record import record_run
from dims_worker.store.engine import transaction
from dims_worker.store.mutes import end_mute, insert_mute
from tests.fixtures.receivers import Receiver
from tests.integration.helpers import CONFIG, Down, Flow

ADA = Decider("ada", "option")
CHANNEL = 'notify: {channels: {ops: {url: "${URL:-}"}}}\n'
OPENS, ENDS = "DIMS: 1 value waits for approval", "DIMS: 1 resolved"
FLAPS, CALM = "DIMS: 1 flaps", "DIMS: 1 calm again"
HOUR = timedelta(hours=1)


@dataclass
class Days:
    """A flow with a receiver, whose time passes as a test says."""

    flow: Flow
    receiver: Receiver
    now: datetime = field(init=False)

    def __post_init__(self) -> None:
        self.now = self.flow.clock()

    def record(self, source: str = "one", **values: Any) -> None:
        """Record readings of the category m under a claim, 5 minutes later."""
        self.now += timedelta(minutes=5)
        named = {f"m.{name}": value for name, value in values.items()}
        self.flow.ask(*named)
        claim = self.flow.claim(source)
        assert claim is not None
        measured = self.flow.measured(named, claim, self.now)
        with transaction(self.flow.engine) as connection:
            record_run(connection, self.flow.config, measured, self.now)
        self.flow.do("UPDATE dims_metrics SET not_before = NULL")

    def step(self, **values: Any) -> list[str]:
        """Record readings, sweep and send. Return the titles of the messages."""
        self.record(**values)
        return self.sweep()

    def sweep(self, later: timedelta = timedelta(0), *, digest_now: bool = False) -> list[str]:
        """Let time pass, sweep and send. Return the titles of the messages."""
        self.now += later
        before = len(self.receiver.titles)
        with transaction(self.flow.engine) as connection:
            sweep_incidents(connection, self.flow.config, Sweep(self.now, self.now))
            sender.queue_overdue(connection, self.flow.config, self.now)
        for name in self.flow.config.notify.channels:
            sender.send_pending(
                self.flow.engine, self.flow.config, name, at_once=True, digest_now=digest_now, now=self.now
            )
        return [title.partition(" (")[0] for title in self.receiver.titles[before:]]

    @staticmethod
    def titles(steps: Iterable[list[str]]) -> list[str]:
        """Return the titles of all steps, in order."""
        return [title for titles in steps for title in titles]

    @property
    def text(self) -> str:
        return self.receiver.texts[-1]

    def mute(self, pattern: str, hours: float) -> int:
        with transaction(self.flow.engine) as connection:
            row = insert_mute(
                connection,
                pattern,
                reason="the move",
                muted_by="ada",
                known_by="option",
                now=self.now,
                until=self.now + hours * HOUR,
            )
        return row.id


MakeDays = Callable[..., Days]


@pytest.fixture
def make_days(make_flow: Callable[[str], Flow], tmp_path: Path, receiver: Receiver) -> MakeDays:
    def make(config: str = CONFIG + CHANNEL, **urls: str) -> Days:
        flow = make_flow(config)
        flow.config = load_config(None, {"URL": receiver.url, **urls}, tmp_path)
        return Days(flow, receiver)

    return make


@pytest.fixture
def days(make_days: MakeDays) -> Days:
    return make_days()


# --- flapping ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "values",
    [[100, 116] * 6, [100, 116, 100, 130] * 3, [100, 116, 130] * 4, [100, 50, 200] * 4],
    ids=["two sizes", "other sizes in turns", "three sizes", "both directions"],
)
def test_a_held_value_that_comes_and_goes_sends_three_messages_until_it_is_calm(days: Days, values: list[int]) -> None:
    assert days.titles(days.step(c=value) for value in values) == [OPENS, ENDS, FLAPS]
    assert "m.c: flaps (waits for approval): it began 2 times since" in days.text
    assert "until it has been calm for 6 hours" in days.text
    days.step(c=100)
    assert days.sweep(5 * HOUR) == []
    assert days.sweep(HOUR) == [CALM]
    assert days.text == "resolved: m.c is calm again: it has not changed for 6 hours"
    assert days.sweep(20 * HOUR) == []
    assert days.step(c=116) == [OPENS]


def test_a_held_value_that_stays_after_it_flapped_is_calm_and_waits(days: Days) -> None:
    for value in (100, 116, 100, 116, 100, 116):
        days.step(c=value)
    assert days.sweep(5 * HOUR) == []
    assert days.sweep(HOUR) == ["DIMS: 1 value waits for approval, 1 resolved"]
    assert days.sweep(24 * HOUR) == []
    assert days.step(c=100) == [ENDS]


def test_a_drift_that_comes_and_goes_flaps(days: Days) -> None:
    assert days.titles(days.step(a=value) for value in (100, 150) * 6) == ["DIMS: 1 drifted", ENDS, FLAPS]


def test_three_drifts_in_a_row_are_one_story_and_end_once(days: Days) -> None:
    assert days.titles(days.step(a=value) for value in (100, 50, 40, 30, 30, 30, 99)) == ["DIMS: 1 lost", ENDS]
    assert "resolved: m.a is back after 100 -> 30 files, -70.0 %: 99 files" in days.text


def test_a_limit_that_is_broken_in_turns_flaps(make_days: MakeDays) -> None:
    config = CONFIG.replace("e: {source: two, measure: count}", "e: {source: two, measure: count, max: 102}")
    days = make_days(config + CHANNEL)
    assert days.titles(days.step(source="two", e=value) for value in (101, 103) * 6) == [
        "DIMS: 1 beyond its limit",
        ENDS,
        FLAPS,
    ]


def test_a_metric_that_fails_in_turns_flaps(days: Days) -> None:
    days.step(a=100)
    assert days.titles(days.step(a=value) for value in [*[Down("gone")] * 3, 100] * 4) == [
        "DIMS: 1 failing",
        ENDS,
        FLAPS,
    ]


def test_a_metric_that_is_stale_in_turns_flaps(make_days: MakeDays) -> None:
    config = CONFIG.replace("a: {source: one, measure: count}", "a: {source: one, measure: count, stale_after: 1h}")
    days = make_days(config + CHANNEL)
    steps = (titles for _ in range(5) for titles in (days.step(a=100), days.sweep(2 * HOUR)))
    assert days.titles(steps) == ["DIMS: 1 stale", ENDS, FLAPS]


def test_two_kinds_in_turns_are_one_flapping_metric(make_days: MakeDays) -> None:
    """116 is held, and 95 is accepted below `min`: either an approval request or a broken limit."""
    config = CONFIG.replace("measure: count, critical: true", "measure: count, critical: true, min: 98")
    days = make_days(config + CHANNEL)
    days.step(c=100)
    assert days.titles(days.step(c=value) for value in (116, 95) * 6) == [
        OPENS,
        "DIMS: 1 beyond its limit, 1 resolved",
        FLAPS,
    ]


# --- the limit of a day --------------------------------------------------------------------------------------

LIMIT = CHANNEL.replace("notify: {", "notify: {quiet_period: 1s, max_messages_per_day: 3, ")


def test_what_is_over_the_limit_of_a_day_is_one_digest(make_days: MakeDays) -> None:
    days = make_days(CONFIG + LIMIT)
    first = days.now
    assert days.titles(days.step(c=value) for value in (100, 116) * 6) == [OPENS, ENDS, OPENS]
    assert days.step(a=100) == []
    assert days.step(a=150) == ["DIMS: 1 drifted"]  # another metric
    assert days.flow.scalar("SELECT count(*) FROM dims_notifications WHERE sent_at IS NULL") == 4
    assert days.sweep(first + 20 * HOUR - days.now) == []
    assert days.sweep(5 * HOUR) == ["DIMS digest: 1 value waits for approval"]
    head, line, command = days.text.splitlines()
    assert head == "1 metric reached the limit of 3 messages in 24 hours. This is the newest state of each."
    assert line.startswith("m.c: 100 files -> 116 files, +16.0 %, high: waits for approval since ")
    assert line.endswith(" (7 changes before that were not sent)")
    assert command.startswith("    dims approvals approve ")
    assert days.sweep(HOUR) == []
    assert days.step(c=100) == [ENDS]


def test_a_failed_digest_loses_nothing(make_days: MakeDays) -> None:
    days = make_days(CONFIG + LIMIT)
    for value in (100, 116) * 3:
        days.step(c=value)
    days.receiver.status = 500
    assert days.sweep(25 * HOUR) == []
    days.receiver.status = 200
    assert days.sweep() == ["DIMS digest: 1 value waits for approval"]


def test_a_person_gets_the_digest_early(make_days: MakeDays) -> None:
    days = make_days(CONFIG + LIMIT)
    for value in (100, 116) * 3:
        days.step(c=value)
    assert days.sweep() == []
    assert days.sweep(digest_now=True) == ["DIMS digest: 1 value waits for approval"]


# --- mutes ---------------------------------------------------------------------------------------------------


def test_a_muted_metric_sends_nothing_and_what_is_still_open_once_it_ends(days: Days) -> None:
    days.step(c=100)
    number = days.mute("m.c", 2)
    assert days.step(c=150) == []
    assert days.flow.open("m.c") is not None  # recorded, judged and held
    assert days.sweep(HOUR) == []
    assert days.sweep(HOUR) == [OPENS]
    assert days.sweep() == []
    number = days.mute("m.*", 2)
    assert days.step(c=100) == []
    with transaction(days.flow.engine) as connection:
        assert end_mute(connection, number, days.now) is not None
    assert days.sweep() == [ENDS]  # people know that it began


def test_what_began_and_ended_while_muted_is_recorded_and_never_sent(days: Days) -> None:
    days.step(a=100, c=100)
    days.mute("source:one", 2)
    for values in ({"a": 150, "c": 150}, {"a": 100, "c": 100}):
        assert days.step(**values) == []
    assert days.sweep(9 * HOUR) == []
    rows = days.flow.rows("SELECT metric, ending ->> 'not_sent' AS why, sent_at FROM dims_notifications ORDER BY 1")
    assert [tuple(row) for row in rows] == [("m.a", "muted", None), ("m.c", "muted", None)]


def test_what_flaps_while_muted_is_sent_once(days: Days) -> None:
    days.step(c=100)
    days.mute("m.c", 2)
    for value in (116, 100) * 3:
        assert days.step(c=value) == []
    assert days.sweep(2 * HOUR) == [FLAPS]


def test_a_maintenance_window_mutes_what_it_covers(make_days: MakeDays) -> None:
    days = make_days()
    hour = (days.now + HOUR).hour
    window = f'maintenance: {{backup: {{cron: "0 {hour} * * *", length: 3h, sources: one}}}}\n'
    days = make_days(CONFIG + CHANNEL + window)
    days.step(c=100)
    days.step(source="two", e=100)
    days.now = (days.now + HOUR).replace(minute=1)
    assert days.step(c=150) == []
    assert days.step(source="two", e=50) == ["DIMS: 1 lost"]
    assert days.sweep(HOUR) == []
    assert days.sweep(2 * HOUR) == [OPENS]


# --- acknowledged ----------------------------------------------------------------------------------------------


def test_an_acknowledged_incident_sends_no_message_but_its_end(days: Days) -> None:
    days.step(a=100)
    assert days.step(a=50) == ["DIMS: 1 lost"]
    acknowledge_incident(days.flow.engine, days.flow.config, 1, version=None, person=ADA, note="I know")
    assert [days.step(a=value) for value in (30, 10, 300)] == [[], [], []]
    assert days.step(a=100) == [ENDS]


def test_an_incident_that_is_acknowledged_before_its_message_is_never_sent(days: Days) -> None:
    days.step(a=100)
    days.receiver.status = 500
    assert days.step(a=50) == []
    days.receiver.status = 200
    acknowledge_incident(days.flow.engine, days.flow.config, 1, version=None, person=ADA, note="I know")
    assert days.sweep() == []
    assert days.step(a=100) == []
    assert days.flow.scalar("SELECT ending ->> 'not_sent' FROM dims_notifications") == "acknowledged"


def test_a_message_says_who_closed_an_incident_and_why(days: Days) -> None:
    days.step(a=100)
    days.step(a=50)
    assert "dims incidents ack 1   # or: dims incidents close 1 --reason ...; dims incidents show 1" in days.text
    close_incident(days.flow.engine, days.flow.config, 1, version=None, person=ADA, reason="the clean-up")
    assert days.sweep() == [ENDS]
    assert days.text == "resolved: m.a: incident 1 was closed as expected by ada: the clean-up"


# --- owners ------------------------------------------------------------------------------------------------------


def test_the_channel_of_an_owner_receives_what_it_owns(make_days: MakeDays, receiver: Receiver) -> None:
    owned = CONFIG.replace("c: {source: one, measure: count", "c: {source: one, measure: count, owner: ada")
    channels = 'notify: {channels: {ada: {url: "${URL:-}"}, team: {url: ""}}}\n'
    days = make_days(owned + channels)
    days.step(a=100, c=100)
    assert days.step(a=150, c=150) == [OPENS]
    assert "m.c (owner ada): 100 files -> 150 files" in days.text
    rows: Sequence[Any] = days.flow.rows("SELECT channel, metric FROM dims_notifications ORDER BY 1, 2")
    assert [tuple(row) for row in rows] == [("ada", "m.c"), ("team", "m.a"), ("team", "m.c")]
