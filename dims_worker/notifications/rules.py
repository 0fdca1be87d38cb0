"""What a reading means for those who are told. Pure: a reading and what stands in, what begins and ends out.

People are told of *states* of a metric, once when one begins and once when it is over, however many readings find it
so. A metric may have several at once, one of each kind:

| kind | stands while | its end is told |
|---|---|---|
| `held:12` | request 12 waits for a person | yes: approved, rejected, withdrawn, expired |
| `limit` | the value is beyond `min`, `max` or `max_age` | yes |
| `drift:major` | each reading drifts as far, and is accepted | no: what was accepted is the baseline |
| `attention` | the outcome of a workflow is `attention` | yes |
| `failed` | it failed N times or more in a row; N is the channel's | yes |
| `stale` | nobody measured it for longer than `stale_after` | yes |

What readings say of them (`.` nothing; a state of which nothing is said stands on):

| a reading that was | held | limit | drift | attention | failed | stale |
|---|---|---|---|---|---|---|
| accepted | over | as the value is | tier notify, else over | as the value is | over | over |
| held | stands | over where inside | over | . | over | over |
| rejected before | over | over where inside | over | . | over | over |
| looked | . | . | . | . | . | over |
| failed | . | . | . | . | stands | . |
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
    """A state, and by what channels choose whether they are told: `tier` and `severity`, or `failures` in a row."""

    state: str
    facts: Mapping[str, Any] = field(default_factory=dict)
    tier: Literal["approve", "notify"] | None = None
    severity: str | None = None
    failures: int = 0


@dataclass(frozen=True, slots=True)
class AlertSignals:
    """What is said of a metric, by kind: what stands now; None: that is over. `values` are told at an end."""

    kinds: Mapping[str, AlertState | None] = field(default_factory=dict)
    values: Mapping[str, Any] = field(default_factory=dict)


class ActiveAlert(Protocol):
    """A state that a channel was told, or will be."""

    @property
    def id(self) -> int: ...
    @property
    def state(self) -> str: ...


@dataclass(frozen=True, slots=True)
class AlertTransition:
    """What changes for one channel: a state of a metric begins, or one ends; `told` says whether people hear of it."""

    channel: str
    metric: str
    begins: AlertState | None = None
    ends: int | None = None
    ending: Mapping[str, Any] = field(default_factory=dict)
    told: bool = True


def signals_of_reading(item: RunReading, failures: int, request: int | None, broken: str | None) -> AlertSignals:
    """What a recorded reading says: `failures` in a row with this one, the open `request`, the limit that the value
    breaks."""
    return AlertSignals(_kinds(item, failures, request, broken), {"value": item.value, "unit": item.unit})


def _kinds(item: RunReading, failures: int, request: int | None, broken: str | None) -> Mapping[str, AlertState | None]:
    if item.outcome in ("superseded", "provisional"):
        return {}
    if item.outcome == "failed":
        return {FAILED: AlertState(FAILED, {"error": item.error, "failures": failures}, failures=failures)}
    said: dict[str, AlertState | None] = {STALE: None}
    if item.outcome == "looked":
        return said
    if not failures:  # a first reading may be a look, which ends no row of failures
        said[FAILED] = None
    if item.metric.startswith(WORKFLOW):
        needs_a_look = item.value == "attention"
        return said | {ATTENTION: AlertState(ATTENTION, {}, "notify", "high") if needs_a_look else None}
    return said | _of_value(item, request, broken)


def _of_value(item: RunReading, request: int | None, broken: str | None) -> dict[str, AlertState | None]:
    facts = {
        **{"value": item.value, "unit": item.unit, "baseline": item.baseline},
        **{"drift_pct": item.drift_pct, "severity": item.severity, "reason": item.reason},
    }
    if item.outcome == "accepted":
        # A broken limit alone is of tier notify as well
        drifted = item.tier == "notify" and (not broken or item.status in ("major", "extreme"))
        return {
            HELD: None,
            DRIFT: AlertState(f"{DRIFT}:{item.status}", facts, "notify", item.severity) if drifted else None,
            LIMIT: beyond_limit(item.value, item.unit, broken) if broken else None,
        }
    held = item.outcome == "held" and request is not None
    waits = AlertState(f"{HELD}:{request}", facts, "approve", item.severity) if held else None
    inside: dict[str, AlertState | None] = {} if broken else {LIMIT: None}  # beyond it, it is told as held
    return {HELD: waits, DRIFT: None, **inside}


def beyond_limit(value: Any, unit: str, broken: str) -> AlertState:
    """A value beyond a limit. An age gets there without a reading."""
    return AlertState(LIMIT, {"value": value, "unit": unit, "reason": broken}, "notify", "high")


def channel_wants(channel: Channel, metric: str, condition: AlertState) -> bool:
    """Whether a channel is told of a state of a metric."""
    if not any(fnmatchcase(metric, pattern) for pattern in channel.metrics):
        return False
    if condition.state == FAILED:
        return channel.failures is not None and condition.failures >= channel.failures
    if condition.state == STALE:
        return channel.stale
    return condition.tier in channel.tiers and (not channel.severities or condition.severity in channel.severities)


def transitions(
    channels: Mapping[str, Channel], metric: str, says: AlertSignals, standing: Mapping[tuple[str, str], ActiveAlert]
) -> Iterator[AlertTransition]:
    """What changes for whom, where these states of the metric, by channel and kind, stand.

    Nothing while a state stands. One that another of its kind takes the place of ends without a word.
    """
    for name, channel in channels.items():
        for kind, condition in says.kinds.items():
            known = standing.get((name, kind))
            if condition is not None and known is not None and condition.state == known.state:
                continue
            begins = condition is not None and channel_wants(channel, metric, condition)
            if known is not None:
                told = not begins and kind != DRIFT
                yield AlertTransition(name, metric, ends=known.id, ending=says.values, told=told)
            if begins:
                yield AlertTransition(name, metric, begins=condition)
