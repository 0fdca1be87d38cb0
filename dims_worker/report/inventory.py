"""What every report shows, gathered once, in the same few queries however many metrics there are."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, TypeGuard

from sqlalchemy import Connection

from dims_worker.config import Config, Metric, S3Metric
from dims_worker.config.config import WORKFLOW
from dims_worker.config.quantities import AGES
from dims_worker.decide import SEVERITIES, Judge, age_of
from dims_worker.evidence import Gap, gaps
from dims_worker.store import overview, states
from dims_worker.store.engine import clock
from dims_worker.store.events import Logged, list_events
from dims_worker.store.overview import Before
from dims_worker.store.requests import Request, list_requests, open_requests
from dims_worker.store.runs import PastReading, RunRow, list_runs
from dims_worker.store.series import Day, Point, daily

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
class Standing:
    """A metric as it stands. `before`: what it was at the report's `since`. `broken`: the limit that its value is
    beyond, in words. `marks`: of a trend, the readings that stood out."""

    metric: str
    declared: Metric
    source: str | None
    state: states.State
    critical: bool
    stale: bool
    broken: str | None
    request: Request | None
    before: Before | None
    days: Sequence[Day]
    marks: Sequence[Point] = ()

    @property
    def name(self) -> str:
        return self.metric.partition(".")[2]

    @property
    def unit(self) -> str:
        return self.declared.shown_unit

    @property
    def measured(self) -> bool:
        return self.state.as_of is not None

    @property
    def failed(self) -> bool:
        return self.state.error is not None

    @property
    def drifted(self) -> bool:
        return self.state.status in ("moderate", "major", "extreme")

    @property
    def status(self) -> str:
        """`failed`, `unmeasured`, or what was said of the last good reading."""
        return "failed" if self.failed else (self.state.status or "unmeasured")

    @property
    def change(self) -> int | float | None:
        """Since `before`, in the metric's unit; None where there is none to tell, and of ages, which only pass."""
        if self.before is None or self.declared.is_age:
            return None
        now, then = self.state.value, self.before.value
        return now - then if self.measured and is_number(now) and is_number(then) else None

    @property
    def gaps(self) -> tuple[Gap, ...]:
        return gaps(self.state.details, self.state.value)

    def number(self, value: Any, now: datetime) -> int | float | None:
        """A value as a number: an age in its unit at `now`; None where it is none."""
        if self.declared.is_age:
            seconds = age_of(value, now)
            return None if seconds is None else seconds / AGES[self.unit]
        return value if is_number(value) else None

    @property
    def weight(self) -> tuple[bool, bool, bool, int, bool]:
        """How much it matters, to be sorted by, the most important last."""
        severity = SEVERITIES.index(self.state.severity) if self.state.severity in SEVERITIES else 0
        return (bool(self.request), self.failed, bool(self.broken), severity, self.critical)

    @property
    def matters(self) -> bool:
        return bool(self.request) or self.failed or bool(self.broken) or self.drifted or self.critical


@dataclass(frozen=True, slots=True)
class Category:
    """A category of the configuration, in its order. `feed`: data is collected here."""

    name: str
    feed: bool
    standings: tuple[Standing, ...]


@dataclass(frozen=True, slots=True)
class Found:
    """The last run of a workflow, and what it found."""

    name: str
    run: RunRow
    result: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Inventory:
    """Everything a report shows, of one moment.

    `drifts`, `runs`, `decided` and `events` are the newest, newest first; `received` counts the events since `since`
    by outcome. `requests` are open, oldest first. `off`: metrics that are not measured unless they are named.
    """

    project: str
    now: datetime
    since: datetime
    newest: datetime | None
    categories: tuple[Category, ...]
    off: tuple[str, ...]
    requests: tuple[Request, ...]
    decided: tuple[Request, ...]
    drifts: tuple[PastReading, ...]
    runs: tuple[RunRow, ...]
    events: tuple[Logged, ...]
    received: Mapping[str, int]
    workflows: tuple[Found, ...]

    @property
    def standings(self) -> list[Standing]:
        return [one for category in self.categories for one in category.standings]

    @property
    def feeds(self) -> tuple[Category, ...]:
        return tuple(one for one in self.categories if one.feed)

    @property
    def trends(self) -> list[Standing]:
        """The metrics that have a large trend, the most important first."""
        return _important(self.standings)

    def workflow(self, name: str) -> Found | None:
        return next((one for one in self.workflows if one.name == name), None)

    @property
    def health(self) -> dict[str, list[str]]:
        """The metrics by what is the matter with them; one may be in several."""
        matters: dict[str, Callable[[Standing], object]] = {
            "waiting": lambda one: one.request,
            "failed": lambda one: one.failed,
            "beyond limits": lambda one: one.broken,
            "stale": lambda one: one.stale,
            "due": lambda one: one.state.due,
            "unmeasured": lambda one: not one.measured,
        }
        return {word: [one.metric for one in self.standings if true(one)] for word, true in matters.items()}

    @property
    def well(self) -> list[str]:
        """The metrics with which nothing is the matter: to be due soon is no trouble."""
        troubled = {name for word, names in self.health.items() if word != "due" for name in names}
        return [one.metric for one in self.standings if one.metric not in troubled]


def gather(
    connection: Connection, config: Config, since: timedelta | datetime, *, from_newest: bool = False
) -> Inventory:
    """The inventory, in a transaction of its own that reads alone.

    `since`: an instant, or how far back; from now, or `from_newest`: from the newest reading, so that the same
    readings give the same report on another day.
    """
    overview.begin(connection)
    now = clock(connection)
    names = [name for name, metric in config.metrics.items() if metric.enabled]
    newest = overview.newest(connection, names)
    start = since if isinstance(since, datetime) else ((newest or now) if from_newest else now) - since
    known = states.of(connection, names)
    waiting = open_requests(connection)
    before = overview.values_at(connection, names, start)
    days = max(DAYS, min(YEAR, (now - start).days + 1))
    series = daily(connection, names, days)
    standings = {
        name: _standing(config, known[name], waiting.get(name), before.get(name), series[name], now) for name in names
    }
    large = [one.metric for one in _important(list(standings.values()))]
    marks = overview.stood_out(connection, large, now - timedelta(days=days), MARKS)
    for name in large:
        standings[name] = _marked(standings[name], marks[name])
    results = overview.last_results(connection, [f"{WORKFLOW}{one}" for one in config.configured_workflows])
    return Inventory(
        project=config.project.name,
        now=now,
        since=start,
        newest=newest,
        categories=_categories(config, standings),
        off=tuple(name for name, metric in config.metrics.items() if not metric.enabled),
        requests=tuple(waiting.values()),
        decided=tuple(one for one in list_requests(connection, limit=RECENT) if one.state != "open"),
        drifts=tuple(overview.drifts(connection, names, start, RECENT)),
        runs=tuple(list_runs(connection, limit=RECENT)),
        events=tuple(list_events(connection, limit=RECENT)),
        received=overview.events_since(connection, start),
        workflows=tuple(Found(source.removeprefix(WORKFLOW), *found) for source, found in results.items()),
    )


def is_feed(metrics: Sequence[Metric]) -> bool:
    """Whether a category collects data: it asks of a bucket whether all of it came, or when the last of it did."""
    asks = ("completeness", "missing_days", "newest_age")
    return any(isinstance(one, S3Metric) and one.measure in asks for one in metrics)


def is_number(value: Any) -> TypeGuard[int | float]:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _standing(
    config: Config,
    state: states.State,
    request: Request | None,
    before: Before | None,
    days: Sequence[Day],
    now: datetime,
) -> Standing:
    policy = config.policy_of(state.metric)
    stale = bool(policy.stale_after and state.as_of and now - state.as_of > policy.stale_after)
    broken = Judge.of(config, state.metric).limit_words(state.value, now) if state.as_of else None
    declared, source = config.metrics[state.metric], config.source_of(state.metric)
    return Standing(state.metric, declared, source, state, policy.critical, stale, broken, request, before, days)


def _marked(one: Standing, marks: Sequence[Point]) -> Standing:
    parts = {name: getattr(one, name) for name in Standing.__slots__}
    return Standing(**{**parts, "marks": marks})


def _important(standings: Sequence[Standing]) -> list[Standing]:
    """The most important first; of two that matter alike the one that is configured first."""
    numbers = [one for one in standings if one.matters and not one.declared.is_age and any_number(one)]
    return sorted(numbers, key=lambda one: one.weight, reverse=True)[:SHOWN]


def any_number(one: Standing) -> bool:
    """Whether a trend has anything to draw."""
    return any(is_number(day.value) for day in one.days)


def _categories(config: Config, standings: Mapping[str, Standing]) -> tuple[Category, ...]:
    found: dict[str, list[Standing]] = {}
    for name, one in standings.items():
        found.setdefault(name.partition(".")[0], []).append(one)
    declared: dict[str, list[Metric]] = {}
    for name, metric in config.metrics.items():
        declared.setdefault(name.partition(".")[0], []).append(metric)
    return tuple(Category(name, is_feed(declared[name]), tuple(there)) for name, there in found.items())
