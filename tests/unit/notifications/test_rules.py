"""Which incidents notify which channel: the table of `rules`, and properties of every sequence of incidents."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dims_worker.config import Channel, Config, FilesMetric, NotifySection
from dims_worker.notifications.rules import MetricSignals, receives, transitions
from dims_worker.store.incidents import Incident, Kind
from tests.unit.notifications.incidents import acknowledged, flapping, incident

ALL = Channel(url="")
KINDS: tuple[Kind, ...] = get_args(Kind)


def config_of(channels: Mapping[str, Channel], **owners: str | None) -> Config:
    """Return a configuration with these channels, whose metrics `m.NAME` have these owners."""
    metrics = {f"m.{name}": FilesMetric(source="p", measure="count", owner=owner) for name, owner in owners.items()}
    section = NotifySection(channels=dict(channels))
    paths = {"file": Path("dims.yaml"), "files": (), "project": Path(), "home": Path(".dims")}
    return Config(**paths, sources={}, metrics=metrics, rules={}, notify=section)  # type: ignore[arg-type]


@dataclass(frozen=True)
class Row:
    id: int
    state: str
    incident: int | None = None

    @property
    def kind(self) -> str:
        return self.state.partition(":")[0]


@dataclass
class ChannelState:
    """The active states of one channel, and its changes so far as text."""

    channel: Channel = ALL
    active: list[Row] = field(default_factory=list)
    changes: list[str] = field(default_factory=list)

    def read(self, *incidents: Incident, failures: int = 0, attention: bool | None = None) -> list[str]:
        """Return the changes when these incidents are open: `+drift:1` begins, `-drift:1` ends, `(drift:1)` ends
        without a message."""
        signals = MetricSignals(incidents, failures, attention)
        changes = []
        for change in transitions(config_of({"ops": self.channel}), "m.a", signals, {"ops": self.active}):
            if change.ends is not None:
                (row,) = [row for row in self.active if row.id == change.ends]
                self.active = [each for each in self.active if each is not row]
                changes.append(f"-{row.state}" if change.notify else f"({row.state})")
            if change.begins is not None:
                number = change.begins.facts.get("incident")
                row = Row(1_000 + len(self.changes) + len(changes), change.begins.state, number)
                self.active = [*self.active, row]
                changes.append(f"+{row.state}")
        self.changes += changes
        return changes


def channel_state(*states: str, channel: Channel = ALL) -> ChannelState:
    """Return a channel with active states such as `drift:1`, or `flapping/1` for one about incident 1."""
    rows = []
    for number, state in enumerate(states):
        kind, _, incident_number = state.replace("/", ":").partition(":")
        known = int(incident_number) if incident_number.isdigit() else None
        rows.append(Row(-number - 1, kind if kind == "flapping" else state, known))
    return ChannelState(channel, rows)


# --- the table: active states, open incidents, the changes -------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_an_incident_notifies_when_it_begins_and_when_it_ends(kind: Kind) -> None:
    state = channel_state()
    one = incident(1, kind)
    assert state.read(one, failures=3) == [f"+{kind}:1"]
    assert state.read(one, failures=4) == []
    assert state.read() == [f"-{kind}:1"]
    assert state.read() == []


@pytest.mark.parametrize("kind", KINDS)
def test_an_incident_that_comes_back_notifies_that_it_flaps_and_when_it_is_calm(kind: Kind) -> None:
    state = channel_state()
    for _ in range(2):
        state.read(incident(1, kind), failures=3)
        state.read()
    assert state.read(flapping(1, kind), failures=3) == ["+flapping"]
    assert state.read(flapping(1, kind, flaps=9), failures=3) == []
    assert state.read() == ["-flapping"]


def test_an_incident_that_stays_after_it_flapped_notifies_that_it_is_calm_and_open() -> None:
    state = channel_state("flapping/1")
    assert state.read(incident(1, flaps=3)) == ["-flapping", "+drift:1"]
    assert state.read() == ["-drift:1"]


def test_a_second_incident_of_a_metric_that_flaps_begins_once_and_flaps_without_a_message() -> None:
    state = channel_state()
    assert state.read(incident(1, "approval")) == ["+approval:1"]
    assert state.read(incident(2, "limit")) == ["-approval:1", "+limit:2"]
    assert state.read(flapping(1, "approval")) == ["-limit:2", "+flapping"]
    for _ in range(5):
        assert state.read(flapping(1, "approval"), flapping(2, "limit")) == []
    assert state.read(flapping(2, "limit")) == []
    assert state.read() == ["-flapping"]


def test_a_flapping_state_replaces_the_active_state_of_its_incident() -> None:
    assert channel_state("drift:1").read(flapping(1)) == ["(drift:1)", "+flapping"]


def test_an_acknowledged_incident_notifies_only_its_end() -> None:
    state = channel_state()
    assert state.read(acknowledged(1)) == []
    assert state.read(acknowledged(1), failures=9) == []
    known = channel_state("drift:1")
    assert known.read(acknowledged(1)) == []
    assert known.read(acknowledged(1, flaps=3, flapping_until=incident(1).opened_at)) == []
    assert known.read() == ["-drift:1"]


def test_a_metric_has_a_state_for_each_kind_of_incident() -> None:
    state = channel_state()
    every = [incident(number, kind) for number, kind in enumerate(KINDS)]
    assert state.read(*every, failures=3) == [f"+{kind}:{number}" for number, kind in enumerate(KINDS)]
    assert state.read(*every[1:], failures=3) == [f"-{KINDS[0]}:0"]


def test_a_state_of_an_earlier_version_ends_without_a_message() -> None:
    old = ["held:1", "limit", "drift:major", "failed", "stale"]
    state = ChannelState(ALL, [Row(number, text) for number, text in enumerate(old)])
    assert state.read(incident(7)) == [*(f"({text})" for text in old), "+drift:7"]


def test_an_incident_that_an_input_explains_begins_no_state_and_keeps_an_active_one() -> None:
    signals = MetricSignals([incident(1, "stale")], explained={1})
    config = config_of({"ops": ALL})
    assert list(transitions(config, "m.a", signals, {})) == []
    assert list(transitions(config, "m.a", signals, {"ops": [Row(5, "stale:1", 1)]})) == []


def test_the_outcome_of_a_workflow_begins_and_ends_attention() -> None:
    state = channel_state()
    assert state.read(attention=True) == ["+attention"]
    assert state.read(attention=True) == []
    assert state.read(attention=None) == []
    assert state.read(attention=False) == ["-attention"]


# --- filters of channels -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("keys", "states"),
    [
        ({}, "drift:0 failing:1 limit:2 stale:3 approval:4 silence:5"),
        ({"tiers": ["approve"]}, "failing:1 stale:3 approval:4 silence:5"),
        ({"tiers": ["notify"], "stale": False}, "drift:0 failing:1 limit:2"),
        ({"tiers": [], "failures": None}, "stale:3 silence:5"),
        ({"severities": ["urgent"]}, "failing:1 stale:3 silence:5"),
        ({"severities": ["high"], "failures": 4}, "drift:0 limit:2 stale:3 approval:4 silence:5"),
        ({"metrics": ["m.*"]}, "drift:0 failing:1 limit:2 stale:3 approval:4 silence:5"),
        ({"metrics": ["n.*", "m.b"]}, ""),
    ],
)
def test_channels_filter_states(keys: Mapping[str, Any], states: str) -> None:
    every = [incident(number, kind) for number, kind in enumerate(KINDS)]
    changes = channel_state(channel=Channel(url="", **keys)).read(*every, failures=3)
    assert changes == [f"+{state}" for state in states.split()]


def test_a_notified_state_notifies_its_end_though_the_channel_changed_meanwhile() -> None:
    current = channel_state("drift:1", channel=Channel(url="", tiers=[], failures=None, metrics=["other.*"]))
    assert current.read() == ["-drift:1"]


def test_a_rising_severity_reaches_channels_that_filter_by_severity() -> None:
    urgent = channel_state(channel=Channel(url="", severities=["urgent"]))
    assert urgent.read(incident(1)) == []
    assert urgent.read(incident(1, severity="urgent")) == ["+drift:1"]
    assert urgent.read(incident(1)) == []


@pytest.mark.parametrize(("flaps", "changes"), [(1, []), (2, ["+flapping"])])
def test_a_metric_that_flaps_counts_each_time_as_a_failure(flaps: int, changes: list[str]) -> None:
    """Otherwise, one that fails every second time would never notify a channel with `failures: 3`."""
    assert channel_state().read(flapping(1, "failing", flaps=flaps), failures=1) == changes


# --- owners ----------------------------------------------------------------------------------------------


def test_an_owner_receives_what_it_owns_and_nothing_else() -> None:
    channels = {"team": ALL, "ada": ALL, "bob": Channel(url="", metrics=["m.c*"])}
    config = config_of(channels, a="ada", b="bob", c1=None, c2="ada", d="carla")
    received = {name: [metric for metric in config.metrics if receives(config, name, metric)] for name in channels}
    assert received == {
        "team": ["m.a", "m.b", "m.c1", "m.c2", "m.d"],
        "ada": ["m.a", "m.c2"],
        "bob": ["m.b", "m.c1", "m.c2"],
    }


# --- properties of any incidents -----------------------------------------------------------------------------

INCIDENTS = st.builds(
    lambda number, flaps, state: (
        flapping(number, KINDS[number], state=state) if flaps else incident(number, KINDS[number], state=state)
    ),
    st.integers(0, len(KINDS) - 1),
    st.booleans(),
    st.sampled_from(["open", "open", "acknowledged"]),
)
STEPS = st.lists(st.lists(INCIDENTS, max_size=4, unique_by=lambda each: each.id), max_size=20)
CHANNELS = st.builds(
    Channel,
    url=st.just(""),
    tiers=st.lists(st.sampled_from(["approve", "notify"]), unique=True),
    severities=st.lists(st.sampled_from(["high", "urgent"]), unique=True),
    stale=st.booleans(),
    failures=st.one_of(st.none(), st.integers(1, 4)),
)


@given(CHANNELS, STEPS)
def test_the_same_incidents_again_change_nothing(channel: Channel, steps: list[list[Incident]]) -> None:
    current = channel_state(channel=channel)
    for step in steps:
        current.read(*step, failures=3)
        assert current.read(*step, failures=3) == []


@given(CHANNELS, STEPS)
def test_states_begin_and_end_in_turn(channel: Channel, steps: list[list[Incident]]) -> None:
    current = channel_state(channel=channel)
    for step in steps:
        current.read(*step, failures=3)
    active: set[str] = set()
    for change in current.changes:
        state = change.strip("+-()")
        assert (state in active) == (not change.startswith("+"))
        active ^= {state}
    assert active == {row.state for row in current.active}


@given(STEPS)
def test_a_channel_without_tiers_gets_nothing(steps: Sequence[Sequence[Incident]]) -> None:
    silent = channel_state(channel=Channel(url="", tiers=[], stale=False, failures=None))
    for step in steps:
        silent.read(*step, failures=9)
    assert silent.changes == []
