"""`dims metrics`, `dims runs`: what is known."""

from __future__ import annotations

import click
from rich.text import Text

from dims_worker.cli.main import exit_with
from dims_worker.cli.session import Session, json_option, pass_session
from dims_worker.cli.tables import STYLES, plain_table, readings_table
from dims_worker.errors import NotFound
from dims_worker.formatting import NO_VALUE, escape_control, format_ago, format_duration, format_value
from dims_worker.store import metric_states
from dims_worker.store.approval_requests import open_requests
from dims_worker.store.engine import clock, transaction
from dims_worker.store.runs import list_runs, readings_of
from dims_worker.text.json_documents import facts, metric_document
from dims_worker.text.readings import reading_json


@click.command()
@click.argument("pattern", default="*")
@json_option
@pass_session
def metrics(session: Session, pattern: str, as_json: bool) -> None:
    """Every metric: last reading, baseline, age, and whether it is due, stale, failed or held.

    \b
    Examples:
      dims metrics
      dims metrics 's3_storage.*'
    """
    config = session.config
    names = sorted(config.select([pattern]))
    if not names:
        raise NotFound(f"no metric is called {pattern}: `dims metrics` lists them all")
    with session.database() as engine, transaction(engine) as connection:
        known, waiting, now = (
            metric_states.states_of(connection, names),
            open_requests(connection, names),
            clock(connection),
        )
    rows = [metric_document(config, known[name], waiting.get(name), now) for name in names]
    if as_json:
        session.print_json({"metrics": rows})
        return
    table = plain_table("metric", "last reading", "baseline", "measured", "state",
                        numbers=("last reading", "baseline"))  # fmt: skip
    for row in rows:
        state, metric = known[row["metric"]], config.metrics[row["metric"]]
        words = [word for word in ("stale", "due") if row[word]]
        words += [f"held: request {row['request']}"] if row["request"] else []
        words += [f"failed: {escape_control(state.error)}"] if state.error else []
        words += [] if metric.enabled else ["off"]
        table.add_row(
            state.metric,
            format_value(state.value, row["unit"], metric, now) if state.as_of else NO_VALUE,
            format_value(state.baseline, row["unit"], metric, now) if state.baseline_as_of else NO_VALUE,
            format_ago(state.as_of, now),
            Text(", ".join(words) or "ok", STYLES.get(row["status"], "")),
        )
    session.out.print(table)


@click.command()
@click.argument("run_id", type=int, required=False)
@click.option("--limit", type=click.IntRange(1, 10_000), default=20, show_default=True, help="How many to show.")
@click.option("--verbose", "-v", is_flag=True, help="The whole verdict of each reading.")
@json_option
@pass_session
def runs(session: Session, run_id: int | None, limit: int, verbose: bool, as_json: bool) -> None:
    """The latest runs, or one run's readings.

    \b
    Examples:
      dims runs
      dims runs 12 -v
    """
    if run_id is not None:
        _one_run(session, run_id, verbose=verbose, as_json=as_json)
        return
    with session.database() as engine, transaction(engine) as connection:
        found, now = list_runs(connection, limit=limit), clock(connection)
    if as_json:
        session.print_json({"runs": [facts(row) for row in found]})
        return
    table = plain_table("run", "when", "trigger", "source", "status", "readings", "failed", "held", "took",
                        numbers=("run", "readings", "failed", "held", "took"))  # fmt: skip
    for row in found:
        table.add_row(
            str(row.run_id), format_ago(row.started_at, now), row.trigger, row.source or "several",
            Text(row.status, "green" if row.status == "ok" else "magenta"),
            str(row.readings), str(row.failed), str(row.held), format_duration(row.finished_at - row.started_at),
        )  # fmt: skip
    session.out.print(table)


def _one_run(session: Session, run_id: int, *, verbose: bool, as_json: bool) -> None:
    with session.database() as engine, transaction(engine) as connection:
        found, now = readings_of(connection, [run_id]), clock(connection)
    if not found:
        raise NotFound(f"there is no run {run_id}: `dims runs` lists the latest")
    if as_json:
        session.print_json({"run": run_id, "metrics": [reading_json(session.config, one) for one in found]})
    else:
        session.out.print(readings_table(session.config, found, now, verbose=verbose))
    exit_with(0)
