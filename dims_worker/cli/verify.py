"""Define `dims verify`: measure now."""

from __future__ import annotations

import time
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import click
from rich.table import Table
from sqlalchemy import Engine

from dims_worker.cli import ci_formats
from dims_worker.cli.main import exit_with
from dims_worker.cli.session import Session, examples, json_option, pass_session
from dims_worker.cli.tables import readings_table
from dims_worker.cli.verify_result import VerifyResult
from dims_worker.config import Config, SourceMetric
from dims_worker.domain.decide import SEVERITIES, Severity
from dims_worker.domain.plan import Planner
from dims_worker.domain.run import Run, RunReading
from dims_worker.errors import MeasureError, NotFound, UsageError
from dims_worker.events import VERIFY_REQUESTED, Event
from dims_worker.formatting import pluralize
from dims_worker.pipeline.ingest import ReceivedEnvelope, register_config, store_events
from dims_worker.pipeline.verify import check_now, measure_due, worker_name
from dims_worker.store import leases, metric_states
from dims_worker.store.engine import transaction
from dims_worker.store.runs import PastReading, readings_of
from dims_worker.text.readings import reading_text

FORMATS = ("text", "json", "github", "junit")
FORMAT_HELP = "Use `github` (annotations) or `junit` (XML) in a build."
METRIC_HELP = "Measure only this metric; `*` matches any text. With --category, the name within the category is enough."
FAIL_ON_HELP = "Exit with code 1 for a reading or an incident of this severity or a higher one."
EXIT_CODES = (
    "Exit codes: 0 success, 1 a reading or an incident at or above --fail-on, or a held value, 2 wrong usage or "
    "configuration, 3 something could not be measured, 4 internal error."
)


@click.command(epilog=EXIT_CODES)
@examples(
    "dims verify                          check everything",
    "dims verify -c code_base -c git      check two categories",
    "dims verify --update --json | jq .   move baselines, print JSON",
    "dims verify --format junit > dims.xml",
)
@click.option("--category", "-c", "categories", multiple=True, help="Measure only this category. Repeatable.")
@click.option("--metric", "-m", "metrics", multiple=True, help=METRIC_HELP)
@click.option("--update", is_flag=True, help="Move baselines as the policy allows, and hold the rest for approval.")
@click.option("--fail-on", type=click.Choice(SEVERITIES[1:]), default="high", show_default=True, help=FAIL_ON_HELP)
@click.option("--quiet", "-q", is_flag=True, help="Print only one line.")
@click.option("--verbose", "-v", is_flag=True, help="Print the whole verdict: status, severity, tier, method and why.")
@click.option("--format", "form", type=click.Choice(FORMATS), default="text", show_default=True, help=FORMAT_HELP)
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
    """Measure metrics now and compare them with their baselines.

    Without --update, it checks only: it records the readings, and gives a metric without a baseline its first one, but
    it does not move any other baseline.

    The state of a metric is its health: `failing`, `waits for approval`, `beyond its limit`, `in the future`, `lost`,
    `drifted`, `stale`, `overdue`, `new` or `ok`. Where the exit code is not 0, the last line says why.
    """
    if as_json and form not in ("text", "json"):
        raise UsageError(f"--json and --format {form} exclude each other. Use one of them.")
    config = session.config
    names = select_metrics(session, categories, metrics)
    with session.database() as engine:
        with transaction(engine) as connection:
            register_config(connection, config, whole=update)  # a check does not retire metrics
        declared = [config.metrics[name] for name in config.with_inputs(names)]
        sources = {metric.source for metric in declared if isinstance(metric, SourceMetric)}
        counts = f"{pluralize(len(names), 'metric')} of {pluralize(len(sources), 'source')}"
        with session.err.status(f"measuring {counts} …"):
            runs = request(engine, config, names) if update else [check_now(engine, config, names)]
        with transaction(engine) as connection:
            result = VerifyResult.load(connection, config, runs, names, fail_on)
    if as_json or form == "json":
        session.print_json(result.document())
    elif form == "text":
        if not quiet:
            session.out.print(verified_table(result, verbose=verbose))
        session.print_text(result.summary())
    else:
        for line in ci_formats.github(result) if form == "github" else [ci_formats.junit(result)]:
            click.echo(line)  # without the terminal's own rendering, which can fold lines
    exit_with(result.exit_code)


def verified_table(result: VerifyResult, *, verbose: bool) -> Table:
    """Return a table of the readings, each with the health of its metric."""
    rows = ((reading, reading_text(reading, health), health.worst) for reading, health in result.measured)
    return readings_table(result.config, rows, result.now, verbose=verbose)


def select_metrics(session: Session, categories: Sequence[str], patterns: Sequence[str]) -> frozenset[str]:
    """Return the metrics that the options name. Raises NotFound for an option that matches nothing.

    A pattern without a category (`total_objects`) names a metric of the categories. Otherwise the options add up.
    """
    known = {name.partition(".")[0] for name in session.config.metrics}
    for category in categories:
        if category not in known:
            raise NotFound(f"there is no category {category}. The categories are {', '.join(sorted(known))}.")
    if categories and patterns and not any("." in pattern for pattern in patterns):
        patterns, categories = _patterns_in(session.config, categories, patterns), ()
    names = session.select_metrics([*patterns, *(f"{category}.*" for category in categories)] or ["*"])
    if not names:
        raise NotFound(f"{session.config.file} declares no metric that is enabled")
    return names


def _patterns_in(config: Config, categories: Sequence[str], patterns: Sequence[str]) -> list[str]:
    """Return the patterns with their categories. Raises NotFound for a pattern that matches in none of them."""
    found = []
    for pattern in patterns:
        inside = [full for category in categories if config.select([full := f"{category}.{pattern}"])]
        if not inside:
            where = " or ".join(categories)
            raise NotFound(f"no metric of {where} is called {pattern}. List the metrics with `dims metrics`.")
        found += inside
    return found


def request(engine: Engine, config: Config, names: frozenset[str]) -> list[Run]:
    """Store an event that requests these metrics, and measure them in this process, under the leases of their sources.

    It waits for no cooldown and no back-off. If a worker holds the lease of a source, the run of that worker can serve
    the request and is returned.
    """
    producer = f"dims:verify.{worker_name()}"
    event = Event.new(VERIFY_REQUESTED, producer, now=datetime.now(UTC), data={"metrics": sorted(names)})
    with transaction(engine) as connection:
        stored = store_events(connection, Planner(config), [ReceivedEnvelope("", event.to_json().encode())])
    runs: list[Run] = []
    for source in sorted(stored.sources):
        wanted = {n: g for n, g in stored.generations.items() if n in config.metrics_by_source[source]}
        runs += _serve(engine, config, source, wanted)
    return runs


def _serve(engine: Engine, config: Config, source: str, wanted: dict[str, int]) -> list[Run]:
    """Measure the requested metrics of one source, or wait for the worker that does."""
    end = time.monotonic() + (2 * config.sources[source].timeout + config.settings.lease).total_seconds()
    while time.monotonic() < end:
        run = measure_due(engine, config, source, at_once=True)
        if run is not None and any(item.outcome != "superseded" for item in run.items if item.metric in wanted):
            measured = {item.metric for item in run.items}
            others = {name: generation for name, generation in wanted.items() if name not in measured}
            return [*_served_by_others(engine, others), run]
        with transaction(engine) as connection:
            states = metric_states.read_states(connection, wanted)
            busy = leases.is_leased(connection, source)
        if not busy and all(states[name].measured_gen >= generation for name, generation in wanted.items()):
            return _served_by_others(engine, wanted)
        time.sleep(0.1)
    raise MeasureError(f"{source} is being scanned by another worker for too long. See `dims status`, then try again.")


def _served_by_others(engine: Engine, wanted: dict[str, int]) -> list[Run]:
    """Return the runs of other workers that measured these generations."""
    with transaction(engine) as connection:
        rows = leases.serving_runs(connection, wanted)
        readings = readings_of(connection, [row.run_id for row in rows])
    runs = []
    for row in rows:
        items = tuple(_run_reading(reading) for reading in readings if reading.run_id == row.run_id)
        times = row.started_at, row.finished_at
        runs.append(Run(row.run_id, row.trigger, row.source, row.status, *times, row.api_calls, items))
    return runs


def _run_reading(reading: PastReading) -> RunReading:
    fields: dict[str, Any] = {name: getattr(reading, name, None) for name in RunReading.__slots__}
    return RunReading(**fields)
