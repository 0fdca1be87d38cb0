"""Decide what a condition does to an incident. Pure: a condition and the known incident in, one step out.

| condition | known incident | step |
|---|---|---|
| holds | none | opens |
| holds | active | updated; a flapping one that was calm has come back once more |
| holds | recovered within the quiet period | opens again, and flaps |
| holds | closed by a person, while the condition lasts | nothing: the person knows |
| over | active | closed as recovered |
| over | active and flapping | calm; closed after it has been calm for the quiet period |
| over | closed by a person | over, so that the condition may open a new incident |

So an incident that comes and goes leads to one message when it opens, one when it ends, one when it flaps, and one when
it has been calm for the quiet period.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Literal

from dims_worker.numbers import same_value
from dims_worker.store.incidents import Incident, Kind, Resolution


@dataclass(frozen=True, slots=True)
class Condition:
    """What is known about one kind of incident of a metric now: whether its condition `holds`, and the facts of it.

    `anchor` is the value before it, and `value` the latest one. `low` and `high` are the expected band.
    """

    metric: str
    kind: Kind
    holds: bool
    severity: str = "none"
    reason: str = ""
    value: Any = None
    unit: str | None = None
    as_of: datetime | None = None
    anchor: Any = None
    anchor_as_of: datetime | None = None
    low: float | None = None
    high: float | None = None
    request: int | None = None


@dataclass(frozen=True, slots=True)
class Step:
    """What to do with an incident: `open` a new one, `update` or `close` the known one.

    `changes` are columns to set. `new_version` says that people see something else than before.
    """

    what: Literal["open", "update", "close"]
    condition: Condition
    known: Incident | None = None
    changes: Mapping[str, Any] = field(default_factory=dict)
    new_version: bool = False
    resolution: Resolution = "recovered"


def next_step(condition: Condition, known: Incident | None, now: datetime, quiet: timedelta) -> Step | None:
    """Return the step for a condition, or None if there is nothing to do. `known` is the newest incident of the kind
    that lasts, or that recovered within the `quiet` period."""
    if condition.holds:
        return _holding(condition, known, now, quiet)
    if known is None or known.over_at is not None:
        return None
    if not known.active:
        return Step("update", condition, known, {"over_at": now})
    if known.calm_at is None:
        if known.flapping_until is None or known.flapping_until <= now:  # it has lasted for the quiet period
            return Step("close", condition, known)
        return Step("update", condition, known, {"calm_at": now, "updated_at": now} | _latest(condition))
    return Step("close", condition, known) if now - known.calm_at >= quiet else None


def _holding(condition: Condition, known: Incident | None, now: datetime, quiet: timedelta) -> Step | None:
    if known is None:
        return Step("open", condition)
    facts = {"severity": condition.severity, "reason": condition.reason, "updated_at": now, **_latest(condition)}
    if condition.request is not None:  # a held value is compared with the baseline, as its request is
        facts |= {"request": condition.request, **_before(condition)}
    came_back = {"flaps": known.flaps + 1, "flapping_until": now + quiet, "calm_at": None}
    if not known.active:
        if known.over_at is None:  # a person has closed it, and its condition has lasted since
            return None
        opened = {"state": "open", "over_at": None, "closed_at": None, "resolution": None}
        opened |= {"acknowledged_at": None, "acknowledged_by": None, "known_by": None, "note": None}
        opened |= _before(condition)
        return Step("update", condition, known, facts | came_back | opened, new_version=True)
    if known.calm_at is not None:
        return Step("update", condition, known, facts | came_back, new_version=True)
    if known.flapping_until is not None and known.flapping_until <= now:
        facts |= {"flapping_until": None}  # it has lasted for the quiet period, so its next end is final
    return Step("update", condition, known, facts, new_version=_differs(condition, known))


def _latest(condition: Condition) -> dict[str, Any]:
    if condition.as_of is None:
        return {}
    return {"value": condition.value, "unit": condition.unit, "as_of": condition.as_of}


def _before(condition: Condition) -> dict[str, Any]:
    """Return the value before the incident. One that opens again may have another: what was accepted meanwhile."""
    if condition.as_of is None:
        return {}
    return {"anchor": condition.anchor, "anchor_as_of": condition.anchor_as_of}


def _differs(condition: Condition, known: Incident) -> bool:
    """Return whether a person who has seen the known incident should see it again before deciding."""
    if condition.severity != known.severity or condition.request not in (None, known.request):
        return True
    return condition.as_of is not None and not same_value(condition.value, known.value)
