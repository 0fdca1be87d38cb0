"""Points in time, and what differs between two of them."""

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
from dims_worker.store import snapshots
from dims_worker.store.engine import clock
from dims_worker.store.snapshots import LatestRequest, SnapshotValue

_NAME = re.compile(r"[A-Za-z_][\w.+-]{0,99}")
_NOW = "now"


@dataclass(frozen=True, slots=True)
class Moment:
    """A point in time; `snapshot` is the number of the one that was named, else None."""

    name: str
    at: datetime
    snapshot: int | None = None


@dataclass(frozen=True, slots=True)
class MetricDifference:
    """What became of a metric between two moments. `then` None: it is new; `now` None: it is retired, or gone."""

    metric: str
    kind: Literal["changed", "new", "retired"]
    then: SnapshotValue | None
    now: SnapshotValue | None
    change: int | float | None
    drift_pct: float | None
    decision: LatestRequest | None


def check_snapshot_name(name: str) -> str:
    """A name for a snapshot. Raises ConfigError where it could be taken for a date or a span."""
    if not _NAME.fullmatch(name) or name == _NOW:
        raise ConfigError(
            f"a snapshot cannot be called {name!r}: begin with a letter; letters, digits, . _ + - may follow (a date "
            "is what the daily ones are called)"
        )
    return name


def parse_moment(connection: Connection, told: str) -> Moment:
    """A snapshot by its name, else a span until now (`7d`), else a date or a time in ISO 8601 (UTC unless it says
    otherwise), else `now`. Raises NotFound."""
    now = clock(connection)
    if told == _NOW:
        return Moment(_NOW, now)
    if found := snapshots.find_snapshot(connection, told):
        return Moment(told, found.taken_at, found.id)
    try:
        found_at = parse_since(told)
        return Moment(told, found_at if isinstance(found_at, datetime) else now - found_at)
    except (ValueError, OverflowError):
        raise NotFound(
            f"{told} is no snapshot (`dims snapshot list`), no span such as 7d, and no date such as 2026-11-01"
        ) from None


def values_at_moment(connection: Connection, one: Moment) -> dict[str, SnapshotValue]:
    """What each metric was at a moment: out of its snapshot, out of the current state, or out of the history."""
    if one.snapshot is not None:
        return snapshots.values_in(connection, one.snapshot)
    if one.name != _NOW:
        return snapshots.values_at(connection, one.at)
    return snapshots.values_now(connection)


def compare_metrics(
    connection: Connection, config: Config, begin: Moment, until: Moment, pattern: str = "*"
) -> list[MetricDifference]:
    """What differs between two moments, in the order of the metrics' names; those that are no longer configured are
    among them. Of an age that is the instant: it has no drift. Raises ConfigError where the one is after the other."""
    if until.at < begin.at:
        raise ConfigError(f"--until {until.name} is before --since {begin.name}")
    then, now = values_at_moment(connection, begin), values_at_moment(connection, until)
    names = sorted(
        name
        for name in then.keys() | now.keys()
        if fnmatchcase(name, pattern) and not _is_outcome(config, name) and not _same(then.get(name), now.get(name))
    )
    decided = snapshots.latest_requests(connection, names, begin.at, until.at)
    return [_difference(config, name, then.get(name), now.get(name), decided.get(name)) for name in names]


def _is_outcome(config: Config, name: str) -> bool:
    """Whether it is no metric but what became of a workflow."""
    return name in config.definitions and name not in config.metrics


def _same(then: SnapshotValue | None, now: SnapshotValue | None) -> bool:
    if then is None or now is None:
        return then is now
    return bool(then.value == now.value) and isinstance(then.value, bool) == isinstance(now.value, bool)


def _difference(
    config: Config, name: str, then: SnapshotValue | None, now: SnapshotValue | None, decision: LatestRequest | None
) -> MetricDifference:
    if then is None or now is None:
        return MetricDifference(name, "new" if then is None else "retired", then, now, None, None, decision)
    change = now.value - then.value if is_number(then.value) and is_number(now.value) else None
    metric = config.metrics.get(name)
    drift = None if metric is not None and metric.is_age else drift_pct(then.value, now.value)
    return MetricDifference(name, "changed", then, now, change, drift, decision)
