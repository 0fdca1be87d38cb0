"""The first page: what needs a person, then all metrics by category. Its cost is that of the rows which it shows: as
many queries for five hundred metrics as for five, and each metric is drawn once."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from markupsafe import Markup
from sqlalchemy import Connection
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from dims_worker.analysis.health import MetricHealth, group_by_health, health_labels, health_sentence, load_health
from dims_worker.config import Config
from dims_worker.formatting import format_drift, format_value
from dims_worker.reports import svg_charts
from dims_worker.store import approval_requests as asked
from dims_worker.store.engine import clock
from dims_worker.store.history import DailyLine, daily_lines
from dims_worker.text import metric_values
from dims_worker.web.context import WebContext, trusted_html, web_context
from dims_worker.web.metric_filter import STATE_FILTERS, MetricFilter

PROBLEM_KEYS = ("failed", "limit", "stale", "unmeasured")
"""The states that need a look, the worst first."""
DAYS = 30
"""So many days a sparkline shows."""
YESTERDAY = timedelta(hours=24)
FIRST, ASKS, NAMED = 10, 5, 5
"""So many rows of what needs a look, open requests, and metrics of a row are told; the rest is a click away."""
FEW = 60
"""So many metrics are shown at once; of more, only the categories in which something is the matter."""
LONGEST = 200
"""A reason is cut after so many characters; the metric's own page has it whole."""
WIDEST = 60
"""And so is a value, which may be any text."""


@dataclass(frozen=True, slots=True)
class OverviewData:
    """Everything that the page shows, of one moment. `requests` are open, oldest first; `lines` are by metric."""

    now: datetime
    standings: Mapping[str, MetricHealth]
    requests: Sequence[asked.ApprovalRequest]
    lines: Mapping[str, DailyLine]


@dataclass(frozen=True, slots=True)
class MetricRow:
    """A metric as a line of a table."""

    one: MetricHealth
    value: str
    change: str
    picture: Markup
    said: Sequence[str]
    why: str


@dataclass(frozen=True, slots=True)
class CategoryRows:
    """The metrics of one first word. `matters`: how many of them are not well, as `1 failed, 2 stale`; `open`: they
    are shown without a click."""

    rows: Sequence[MetricRow]
    matters: str
    open: bool


@dataclass(frozen=True, slots=True)
class ProblemGroup:
    """Metrics of one source with the same matter for the same reason, the heaviest first. `said`: what is the matter
    with all of them; `kind`: the state that leads to them all."""

    rows: Sequence[MetricRow]
    said: Sequence[str]
    why: str
    kind: str


@dataclass(frozen=True, slots=True)
class RequestSummary:
    """An open request in a few words."""

    request: asked.ApprovalRequest
    old: str
    new: str
    drift: str
    configured: bool


def load_overview(connection: Connection, config: Config) -> OverviewData:
    """How all enabled metrics stand, in a transaction of its own (`Site.reading`): five queries."""
    now = clock(connection)
    names = [name for name, metric in config.metrics.items() if metric.enabled]
    waiting = asked.open_requests(connection)
    standings = load_health(connection, config, names, waiting, now=now, since=now - YESTERDAY)
    return OverviewData(now, standings, tuple(waiting.values()), daily_lines(connection, names, DAYS))


def overview_page(request: Request) -> Response:
    site, wanted = web_context(request), MetricFilter.of(request.query_params)
    with site.reading() as connection:
        shown = load_overview(connection, site.config)
    found = [one for one in shown.standings.values() if wanted.names(site.config, one.metric) and wanted.states(one)]
    return site.page(
        request,
        "overview.html",
        {
            "here": "inventory",
            "title": "Inventory",
            "days": DAYS,
            "named": NAMED,
            "now": shown.now,
            "sorts": STATE_FILTERS,
        }
        | {"wanted": wanted, "found": len(found), "total": len(shown.standings)}
        | {"categories": _categories(found, shown, wanted), "off": _off(site.config, wanted)}
        | {"names": list(dict.fromkeys(name.partition(".")[0] for name in site.config.metrics))}
        | _needs(site, shown),
    )


routes: list[BaseRoute] = [Route("/", overview_page)]


def _needs(site: WebContext, shown: OverviewData) -> dict[str, object]:
    """What needs a person, and how many metrics stand how."""
    standings = list(shown.standings.values())
    troubled = [one for one in standings if one.failed or one.broken or one.stale or not one.measured]
    troubled.sort(key=lambda one: one.weight, reverse=True)
    first = _troubles(_row(one, shown, pictured=False) for one in troubled)[:FIRST]
    return {
        "begun": any(one.measured or one.failed for one in standings),
        "measured": max((one.state.as_of for one in standings if one.state.as_of), default=None),
        "verdict": health_sentence(group_by_health(standings)),
        "asks": [_ask(site.config, one, shown.now) for one in shown.requests[:ASKS]],
        "asked": len(shown.requests),
        "look": first,
        "looked": sum(len(trouble.rows) for trouble in first),
        "troubled": len(troubled),
        "troubles": PROBLEM_KEYS,
        "counts": {name: sum(bool(sort.true(one)) for one in standings) for name, sort in STATE_FILTERS.items()},
    }


def _troubles(rows: Iterable[MetricRow]) -> list[ProblemGroup]:
    """The rows by source and reason: a source that is away is one trouble, however many metrics it has."""
    alike: dict[object, list[MetricRow]] = {}
    for row in rows:
        reason = row.one.state.error or (row.why, *row.said)
        alike.setdefault((row.one.source, reason), []).append(row)
    return [_trouble(rows) for rows in alike.values()]


def _trouble(rows: Sequence[MetricRow]) -> ProblemGroup:
    first = rows[0]
    said = [word for word in first.said if all(word in row.said for row in rows)]
    why = first.why if all(row.why == first.why for row in rows) else _cut(first.one.state.error or "", LONGEST)
    return ProblemGroup(rows, said, why, next(name for name in PROBLEM_KEYS if STATE_FILTERS[name].true(first.one)))


def _row(one: MetricHealth, shown: OverviewData, *, pictured: bool = True) -> MetricRow:
    line = shown.lines.get(one.metric) if pictured else None
    why = "; ".join(text for text in (one.state.error, one.broken) if text)
    return MetricRow(
        one,
        _cut(metric_values.metric_value(one, one.state.value, shown.now), WIDEST),
        metric_values.metric_change(one),
        trusted_html(svg_charts.sparkline_svg(line, DAYS)) if line else Markup(),
        health_labels(one) or ["ok"],
        _cut(why, LONGEST),
    )


def _ask(config: Config, request: asked.ApprovalRequest, now: datetime) -> RequestSummary:
    declared = config.metrics.get(request.metric)
    old, new = (
        _cut(format_value(value, request.unit, declared, now), WIDEST) for value in (request.baseline, request.value)
    )
    drift = format_drift(request.value, request.baseline, request.drift_pct)
    return RequestSummary(request, old, new, drift, declared is not None)


def _cut(said: str, longest: int) -> str:
    return said if len(said) <= longest else f"{said[:longest]}…"


def _categories(
    standings: Iterable[MetricHealth], shown: OverviewData, wanted: MetricFilter
) -> dict[str, CategoryRows]:
    """The metrics that are shown by category, in the order of the configuration. Of many, what is well is folded,
    unless it is asked for."""
    found: dict[str, list[MetricRow]] = {}
    for one in standings:
        found.setdefault(one.metric.partition(".")[0], []).append(_row(one, shown))
    all_open = bool(wanted) or len(shown.standings) <= FEW
    return {name: _category(rows, all_open) for name, rows in found.items()}


def _category(rows: Sequence[MetricRow], all_open: bool) -> CategoryRows:
    counted = {
        name: sum(bool(STATE_FILTERS[name].true(row.one)) for row in rows) for name in ("waiting", *PROBLEM_KEYS)
    }
    matters = ", ".join(f"{number} {STATE_FILTERS[name].title}" for name, number in counted.items() if number)
    # What was only never measured is no news: a new configuration would be all open
    return CategoryRows(
        rows, matters, all_open or any(number for name, number in counted.items() if name != "unmeasured")
    )


def _off(config: Config, wanted: MetricFilter) -> list[str]:
    """The metrics that are measured only when they are named: they stand in no state."""
    return [
        name
        for name, metric in config.metrics.items()
        if not metric.enabled and not wanted.state and wanted.names(config, name)
    ]
