"""`dims history METRIC`: how a metric went, as a picture and reading by reading."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import click
from rich.text import Text

from dims_worker.cli.session import Session, json_option, pass_session
from dims_worker.cli.tables import STYLES, plain_table
from dims_worker.cli.terminal_chart import ChartPoint, draw_chart
from dims_worker.config import Metric
from dims_worker.config.units import AGES
from dims_worker.domain.decide import age_of
from dims_worker.errors import NotFound
from dims_worker.formatting import NO_VALUE, escape_control, format_drift, format_number, format_value, pluralize
from dims_worker.store.engine import clock, transaction
from dims_worker.store.runs import PastReading, history_of
from dims_worker.text.readings import done_text, reading_json

PIPE_WIDTH = 100
"""Columns of a picture that nobody watches."""
LARGEST = 1e308
"""An integer that no float holds is drawn as a text."""


@click.command()
@click.argument("metric")
@click.option("--days", type=click.FloatRange(min=0, min_open=True, max=36_500), default=30, show_default=True,
              help="How far back.")  # fmt: skip
@click.option("--chart/--table", "as_chart", default=None,
              help="The picture, or reading by reading. On a terminal the picture, in a pipe the table.")  # fmt: skip
@json_option
@pass_session
def history(session: Session, metric: str, days: float, as_chart: bool | None, as_json: bool) -> None:
    """How a metric went: a picture of its readings and baselines, or each with its verdict, oldest first.

    \b
    Examples:
      dims history s3_storage.total_objects --days 90
      dims history s3_storage.total_objects --table
    """
    config = session.config
    with session.database() as engine, transaction(engine) as connection:
        found, now = history_of(connection, metric, timedelta(days=days)), clock(connection)
    if not found and metric not in config.metrics:
        raise NotFound(f"no metric is called {metric}: `dims metrics` lists them")
    if as_json:
        readings = [{**reading_json(config, one), "run": one.run_id} for one in found]
        session.print_json({"metric": metric, "readings": readings})
        return
    if as_chart is None:
        as_chart = session.out.is_terminal
    if as_chart and found:
        _draw(session, found, config.metrics.get(metric), now - timedelta(days=days), now)
    elif not as_chart:
        _list(session, found, config.metrics.get(metric))
    session.out.print(f"{metric}: {pluralize(len(found), 'reading')} in {days:g} days (times are UTC)", soft_wrap=True)


def _list(session: Session, found: list[PastReading], declared: Metric | None) -> None:
    table = plain_table("as of", "run", "value", "drift", "status", "done", numbers=("run", "value", "drift"))
    for one in found:
        failed = one.method == "failed"
        table.add_row(
            one.as_of.strftime("%Y-%m-%d %H:%M:%S"),
            str(one.run_id),
            "unavailable" if failed else format_value(one.value, one.unit, declared, one.as_of),
            format_drift(one.value, one.baseline, one.drift_pct),
            Text(one.status or NO_VALUE, STYLES.get(one.status or "", "")),
            f"failed: {escape_control(one.error)}" if failed else done_text(one),
        )
    session.out.print(table)


def _draw(session: Session, found: list[PastReading], declared: Metric | None, since: datetime, now: datetime) -> None:
    """From the first reading on, where the span began before it; superseded and provisional ones are left out."""
    age = declared is not None and declared.is_age
    unit = found[-1].unit
    dots = [
        ChartPoint(
            one.as_of,
            _outcome(one),
            _value(one, one.value, age),
            _judged_against(one, age),
        )
        for one in found
        if one.outcome not in ("superseded", "provisional")
    ]
    if not dots:
        return
    width = session.out.width if session.out.is_terminal else PIPE_WIDTH

    def label(value: Any) -> str:
        if isinstance(value, str):
            return value if len(value) <= width // 3 else f"{value[: width // 3 - 1]}…"
        return f"{format_number(value, declared.precision if declared else None)} {unit}".strip()

    plain = "utf" not in session.out.encoding.lower()
    for line in draw_chart(dots, max(since, dots[0].at), now, width, label, plain=plain):
        session.out.print(line, no_wrap=True, overflow="ignore", crop=False, soft_wrap=True)


def _outcome(one: PastReading) -> str:
    return "failed" if one.method == "failed" else one.outcome


def _judged_against(one: PastReading, age: bool) -> float | str | None:
    """Of the first reading that is nothing, and of an age it tells nothing: its limit judges it."""
    return None if one.status in (None, "new") or age else _value(one, one.baseline, age)


def _value(one: PastReading, value: Any, age: bool) -> float | str | None:
    """A reading's value or baseline as it is drawn: an age in its unit, when the reading began."""
    if one.method == "failed":
        return None
    if age and isinstance(value, str):
        seconds = age_of(value, one.as_of)
        return None if seconds is None else seconds / AGES[one.unit]
    if isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= LARGEST:
        return value
    if value is None:
        return None if age else "null"
    return format_value(value, one.unit, None, one.as_of)
