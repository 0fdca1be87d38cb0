"""Compare the metrics at two points in time."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime
from fnmatch import fnmatchcase
from typing import Literal

from sqlalchemy import Connection

from dims_worker.config import Config
from dims_worker.config.units import parse_since
from dims_worker.domain.decide import drift_pct
from dims_worker.errors import ConfigError, NotFound
from dims_worker.formatting import is_number
from dims_worker.numbers import Number, difference, same_value
from dims_worker.store import snapshots
from dims_worker.store.engine import clock
from dims_worker.store.snapshots import LatestRequest, SnapshotValue

_NAME = re.compile(r"[A-Za-z_][\w.+-]{0,99}")
_NOW = "now"


@dataclass(frozen=True, slots=True)
class Moment:
    """A point in time. `snapshot` is the id of the snapshot with this name, or None."""

    name: str
    at: datetime
    snapshot: int | None = None


@dataclass(frozen=True, slots=True)
class MetricDifference:
    """How a metric differs between two moments. `then` is None if it is new, and `now` is None if it is retired."""

    metric: str
    kind: Literal["changed", "new", "retired"]
    then: SnapshotValue | None
    now: SnapshotValue | None
    change: Number | None
    drift_pct: float | None
    decision: LatestRequest | None


def check_snapshot_name(name: str) -> str:
    """Return the name of a snapshot. Raises ConfigError if it looks like a date or a duration."""
    if not _NAME.fullmatch(name) or name == _NOW:
        raise ConfigError(
            f"{name!r} is not a name for a snapshot: begin with a letter, then use letters, digits, `.`, `_`, `+` and "
            "`-`, at most 100 characters. Dates are the names of the daily snapshots."
        )
    return name


def parse_moment(connection: Connection, written: str) -> Moment:
    """Return the moment of `now`, of a snapshot's name, of a duration before now (`7d`), or of a date or time in
    ISO 8601, in UTC unless it has a zone. Raises NotFound."""
    now = clock(connection)
    if written == _NOW:
        return Moment(_NOW, now)
    if snapshot := snapshots.find_snapshot(connection, written):
        return Moment(written, snapshot.taken_at, snapshot.id)
    try:
        since = parse_since(written)
        return Moment(written, since if isinstance(since, datetime) else now - since)
    except (ValueError, OverflowError):
        raise NotFound(
            f"{written} is not a snapshot, a duration such as 7d, or a date such as 2026-11-01. "
            "`dims snapshot list` lists the snapshots."
        ) from None


def values_at_moment(connection: Connection, moment: Moment) -> dict[str, SnapshotValue]:
    """Return the value of each metric at a moment, from its snapshot, the current state or the history."""
    if moment.snapshot is not None:
        return snapshots.values_in(connection, moment.snapshot)
    if moment.name != _NOW:
        return snapshots.values_at(connection, moment.at)
    return snapshots.values_now(connection)


def compare_metrics(
    connection: Connection, config: Config, begin: Moment, until: Moment, pattern: str = "*"
) -> list[MetricDifference]:
    """Return the metrics that differ between two moments, by name, with those that are no longer configured.

    An age differs if its instant differs, and has no drift. Raises ConfigError if `until` is before `begin`.
    """
    if until.at < begin.at:
        raise ConfigError(f"--until {until.name} is before --since {begin.name}: exchange the two")
    then, now = values_at_moment(connection, begin), values_at_moment(connection, until)
    names = sorted(
        name
        for name in then.keys() | now.keys()
        if fnmatchcase(name, pattern) and not _is_workflow(config, name) and not _same(then.get(name), now.get(name))
    )
    decisions = snapshots.latest_requests(connection, names, begin.at, until.at)
    return [_difference(config, name, then.get(name), now.get(name), decisions.get(name)) for name in names]


def _is_workflow(config: Config, name: str) -> bool:
    return name in config.definitions and name not in config.metrics


def _same(then: SnapshotValue | None, now: SnapshotValue | None) -> bool:
    if then is None or now is None:
        return then is now
    return same_value(then.value, now.value)


def _difference(
    config: Config, name: str, then: SnapshotValue | None, now: SnapshotValue | None, decision: LatestRequest | None
) -> MetricDifference:
    if then is None or now is None:
        return MetricDifference(name, "new" if then is None else "retired", then, now, None, None, decision)
    change = difference(now.value, then.value) if is_number(then.value) and is_number(now.value) else None
    metric = config.metrics.get(name)
    drift = None if metric is not None and metric.is_age else drift_pct(then.value, now.value)
    return MetricDifference(name, "changed", then, now, change, drift, decision)
