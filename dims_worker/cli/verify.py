"""`dims verify`: measure now. A look, or with --update an event like any other."""

from __future__ import annotations

import time
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import click
from sqlalchemy import Engine

from dims_worker.cli import ci_formats
from dims_worker.cli.main import exit_with
from dims_worker.cli.session import Session, json_option, pass_session
from dims_worker.cli.tables import readings_table
from dims_worker.config import Config, SourceMetric
from dims_worker.domain.decide import SEVERITIES, Severity, at_least
from dims_worker.domain.plan import Planner
from dims_worker.domain.run import Run, RunReading
from dims_worker.errors import MeasureError, NotFound, UsageError
from dims_worker.events import VERIFY_REQUESTED, Event
from dims_worker.formatting import pluralize
from dims_worker.pipeline.ingest import ReceivedEnvelope, register_config, store_events
from dims_worker.pipeline.verify import check_now, measure_due, worker_name
from dims_worker.store import leases, metric_states
from dims_worker.store.engine import clock, transaction
from dims_worker.store.runs import PastReading, readings_of
from dims_worker.text.readings import reading_json

FORMATS = ("text", "json", "github", "junit")


@click.command(epilog="Exit codes: 0 fine, 1 drift at or above --fail-on or a value held, 2 usage or config, "
               "3 something could not be measured, 4 internal error.")  # fmt: skip
@click.option("--category", "-c", "categories", multiple=True, help="Only this category (may be repeated).")
@click.option("--metric", "-m", "metrics", multiple=True, help="Only this metric; `*` stands for anything.")
@click.option("--update", is_flag=True, help="Accept what policy accepts as new baselines, hold what it holds.")
@click.option("--fail-on", type=click.Choice(SEVERITIES[1:]), default="high", show_default=True,
              help="The severity from which drift ends with exit code 1.")  # fmt: skip
@click.option("--quiet", "-q", is_flag=True, help="One line.")
@click.option("--verbose", "-v", is_flag=True, help="The whole verdict: status, severity, tier, method, why.")
@click.option("--format", "form", type=click.Choice(FORMATS), default="text", show_default=True,
              help="For a build: github (annotations) or junit (XML).")  # fmt: skip
@json_option
@pass_session
def verify(
    session: Session,
    categories: Sequence[str],
    metrics: Sequence[str],
    update: bool,
    fail_on: Severity,
    quiet: bool,
    verbose: bool,
    form: str,
    as_json: bool,
) -> None:
    """Measure now and compare with the baselines.

    Without --update this is a look: it records its readings, gives a metric that has no baseline its first
    one, and changes no other.

    \b
    Examples:
      dims verify                          everything
      dims verify -c code_base -c git      two categories
      dims verify --update --json | jq .   accept what policy accepts, as JSON
      dims verify --format junit > dims.xml
    """
    if as_json and form not in ("text", "json"):
        raise UsageError(f"say --json or --format {form}, not both")
    config = session.config
    names = select_metrics(config, categories, metrics)
    with session.database() as engine:
        with transaction(engine) as connection:
            register_config(connection, config, whole=update)  # a look changes nothing
        sources = {one.source for n in config.with_inputs(names) if isinstance(one := config.metrics[n], SourceMetric)}
        with session.err.status(
            f"measuring {pluralize(len(names), 'metric')} of {pluralize(len(sources), 'source')} …"
        ):
            runs = request(engine, config, names) if update else [check_now(engine, config, names)]
        with transaction(engine) as connection:
            now = clock(connection)
    items = [item for run in runs for item in run.items if item.metric in names or item.outcome == "held"]
    items.sort(key=lambda item: list(config.metrics).index(item.metric))
    form = "json" if as_json else form
    if form in ("github", "junit"):
        _print_for_build(session, runs, items, now, form, fail_on)
    else:
        _print(session, runs, items, now, as_json=form == "json", quiet=quiet, verbose=verbose)
    exit_with(exit_code(items, fail_on))


def select_metrics(config: Config, categories: Sequence[str], patterns: Sequence[str]) -> frozenset[str]:
    """The metrics that the options name. Raises NotFound for one that names nothing."""
    wanted = [*patterns, *(f"{category}.*" for category in categories)]
    for pattern in wanted:
        if not config.select([pattern]):
            raise NotFound(f"no metric is called {pattern}: `dims metrics` lists them")
    names = config.select(wanted or ["*"])
    if not names:
        raise NotFound(f"{config.file} declares no metric that is enabled")
    return names


def request(engine: Engine, config: Config, names: frozenset[str]) -> list[Run]:
    """An event that asks for these metrics, through ingest and the leases, served in this process.

    Waits for no cooldown and no back-off. Where a worker holds a source's lease, that worker's run may serve
    the request; then its run is what is shown.
    """
    event = Event.new(
        VERIFY_REQUESTED,
        f"dims:verify.{worker_name()}",
        now=datetime.now(UTC),
        data={"metrics": sorted(names)},
    )
    with transaction(engine) as connection:
        stored = store_events(connection, Planner(config), [ReceivedEnvelope("", event.to_json().encode())])
    runs: list[Run] = []
    for source in sorted(stored.sources):
        wanted = {n: g for n, g in stored.generations.items() if n in config.metrics_by_source[source]}
        runs += _serve(engine, config, source, wanted)
    return runs


def _serve(engine: Engine, config: Config, source: str, wanted: dict[str, int]) -> list[Run]:
    """Measure what was asked of one source, or wait for the worker that does."""
    bound = time.monotonic() + 2 * config.sources[source].timeout.total_seconds()
    bound += config.settings.lease.total_seconds()
    runs: list[Run] = []
    while time.monotonic() < bound:
        run = measure_due(engine, config, source, at_once=True)
        if run is not None and any(item.outcome != "superseded" for item in run.items if item.metric in wanted):
            measured = {item.metric for item in run.items}
            others = {name: generation for name, generation in wanted.items() if name not in measured}
            return [*runs, *_served_by_others(engine, others), run]
        with transaction(engine) as connection:
            known = metric_states.read_states(connection, wanted)
            busy = leases.is_leased(connection, source)
        if not busy and all(known[name].measured_gen >= generation for name, generation in wanted.items()):
            return [*runs, *_served_by_others(engine, wanted)]
        time.sleep(0.1)
    raise MeasureError(f"{source} is being scanned by another worker, and did not come free: see `dims status`")


def _served_by_others(engine: Engine, wanted: dict[str, int]) -> list[Run]:
    with transaction(engine) as connection:
        found = leases.serving_runs(connection, wanted)
        readings = readings_of(connection, [row.run_id for row in found])
    return [
        Run(
            row.run_id, row.trigger, row.source, row.status, row.started_at, row.finished_at, row.api_calls,
            tuple(_item(reading) for reading in readings if reading.run_id == row.run_id),
        )
        for row in found
    ]  # fmt: skip


def _item(reading: PastReading) -> RunReading:
    facts: dict[str, Any] = {name: getattr(reading, name, None) for name in RunReading.__slots__}
    return RunReading(**facts)


def exit_code(items: Sequence[RunReading], fail_on: Severity) -> int:
    """DESIGN section 8: 3 something could not be measured, 1 drift or a held value, 0 fine."""
    if any(item.method == "failed" for item in items):  # whatever became of the reading
        return 3
    drifted = any(item.severity in SEVERITIES and at_least(item.severity, fail_on) for item in items)
    return int(drifted or any(item.outcome == "held" for item in items))


def _print(
    session: Session,
    runs: Sequence[Run],
    items: Sequence[RunReading],
    now: datetime,
    *,
    as_json: bool,
    quiet: bool,
    verbose: bool,
) -> None:
    status = status_of(runs)
    if as_json:
        session.print_json(
            {
                "run": runs[0].run_id if len(runs) == 1 else None,
                "runs": [run.run_id for run in runs],
                "status": status,
                "api_calls": sum(run.api_calls for run in runs),
                "metrics": [reading_json(session.config, item) for item in items],
            }
        )
        return
    if not quiet:
        session.out.print(readings_table(session.config, items, now, verbose=verbose))
    session.out.print(summary_line(runs, items, status), soft_wrap=True)


def _print_for_build(
    session: Session, runs: Sequence[Run], items: Sequence[RunReading], now: datetime, form: str, fail_on: Severity
) -> None:
    """Past the terminal's own rendering: no line may be folded."""
    if form == "junit":
        click.echo(ci_formats.junit(session.config, items, now, fail_on, seconds_of(runs)))
        return
    for line in ci_formats.github(session.config, items, now, fail_on, summary_line(runs, items, status_of(runs))):
        click.echo(line)


def status_of(runs: Sequence[Run]) -> str:
    return "partial" if any(run.status == "partial" for run in runs) else "ok"


def seconds_of(runs: Sequence[Run]) -> float:
    return sum((run.finished_at - run.as_of).total_seconds() for run in runs)


def summary_line(runs: Sequence[Run], items: Sequence[RunReading], status: str) -> str:
    """One line: `run 3 ok: 12 metrics measured, 11 ok, 1 moderate`."""
    tally: dict[str, int] = {}
    for item in items:
        word = "held" if item.outcome == "held" else item.status or item.outcome
        tally[word] = tally.get(word, 0) + 1
    told = ", ".join(f"{number} {word}" for word, number in tally.items())
    numbers = ", ".join(str(run.run_id) for run in runs)
    seconds = seconds_of(runs)
    return (
        f"run {numbers} {status}: {pluralize(len(items), 'metric')} in {seconds:.2f} s: {told or 'nothing to measure'}"
    )
