"""`dims workflow`: run one, list them, or tell again what the last run found."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click
from rich.markup import escape
from rich.text import Text
from sqlalchemy import Engine

from dims_worker import workflows
from dims_worker.cli.main import exit_with
from dims_worker.cli.session import Session, json_option, pass_session
from dims_worker.cli.tables import plain_table
from dims_worker.config import Config
from dims_worker.config.runtime import WORKFLOW
from dims_worker.domain.plan import Planner
from dims_worker.errors import MeasureError, NotFound, UsageError
from dims_worker.events import WORKFLOW_REQUESTED, Event
from dims_worker.formatting import NO_VALUE, escape_control, format_ago, pluralize
from dims_worker.pipeline.ingest import ReceivedEnvelope, register_config, store_events
from dims_worker.pipeline.verify import WorkflowOptions, measure_due, worker_name
from dims_worker.store import leases, metric_states
from dims_worker.store.engine import clock, transaction
from dims_worker.store.runs import RunRow, last_result, result_of, runs_by_number

ALIASES = {"all": "audit"}
SYNC_STATUS = "sync-status"
STYLES = {"ok": "green", "attention": "yellow", "failed": "magenta"}
SHOWN = 10
"""So many sentences for people are printed; the report has them all."""


@dataclass(frozen=True, slots=True)
class RecordedResult:
    """A run as it was recorded, and all that it found."""

    run: RunRow
    result: Mapping[str, Any]

    @property
    def name(self) -> str:
        return str(self.result["workflow"])

    @property
    def exit_code(self) -> int:
        """3: a source was not reached, or a metric not measured; 1: sync-status found the sides not synced."""
        if self.result["unreached"] or self.run.failed:
            return 3
        return int(self.name == SYNC_STATUS and not self.result["synced"])


@click.command(epilog="Exit codes: 0 fine, 1 sync-status: not synced, 2 usage or config, 3 a source was not reached, "
               "4 internal error.")  # fmt: skip
@click.argument("name", required=False)
@click.option("--quick/--full", "quick", default=False, help="Leave out what takes long, or nothing (the default).")
@click.option("--report", type=click.Path(path_type=Path, dir_okay=False), metavar="FILE",
              help="Write the report here: Markdown, or JSON where it ends in .json.")  # fmt: skip
@click.option("--with-costs", is_flag=True, help="aws-inventory: ask Cost Explorer, too (0.01 USD per API call).")
@click.option("--last", is_flag=True, help="Print the report of the last run, and scan nothing.")
@json_option
@pass_session
def workflow(
    session: Session, name: str | None, quick: bool, report: Path | None, with_costs: bool, last: bool, as_json: bool
) -> None:
    """Run a workflow, record what it found and write its report. Without NAME: list them.

    \b
    Examples:
      dims workflow                            the workflows and their last runs
      dims workflow gap-analysis               every missing game by name
      dims workflow aws-inventory --with-costs --json | jq .cost
      dims workflow sync-status --last         what the last run found
      dims workflow all                        the same as audit
    """
    config = session.config
    if name is None:
        _list(session, as_json=as_json)
        return
    name = _known(config, name)
    with session.database() as engine:
        if last:
            found = _last(engine, name)
        else:
            options = frozenset({"with-costs"} if with_costs else ())
            with session.err.status(f"running {name} …") as shown:
                how = WorkflowOptions(
                    quick, options, lambda said: shown.update(f"{name}: {escape(escape_control(said))}")
                )
                found = _run(engine, config, name, how)
    _tell(session, found, report, as_json=as_json, last=last)
    exit_with(found.exit_code)


def _known(config: Config, name: str) -> str:
    """A configured workflow's name. Raises NotFound."""
    name = ALIASES.get(name, name)
    if name not in config.configured_workflows:
        there_are = ", ".join(config.configured_workflows) or "none"
        raise NotFound(
            f"the workflow {escape_control(name)} is not configured in {config.file}; there are: {there_are}"
        )
    return name


def _last(engine: Engine, name: str) -> RecordedResult:
    with transaction(engine) as connection:
        found = last_result(connection, f"{WORKFLOW}{name}")
    if found is None:
        raise NotFound(f"{name} was never run: `dims workflow {name}` runs it")
    return RecordedResult(*found)


def _run(engine: Engine, config: Config, name: str, how: WorkflowOptions) -> RecordedResult:
    """An event that asks for the workflow, through ingest and the lease, served in this process.

    Waits for no back-off. Where a worker holds the workflow, its run may serve the request, as configured.
    """
    source = f"{WORKFLOW}{name}"
    producer = f"dims:workflow.{worker_name()}"
    event = Event.new(WORKFLOW_REQUESTED, producer, now=datetime.now(UTC), data={"workflow": name})
    with transaction(engine) as connection:
        register_config(connection, config, whole=False)
        stored = store_events(connection, Planner(config), [ReceivedEnvelope("", event.to_json().encode())])
    run_id = _serve(engine, config, source, stored.generations, how)
    with transaction(engine) as connection:
        result = result_of(connection, run_id)
        (run,) = runs_by_number(connection, [run_id])
    assert result is not None
    return RecordedResult(run, result)


def _serve(engine: Engine, config: Config, source: str, wanted: dict[str, int], how: WorkflowOptions) -> int:
    """Run what was asked for, or wait for the worker that does; the run's number."""
    declared = config.workflow_of(source)
    assert declared is not None
    bound = time.monotonic() + (2 * declared.timeout + config.settings.lease).total_seconds()
    while time.monotonic() < bound:
        run = measure_due(engine, config, source, at_once=True, options=how)
        if run is not None and run.status != "superseded":
            return run.run_id
        with transaction(engine) as connection:
            known = metric_states.read_states(connection, wanted)
            busy = leases.is_leased(connection, source)
            served = leases.serving_runs(connection, wanted)
        if not busy and served and all(known[one].measured_gen >= gen for one, gen in wanted.items()):
            return served[-1].run_id
        time.sleep(0.1)
    raise MeasureError(f"{source} is being run by another worker, and did not come free: see `dims status`")


# --- what is printed --------------------------------------------------------------------------------


def _tell(session: Session, found: RecordedResult, report: Path | None, *, as_json: bool, last: bool) -> None:
    """The report written, and the figures or the whole document printed; what was not reached on stderr."""
    path = _report_path(session, found, report, last=last)
    changed = _write(path, found.result) if path else False
    if as_json:
        where = {"report": str(path) if path else None, "report_changed": changed}
        head = {"run": found.run.run_id, "outcome": workflows.result_status(found.result)}
        session.print_json({**head, **found.result, **where})
    elif last:
        click.echo(workflows.render_report(found.result), nl=False)
    else:
        _print(session, found)
        session.out.print(_where(session, path, changed), soft_wrap=True, markup=False)
    for source, reason in sorted(found.result["unreached"].items()):
        click.echo(f"dims: {escape_control(source)} was not reached: {escape_control(reason)}", err=True)
    if found.run.failed and not found.result["unreached"]:
        click.echo(f"dims: {pluralize(found.run.failed, 'metric')} could not be measured: `dims runs {found.run.run_id}`",
                   err=True)  # fmt: skip


def _report_path(session: Session, found: RecordedResult, report: Path | None, *, last: bool) -> Path | None:
    """Where the report goes: where it was asked for, else, after a run, where it is configured."""
    if report is not None:
        return session.cwd / report.expanduser()
    declared = session.config.workflow_of(f"{WORKFLOW}{found.name}")
    return None if last or declared is None or declared.report is None else session.config.path_of(declared.report)


def _write(path: Path, result: Mapping[str, Any]) -> bool:
    try:
        return workflows.write_report(path, result)
    except OSError as error:
        raise UsageError(f"the report cannot be written to {path}: {error.strerror}") from None


def _print(session: Session, found: RecordedResult) -> None:
    table = plain_table("what", "figure", numbers=("figure",))
    for what, value in workflows.result_summary(found.result):
        table.add_row(escape_control(what), escape_control(value))
    if table.row_count:
        session.out.print(table)
    attention = found.result.get("attention", ())
    for one in attention[:SHOWN]:
        session.out.print(f"- {escape_control(one)}", soft_wrap=True, markup=False)
    if len(attention) > SHOWN:
        session.out.print(f"- and {len(attention) - SHOWN:,} more", soft_wrap=True)
    status = workflows.result_status(found.result)
    took = (found.run.finished_at - found.run.started_at).total_seconds()
    line = Text(f"run {found.run.run_id} {status}", STYLES[status])
    line.append(f": {found.name} in {took:.2f} s, {pluralize(found.run.api_calls, 'API call')}", "default")
    session.out.print(line, soft_wrap=True)


def _where(session: Session, path: Path | None, changed: bool) -> str:
    if path is None:
        return "no report is configured: --report FILE writes one, --last prints it"
    inside = path.is_relative_to(session.cwd)
    name = escape_control(path.relative_to(session.cwd) if inside else path)
    return f"report: {name} ({'written' if changed else 'unchanged'})"


def _list(session: Session, *, as_json: bool) -> None:
    """The configured workflows and what their last runs came to."""
    config = session.config
    with session.database() as engine, transaction(engine) as connection:
        last = {name: last_result(connection, f"{WORKFLOW}{name}") for name in config.configured_workflows}
        now = clock(connection)
    rows: list[dict[str, Any]] = []
    for name, found in last.items():
        declared = config.workflow_of(f"{WORKFLOW}{name}")
        rows.append(
            {
                "workflow": name,
                "run": found[0].run_id if found else None,
                "when": found[0].started_at if found else None,
                "outcome": workflows.result_status(found[1]) if found else None,
                "report": declared.report if declared else None,
            }
        )
    if as_json:
        session.print_json({"workflows": rows})
        return
    if not rows:
        session.out.print(f"no workflow is configured in {config.file}: see `workflows:` in docs/workflows.md",
                          soft_wrap=True, markup=False)  # fmt: skip
        return
    table = plain_table("workflow", "run", "when", "outcome", "report", numbers=("run",))
    for row in rows:
        table.add_row(
            row["workflow"],
            str(row["run"] or NO_VALUE),
            format_ago(row["when"], now),
            Text(row["outcome"] or NO_VALUE, STYLES.get(row["outcome"] or "", "dim")),
            escape_control(row["report"] or NO_VALUE),
        )
    session.out.print(table)
