"""Which changes notify which channel: the table of `rules`, and properties of every sequence of readings."""

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
    values = {"metric": "m.a", "value": 100, "unit": "files", "method": "exact", "as_of": NOW, **facts}
    return RunReading(outcome=outcome, status=status, severity=severity, tier=tier, **values)  # type: ignore[arg-type]


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
class ChannelState:
    """The active states of one channel by kind, and its changes so far as text."""

    channel: Channel = ALL
    active: dict[tuple[str, str], Row] = field(default_factory=dict)
    changes: list[str] = field(default_factory=list)

    def read(self, read_signals: AlertSignals, metric: str = "m.a") -> list[str]:
        """Return the changes after a reading: `+held:1` begins, `-held:1` ends, `(held:1)` ends without a message."""
        changes = []
        for change in transitions({"ops": self.channel}, metric, read_signals, self.active):
            if change.ends is not None:
                (key,) = [key for key, row in self.active.items() if row.id == change.ends]
                state = self.active.pop(key).state
                changes.append(f"-{state}" if change.notify else f"({state})")
            if change.begins is not None:
                state = change.begins.state
                self.active["ops", state.partition(":")[0]] = Row(len(self.changes) + len(changes), state)
                changes.append(f"+{state}")
        self.changes += changes
        return changes


@dataclass(frozen=True)
class Row:
    id: int
    state: str


def channel_state(*states: str, channel: Channel = ALL) -> ChannelState:
    rows = {("ops", state.partition(":")[0]): Row(-number - 1, state) for number, state in enumerate(states)}
    return ChannelState(channel, rows)


def signals(
    reading: RunReading, failures: int = 0, request: int | None = None, broken: str | None = None
) -> AlertSignals:
    return signals_of_reading(reading, failures, request, broken)


# --- the table: active states, a reading, the changes ------------------------------------------

EVERYTHING = ("held:1", "limit", "drift:major", "failed", "stale")


@pytest.mark.parametrize(
    ("active", "read", "changes"),
    [
        # no active state
        ([], signals(OK), []),
        ([], signals(item(status="moderate", severity="medium")), []),
        ([], signals(DRIFTED), ["+drift:major"]),
        ([], signals(HELD, request=1), ["+held:1"]),
        ([], signals(BEYOND, broken="7 is above max = 5"), ["+limit"]),
        ([], signals(DRIFTED, broken="7 is above max = 5"), ["+drift:major", "+limit"]),
        ([], signals(FAILED, failures=2), []),
        ([], signals(FAILED, failures=3), ["+failed"]),
        ([], signals(FAILED, failures=9), ["+failed"]),
        ([], signals(WORKFLOW), ["+attention"]),
        ([], signals(CALM), []),
        ([], signals(LOOKED), []),
        ([], signals(REJECTED), []),
        ([], signals(HELD, request=1, broken="7 is above max = 5"), ["+held:1"]),
        # an active state stays active
        (["held:1"], signals(HELD, request=1), []),
        (["limit"], signals(BEYOND, broken="8 is above max = 5"), []),
        (["drift:major"], signals(DRIFTED), []),
        (["failed"], signals(FAILED, failures=4), []),
        (["attention"], signals(WORKFLOW), []),
        (["limit"], signals(HELD, request=1, broken="7 is above max = 5"), ["+held:1"]),
        (["limit"], signals(REJECTED, broken="7 is above max = 5"), []),
        # a state of the same kind replaces it without another message
        (["held:1"], signals(HELD, request=2), ["(held:1)", "+held:2"]),
        (["drift:major"], signals(FAR), ["(drift:major)", "+drift:extreme"]),
        # the state ends
        (["held:1"], signals(OK), ["-held:1"]),
        (["held:1"], signals(DRIFTED), ["-held:1", "+drift:major"]),
        (["held:1"], signals(REJECTED), ["-held:1"]),
        (["limit"], signals(OK), ["-limit"]),
        (["limit"], signals(HELD, request=1), ["+held:1", "-limit"]),
        (["drift:major"], signals(OK), ["(drift:major)"]),
        (["drift:major"], signals(HELD, request=1), ["+held:1", "(drift:major)"]),
        (["attention"], signals(CALM), ["-attention"]),
        (["failed", "stale"], signals(OK), ["-stale", "-failed"]),
        (["failed", "stale"], signals(HELD, request=1), ["-stale", "-failed", "+held:1"]),
        # readings without an effect
        (EVERYTHING, signals(item("superseded")), []),
        (EVERYTHING, signals(item("provisional")), []),
        (EVERYTHING, signals(FAILED, failures=7), []),
        (["held:1", "limit", "drift:major", "failed"], signals(LOOKED), []),
        (["stale"], signals(LOOKED), ["-stale"]),
        (["failed"], signals(OK, failures=3), []),  # a check that set the first baseline
    ],
)
def test_a_reading_changes_states(active: Sequence[str], read: AlertSignals, changes: list[str]) -> None:
    assert channel_state(*active).read(read) == changes


def test_an_end_contains_the_values_of_the_reading() -> None:
    (change,) = transitions({"ops": ALL}, "m.a", signals(OK), channel_state("limit").active)
    assert change.ending == {"value": 100, "unit": "files"}


def test_an_integer_stays_an_integer_in_the_facts() -> None:
    (change,) = transitions({"ops": ALL}, "m.a", signals(item("held", value=172_726, baseline=10), request=1), {})
    assert change.begins is not None
    assert [type(change.begins.facts[name]) for name in ("value", "baseline")] == [int, int]


# --- filters of channels -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("keys", "states"),
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
def test_channels_filter_states(keys: Mapping[str, Any], states: str) -> None:
    channel = Channel(url="", **keys)
    conditions = [
        AlertState("held:1", tier="approve", severity="urgent"),
        beyond_limit(7, "files", "7 is above max = 5"),
        AlertState("drift:major", tier="notify", severity="high"),
        AlertState("attention", tier="notify", severity="high"),
        AlertState("failed", failures=3),
        AlertState("stale"),
    ]
    assert [alert.state for alert in conditions if channel_wants(channel, "m.a", alert)] == states.split()


def test_a_notified_state_notifies_its_end_though_the_channel_changed_meanwhile() -> None:
    current = channel_state("held:1", "failed", channel=Channel(url="", tiers=[], failures=None, metrics=["other.*"]))
    assert current.read(signals(OK)) == ["-failed", "-held:1"]


def test_a_state_notifies_its_end_if_the_channel_does_not_want_its_replacement() -> None:
    urgent = channel_state("held:1", channel=Channel(url="", severities=["urgent"]))
    assert urgent.read(signals(item("held", "major", "high", "approve"), request=2)) == ["-held:1"]


def test_a_rising_severity_reaches_channels_that_filter_by_severity() -> None:
    urgent = channel_state(channel=Channel(url="", severities=["urgent"]))
    assert urgent.read(signals(item("held", "major", "high", "approve"), request=1)) == []
    assert urgent.read(signals(HELD, request=1)) == ["+held:1"]
    assert urgent.read(signals(item("held", "major", "high", "approve"), request=1)) == []


# --- properties of any readings ----------------------------------------------------------------------------------

READINGS = st.one_of(
    st.builds(signals, st.sampled_from([OK, DRIFTED, LOOKED, REJECTED, CALM]), st.sampled_from([0, 0, 0, 3])),
    st.builds(signals, st.just(HELD), st.just(0), st.integers(1, 2), st.sampled_from([None, "above max"])),
    st.builds(signals, st.sampled_from([BEYOND, DRIFTED, REJECTED]), broken=st.sampled_from([None, "above max"])),
    st.builds(signals, st.just(FAILED), st.integers(1, 5)),
    st.builds(signals, st.sampled_from([item("superseded"), item("provisional"), WORKFLOW])),
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
def test_the_same_reading_again_changes_nothing(channel: Channel, readings: list[AlertSignals]) -> None:
    current = channel_state(channel=channel)
    for reading in readings:
        current.read(reading)
        assert current.read(reading) == []


@given(CHANNELS, st.lists(READINGS, max_size=20))
def test_states_begin_and_end_in_turn(channel: Channel, readings: list[AlertSignals]) -> None:
    current = channel_state(channel=channel)
    for reading in readings:
        current.read(reading)
    active: set[str] = set()
    for change in current.changes:
        state = change.strip("+-()")
        assert (state in active) == (not change.startswith("+"))
        active ^= {state}
    assert active == {row.state for row in current.active.values()}
    assert len({state.partition(":")[0] for state in active}) == len(active)  # one of a kind


@given(st.lists(READINGS, max_size=20))
def test_a_channel_without_tiers_gets_nothing(readings: list[AlertSignals]) -> None:
    silent = channel_state(channel=Channel(url="", tiers=[], stale=False, failures=None))
    for reading in readings:
        silent.read(reading)
    assert silent.changes == []
