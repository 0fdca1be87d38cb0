"""Who is told what, once: the table of `notice`, and what holds of every row of readings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dims_worker.config import Channel
from dims_worker.domain.run import RunReading
from dims_worker.notifications.rules import (
    AlertSignals,
    AlertState,
    beyond_limit,
    channel_wants,
    signals_of_reading,
    transitions,
)

NOW = datetime(2026, 11, 22, 9, tzinfo=UTC)
ALL = Channel(url="")
KINDS = ("held", "limit", "drift", "attention", "failed", "stale")


def item(
    outcome: str = "accepted", status: str = "ok", severity: str = "none", tier: str = "auto", **facts: Any
) -> RunReading:
    said = {"metric": "m.a", "value": 100, "unit": "files", "method": "exact", "as_of": NOW, **facts}
    return RunReading(outcome=outcome, status=status, severity=severity, tier=tier, **said)  # type: ignore[arg-type]


OK = item()
DRIFTED = item(status="major", severity="high", tier="notify")
FAR = item(status="extreme", severity="urgent", tier="notify")
HELD = item("held", "extreme", "urgent", "approve")
LOOKED = item("looked", "extreme", "urgent", "notify")
REJECTED = item("rejected", "extreme", "urgent", "approve")
BEYOND = item(severity="high", tier="notify")
FAILED = item("failed", "failed", method="failed", value=None, error="AccessDenied")
WORKFLOW = item(metric="workflow.audit", value="attention", status="extreme", severity="urgent", tier="notify")
CALM = item(metric="workflow.audit", value="ok", status="extreme", severity="urgent", tier="notify")


@dataclass
class Book:
    """What one channel was told: the states that stand, by kind, and all that was said, in words."""

    channel: Channel = ALL
    standing: dict[tuple[str, str], Row] = field(default_factory=dict)
    told: list[str] = field(default_factory=list)

    def read(self, says: AlertSignals, metric: str = "m.a") -> list[str]:
        """What a reading leads to: `+held:1` begins, `-held:1` ends, `(held:1)` ends without a word."""
        said = []
        for change in transitions({"ops": self.channel}, metric, says, self.standing):
            if change.ends is not None:
                (key,) = [key for key, row in self.standing.items() if row.id == change.ends]
                state = self.standing.pop(key).state
                said.append(f"-{state}" if change.notify else f"({state})")
            if change.begins is not None:
                state = change.begins.state
                self.standing["ops", state.partition(":")[0]] = Row(len(self.told) + len(said), state)
                said.append(f"+{state}")
        self.told += said
        return said


@dataclass(frozen=True)
class Row:
    id: int
    state: str


def book(*states: str, channel: Channel = ALL) -> Book:
    rows = {("ops", state.partition(":")[0]): Row(-number - 1, state) for number, state in enumerate(states)}
    return Book(channel, rows)


def says(one: RunReading, failures: int = 0, request: int | None = None, broken: str | None = None) -> AlertSignals:
    return signals_of_reading(one, failures, request, broken)


# --- the table: what stands, what is read, what people are told ------------------------------------------

EVERYTHING = ("held:1", "limit", "drift:major", "failed", "stale")


@pytest.mark.parametrize(
    ("stands", "read", "told"),
    [
        # nothing stands
        ([], says(OK), []),
        ([], says(item(status="moderate", severity="medium")), []),
        ([], says(DRIFTED), ["+drift:major"]),
        ([], says(HELD, request=1), ["+held:1"]),
        ([], says(BEYOND, broken="7 is above max = 5"), ["+limit"]),
        ([], says(DRIFTED, broken="7 is above max = 5"), ["+drift:major", "+limit"]),
        ([], says(FAILED, failures=2), []),
        ([], says(FAILED, failures=3), ["+failed"]),
        ([], says(FAILED, failures=9), ["+failed"]),
        ([], says(WORKFLOW), ["+attention"]),
        ([], says(CALM), []),
        ([], says(LOOKED), []),
        ([], says(REJECTED), []),
        ([], says(HELD, request=1, broken="7 is above max = 5"), ["+held:1"]),
        # what stands stands on
        (["held:1"], says(HELD, request=1), []),
        (["limit"], says(BEYOND, broken="8 is above max = 5"), []),
        (["drift:major"], says(DRIFTED), []),
        (["failed"], says(FAILED, failures=4), []),
        (["attention"], says(WORKFLOW), []),
        (["limit"], says(HELD, request=1, broken="7 is above max = 5"), ["+held:1"]),
        (["limit"], says(REJECTED, broken="7 is above max = 5"), []),
        # another of its kind takes its place, and that is all that is told
        (["held:1"], says(HELD, request=2), ["(held:1)", "+held:2"]),
        (["drift:major"], says(FAR), ["(drift:major)", "+drift:extreme"]),
        # it is over
        (["held:1"], says(OK), ["-held:1"]),
        (["held:1"], says(DRIFTED), ["-held:1", "+drift:major"]),
        (["held:1"], says(REJECTED), ["-held:1"]),
        (["limit"], says(OK), ["-limit"]),
        (["limit"], says(HELD, request=1), ["+held:1", "-limit"]),
        (["drift:major"], says(OK), ["(drift:major)"]),
        (["drift:major"], says(HELD, request=1), ["+held:1", "(drift:major)"]),
        (["attention"], says(CALM), ["-attention"]),
        (["failed", "stale"], says(OK), ["-stale", "-failed"]),
        (["failed", "stale"], says(HELD, request=1), ["-stale", "-failed", "+held:1"]),
        # what says nothing changes nothing
        (EVERYTHING, says(item("superseded")), []),
        (EVERYTHING, says(item("provisional")), []),
        (EVERYTHING, says(FAILED, failures=7), []),
        (["held:1", "limit", "drift:major", "failed"], says(LOOKED), []),
        (["stale"], says(LOOKED), ["-stale"]),
        (["failed"], says(OK, failures=3), []),  # a look that gave the first baseline: nothing was claimed
    ],
)  # fmt: skip
def test_what_people_are_told(stands: Sequence[str], read: AlertSignals, told: list[str]) -> None:
    assert book(*stands).read(read) == told


def test_an_end_has_the_values_that_were_read() -> None:
    (change,) = transitions({"ops": ALL}, "m.a", says(OK), book("limit").standing)
    assert change.ending == {"value": 100, "unit": "files"}


def test_an_integer_stays_an_integer_in_what_is_told() -> None:
    (change,) = transitions({"ops": ALL}, "m.a", says(item("held", value=172_726, baseline=10), request=1), {})
    assert change.begins is not None
    assert [type(change.begins.facts[name]) for name in ("value", "baseline")] == [int, int]


# --- who hears of it -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("keys", "hears"),
    [
        ({}, "held:1 limit drift:major attention failed stale"),
        ({"tiers": ["approve"]}, "held:1 failed stale"),
        ({"tiers": ["notify"], "stale": False}, "limit drift:major attention failed"),
        ({"tiers": [], "failures": None}, "stale"),
        ({"severities": ["urgent"]}, "held:1 failed stale"),
        ({"severities": ["high"], "failures": 4}, "limit drift:major attention stale"),
        ({"metrics": ["m.*"]}, "held:1 limit drift:major attention failed stale"),
        ({"metrics": ["n.*", "m.b"]}, ""),
    ],
)
def test_channels_choose(keys: Mapping[str, Any], hears: str) -> None:
    channel = Channel(url="", **keys)
    conditions = [
        AlertState("held:1", tier="approve", severity="urgent"),
        beyond_limit(7, "files", "7 is above max = 5"),
        AlertState("drift:major", tier="notify", severity="high"),
        AlertState("attention", tier="notify", severity="high"),
        AlertState("failed", failures=3),
        AlertState("stale"),
    ]
    assert [one.state for one in conditions if channel_wants(channel, "m.a", one)] == hears.split()


def test_a_state_that_was_told_is_told_as_over_though_the_channel_has_changed_since() -> None:
    told = book("held:1", "failed", channel=Channel(url="", tiers=[], failures=None, metrics=["other.*"]))
    assert told.read(says(OK)) == ["-failed", "-held:1"]


def test_a_state_in_the_place_of_another_that_the_channel_does_not_hear_of_ends_aloud() -> None:
    urgent = book("held:1", channel=Channel(url="", severities=["urgent"]))
    assert urgent.read(says(item("held", "major", "high", "approve"), request=2)) == ["-held:1"]


def test_severity_that_rises_while_a_request_waits_reaches_those_who_wait_for_it() -> None:
    urgent = book(channel=Channel(url="", severities=["urgent"]))
    assert urgent.read(says(item("held", "major", "high", "approve"), request=1)) == []
    assert urgent.read(says(HELD, request=1)) == ["+held:1"]
    assert urgent.read(says(item("held", "major", "high", "approve"), request=1)) == []


# --- whatever is read ----------------------------------------------------------------------------------

READINGS = st.one_of(
    st.builds(says, st.sampled_from([OK, DRIFTED, LOOKED, REJECTED, CALM]), st.sampled_from([0, 0, 0, 3])),
    st.builds(says, st.just(HELD), st.just(0), st.integers(1, 2), st.sampled_from([None, "above max"])),
    st.builds(says, st.sampled_from([BEYOND, DRIFTED, REJECTED]), broken=st.sampled_from([None, "above max"])),
    st.builds(says, st.just(FAILED), st.integers(1, 5)),
    st.builds(says, st.sampled_from([item("superseded"), item("provisional"), WORKFLOW])),
    st.just(AlertSignals({"stale": AlertState("stale")})),
    st.just(AlertSignals({"limit": beyond_limit(1, "hours", "too old")})),
)
CHANNELS = st.builds(
    Channel,
    url=st.just(""),
    tiers=st.lists(st.sampled_from(["approve", "notify"]), unique=True),
    severities=st.lists(st.sampled_from(["high", "urgent"]), unique=True),
    stale=st.booleans(),
    failures=st.one_of(st.none(), st.integers(1, 4)),
)


@given(CHANNELS, st.lists(READINGS, max_size=20))
def test_what_was_read_read_again_says_nothing(channel: Channel, readings: list[AlertSignals]) -> None:
    told = book(channel=channel)
    for reading in readings:
        told.read(reading)
        assert told.read(reading) == []


@given(CHANNELS, st.lists(READINGS, max_size=20))
def test_what_ends_had_begun_and_what_begins_had_ended(channel: Channel, readings: list[AlertSignals]) -> None:
    told = book(channel=channel)
    for reading in readings:
        told.read(reading)
    stands: set[str] = set()
    for said in told.told:
        state = said.strip("+-()")
        assert (state in stands) == (not said.startswith("+"))
        stands ^= {state}
    assert stands == {row.state for row in told.standing.values()}
    assert len({state.partition(":")[0] for state in stands}) == len(stands)  # one of a kind


@given(st.lists(READINGS, max_size=20))
def test_nobody_is_told_who_asked_for_nothing(readings: list[AlertSignals]) -> None:
    nobody = book(channel=Channel(url="", tiers=[], stale=False, failures=None))
    for reading in readings:
        nobody.read(reading)
    assert nobody.told == []
