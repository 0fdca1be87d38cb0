"""Decide which alert states begin and end for which channel. Pure: incidents and active states in, changes out.

Messages follow incidents. A channel gets one message when an incident begins and one when it ends, however many
readings come in between:

| state | active while | its message at the end |
|---|---|---|
| `drift:12` and the other kinds of incidents | incident 12 is open or acknowledged, and does not flap | how it ended |
| `flapping` | an incident of the metric flaps: it came back within `notify.quiet_period` of its end | it is calm |
| `attention` | the outcome of a workflow is `attention` | it is ok again |

`flapping` is one state of a metric, whichever incident flaps. While it is active, the incidents that flap have no state
of their own, so they cause no message.

An acknowledged incident begins no state. Its active state stays until it ends, because people were notified of it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from fnmatch import fnmatchcase
from typing import Any, Literal, Protocol

from dims_worker.config import Channel, Config
from dims_worker.domain.run import RunReading
from dims_worker.store.incidents import KINDS, Incident

FLAPPING, ATTENTION = "flapping", "attention"
ACKNOWLEDGED = "acknowledged"
_LONG_AGO = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class AlertState:
    """A state, with what channels filter by.

    `tier` and `severity`: of a judged value. `failures`: in a row, of a metric that fails. `stale`: it is about missing
    readings or events.
    """

    state: str
    facts: Mapping[str, Any] = field(default_factory=dict)
    tier: Literal["approve", "notify"] | None = None
    severity: str | None = None
    failures: int = 0
    stale: bool = False


class ActiveAlert(Protocol):
    """An active state that a channel was notified of, or will be."""

    @property
    def id(self) -> int: ...
    @property
    def state(self) -> str: ...
    @property
    def kind(self) -> str: ...
    @property
    def incident(self) -> int | None: ...


@dataclass(frozen=True, slots=True)
class AlertTransition:
    """A change for one channel: a state of a metric begins or ends. `notify`: the channel gets a message about it.

    `incident`: the one whose state ends.
    """

    channel: str
    metric: str
    begins: AlertState | None = None
    ends: int | None = None
    incident: int | None = None
    notify: bool = True


@dataclass(frozen=True, slots=True)
class MetricSignals:
    """What a metric's states follow from.

    `incidents`: those that are open or acknowledged. `failures`: of its measurement, in a row. `attention`: whether the
    outcome of a workflow is `attention`; None if there is no new outcome. `explained`: numbers of incidents that begin
    no state, because the incident of an input explains them. `now`: the time at which an incident flaps or not.
    """

    incidents: Sequence[Incident] = ()
    failures: int = 0
    attention: bool | None = None
    explained: Collection[int] = frozenset()
    now: datetime = _LONG_AGO

    def flaps(self, incident: Incident) -> bool:
        """Return whether an incident flaps: it came back within the quiet period, or has been calm for less."""
        return incident.flapping and (incident.calm_at is not None or (incident.flapping_until or self.now) > self.now)


def attention_of(item: RunReading) -> bool | None:
    """Return whether a new outcome of a workflow needs attention, and None if the reading is no new outcome."""
    return item.value == ATTENTION if item.outcome == "accepted" else None


def state_of(incident: Incident, failures: int) -> AlertState:
    """Return the state of an incident that does not flap. `failures`: of its metric, in a row."""
    facts = _facts(incident) | ({"failures": failures} if incident.kind == "failing" else {})
    state = f"{incident.kind}:{incident.id}"
    if incident.kind == "failing":
        return AlertState(state, facts, failures=failures)
    if incident.kind in ("stale", "silence"):
        return AlertState(state, facts, stale=True)
    return AlertState(state, facts, "approve" if incident.kind == "approval" else "notify", incident.severity)


def _facts(incident: Incident) -> dict[str, Any]:
    names = ("kind", "story", "request", "severity", "reason", "value", "unit", "anchor", "flaps")
    return {"incident": incident.id, **{name: getattr(incident, name) for name in names}}


def receives(config: Config, name: str, metric: str) -> bool:
    """Return whether a channel receives messages about a metric: as its owner, or by the channel's patterns.

    A channel that is named as an owner and sets no `metrics` receives only what it owns.
    """
    if config.owners.get(metric) == name:
        return True
    channel = config.notify.channels[name]
    if "metrics" not in channel.model_fields_set and name in config.owner_names:
        return False
    return any(fnmatchcase(metric, pattern) for pattern in channel.metrics)


def owners_without_channel(config: Config) -> Mapping[str, Sequence[str]]:
    """Return each owner that no channel is named after, with what it owns. Empty if there are no channels."""
    owned: dict[str, list[str]] = {}
    for metric, owner in config.owners.items():
        if config.notify.channels and owner not in config.notify.channels:
            owned.setdefault(owner, []).append(metric)
    return owned


def channel_wants(channel: Channel, state: AlertState) -> bool:
    """Return whether a channel is notified of this kind of state, whatever the metric."""
    if state.stale:
        return channel.stale
    if state.tier is None:
        return channel.failures is not None and state.failures >= channel.failures
    return state.tier in channel.tiers and (not channel.severities or state.severity in channel.severities)


def transitions(
    config: Config, metric: str, signals: MetricSignals, active: Mapping[str, Sequence[ActiveAlert]]
) -> Iterator[AlertTransition]:
    """Yield the changes for each channel, given the `active` states of the metric by channel."""
    if not signals.incidents and not signals.attention and not active:
        return  # a healthy metric, as most are
    for name, channel in config.notify.channels.items():
        known = active.get(name, ())
        wanted = list(_wanted(channel, signals)) if receives(config, name, metric) else []
        yield from _ends(name, metric, signals, known, wanted)
        states = {each.state for each in known}
        for state in wanted:
            if state.state not in states:
                yield AlertTransition(name, metric, begins=state)


def _wanted(channel: Channel, signals: MetricSignals) -> Iterator[AlertState]:
    """Yield the states that a channel is notified of: of incidents that no person has acknowledged, and attention."""
    open_ones = [each for each in signals.incidents if each.state != ACKNOWLEDGED and each.id not in signals.explained]
    for incident in open_ones:
        state = state_of(incident, signals.failures)
        if not signals.flaps(incident) and channel_wants(channel, state):
            yield state
    flapping = sorted((each for each in open_ones if signals.flaps(each)), key=lambda each: KINDS.index(each.kind))
    for incident in flapping:
        # Each time that it came back, it failed at least once
        state = state_of(incident, max(signals.failures, incident.flaps + 1))
        if channel_wants(channel, state):
            yield AlertState(FLAPPING, state.facts)
            break
    if signals.attention:
        state = AlertState(ATTENTION, {}, "notify", "high")
        if channel_wants(channel, state):
            yield state


def _ends(
    name: str, metric: str, signals: MetricSignals, known: Sequence[ActiveAlert], wanted: Sequence[AlertState]
) -> Iterator[AlertTransition]:
    """Yield the active states of a channel that end."""
    lasting = {each.id for each in signals.incidents}
    flapping = {each.id for each in signals.incidents if signals.flaps(each)}
    replaced = FLAPPING in {*(each.state for each in known), *(state.state for state in wanted)}
    for each in known:
        if each.kind == ATTENTION:
            if signals.attention is False:
                yield AlertTransition(name, metric, ends=each.id)
        elif each.kind == FLAPPING:
            if not flapping:
                yield AlertTransition(name, metric, ends=each.id, incident=each.incident)
        elif each.incident is None:  # a state of an earlier version of DIMS, which did not follow incidents
            yield AlertTransition(name, metric, ends=each.id, notify=False)
        elif each.incident not in lasting:
            yield AlertTransition(name, metric, ends=each.id, incident=each.incident)
        elif each.incident in flapping and replaced:  # the message that it flaps replaces the one that it ended
            yield AlertTransition(name, metric, ends=each.id, incident=each.incident, notify=False)
