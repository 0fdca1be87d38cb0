"""Show the first page: what needs attention, then all metrics by category.

The number of queries does not depend on the number of metrics.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta

from markupsafe import Markup
from sqlalchemy import Connection
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from dims_worker.analysis.health import MetricHealth, group_by_health, health_sentence, load_health
from dims_worker.config import Config
from dims_worker.notifications.mutes import mutes_of
from dims_worker.reports import svg_charts
from dims_worker.store.approval_requests import ApprovalRequest, open_requests
from dims_worker.store.engine import clock
from dims_worker.store.history import DailyLine, daily_lines
from dims_worker.store.incidents import Incident, list_incidents
from dims_worker.text.incidents import incident_facts
from dims_worker.text.metric_values import metric_change, metric_value
from dims_worker.web.context import web_context
from dims_worker.web.incident_cards import CardFacts, IncidentCard, StateLabel, arrows, muted_text, state_labels
from dims_worker.web.metric_filter import OTHER_FILTERS, STATE_FILTERS, MetricFilter
from dims_worker.web.pages.approvals import RequestCard

PROBLEM_STATES = ("failing", "limit", "drifted", "stale", "overdue", "unmeasured")
"""The states that need attention, worst first. What waits for approval has a list of its own."""
PROBLEM_FILTERS = {**STATE_FILTERS, **OTHER_FILTERS}
DAYS = 30
"""Days of a sparkline."""
CHANGE_SPAN = timedelta(hours=24)
MAX_PROBLEMS, MAX_REQUESTS, MAX_NAMES, MAX_SILENCES = 10, 5, 5, 5
"""Problem groups, open requests, metrics of a group, and silences on the page. Links lead to the rest."""
MAX_UNFOLDED = 60
"""With more metrics than this, only categories with problems are unfolded."""


@dataclass(frozen=True, slots=True)
class OverviewData:
    """All data of the page, read at the same moment.

    `requests` are open, oldest first. `silences` are the incidents of what should report and does not. `lines` are by
    metric.
    """

    facts: CardFacts
    health: Mapping[str, MetricHealth]
    requests: Sequence[ApprovalRequest]
    silences: Sequence[Incident]
    lines: Mapping[str, DailyLine]


@dataclass(frozen=True, slots=True)
class MetricRow:
    """A metric as a row of a table."""

    health: MetricHealth
    value: str
    change: str
    sparkline: Markup
    labels: Sequence[StateLabel]
    reason: str
    muted: str


@dataclass(frozen=True, slots=True)
class CategoryRows:
    """The metrics of a category. `problems` counts them, as `1 failed, 2 stale`. `open`: it is unfolded."""

    rows: Sequence[MetricRow]
    problems: str
    open: bool


@dataclass(frozen=True, slots=True)
class ProblemGroup:
    """Metrics of one source with the same problem, or of one story of incidents, most important first.

    `labels` are what all of them have. `state` is the filter that shows all of them.
    """

    rows: Sequence[MetricRow]
    labels: Sequence[StateLabel]
    reason: str
    state: str


def load_overview(connection: Connection, config: Config) -> OverviewData:
    """Read the health of all enabled metrics in eight queries."""
    now = clock(connection)
    names = config.enabled_metrics
    waiting = open_requests(connection)
    health = load_health(connection, config, names, waiting, now=now, since=now - CHANGE_SPAN)
    silences = list_incidents(connection, limit=1000, kind="silence")
    lines = daily_lines(connection, names, DAYS)
    facts = CardFacts(config, now, mutes=mutes_of(connection, config, now))
    return OverviewData(facts, health, tuple(waiting.values()), silences, lines)


def _row_reason(health: MetricHealth, facts: CardFacts) -> str:
    """Return what is wrong with a metric, and what its value leaves out."""
    drift = next((each for each in health.health.incidents if each.kind == "drift"), None)
    drifted = arrows(incident_facts(facts.config, drift, facts.now)) if drift else None
    return "; ".join(text for text in (health.state.error, health.broken, drifted, *health.doubts) if text)


def overview_page(request: Request) -> Response:
    site, wanted = web_context(request), MetricFilter.of(request.query_params)
    with site.read_transaction() as connection:
        data = load_overview(connection, site.config)
    every = data.health.values()
    matches = [each for each in every if wanted.matches_name(site.config, each.metric) and wanted.matches_state(each)]
    values = {
        "section": "inventory",
        "title": "Inventory",
        "days": DAYS,
        "max_names": MAX_NAMES,
        "state_filters": STATE_FILTERS,
        "filter": wanted,
        "number_found": len(matches),
        "total": len(every),
        "number_disabled": len(site.config.disabled_metrics),
        "categories": _categories(matches, data, wanted),
        "disabled": _disabled(site.config, wanted),
        "category_names": list(dict.fromkeys(name.partition(".")[0] for name in site.config.metrics)),
    }
    return site.page(request, "overview.html", values | _attention(site.config, data))


def _attention(config: Config, data: OverviewData) -> dict[str, object]:
    """Return what needs attention, and how many metrics are in each state."""
    health = list(data.health.values())
    problems = [each for each in health if any(PROBLEM_FILTERS[name].matches(each) for name in PROBLEM_STATES)]
    problems.sort(key=lambda each: each.weight, reverse=True)
    groups = _problem_groups(_row(each, data, with_sparkline=False) for each in problems)[:MAX_PROBLEMS]
    return {
        "has_readings": any(each.measured or each.failed for each in health),
        "measured_at": max((each.state.as_of for each in health if each.state.as_of), default=None),
        "verdict": _verdict(data),
        "silences": [IncidentCard.of(data.facts, each) for each in data.silences[:MAX_SILENCES]],
        "cards": [RequestCard.of(config, each, data.facts.now) for each in data.requests[:MAX_REQUESTS]],
        "configured": config.metrics,
        "number_of_requests": len(data.requests),
        "problem_groups": groups,
        "number_listed": sum(len(group.rows) for group in groups),
        "number_of_problems": len(problems),
        "problem_filters": {name: PROBLEM_FILTERS[name] for name in PROBLEM_STATES},
        "counts": {name: sum(bool(state.matches(each)) for each in health) for name, state in PROBLEM_FILTERS.items()},
    }


def _verdict(data: OverviewData) -> str:
    """Return the first sentence of the page."""
    groups = group_by_health(data.health.values())
    requests = [each.metric for each in data.requests]  # also those of metrics that are disabled now
    return health_sentence(groups | {"waiting": requests, "silent": [each.metric for each in data.silences]})


def _problem_groups(rows: Iterable[MetricRow]) -> list[ProblemGroup]:
    """Group rows by source and reason: an unreachable source is one problem, however many metrics it has.

    What drifted in one run is one story.
    """
    groups: dict[object, list[MetricRow]] = {}
    for row in rows:
        story = _story(row.health)
        reason = row.health.state.error or (row.reason, *(label.text for label in row.labels))
        groups.setdefault((row.health.source, reason) if story is None else story, []).append(row)
    return [_problem_group(rows) for rows in groups.values()]


def _story(metric: MetricHealth) -> int | None:
    """Return the story of the drift that is the worst problem of a metric, or None."""
    if metric.health.worst != "drifted":
        return None
    return next((each.story for each in metric.health.incidents if each.kind == "drift"), None)


def _problem_group(rows: Sequence[MetricRow]) -> ProblemGroup:
    first = rows[0]
    shared = set.intersection(*({label.text for label in row.labels} for row in rows))
    labels = [label for label in first.labels if label.text in shared] or first.labels[:1]
    same_reason = all(row.reason == first.reason for row in rows)
    reason = first.reason if same_reason else first.health.state.error or f"{first.health.metric}: {first.reason}"
    state = next(name for name in PROBLEM_STATES if PROBLEM_FILTERS[name].matches(first.health))
    return ProblemGroup(rows, labels, reason, state)


def _row(health: MetricHealth, data: OverviewData, *, with_sparkline: bool = True) -> MetricRow:
    line = data.lines.get(health.metric) if with_sparkline else None
    mute = data.facts.mutes.get(health.metric)
    return MetricRow(
        health,
        metric_value(health, health.state.value, data.facts.now),
        metric_change(health),
        svg_charts.sparkline_svg(line, DAYS) if line else Markup(),
        state_labels(data.facts.config, health.health),
        _row_reason(health, data.facts),
        muted_text(mute) if mute else "",
    )


def _categories(matches: Iterable[MetricHealth], data: OverviewData, wanted: MetricFilter) -> dict[str, CategoryRows]:
    """Return the matching metrics by category, in the order of the configuration."""
    categories: dict[str, list[MetricRow]] = {}
    for health in matches:
        categories.setdefault(health.metric.partition(".")[0], []).append(_row(health, data))
    all_open = bool(wanted) or len(data.health) <= MAX_UNFOLDED
    return {name: _category(rows, all_open) for name, rows in categories.items()}


def _category(rows: Sequence[MetricRow], all_open: bool) -> CategoryRows:
    counts = {
        state: sum(bool(PROBLEM_FILTERS[state].matches(row.health)) for row in rows)
        for state in ("waiting", *PROBLEM_STATES)
    }
    problems = ", ".join(f"{number} {PROBLEM_FILTERS[state].title}" for state, number in counts.items() if number)
    # Unmeasured metrics alone do not unfold a category: else a new project would be all unfolded
    return CategoryRows(
        rows, problems, all_open or any(number for state, number in counts.items() if state != "unmeasured")
    )


def _disabled(config: Config, wanted: MetricFilter) -> list[str]:
    """Return the metrics with `enabled: false`, which have no state."""
    names = () if wanted.state else config.disabled_metrics
    return [name for name in names if wanted.matches_name(config, name)]


routes: list[BaseRoute] = [Route("/", overview_page)]
