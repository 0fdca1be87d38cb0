"""Define `dims history`: the readings of a metric, as a chart or a table."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

import click
from rich.text import Text

from dims_worker.analysis.bands import expected_text, is_outside_band
from dims_worker.cli.session import Session, examples, json_option, pass_session
from dims_worker.cli.tables import STYLES, plain_table
from dims_worker.cli.terminal_chart import ChartPoint, draw_chart
from dims_worker.config import Metric
from dims_worker.domain.decide import age_of
from dims_worker.errors import NotFound
from dims_worker.formatting import (
    NO_VALUE,
    format_drift,
    format_number,
    format_utc_seconds,
    format_value,
    pluralize,
)
from dims_worker.numbers import is_number
from dims_worker.store.approval_requests import ApprovalRequest
from dims_worker.store.engine import clock, transaction
from dims_worker.store.history import UNMARKED_OUTCOMES
from dims_worker.store.incidents import Incident, incidents_since
from dims_worker.store.runs import PastReading, history_of
from dims_worker.text.incidents import incident_document, incident_span
from dims_worker.text.readings import held_requests, past_reading_text, reading_json, request_number

PIPE_WIDTH = 100
"""Columns of a chart that is written to a pipe."""
DAYS = click.FloatRange(min=0, min_open=True, max=36_500)
LARGEST_NUMBER = 1e308
"""A larger integer does not fit a float, so it is drawn as a text."""


@click.command()
@examples("dims history s3_storage.total_objects --days 90", "dims history s3_storage.total_objects --table")
@click.argument("metric")
@click.option("--days", type=DAYS, default=30, show_default=True, help="Go back this many days.")
@click.option(
    "--chart/--table",
    "as_chart",
    default=None,
    help="Draw a chart, or list each reading. Default: a chart on a terminal, a table in a pipe.",
)
@json_option
@pass_session
def history(session: Session, metric: str, days: float, as_chart: bool | None, as_json: bool) -> None:
    """Show the past readings of a metric, as a chart or a table."""
    config = session.config
    declared = config.metrics.get(metric)
    with session.database() as engine, transaction(engine) as connection:
        readings, now = history_of(connection, metric, timedelta(days=days)), clock(connection)
        requests = held_requests(connection, readings)
        incidents = incidents_since(connection, metric, now - timedelta(days=days))
    if not readings and declared is None:
        raise NotFound(f"no metric is called {metric}. List the metrics with `dims metrics`.")
    if as_json:
        rows = [{**reading_json(config, reading), "run": reading.run_id} for reading in readings]
        documents = [incident_document(config, incident, now) for incident in incidents]
        session.print_json({"metric": metric, "readings": rows, "incidents": documents})
        return
    if as_chart is None:
        as_chart = session.out.is_terminal
    if as_chart and readings:
        _print_chart(session, readings, declared, now - timedelta(days=days), now)
    elif not as_chart:
        _print_table(session, readings, declared, requests, incidents)
    for incident in incidents:
        session.print_text(incident_span(config, incident, now))
    session.print_text(f"{metric}: {pluralize(len(readings), 'reading')} in {days:g} days (times are UTC)")


def _print_table(
    session: Session,
    readings: list[PastReading],
    declared: Metric | None,
    requests: Mapping[str, ApprovalRequest],
    incidents: Sequence[Incident],
) -> None:
    """Print a row for each reading. The last column names the incidents during which it was measured."""
    names = ["as of", "run", "value", "expected", "drift", "status", "state", "incident"]
    if all(reading.expected_low is None for reading in readings):
        names.remove("expected")
    if not incidents:
        names.remove("incident")
    table = plain_table(*names, numbers=("run", "value", "expected", "drift"))
    for reading in readings:
        value = format_value(reading.value, reading.unit, declared, reading.as_of)
        state = past_reading_text(session.config, reading, request_number(reading, requests))
        if reading.method == "failed":
            value = "unavailable"
        drift = format_drift(reading.value, reading.baseline, reading.drift_pct)
        status = Text(reading.status or NO_VALUE, STYLES.get(reading.status or "", ""))
        during = ", ".join(str(incident.id) for incident in incidents if incident.lasted_at(reading.as_of))
        cells: dict[str, str | Text] = {
            "as of": format_utc_seconds(reading.as_of),
            "run": str(reading.run_id),
            "value": value,
            "expected": expected_text(reading) or NO_VALUE,
            "drift": drift,
            "status": status,
            "state": state,
            "incident": during,
        }
        table.add_row(*(cells[name] for name in names))
    session.out.print(table)


def _print_chart(
    session: Session, readings: list[PastReading], declared: Metric | None, since: datetime, now: datetime
) -> None:
    """Draw the readings from the first one on, without superseded and provisional ones."""
    is_age = declared is not None and declared.is_age
    unit = readings[-1].unit
    points = [
        ChartPoint(
            reading.as_of,
            _chart_outcome(reading),
            _chart_value(reading, reading.value, is_age),
            _chart_baseline(reading, is_age),
            _chart_band(reading),
        )
        for reading in readings
        if reading.outcome not in ("superseded", "provisional")
    ]
    if not points:
        return
    width = session.out.width if session.out.is_terminal else PIPE_WIDTH

    def label(value: Any) -> str:
        if isinstance(value, str):
            return value if len(value) <= width // 3 else f"{value[: width // 3 - 1]}…"
        return f"{format_number(value, declared.precision if declared else None)} {unit}".strip()

    plain = "utf" not in session.out.encoding.lower()
    without = sum(point.value is None and point.outcome != "failed" for point in points)
    if without:
        session.print_text(f"{pluralize(without, 'reading')} not drawn: absent, or in the future. See --table.")
    for line in draw_chart(points, max(since, points[0].at), now, width, label, plain=plain):
        session.out.print(line, no_wrap=True, overflow="ignore", crop=False, soft_wrap=True)


def _chart_outcome(reading: PastReading) -> str:
    """Return the outcome of a reading, or `outside` if no person decided it and it is outside its band."""
    if reading.method == "failed":
        return "failed"
    is_outside = reading.outcome in UNMARKED_OUTCOMES and is_outside_band(reading)
    return "outside" if is_outside else reading.outcome


def _chart_band(reading: PastReading) -> tuple[float, float] | None:
    """Return the band of a reading, or None if it has none. The axis of whole numbers has whole numbers."""
    low, high = reading.expected_low, reading.expected_high
    if low is None or high is None:
        return None
    if isinstance(reading.value, int) and math.ceil(low) <= math.floor(high):
        return math.ceil(low), math.floor(high)
    return low, high


def _chart_baseline(reading: PastReading, is_age: bool) -> float | str | None:
    """Return the baseline, or None for a first reading and for an age, which is compared with a limit instead."""
    return None if reading.status in (None, "new") or is_age else _chart_value(reading, reading.baseline, is_age)


def _chart_value(reading: PastReading, value: Any, is_age: bool) -> float | str | None:
    """Return a value or baseline as it is drawn. An age is in its unit, at the time of the reading."""
    if reading.method == "failed":
        return None
    if is_age and isinstance(value, str):
        return age_of(value, reading.as_of, reading.unit)
    if is_number(value) and -LARGEST_NUMBER <= value <= LARGEST_NUMBER:
        return float(value) if isinstance(value, Decimal) else value
    if value is None:
        return None if is_age else "null"
    return format_value(value, reading.unit, None, reading.as_of)
