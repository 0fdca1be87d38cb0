"""Decide which alert states begin and end. Pure: a reading and the active states go in, the changes come out.

People are notified of *states* of a metric: once when a state begins and once when it ends, however many readings
confirm it. A metric may have several states at once, one of each kind:

| kind | active while | notifies at its end |
|---|---|---|
| `held:12` | request 12 waits for a person | yes: approved, rejected, withdrawn, expired |
| `limit` | the value is beyond `min`, `max` or `max_age` | yes |
| `drift:major` | readings drift this far and are accepted | no: the accepted value is the new baseline |
| `attention` | the outcome of a workflow is `attention` | yes |
| `failed` | it failed N times or more in a row; each channel sets N | yes |
| `stale` | it was not measured for longer than `stale_after` | yes |

What a reading does to each state (`.`: nothing, an active state stays active):

| outcome of the reading | held | limit | drift | attention | failed | stale |
|---|---|---|---|---|---|---|
| accepted | ends | by the value | tier notify, else ends | by the value | ends | ends |
| held | active | ends if inside | ends | . | ends | ends |
| rejected before | ends | ends if inside | ends | . | ends | ends |
| looked | . | . | . | . | . | ends |
| failed | . | . | . | . | active | . |
| superseded, provisional | . | . | . | . | . | . |
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any, Literal, Protocol

from dims_worker.config import Channel
from dims_worker.config.runtime import WORKFLOW
from dims_worker.domain.run import RunReading

HELD, LIMIT, DRIFT, ATTENTION, FAILED, STALE = "held", "limit", "drift", "attention", "failed", "stale"


@dataclass(frozen=True, slots=True)
class AlertState:
    """A state, with what channels filter by: `tier` and `severity`, or the number of `failures` in a row."""

    state: str
    facts: Mapping[str, Any] = field(default_factory=dict)
    tier: Literal["approve", "notify"] | None = None
    severity: str | None = None
    failures: int = 0


@dataclass(frozen=True, slots=True)
class AlertSignals:
    """The states of a metric by kind, None for one that ends. `values` go into the message about an end."""

    kinds: Mapping[str, AlertState | None] = field(default_factory=dict)
    values: Mapping[str, Any] = field(default_factory=dict)


class ActiveAlert(Protocol):
    """An active state that a channel was notified of, or will be."""

    @property
    def id(self) -> int: ...
    @property
    def state(self) -> str: ...


@dataclass(frozen=True, slots=True)
class AlertTransition:
    """A change for one channel: a state of a metric begins or ends. `notify`: the channel gets a message about it."""

    channel: str
    metric: str
    begins: AlertState | None = None
    ends: int | None = None
    ending: Mapping[str, Any] = field(default_factory=dict)
    notify: bool = True


def signals_of_reading(item: RunReading, failures: int, request: int | None, broken: str | None) -> AlertSignals:
    """Return the signals of a recorded reading. `failures`: in a row, with this one. `request`: the open one.
    `broken`: the limit that the value breaks, as text."""
    return AlertSignals(_kinds(item, failures, request, broken), {"value": item.value, "unit": item.unit})


def _kinds(item: RunReading, failures: int, request: int | None, broken: str | None) -> Mapping[str, AlertState | None]:
    if item.outcome in ("superseded", "provisional"):
        return {}
    if item.outcome == "failed":
        return {FAILED: AlertState(FAILED, {"error": item.error, "failures": failures}, failures=failures)}
    kinds: dict[str, AlertState | None] = {STALE: None}
    if item.outcome == "looked":
        return kinds
    if not failures:  # a first reading may come from a check, which does not clear the failures
        kinds[FAILED] = None
    if item.metric.startswith(WORKFLOW):
        attention = item.value == "attention"
        return kinds | {ATTENTION: AlertState(ATTENTION, {}, "notify", "high") if attention else None}
    return kinds | _value_kinds(item, request, broken)


def _value_kinds(item: RunReading, request: int | None, broken: str | None) -> dict[str, AlertState | None]:
    facts = {
        "value": item.value,
        "unit": item.unit,
        "baseline": item.baseline,
        "drift_pct": item.drift_pct,
        "severity": item.severity,
        "reason": item.reason,
    }
    if item.outcome == "accepted":
        # A broken limit alone has the tier notify, too
        drifted = item.tier == "notify" and (not broken or item.status in ("major", "extreme"))
        return {
            HELD: None,
            DRIFT: AlertState(f"{DRIFT}:{item.status}", facts, "notify", item.severity) if drifted else None,
            LIMIT: beyond_limit(item.value, item.unit, broken) if broken else None,
        }
    held = item.outcome == "held" and request is not None
    waiting = AlertState(f"{HELD}:{request}", facts, "approve", item.severity) if held else None
    inside: dict[str, AlertState | None] = (
        {} if broken else {LIMIT: None}
    )  # beyond its limit, the message about the held value says so
    return {HELD: waiting, DRIFT: None, **inside}


def beyond_limit(value: Any, unit: str, broken: str) -> AlertState:
    """Return the state of a value beyond its limit. An age gets there without a reading."""
    return AlertState(LIMIT, {"value": value, "unit": unit, "reason": broken}, "notify", "high")


def channel_wants(channel: Channel, metric: str, state: AlertState) -> bool:
    """Return whether a channel is notified of a state of a metric."""
    if not any(fnmatchcase(metric, pattern) for pattern in channel.metrics):
        return False
    if state.state == FAILED:
        return channel.failures is not None and state.failures >= channel.failures
    if state.state == STALE:
        return channel.stale
    return state.tier in channel.tiers and (not channel.severities or state.severity in channel.severities)


def transitions(
    channels: Mapping[str, Channel], metric: str, signals: AlertSignals, active: Mapping[tuple[str, str], ActiveAlert]
) -> Iterator[AlertTransition]:
    """Yield the changes for each channel, given the `active` states of the metric by channel and kind.

    There is no change while a state stays active. If a state of the same kind replaces it, it ends without a message.
    """
    for name, channel in channels.items():
        for kind, state in signals.kinds.items():
            known = active.get((name, kind))
            if state is not None and known is not None and state.state == known.state:
                continue
            begins = state is not None and channel_wants(channel, metric, state)
            if known is not None:
                notify = not begins and kind != DRIFT
                yield AlertTransition(name, metric, ends=known.id, ending=signals.values, notify=notify)
            if begins:
                yield AlertTransition(name, metric, begins=state)
