"""The data behind every report, gathered in a fixed number of queries."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection

from dims_worker.analysis.changes import AcceptedDrift, largest_drifts
from dims_worker.analysis.health import (
    MetricHealth,
    any_number,
    group_by_health,
    health_sentence,
    load_health,
    points_in_unit,
)
from dims_worker.config import Config, Metric, S3Metric
from dims_worker.config.runtime import WORKFLOW
from dims_worker.domain.decide import SEVERITIES
from dims_worker.domain.health import NOT_MEASURED
from dims_worker.formatting import escape_control, format_number
from dims_worker.store import point_in_time
from dims_worker.store.approval_requests import ApprovalRequest, list_requests, open_requests
from dims_worker.store.engine import clock
from dims_worker.store.events import LoggedEvent, list_events
from dims_worker.store.history import daily_readings
from dims_worker.store.incidents import KINDS, Incident, list_incidents, open_incidents
from dims_worker.store.runs import PastReading, RunRow, list_runs
from dims_worker.text.changes import change_document, change_sentence
from dims_worker.text.incidents import RESOLUTIONS, configured_metric, incident_document, incident_facts
from dims_worker.text.phrases import reason_text

MIN_TREND_DAYS, MAX_TREND_DAYS = 90, 366
MAX_TRENDS = 24
"""Only the most important metrics have a large trend."""
MAX_MARKERS = 60
"""A trend marks at most this many readings: the newest ones that were held, approved, rejected or failed."""
STATE_TITLES = {
    "failed": "failing",
    "waiting": "waits for approval",
    "beyond limits": "beyond its limit",
    "drifted": "lost or drifted",
    "unmeasured": NOT_MEASURED,
}
"""The states of `InventoryReport.health` in the words of the labels. The others have their own name."""
RECENT_ROWS = 50
"""A report lists at most this many drifts, changes, closed incidents, runs, requests and events."""


@dataclass(frozen=True, slots=True)
class CategoryHealth:
    """The metrics of a category, in the order of the configuration. `feed`: the category collects data."""

    name: str
    feed: bool
    metrics: tuple[MetricHealth, ...]


@dataclass(frozen=True, slots=True)
class WorkflowResult:
    """The last run of a workflow and its stored result."""

    name: str
    run: RunRow
    result: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class ReportedIncident:
    """An incident in words. An age in `what` is as old as it was at its reading, so that a report stays the same.

    `metric` is None for a silence and for a metric that is no longer configured. `outcome` says who acknowledged it, or
    how it ended. `document` is the incident as the API returns it.
    """

    incident: Incident
    metric: Metric | None
    label: str
    what: str
    outcome: str
    document: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class ReportedChange:
    """An accepted drift in words. `metric` is None if it is no longer configured. `accepted` says how, or by whom."""

    drift: AcceptedDrift
    metric: Metric | None
    what: str
    accepted: str
    document: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class InventoryReport:
    """Everything that a report shows, read at one moment.

    `incidents` are open or acknowledged, the most severe first. `ended` are those that were closed after `since`, the
    newest first. `changes` are the values that became baselines after `since` although they drifted, the largest first.
    `requests` are the open approval requests, oldest first. `decided`, `drifts`, `runs` and `events` are the most
    recent ones, newest first. `received` counts the events after `since` by outcome. `off` lists the disabled metrics.
    """

    project: str
    config: Config
    now: datetime
    since: datetime
    newest: datetime | None
    categories: tuple[CategoryHealth, ...]
    off: tuple[str, ...]
    incidents: tuple[ReportedIncident, ...]
    ended: tuple[ReportedIncident, ...]
    changes: tuple[ReportedChange, ...]
    requests: tuple[ApprovalRequest, ...]
    decided: tuple[ApprovalRequest, ...]
    drifts: tuple[PastReading, ...]
    runs: tuple[RunRow, ...]
    events: tuple[LoggedEvent, ...]
    received: Mapping[str, int]
    workflows: tuple[WorkflowResult, ...]

    @property
    def metrics(self) -> list[MetricHealth]:
        return [metric for category in self.categories for metric in category.metrics]

    @property
    def feeds(self) -> tuple[CategoryHealth, ...]:
        return tuple(category for category in self.categories if category.feed)

    @property
    def trends(self) -> list[MetricHealth]:
        """Return the metrics that have a large trend, the most important first."""
        return _most_important(self.metrics)

    def workflow(self, name: str) -> WorkflowResult | None:
        return next((workflow for workflow in self.workflows if workflow.name == name), None)

    @property
    def health(self) -> dict[str, list[str]]:
        """Return the names of the metrics by state. A metric can be in several states. Every open request counts as
        `waiting`, also that of a metric which has been disabled since."""
        return group_by_health(self.metrics) | {"waiting": [request.metric for request in self.requests]}

    @property
    def well(self) -> list[str]:
        return [metric.metric for metric in self.metrics if metric.well]

    @property
    def sentence(self) -> str:
        """The first sentence of a report: `2 incidents are open, 1 of them acknowledged. 1 metric is failing.`"""
        return f"{count_incidents([reported.incident for reported in self.incidents])} {health_sentence(self.health)}"


def count_incidents(incidents: Sequence[Incident]) -> str:
    """Return how many incidents are not closed, as a sentence."""
    if not incidents:
        return "No incident is open."
    acknowledged = sum(incident.state == "acknowledged" for incident in incidents)
    number = "1 incident is open" if len(incidents) == 1 else f"{format_number(len(incidents))} incidents are open"
    if not acknowledged:
        return f"{number}."
    return f"{number} and acknowledged." if len(incidents) == 1 else f"{number}, {acknowledged} of them acknowledged."


def gather_report(
    connection: Connection, config: Config, since: timedelta | datetime, *, from_newest: bool = False
) -> InventoryReport:
    """Read everything that a report shows. The connection's transaction becomes read-only.

    `since` is an instant, or a span back from now. With `from_newest` the span counts back from the newest reading, so
    that the same readings give the same report on any day.
    """
    point_in_time.begin_read_only(connection)
    now = clock(connection)
    names = config.enabled_metrics
    newest = point_in_time.newest_reading_time(connection, names)
    start = since if isinstance(since, datetime) else ((newest or now) if from_newest else now) - since
    waiting = open_requests(connection)
    days = trend_days(now, start)
    series = daily_readings(connection, names, days)
    health = load_health(connection, config, names, waiting, now=now, since=start, series=series)
    important = [metric.metric for metric in _most_important(list(health.values()))]
    notable = point_in_time.notable_readings(connection, important, now - timedelta(days=days), MAX_MARKERS)
    for name in important:
        metric = health[name]
        health[name] = replace(metric, marks=points_in_unit(notable[name], metric.declared, metric.unit))
    active = open_incidents(connection)
    ended = list_incidents(connection, limit=RECENT_ROWS, state="closed", since=start)
    stories = Counter(incident.story for incident in (*active, *ended))
    drifts = largest_drifts(connection, config, start, RECENT_ROWS)
    sources = [f"{WORKFLOW}{name}" for name in config.configured_workflows]
    results = point_in_time.last_results(connection, sources)
    return InventoryReport(
        project=config.project.name,
        config=config,
        now=now,
        since=start,
        newest=newest,
        categories=_categories(config, health),
        off=config.disabled_metrics,
        incidents=tuple(report_incident(config, incident, now, stories) for incident in _worst_first(active)),
        ended=tuple(report_incident(config, incident, now, stories) for incident in ended),
        changes=tuple(report_change(config, drift, now) for drift in drifts),
        requests=tuple(waiting.values()),
        decided=tuple(row for row in list_requests(connection, limit=RECENT_ROWS) if row.state != "open"),
        drifts=tuple(point_in_time.recent_drifts(connection, names, start, RECENT_ROWS)),
        runs=tuple(list_runs(connection, limit=RECENT_ROWS)),
        events=tuple(list_events(connection, limit=RECENT_ROWS)),
        received=point_in_time.events_since(connection, start),
        workflows=tuple(WorkflowResult(source.removeprefix(WORKFLOW), *last) for source, last in results.items()),
    )


def _worst_first(incidents: Sequence[Incident]) -> list[Incident]:
    """Return the incidents with the most severe first. Those of one run stay together."""
    severities: dict[str, int] = {severity: -place for place, severity in enumerate(SEVERITIES)}
    ranks = {each.id: (severities.get(each.severity, 0), KINDS.index(each.kind)) for each in incidents}
    worst: dict[int, tuple[int, int]] = {}
    for incident in incidents:
        rank = ranks[incident.id]
        worst[incident.story] = min(worst.get(incident.story, rank), rank)
    return sorted(incidents, key=lambda each: (worst[each.story], each.story, ranks[each.id], each.id))


def report_incident(
    config: Config, incident: Incident, now: datetime, stories: Mapping[int, int] | None = None
) -> ReportedIncident:
    """Return an incident in words, at `now`. `stories` are the numbers of reported incidents in each story."""
    document = incident_document(config, incident, now, (stories or {}).get(incident.story))
    return ReportedIncident(
        incident,
        configured_metric(config, incident.metric),
        document["label"],
        incident_facts(config, incident, incident.as_of or incident.opened_at),
        _outcome(incident),
        document,
    )


def report_change(config: Config, drift: AcceptedDrift, now: datetime) -> ReportedChange:
    """Return an accepted drift in words, at `now`."""
    metric = configured_metric(config, drift.metric)
    what = change_sentence(config, drift, drift.as_of)
    return ReportedChange(drift, metric, what, _accepted(drift), change_document(config, drift, now))


def _outcome(incident: Incident) -> str:
    """Return who acknowledged an incident, or how it ended. It has no time: a file cannot say `2 hours ago`."""
    if incident.state == "closed":
        how = RESOLUTIONS[incident.resolution] if incident.resolution else "closed"
        by = f" by {escape_control(incident.closed_by)}" if incident.closed_by else ""
        return f"{how}{by}{reason_text(incident.closing_reason)}"
    if incident.state == "acknowledged":
        return f"by {escape_control(incident.acknowledged_by)}{reason_text(incident.note)}"
    return ""


def _accepted(drift: AcceptedDrift) -> str:
    accepted = drift.accepted
    if accepted.how == "policy":
        return "by policy"
    how = "set by hand" if accepted.how == "by hand" else "approved"
    return f"{how} by {escape_control(accepted.decided_by)}{reason_text(accepted.note)}"


def trend_days(now: datetime, since: datetime) -> int:
    """Return how many days a trend shows: at least 90, more where `since` is earlier, and at most a year."""
    return max(MIN_TREND_DAYS, min(MAX_TREND_DAYS, (now - since).days + 1))


def is_feed(metrics: Sequence[Metric]) -> bool:
    """Return whether a category collects data: whether it measures if all data arrived, or when the last did."""
    measures = ("completeness", "missing_days", "newest_age")
    return any(isinstance(metric, S3Metric) and metric.measure in measures for metric in metrics)


def _most_important(metrics: Sequence[MetricHealth]) -> list[MetricHealth]:
    """Return the most important first. Metrics of the same weight keep the order of the configuration."""
    drawable = [metric for metric in metrics if metric.matters and not metric.declared.is_age and any_number(metric)]
    return sorted(drawable, key=lambda metric: metric.weight, reverse=True)[:MAX_TRENDS]


def _categories(config: Config, health: Mapping[str, MetricHealth]) -> tuple[CategoryHealth, ...]:
    metrics: dict[str, list[MetricHealth]] = {}
    for name, metric in health.items():
        metrics.setdefault(_category(name), []).append(metric)
    return tuple(
        CategoryHealth(name, is_feed([d for m, d in config.metrics.items() if _category(m) == name]), tuple(listed))
        for name, listed in metrics.items()
    )


def _category(metric: str) -> str:
    return metric.partition(".")[0]
