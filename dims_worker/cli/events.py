"""Define `dims events`, `dims plan` and `dims enqueue`."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import click
from rich.text import Text
from sqlalchemy import Engine

from dims_producers.enqueue import data_of, deliver, enqueue_file, event_of
from dims_worker.cli.main import exit_with
from dims_worker.cli.replay import rejected, replay
from dims_worker.cli.session import Session, examples, json_option, limit_option, pass_session
from dims_worker.cli.tables import STYLES, plain_table
from dims_worker.config import Config
from dims_worker.domain.decide import SEVERITIES, Severity, at_least
from dims_worker.domain.plan import Planner, explain_plan
from dims_worker.errors import MeasureError, NotFound, UsageError
from dims_worker.events import Event
from dims_worker.formatting import (
    NO_VALUE,
    escape_control,
    format_ago,
    format_drift,
    format_duration,
    format_utc_seconds,
    format_value,
    pluralize,
    shell_quote,
)
from dims_worker.store.approval_requests import ApprovalRequest
from dims_worker.store.engine import clock, transaction
from dims_worker.store.events import LoggedEvent, ServedMetric, event_by_id, find_events, list_events, served_metrics
from dims_worker.store.metric_states import read_states
from dims_worker.text.events import event_from_log, format_event
from dims_worker.text.json_documents import event_document, facts
from dims_worker.text.readings import held_requests, served_text

SECONDS = 60.0
"""How long --wait waits by default, beside cooldowns and workflows."""
TIMEOUT_HELP = (
    f"Seconds for --wait. Default: {SECONDS:g}, and as long as the cooldown of a source and the timeout of a workflow."
)
MOST_LEFT_ALONE = 12
"""Without --verbose, `dims events show` names at most this many metrics that an event left alone."""


@click.group(invoke_without_command=True)
@examples("dims events", "dims events show 3f2a9c1", "dims events rejected", "dims events replay 17")
@limit_option()
@json_option
@click.pass_context
def events(ctx: click.Context, limit: int, as_json: bool) -> None:
    """List the latest events, show one, or send some again.

    An event reports a change, for example a commit or an upload. The outcome of an event is `planned` if a rule
    matches it, `unmatched` if no rule matches, and `rejected` if DIMS cannot read it.
    """
    if ctx.invoked_subcommand is not None:
        return
    session: Session = ctx.obj
    with session.database() as engine, transaction(engine) as connection:
        latest, now = list_events(connection, limit=limit), clock(connection)
    if as_json:
        session.print_json({"events": [event_document(event) for event in latest]})
        return
    table = plain_table("event", "when", "what", "outcome", "metrics", numbers=("event", "metrics"))
    for event in latest:
        outcome = Text(event.outcome, {"rejected": "magenta", "unmatched": "dim"}.get(event.outcome, ""))
        received = format_ago(event.received_at, now)
        table.add_row(str(event.seq), received, format_event(event), outcome, str(len(event.metrics)))
    session.out.print(table)


@events.command()
@examples("dims events show 17", "dims events show 3f2a9c1 --verbose")
@click.argument("event_id", metavar="ID")
@click.option("--verbose", "-v", is_flag=True, help="Name every metric that the event left alone.")
@json_option
@pass_session
def show(session: Session, event_id: str, verbose: bool, as_json: bool) -> None:
    """Show what one event caused: metrics, runs and verdicts.

    ID is the number of an event, its id, or the beginning of its id, such as a short commit hash.
    """
    config = session.config
    with session.database() as engine, transaction(engine) as connection:
        matches = find_events(connection, event_id)
        if not matches:
            raise NotFound(f"there is no event {event_id}. List the latest with `dims events`.")
        event, now = matches[0], clock(connection)
        outcomes = served_metrics(connection, event)
        requests = held_requests(connection, outcomes)
    alone = sorted({name for names in config.metrics_by_source.values() for name in names} - set(event.metrics))
    if as_json:
        served = [facts(outcome) for outcome in outcomes]
        session.print_json({**event_document(event), "data": event.data, "left_alone": alone, "served": served})
        return
    _print_event(session, event, now)
    if event.outcome == "rejected":
        session.print_text(f"  payload   {escape_control(event.payload)}")
        return
    if outcomes:
        _print_outcomes(session, event, outcomes, requests, now)
    named = alone if verbose or len(alone) <= MOST_LEFT_ALONE else [*alone[:MOST_LEFT_ALONE], "…"]
    session.print_text(f"left alone: {pluralize(len(alone), 'metric')}{': ' if alone else ''}{', '.join(named)}")


def _print_event(session: Session, event: LoggedEvent, now: datetime) -> None:
    received = f"{format_utc_seconds(event.received_at)} UTC, {format_ago(event.received_at, now)}"
    session.print_text(f"event {event.seq}: {format_event(event)}", "bold")
    session.print_text(f"  id        {escape_control(event.event_id or event.stream_id)}")
    session.print_text(f"  type      {escape_control(event.type or NO_VALUE)}")
    session.print_text(f"  producer  {escape_control(event.producer or NO_VALUE)}")
    session.print_text(f"  received  {received}; {event.outcome} by {', '.join(event.rules) or 'no rule'}")


def _print_outcomes(
    session: Session,
    event: LoggedEvent,
    outcomes: Sequence[ServedMetric],
    requests: Mapping[str, ApprovalRequest],
    now: datetime,
) -> None:
    config = session.config
    reasons = explain_plan(config, event_from_log(event))
    table = plain_table("metric", "why", "run", "value", "drift", "verdict", numbers=("run", "value", "drift"))
    for outcome in outcomes:
        why, run = escape_control(reasons.get(outcome.metric) or NO_VALUE), str(outcome.run_id or NO_VALUE)
        drift = format_drift(outcome.value, outcome.baseline, outcome.drift_pct)
        verdict = Text(served_text(config, outcome, requests), STYLES.get(outcome.status or "", "dim"))
        table.add_row(outcome.metric, why, run, _value(config, outcome, now), drift, verdict)
    session.out.print(table)


def _value(config: Config, outcome: ServedMetric, now: datetime | None = None) -> str:
    """Return the value that an event led to. An age is computed at `now`, or else when it was measured."""
    at = outcome.as_of and (now or outcome.as_of)
    return format_value(outcome.value, outcome.unit, config.metrics.get(outcome.metric), at) if at else NO_VALUE


events.add_command(rejected)
events.add_command(replay)


@click.command()
@examples(
    "dims plan dims.git.commit --path docs/guide.md",
    "dims plan com.amazonaws.s3.ObjectCreated:Put --bucket lake --key a.json",
    "dims plan scraper_complete",
)
@click.argument("event_type", metavar="TYPE")
@click.option("--path", "paths", multiple=True, help="A path that changed, relative to the project. Repeatable.")
@click.option("--key", "keys", multiple=True, help="An object that changed in --bucket. Repeatable.")
@click.option("--bucket", help="The bucket that changed.")
@json_option
@pass_session
def plan(
    session: Session, event_type: str, paths: Sequence[str], keys: Sequence[str], bucket: str | None, as_json: bool
) -> None:
    """Show what an event would measure, and why.

    TYPE is an event type or the name of a rule. The command changes nothing and needs no server.
    """
    config = session.config
    data: dict[str, Any] = {}
    if paths or event_type.startswith(("dims.git.", "dims.files.")):
        data = {"root": str(config.project), "paths": list(paths)}
    if keys or bucket:
        if not bucket:
            raise UsageError("--key needs --bucket, the bucket that contains the object")
        data |= {"bucket": bucket, "keys": list(keys)}
    planned = Planner(config).plan(Event.new(event_type, "dims:plan", now=datetime.now(UTC), data=data))
    alone = sum(len(names) for names in config.metrics_by_source.values()) - len(planned.planned)
    if as_json:
        concerns = [{"metric": c.metric, "rule": c.rule, "reason": c.reason} for c in planned.planned]
        session.print_json({"rules": list(planned.rules), "concerns": concerns, "left_alone": alone})
        return
    if not planned.rules:
        session.print_text(f"no rule matches {event_type}: it would be stored as unmatched")
        return
    table = plain_table("metric", "rule", "why")
    for concern in planned.planned:
        table.add_row(concern.metric, concern.rule, escape_control(concern.reason))
    session.out.print(table)
    measured = pluralize(len(planned.planned), "metric")
    session.print_text(f"{event_type} would measure {measured} and leave {alone:,} alone")


@click.command()
@examples(
    "dims enqueue scraper_complete --wait",
    "dims enqueue dims.scraper.complete --subject espn --data '{\"games\": 12}'",
    "dims enqueue --from-file events.jsonl",
)
@click.argument("event_type", metavar="TYPE", required=False)
@click.option("--subject", help="What the event is about.")
@click.option("--data", help="The data of the event, a JSON object. @FILE reads a file, - reads standard input.")
@click.option("--from-file", metavar="FILE|-", help="Send one event for each line of JSON. - reads standard input.")
@click.option("--wait", is_flag=True, help="Wait until the event is measured, and print the verdicts.")
@click.option("--timeout", type=click.FloatRange(min=0.1), help=TIMEOUT_HELP)
@pass_session
def enqueue(
    session: Session,
    event_type: str | None,
    subject: str | None,
    data: str | None,
    from_file: str | None,
    wait: bool,
    timeout: float | None,
) -> None:
    """Send an event and print its id.

    TYPE is an event type or the name of a rule.
    """
    config = session.config
    if from_file:
        if event_type or subject or data or wait:
            raise UsageError("--from-file excludes TYPE, --subject, --data and --wait: its lines are whole events")
        exit_with(enqueue_file(from_file, session.env, config.home, "dims"))
    if event_type is None:
        raise UsageError("TYPE is missing. Give an event type, or send a file with --from-file.")
    event = event_of(event_type, subject, data_of(data), None)
    delay = deliver(event, session.env, config.home)
    click.echo(event.id)
    if delay:
        click.echo(f"dims: {delay}", err=True)
    if not wait:
        return
    with session.database() as engine:
        outcomes = _wait(engine, config, event, timeout)
        with transaction(engine) as connection:
            requests = held_requests(connection, outcomes)
    for outcome in outcomes:
        drift = format_drift(outcome.value, outcome.baseline, outcome.drift_pct)
        value = _value(config, outcome)
        text = served_text(config, outcome, requests)
        click.echo(f"run {outcome.run_id}  {outcome.metric}  {value}  {drift}  {text}")
    code, causes = _exit_code(outcomes)
    why = f"; exit code {code}: {', '.join(causes)}" if code else ""
    click.echo(f"{pluralize(len(outcomes), 'metric')} measured{why}")
    exit_with(code)


def _exit_code(outcomes: Sequence[ServedMetric]) -> tuple[int, list[str]]:
    """Return 3 if a metric could not be measured, 1 for severity high or a held value, else 0; and the metrics that
    make it so."""
    failed = [outcome.metric for outcome in outcomes if outcome.outcome == "failed"]
    if failed:
        return 3, failed
    high: Severity = "high"
    severe = [
        f"{each.metric} (held)" if each.outcome == "held" else f"{each.metric} (severity {each.severity})"
        for each in outcomes
        if each.outcome == "held" or (each.severity in SEVERITIES and at_least(each.severity, high))
    ]
    return int(bool(severe)), severe


@click.pass_context
def _trigger(ctx: click.Context, /, event_type: str | None, named: str | None, **options: Any) -> None:
    """Send an event and print its id. `dims enqueue` is the new name."""
    ctx.invoke(enqueue, event_type=event_type or named, **options)


_TYPE_OPTION = click.Option(["--event-type", "named"], help="The same as TYPE.")
events.add_command(
    click.Command(
        "trigger", callback=_trigger, params=[*enqueue.params, _TYPE_OPTION], help=_trigger.__doc__, hidden=True
    )
)


def _wait(engine: Engine, config: Config, event: Event, timeout: float | None) -> list[ServedMetric]:
    """Return the outcome for each metric of an event once all are measured, and others of their sources are compared.

    Raises MeasureError after `timeout` seconds.
    """
    begun, seconds = time.monotonic(), timeout or SECONDS
    stored, generations = None, dict[str, int]()
    while time.monotonic() < begun + seconds:
        with transaction(engine) as connection:
            if stored is None and (stored := event_by_id(connection, event.id)):
                others = read_states(connection, Planner(config).plan(event).compared)
                generations = {name: state.requested_gen for name, state in others.items()}
                seconds += _allowed_delay(config, stored.metrics) if timeout is None else 0
            outcomes = served_metrics(connection, stored) if stored else []
            states = read_states(connection, generations)
            compared = all(state.measured_gen >= generations[name] or state.error for name, state in states.items())
        if stored and stored.outcome != "planned":
            raise NotFound(
                f"no rule matches it: the event is stored as {stored.outcome} ({stored.reason or stored.type})"
            )
        if stored and compared and all(outcome.run_id is not None for outcome in outcomes):
            return outcomes
        time.sleep(0.1)
    missing = "some of its metrics were not measured" if stored else "the event was not stored"
    raise MeasureError(
        f"{missing} within {format_duration(timedelta(seconds=seconds))}. Is `dims up` running? "
        f"See how far it got with `dims events show {shell_quote(event.id)}`."
    )


def _allowed_delay(config: Config, names: Sequence[str]) -> float:
    """Return how long these metrics and workflows may take by the configuration: the longest cooldown of a source, and
    the longest timeout of a workflow."""
    sources = {source for name in names if (source := config.source_of(name))}
    workflows = [declared.timeout for source in sources if (declared := config.workflow_of(source))]
    cooldowns = [config.cooldown_of(source) for source in sources]
    return (max(cooldowns, default=timedelta(0)) + max(workflows, default=timedelta(0))).total_seconds()
