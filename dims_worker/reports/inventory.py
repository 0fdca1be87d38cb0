"""What every report shows, gathered once, in the same few queries however many metrics there are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection

from dims_worker.analysis.health import MetricHealth, any_number, group_by_health, load_health, points_in_unit
from dims_worker.config import Config, Metric, S3Metric
from dims_worker.config.runtime import WORKFLOW
from dims_worker.store import point_in_time
from dims_worker.store.approval_requests import ApprovalRequest, list_requests, open_requests
from dims_worker.store.engine import clock
from dims_worker.store.events import LoggedEvent, list_events
from dims_worker.store.history import Point, daily_readings
from dims_worker.store.runs import PastReading, RunRow, list_runs

DAYS = 90
"""A trend goes back so many days, or further where `--since` does, up to a year."""
YEAR = 366
SHOWN = 24
"""So many metrics have a large trend: those that matter most."""
MARKS = 60
"""So many readings that stood out are marked in one trend."""
RECENT = 50
"""So many drifts, runs, requests and events are told."""


@dataclass(frozen=True, slots=True)
class CategoryHealth:
    """A category of the configuration, in its order. `feed`: data is collected here."""

    name: str
    feed: bool
    standings: tuple[MetricHealth, ...]


@dataclass(frozen=True, slots=True)
class WorkflowResult:
    """The last run of a workflow, and what it found."""

    name: str
    run: RunRow
    result: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class InventoryReport:
    """Everything a report shows, of one moment.

    `drifts`, `runs`, `decided` and `events` are the newest, newest first; `received` counts the events since `since`
    by outcome. `requests` are open, oldest first. `off`: metrics that are not measured unless they are named.
    """

    project: str
    now: datetime
    since: datetime
    newest: datetime | None
    categories: tuple[CategoryHealth, ...]
    off: tuple[str, ...]
    requests: tuple[ApprovalRequest, ...]
    decided: tuple[ApprovalRequest, ...]
    drifts: tuple[PastReading, ...]
    runs: tuple[RunRow, ...]
    events: tuple[LoggedEvent, ...]
    received: Mapping[str, int]
    workflows: tuple[WorkflowResult, ...]

    @property
    def standings(self) -> list[MetricHealth]:
        return [one for category in self.categories for one in category.standings]

    @property
    def feeds(self) -> tuple[CategoryHealth, ...]:
        return tuple(one for one in self.categories if one.feed)

    @property
    def trends(self) -> list[MetricHealth]:
        """The metrics that have a large trend, the most important first."""
        return _important(self.standings)

    def workflow(self, name: str) -> WorkflowResult | None:
        return next((one for one in self.workflows if one.name == name), None)

    @property
    def health(self) -> dict[str, list[str]]:
        """The metrics by what is the matter with them; one may be in several."""
        return group_by_health(self.standings)

    @property
    def well(self) -> list[str]:
        """The metrics with which nothing is the matter."""
        return [one.metric for one in self.standings if one.well]


def gather_report(
    connection: Connection, config: Config, since: timedelta | datetime, *, from_newest: bool = False
) -> InventoryReport:
    """The inventory, in a transaction of its own that reads alone.

    `since`: an instant, or how far back; from now, or `from_newest`: from the newest reading, so that the same
    readings give the same report on another day.
    """
    point_in_time.begin_read_only(connection)
    now = clock(connection)
    names = [name for name, metric in config.metrics.items() if metric.enabled]
    newest = point_in_time.newest_reading_time(connection, names)
    start = since if isinstance(since, datetime) else ((newest or now) if from_newest else now) - since
    waiting = open_requests(connection)
    days = max(DAYS, min(YEAR, (now - start).days + 1))
    series = daily_readings(connection, names, days)
    standings = load_health(connection, config, names, waiting, now=now, since=start, series=series)
    large = [one.metric for one in _important(list(standings.values()))]
    marks = point_in_time.notable_readings(connection, large, now - timedelta(days=days), MARKS)
    for name in large:
        standings[name] = _marked(standings[name], marks[name])
    results = point_in_time.last_results(connection, [f"{WORKFLOW}{one}" for one in config.configured_workflows])
    return InventoryReport(
        project=config.project.name,
        now=now,
        since=start,
        newest=newest,
        categories=_categories(config, standings),
        off=tuple(name for name, metric in config.metrics.items() if not metric.enabled),
        requests=tuple(waiting.values()),
        decided=tuple(one for one in list_requests(connection, limit=RECENT) if one.state != "open"),
        drifts=tuple(point_in_time.recent_drifts(connection, names, start, RECENT)),
        runs=tuple(list_runs(connection, limit=RECENT)),
        events=tuple(list_events(connection, limit=RECENT)),
        received=point_in_time.events_since(connection, start),
        workflows=tuple(WorkflowResult(source.removeprefix(WORKFLOW), *found) for source, found in results.items()),
    )


def is_feed(metrics: Sequence[Metric]) -> bool:
    """Whether a category collects data: it asks of a bucket whether all of it came, or when the last of it did."""
    asks = ("completeness", "missing_days", "newest_age")
    return any(isinstance(one, S3Metric) and one.measure in asks for one in metrics)


def _marked(one: MetricHealth, marks: Sequence[Point]) -> MetricHealth:
    parts = {name: getattr(one, name) for name in MetricHealth.__slots__}
    return MetricHealth(**{**parts, "marks": points_in_unit(marks, one.declared, one.unit)})


def _important(standings: Sequence[MetricHealth]) -> list[MetricHealth]:
    """The most important first; of two that matter alike the one that is configured first."""
    numbers = [one for one in standings if one.matters and not one.declared.is_age and any_number(one)]
    return sorted(numbers, key=lambda one: one.weight, reverse=True)[:SHOWN]


def _categories(config: Config, standings: Mapping[str, MetricHealth]) -> tuple[CategoryHealth, ...]:
    found: dict[str, list[MetricHealth]] = {}
    for name, one in standings.items():
        found.setdefault(name.partition(".")[0], []).append(one)
    declared: dict[str, list[Metric]] = {}
    for name, metric in config.metrics.items():
        declared.setdefault(name.partition(".")[0], []).append(metric)
    return tuple(CategoryHealth(name, is_feed(declared[name]), tuple(there)) for name, there in found.items())
