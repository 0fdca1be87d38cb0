"""Define `dims verify`: measure now."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import click
from sqlalchemy import Engine

from dims_worker.cli import ci_formats
from dims_worker.cli.main import exit_with
from dims_worker.cli.session import Session, examples, json_option, pass_session
from dims_worker.cli.tables import readings_table
from dims_worker.config import Config, SourceMetric
from dims_worker.domain.decide import IN_FUTURE, SEVERITIES, Severity, at_least
from dims_worker.domain.plan import Planner
from dims_worker.domain.run import Run, RunReading
from dims_worker.errors import MeasureError, NotFound, UsageError
from dims_worker.events import VERIFY_REQUESTED, Event
from dims_worker.formatting import format_duration, pluralize
from dims_worker.pipeline.ingest import ReceivedEnvelope, register_config, store_events
from dims_worker.pipeline.verify import check_now, measure_due, worker_name
from dims_worker.probes.reading_notes import reading_doubts
from dims_worker.store import leases, metric_states
from dims_worker.store.engine import clock, transaction
from dims_worker.store.runs import PastReading, readings_of
from dims_worker.text.readings import broken_limit_text, reading_json

FORMATS = ("text", "json", "github", "junit")
FORMAT_HELP = "Use `github` (annotations) or `junit` (XML) in a build."
METRIC_HELP = "Measure only this metric; `*` matches any text. With --category, the name within the category is enough."
FAIL_ON_HELP = "Exit with code 1 for drift of this severity or a higher one."
EXIT_CODES = (
    "Exit codes: 0 success, 1 drift at or above --fail-on or a held value, 2 wrong usage or configuration, "
    "3 something could not be measured, 4 internal error."
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
            now = clock(connection)
    items = [item for run in runs for item in run.items if item.metric in names or item.outcome == "held"]
    items.sort(key=lambda item: list(config.metrics).index(item.metric))
    if form in ("github", "junit"):
        _print_for_build(session, runs, items, now, form, fail_on)
    elif as_json or form == "json":
        session.print_json(_document(config, runs, items))
    else:
        if not quiet:
            session.out.print(readings_table(config, items, now, verbose=verbose))
        session.print_text(summary_line(config, runs, items))
    exit_with(exit_code(items, fail_on))


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


def exit_code(items: Sequence[RunReading], fail_on: Severity) -> int:
    """Return 3 if something could not be measured, 1 for drift at or above `fail_on` or a held value, else 0."""
    if any(item.method == "failed" for item in items):  # whatever the outcome of the reading is
        return 3
    drifted = any(item.severity in SEVERITIES and at_least(item.severity, fail_on) for item in items)
    return int(drifted or any(item.outcome == "held" for item in items))


def _document(config: Config, runs: Sequence[Run], items: Sequence[RunReading]) -> dict[str, Any]:
    return {
        "run": runs[0].run_id if len(runs) == 1 else None,
        "runs": [run.run_id for run in runs],
        "status": status_of(runs),
        "api_calls": sum(run.api_calls for run in runs),
        "metrics": [reading_json(config, item) for item in items],
    }


def _print_for_build(
    session: Session, runs: Sequence[Run], items: Sequence[RunReading], now: datetime, form: str, fail_on: Severity
) -> None:
    """Print without the terminal's own rendering, which can fold lines."""
    if form == "junit":
        click.echo(ci_formats.junit(session.config, items, now, fail_on, duration(runs).total_seconds()))
        return
    for line in ci_formats.github(session.config, items, now, fail_on, summary_line(session.config, runs, items)):
        click.echo(line)


def status_of(runs: Sequence[Run]) -> str:
    return "partial" if any(run.status == "partial" for run in runs) else "ok"


def duration(runs: Sequence[Run]) -> timedelta:
    return sum((run.finished_at - run.as_of for run in runs), timedelta(0))


def summary_line(config: Config, runs: Sequence[Run], items: Sequence[RunReading]) -> str:
    """Return one line: `run 3 ok: 12 metrics in 230 ms: 10 ok, 1 moderate, 1 beyond its limit`."""
    counts = Counter(_summary_word(config, item) for item in items)
    results = ", ".join(f"{count:,} {word}" for word, count in counts.items()) or "nothing to measure"
    numbers = ", ".join(str(run.run_id) for run in runs)
    metrics = pluralize(len(items), "metric")
    return f"run {numbers} {status_of(runs)}: {metrics} in {format_duration(duration(runs))}: {results}"


def _summary_word(config: Config, item: RunReading) -> str:
    """Return what the summary counts a reading as. A value that breaks a limit is not ok, whatever its drift is, and
    neither is a doubtful one: it is `absent`, `approximate`, or `measured while a rebase is in progress`."""
    if item.outcome == "held":
        return "held"
    if broken := broken_limit_text(config, item):
        return IN_FUTURE if broken.startswith(IN_FUTURE) else "beyond its limit"
    doubts = reading_doubts(item.method, item.details) if item.status in ("ok", "new") else []
    return doubts[0].partition(":")[0] if doubts else item.status or item.outcome
