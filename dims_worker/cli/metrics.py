"""Define `dims metrics` and `dims runs`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import click
from rich.text import Text

from dims_worker.cli.main import exit_with
from dims_worker.cli.session import Session, examples, json_option, limit_option, pass_session
from dims_worker.cli.tables import HEALTH_STYLES, plain_table, readings_table
from dims_worker.config import Config
from dims_worker.domain.health import Flag, Health, incidents_by_metric, metric_health
from dims_worker.errors import NotFound
from dims_worker.formatting import NO_VALUE, format_ago, format_duration, format_value
from dims_worker.store.approval_requests import ApprovalRequest, open_requests
from dims_worker.store.engine import clock, transaction
from dims_worker.store.incidents import open_incidents
from dims_worker.store.metric_states import MetricState, states_of
from dims_worker.store.runs import PastReading, list_runs, readings_of
from dims_worker.text.json_documents import facts, metric_document
from dims_worker.text.readings import held_requests, past_health, past_reading_text, reading_json, request_number


@click.command()
@examples("dims metrics", "dims metrics 's3_storage.*'")
@click.argument("pattern", default="*")
@json_option
@pass_session
def metrics(session: Session, pattern: str, as_json: bool) -> None:
    """List the metrics with their last reading, baseline and state.

    PATTERN limits the list, and `*` matches anything. The state is the health of a metric, the worst first:
    `failing`, `waits for approval`, `beyond its limit`, `in the future` (of a time), `lost` or `drifted`, `stale` (not
    measured for too long), `overdue` (an event waits too long for a reading), `new`, `not measured yet`, `ok` or `off`.
    `approximate`, `measured while …` and `absent` are doubts about a value. `due` says that an event waits for a
    reading.
    """
    names = sorted(session.select_metrics([pattern]))
    with session.database() as engine, transaction(engine) as connection:
        states, requests, now = states_of(connection, names), open_requests(connection, names), clock(connection)
        incidents = incidents_by_metric(open_incidents(connection, names))
    rows = [
        metric_document(session.config, states[name], incidents.get(name, ()), requests.get(name), now)
        for name in names
    ]
    if as_json:
        session.print_json({"metrics": rows})
        return
    columns = ("metric", "last reading", "baseline", "measured", "state")
    table = plain_table(*columns, numbers=("last reading", "baseline"))
    for row in rows:
        state, metric = states[row["metric"]], session.config.metrics[row["metric"]]
        value = format_value(state.value, row["unit"], metric, now) if state.as_of else NO_VALUE
        baseline = format_value(state.baseline, row["unit"], metric, now) if state.baseline_as_of else NO_VALUE
        health = metric_health(session.config, state, incidents.get(state.metric, ()), now)
        text = Text(_state_text(health, state), HEALTH_STYLES[health.worst])
        table.add_row(state.metric, value, baseline, format_ago(state.as_of, now), text)
    session.out.print(table)


def _state_text(health: Health, state: MetricState) -> str:
    """Return the health with its reasons, and whether an event waits for a reading."""
    due = "due" if state.due and "overdue" not in health.flags else ""
    return "; ".join(text for text in (health.explained(), due) if text)


@click.command()
@examples("dims runs", "dims runs 12 -v")
@click.argument("run_id", type=int, required=False)
@limit_option()
@click.option("--verbose", "-v", is_flag=True, help="Print the whole verdict of each reading.")
@json_option
@pass_session
def runs(session: Session, run_id: int | None, limit: int, verbose: bool, as_json: bool) -> None:
    """List the latest runs, or show the readings of one run.

    A run measures the due metrics of one source, together.
    """
    if run_id is not None:
        _show_run(session, run_id, verbose=verbose, as_json=as_json)
        return
    with session.database() as engine, transaction(engine) as connection:
        rows, now = list_runs(connection, limit=limit), clock(connection)
    if as_json:
        session.print_json({"runs": [facts(row) for row in rows]})
        return
    columns = ("run", "when", "trigger", "source", "status", "readings", "failed", "held", "took")
    table = plain_table(*columns, numbers=("run", "readings", "failed", "held", "took"))
    for row in rows:
        started, took = format_ago(row.started_at, now), format_duration(row.finished_at - row.started_at)
        status = Text(row.status, "green" if row.status == "ok" else "magenta")
        counts = str(row.readings), str(row.failed), str(row.held)
        table.add_row(str(row.run_id), started, row.trigger, row.source or "several", status, *counts, took)
    session.out.print(table)


def _show_run(session: Session, run_id: int, *, verbose: bool, as_json: bool) -> None:
    with session.database() as engine, transaction(engine) as connection:
        readings, now = readings_of(connection, [run_id]), clock(connection)
        requests = held_requests(connection, readings)
    if not readings:
        raise NotFound(f"there is no run {run_id}. List the latest with `dims runs`.")
    if as_json:
        rows = [_past_document(session.config, reading, requests) for reading in readings]
        session.print_json({"run": run_id, "metrics": rows})
    else:
        lines = (_past_row(session.config, reading, requests) for reading in readings)
        session.out.print(readings_table(session.config, lines, now, verbose=verbose))
    exit_with(0)


def _past_row(
    config: Config, reading: PastReading, requests: Mapping[str, ApprovalRequest]
) -> tuple[PastReading, str, Flag | None]:
    number = request_number(reading, requests)
    health = past_health(config, reading, number)
    return reading, past_reading_text(config, reading, number), health.worst if health else None


def _past_document(config: Config, reading: PastReading, requests: Mapping[str, ApprovalRequest]) -> dict[str, Any]:
    health = past_health(config, reading, request_number(reading, requests))
    return {**reading_json(config, reading), "label": health.label if health else None}
