"""Define `dims workflow`: list workflows, run one, or print the result of its last run."""

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
from dims_worker.cli.session import FILE, Session, examples, json_option, pass_session
from dims_worker.cli.tables import plain_table
from dims_worker.config import WITH_COSTS, Config
from dims_worker.config.runtime import WORKFLOW
from dims_worker.config.workflows import AUDIT, SYNC_STATUS
from dims_worker.domain.plan import Planner
from dims_worker.errors import MeasureError, NotFound, UsageError
from dims_worker.events import WORKFLOW_REQUESTED, Event
from dims_worker.formatting import NO_VALUE, escape_control, format_ago, format_duration, pluralize
from dims_worker.pipeline.ingest import ReceivedEnvelope, register_config, store_events
from dims_worker.pipeline.verify import WorkflowOptions, measure_due, worker_name
from dims_worker.store import leases, metric_states
from dims_worker.store.engine import clock, transaction
from dims_worker.store.runs import RunRow, last_result, result_of, runs_by_number

ALIASES = {
    "all": AUDIT,
    **{"13": "file-inventory", "45": "local-inventory", "46": "gap-analysis", "47": "aws-inventory"},
    "49": "sync-status",
}
"""Other names of workflows. The original DIMS had numbers."""
STYLES = {"ok": "green", "attention": "yellow", "failed": "magenta"}
MOST_SENTENCES = 10
"""At most this many sentences are printed. The report contains all of them."""
REPORT_HELP = "Write the report to this file, as JSON if it ends in .json and as Markdown otherwise."


@dataclass(frozen=True, slots=True)
class RecordedResult:
    """A recorded run and its whole result."""

    run: RunRow
    result: Mapping[str, Any]

    @property
    def name(self) -> str:
        return str(self.result["workflow"])

    @property
    def exit_code(self) -> int:
        """3 if a source was not reached or a metric not measured, 1 if sync-status found a difference, else 0."""
        if self.result["unreached"] or self.run.failed:
            return 3
        return int(self.name == SYNC_STATUS and not self.result["synced"])


EXIT_CODES = (
    "Exit codes: 0 success, 1 sync-status found a difference, 2 wrong usage or configuration, "
    "3 a source was not reached, 4 internal error."
)


@click.command(epilog=EXIT_CODES)
@examples(
    "dims workflow                            list the workflows",
    "dims workflow gap-analysis               find missing games",
    "dims workflow aws-inventory --with-costs --json | jq .cost",
    "dims workflow sync-status --last         print the last result",
    "dims workflow all                        run every workflow, as audit does",
)
@click.argument("name", required=False)
@click.option("--quick/--full", "quick", default=False, help="Skip slow steps, or run every step. Default: --full.")
@click.option("--report", type=FILE, help=REPORT_HELP)
@click.option("--with-costs", is_flag=True, help="With aws-inventory, query Cost Explorer (0.01 USD per API call).")
@click.option("--last", is_flag=True, help="Print the report of the last run instead of running.")
@json_option
@pass_session
def workflow(
    session: Session, name: str | None, quick: bool, report: Path | None, with_costs: bool, last: bool, as_json: bool
) -> None:
    """List the workflows, or run one and write its report.

    A workflow is a longer analysis with a report, such as an inventory of an AWS account. Without NAME, it lists the
    configured workflows and their last runs.
    """
    config = session.config
    if name is None:
        _list(session, as_json=as_json)
        return
    name = _configured_name(config, name)
    with session.database() as engine:
        recorded = _last(engine, name) if last else _run_with_progress(session, engine, name, quick, with_costs)
    _print_result(session, recorded, report, as_json=as_json, last=last)
    exit_with(recorded.exit_code)


def _configured_name(config: Config, name: str) -> str:
    """Return the name of a configured workflow. Raises NotFound."""
    name = ALIASES.get(name, name)
    if name not in config.configured_workflows:
        names = ", ".join(config.configured_workflows) or "none"
        raise NotFound(f"{config.file} does not configure the workflow {escape_control(name)}, but these: {names}")
    return name


def _last(engine: Engine, name: str) -> RecordedResult:
    with transaction(engine) as connection:
        last = last_result(connection, f"{WORKFLOW}{name}")
    if last is None:
        raise NotFound(f"{name} has no result yet. Run it with `dims workflow {name}`.")
    return RecordedResult(*last)


def _run_with_progress(session: Session, engine: Engine, name: str, quick: bool, with_costs: bool) -> RecordedResult:
    with session.err.status(f"running {name} …") as status:

        def show_progress(step: str) -> None:
            status.update(f"{name}: {escape(escape_control(step))}")

        wanted = frozenset({WITH_COSTS} if with_costs else ())
        options = WorkflowOptions(quick, wanted, show_progress, with_metrics=True)
        return _run(engine, session.config, name, options)


def _run(engine: Engine, config: Config, name: str, options: WorkflowOptions) -> RecordedResult:
    """Store an event that requests the workflow, and run it in this process, under its lease. This is a check: the
    workflow measures its metrics itself, and they are not due.

    It waits for no back-off. If a worker holds the lease, a later run can serve the request. The event has its options,
    so they also hold for that run and for a retry.
    """
    source = f"{WORKFLOW}{name}"
    producer = f"dims:workflow.{worker_name()}"
    data = {"workflow": name, "check": True, "quick": options.quick, "options": sorted(options.options)}
    event = Event.new(WORKFLOW_REQUESTED, producer, now=datetime.now(UTC), data=data)
    with transaction(engine) as connection:
        register_config(connection, config, whole=False)
        stored = store_events(connection, Planner(config), [ReceivedEnvelope("", event.to_json().encode())])
    run_id = _serve(engine, config, source, stored.generations, options)
    with transaction(engine) as connection:
        result = result_of(connection, run_id)
        (run,) = runs_by_number(connection, [run_id])
    assert result is not None
    return RecordedResult(run, result)


def _serve(engine: Engine, config: Config, source: str, wanted: dict[str, int], options: WorkflowOptions) -> int:
    """Run the requested workflow, or wait for the worker that does. Return the number of the run."""
    declared = config.workflow_of(source)
    assert declared is not None
    end = time.monotonic() + (2 * declared.timeout + config.settings.lease).total_seconds()
    while time.monotonic() < end:
        run = measure_due(engine, config, source, at_once=True, options=options)
        if run is not None and run.status != "superseded":
            return run.run_id
        with transaction(engine) as connection:
            states = metric_states.read_states(connection, wanted)
            busy = leases.is_leased(connection, source)
            served = leases.serving_runs(connection, wanted)
        if not busy and served and all(states[name].measured_gen >= gen for name, gen in wanted.items()):
            return served[-1].run_id
        time.sleep(0.1)
    raise MeasureError(f"{source} is being run by another worker for too long. See `dims status`, then try again.")


# --- output -----------------------------------------------------------------------------------------


def _print_result(
    session: Session, recorded: RecordedResult, report: Path | None, *, as_json: bool, last: bool
) -> None:
    """Write the report, and print the summary or the whole document. Problems go to standard error."""
    run, result = recorded.run, recorded.result
    path = _report_path(session, recorded, report, last=last)
    changed = _write_report(path, result) if path else False
    if as_json:
        written = {"report": str(path) if path else None, "report_changed": changed}
        session.print_json({"run": run.run_id, "outcome": workflows.result_status(result), **result, **written})
    elif last:
        click.echo(workflows.render_report(result), nl=False)
    else:
        _print_summary(session, recorded)
        session.print_text(_report_line(session, path, changed))
    for source, reason in sorted(result["unreached"].items()):
        click.echo(f"dims: {escape_control(source)} was not reached: {escape_control(reason)}", err=True)
    if run.failed and not result["unreached"]:
        failed = pluralize(run.failed, "metric")
        click.echo(f"dims: {failed} could not be measured. See `dims runs {run.run_id}`.", err=True)


def _report_path(session: Session, recorded: RecordedResult, report: Path | None, *, last: bool) -> Path | None:
    """Return where the report goes: the option --report, or else, after a run, the configured path."""
    if report is not None:
        return session.cwd / report.expanduser()
    declared = session.config.workflow_of(f"{WORKFLOW}{recorded.name}")
    return None if last or declared is None or declared.report is None else session.config.path_of(declared.report)


def _write_report(path: Path, result: Mapping[str, Any]) -> bool:
    try:
        return workflows.write_report(path, result)
    except OSError as error:
        raise UsageError(
            f"the report cannot be written to {path}: {error.strerror}. Choose another file with --report."
        ) from None


def _print_summary(session: Session, recorded: RecordedResult) -> None:
    run, result = recorded.run, recorded.result
    table = plain_table("what", "figure", numbers=("figure",))
    for what, value in workflows.result_summary(result):
        table.add_row(escape_control(what), escape_control(value))
    if table.row_count:
        session.out.print(table)
    attention = result.get("attention", ())
    for sentence in attention[:MOST_SENTENCES]:
        session.print_text(f"- {escape_control(sentence)}")
    if len(attention) > MOST_SENTENCES:
        session.print_text(f"- and {len(attention) - MOST_SENTENCES:,} more")
    status = workflows.result_status(result)
    line = Text(f"run {run.run_id} {status}", STYLES[status])
    duration = format_duration(run.finished_at - run.started_at)
    line.append(f": {recorded.name} in {duration}, {pluralize(run.api_calls, 'API call')}", "default")
    session.out.print(line, soft_wrap=True)


def _report_line(session: Session, path: Path | None, changed: bool) -> str:
    if path is None:
        return "no report is configured. Write one with --report FILE, or print it with --last."
    inside = path.is_relative_to(session.cwd)
    name = escape_control(path.relative_to(session.cwd) if inside else path)
    return f"report: {name} ({'written' if changed else 'unchanged'})"


def _list(session: Session, *, as_json: bool) -> None:
    """List the configured workflows and the outcome of their last runs."""
    config = session.config
    with session.database() as engine, transaction(engine) as connection:
        results = {name: last_result(connection, f"{WORKFLOW}{name}") for name in config.configured_workflows}
        now = clock(connection)
    rows: list[dict[str, Any]] = []
    for name, last in results.items():
        declared = config.workflow_of(f"{WORKFLOW}{name}")
        rows.append(
            {
                "workflow": name,
                "run": last[0].run_id if last else None,
                "when": last[0].started_at if last else None,
                "outcome": workflows.result_status(last[1]) if last else None,
                "report": declared.report if declared else None,
            }
        )
    if as_json:
        session.print_json({"workflows": rows})
        return
    if not rows:
        session.print_text(f"{config.file} configures no workflow. See `workflows:` in docs/workflows.md.")
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
