"""One metric's whole story on one page: its value, how it went, why it is judged so, what changed, who decided."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import yaml
from markupsafe import Markup
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from dims_worker.analysis.evidence import NamedGap
from dims_worker.analysis.explanation import Explanation, explain_metric
from dims_worker.config import Config, DerivedMetric, Policy
from dims_worker.config.formula import PRICES
from dims_worker.config.policy import Thresholds
from dims_worker.config.runtime import WORKFLOW
from dims_worker.errors import NotFound
from dims_worker.formatting import NO_VALUE, format_drift, format_exact, format_value, is_number
from dims_worker.formatting import format_age as in_a_word
from dims_worker.reports import svg_charts
from dims_worker.store.runs import PastReading, newest_readings
from dims_worker.text.evidence import placed_lines
from dims_worker.text.explanation import format_health, verdict_reasons
from dims_worker.text.phrases import ExplanationView
from dims_worker.text.readings import done_text
from dims_worker.web.context import code_spans, trusted_html, web_context
from dims_worker.web.pages.approvals import RequestCard
from dims_worker.web.trend_chart import SPANS, pictures

DAYS = 30
"""A picture shows so many days, unless another span is asked for."""
READINGS = 50
"""So many readings are told, the newest."""


def metric_page(request: Request) -> Response:
    """`/metrics/{name}`; raises NotFound."""
    site, name = web_context(request), request.path_params["name"]
    days = _days(request.query_params.get("days"))
    if "\0" in name:
        raise NotFound("no metric has such a name")
    with site.reading() as connection:
        one = explain_metric(connection, site.config, name)
        picture = pictures(connection, site.config, one.state, one.now, days)
        readings = newest_readings(connection, name, READINGS)
    shown = ExplanationView(one, site.config.metrics.get(name))
    values = {
        "here": "inventory",
        "title": name,
        "one": one,
        "value": shown.value(one.reading.value) if one.reading else None,
        "standing": format_health(one),
        "chips": state_labels(one),
        "description": shown.metric.description if shown.metric else "",
        "workflow": name.removeprefix(WORKFLOW) if name.startswith(WORKFLOW) else None,
        "asked": RequestCard.of(site.config, one.request, one.now) if one.request else None,
        "days": days,
        "spans": SPANS,
        "picture": picture,
        "legend": trusted_html(svg_charts.legend_html()),
        "rows": [HistoryRow.of(site.config, each) for each in readings],
        "reasons": list(_reasons(shown)),
        "inputs": list(_inputs(shown)),
        "changes": list(_changes(one)),
        "gaps": [NamedGap(gap, one.unit) for gap in one.gaps],
        "decisions": [RequestCard.of(site.config, each, one.now) for each in one.decisions],
        "definition": definition_lines(site.config, name),
        "policy": policy_rows(one),
        "links": formula_links(site.config, name),
    }
    return site.page(request, "metric.html", values)


def _days(said: str | None) -> int:
    """The span that is asked for; the usual one where that is none."""
    return next((days for days in SPANS if str(days) == said), DAYS)


def state_labels(one: Explanation) -> list[str]:
    """What is the matter with a metric, worst first; `ok` where it is well."""
    state, status = one.state, one.judged.verdict.status if one.judged else one.state.status
    found = [f"waits: request {one.request.id}"] if one.request else []
    found += ["failed"] if state.error else []
    found += ["beyond its limit"] if one.judged and one.judged.limit else []
    found += ["stale"] if one.stale else []
    found += [status] if status in ("moderate", "major", "extreme") and not one.request else []
    found += ["not measured yet"] if one.reading is None and not state.error else []
    found += ["retired"] if state.retired_at else []
    return found or ["ok"]


def _reasons(shown: ExplanationView) -> Iterator[tuple[str, str]]:
    """The sentences of the verdict. A derived metric's inputs stand in a table of their own."""
    return (line for line in verdict_reasons(shown) if line[0] != "input")


def _changes(one: Explanation) -> Iterator[tuple[str, Markup, int | None]]:
    """What events told since the baseline, each line with its event's place in the log."""
    told = placed_lines(one.evidence, one.now) if one.evidence else ()
    return ((about, code_spans(sentence), seq) for about, sentence, seq in told)


def _inputs(shown: ExplanationView) -> Iterator[dict[str, Any]]:
    """What a derived metric reads, as its table tells it."""
    for each in shown.explanation.inputs:
        said = format_exact(each.value) if is_number(each.value) else shown.quoted(each.value)
        never = "a price" if each.name.startswith(f"{PRICES}.") else "never"
        parts = {"name": each.name, "as_of": each.as_of, "error": each.error, "due": each.due, "never": never}
        yield {**parts, "value": f"{said} {each.unit}".strip()}


@dataclass(frozen=True, slots=True)
class HistoryRow:
    """A reading as the table tells it. An age is as old as it was then."""

    reading: PastReading
    value: str
    drift: str
    done: str

    @classmethod
    def of(cls, config: Config, one: PastReading) -> HistoryRow:
        failed = one.method == "failed"
        value = NO_VALUE if failed else format_value(one.value, one.unit, config.metrics.get(one.metric), one.as_of)
        done = f"failed: {one.error}" if failed else done_text(one)
        return cls(one, value, format_drift(one.value, one.baseline, one.drift_pct), done)


@dataclass(frozen=True, slots=True)
class FormulaLinks:
    """The metrics that a formula reads, with where their pages are, and those that read this one."""

    inputs: dict[str, str]
    dependents: tuple[str, ...]


def formula_links(config: Config, name: str) -> FormulaLinks:
    metric = config.metrics.get(name)
    read = metric.inputs if isinstance(metric, DerivedMetric) else frozenset()
    formula = metric.derive if isinstance(metric, DerivedMetric) else ""
    inputs = {each: ".".join(each.split(".")[:2]) for each in re.findall(r"[a-z]\w*(?:\.\w+)+", formula)}
    known = {each: page for each, page in inputs.items() if page in read}
    return FormulaLinks(known, tuple(each for each, other in config.derived.items() if name in other.inputs))


def definition_lines(config: Config, name: str) -> list[str]:
    """The lines of a metric in the configuration, without what it says of policy; none of what is not configured."""
    metric = config.metrics.get(name)
    if metric is None:
        return []
    said = metric.model_dump(mode="json", exclude_unset=True, exclude={*Policy.model_fields, "description"})
    category, _, short = name.partition(".")
    text: str = yaml.safe_dump({category: {short: said}}, sort_keys=False, allow_unicode=True, width=100)
    return text.splitlines()


def policy_rows(one: Explanation) -> list[tuple[str, str, str]]:
    """Each key of the policy in force, its value, and where it is said."""
    if one.policy is None:
        return []
    return [
        (key, _plain(getattr(one.policy, key)), ExplanationView(one, None).origin(key)) for key in Policy.model_fields
    ]


def _plain(value: Any) -> str:
    if isinstance(value, Thresholds):
        return ", ".join(f"{key} {each:g} %" for key, each in value)
    if isinstance(value, timedelta):
        return in_a_word(value)
    if isinstance(value, list | tuple):
        return ", ".join(map(str, value)) or "anybody"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "none" if value is None else f"{value:g}" if isinstance(value, float) else str(value)


routes = [Route("/metrics/{name}", metric_page, name="metric")]
