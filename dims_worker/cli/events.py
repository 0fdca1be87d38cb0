"""`dims events`, `dims plan`, `dims enqueue`: what happened, what would happen, and making it happen."""

from __future__ import annotations

import time
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import click
from rich.text import Text
from sqlalchemy import Engine

from dims_producers.enqueue import data_of, deliver, enqueue_file, event_of
from dims_worker.cli.main import exit_with
from dims_worker.cli.replay import rejected, replay
from dims_worker.cli.session import Session, json_option, pass_session
from dims_worker.cli.tables import STYLES, plain_table
from dims_worker.domain.decide import SEVERITIES, Severity, at_least
from dims_worker.domain.plan import Planner, explain_plan
from dims_worker.errors import MeasureError, NotFound, UsageError
from dims_worker.events import Event
from dims_worker.formatting import NO_VALUE, escape_control, format_ago, format_drift, format_value, pluralize
from dims_worker.store.engine import clock, transaction
from dims_worker.store.events import ServedMetric, event_by_id, find_events, list_events, served_metrics
from dims_worker.text.events import event_from_log, format_event, format_served
from dims_worker.text.json_documents import event_document, facts


@click.group(invoke_without_command=True)
@click.option("--limit", type=click.IntRange(1, 10_000), default=20, show_default=True, help="How many to show.")
@json_option
@click.pass_context
def events(ctx: click.Context, limit: int, as_json: bool) -> None:
    """The latest events; `dims events show ID` tells one event's whole story.

    \b
    Examples:
      dims events
      dims events show 3f2a9c1
      dims events rejected
      dims events replay 17
    """
    if ctx.invoked_subcommand is not None:
        return
    session: Session = ctx.obj
    with session.database() as engine, transaction(engine) as connection:
        found, now = list_events(connection, limit=limit), clock(connection)
    if as_json:
        session.print_json({"events": [event_document(event) for event in found]})
        return
    table = plain_table("event", "when", "what", "outcome", "metrics", numbers=("event", "metrics"))
    for event in found:
        style = {"rejected": "magenta", "unmatched": "dim"}.get(event.outcome, "")
        table.add_row(str(event.seq), format_ago(event.received_at, now), format_event(event),
                      Text(event.outcome, style), str(len(event.metrics)))  # fmt: skip
    session.out.print(table)


@events.command()
@click.argument("event_id")
@click.option("--verbose", "-v", is_flag=True, help="Name the metrics that were left alone, too.")
@json_option
@pass_session
def show(session: Session, event_id: str, verbose: bool, as_json: bool) -> None:
    """One event's whole story: received, metrics, runs, verdicts. ID is an event's id (or how it begins, such
    as a short commit hash) or its number."""
    config = session.config
    with session.database() as engine, transaction(engine) as connection:
        found = find_events(connection, event_id)
        if not found:
            raise NotFound(f"there is no event {event_id}: `dims events` lists the latest")
        event, now = found[0], clock(connection)
        outcomes = served_metrics(connection, event)
    alone = sorted({name for names in config.metrics_by_source.values() for name in names} - set(event.metrics))
    if as_json:
        session.print_json(
            {**event_document(event), "data": event.data, "left_alone": alone,
             "served": [facts(one) for one in outcomes]}
        )  # fmt: skip
        return
    out = session.out
    out.print(f"event {event.seq}: {format_event(event)}", style="bold", soft_wrap=True)
    out.print(f"  id        {escape_control(event.event_id or event.stream_id)}", soft_wrap=True)
    out.print(f"  type      {escape_control(event.type or NO_VALUE)}", soft_wrap=True)
    out.print(f"  producer  {escape_control(event.producer or NO_VALUE)}", soft_wrap=True)
    received = f"{event.received_at:%Y-%m-%d %H:%M:%S} UTC, {format_ago(event.received_at, now)}"
    out.print(f"  received  {received}; {event.outcome} by {', '.join(event.rules) or 'no rule'}", soft_wrap=True)
    if event.outcome == "rejected":
        out.print(f"  payload   {escape_control(event.payload)}", soft_wrap=True)
        return
    reasons = explain_plan(config, event_from_log(event))
    table = plain_table("metric", "why", "run", "value", "drift", "verdict", numbers=("run", "value", "drift"))
    for one in outcomes:
        metric = config.metrics.get(one.metric)
        value = format_value(one.value, one.unit, metric, one.as_of or now) if one.as_of else NO_VALUE
        table.add_row(one.metric, escape_control(reasons.get(one.metric) or NO_VALUE), str(one.run_id or NO_VALUE), value,
                      format_drift(one.value, one.baseline, one.drift_pct),
                      Text(format_served(one), STYLES.get(one.status or "", "dim")))  # fmt: skip
    if outcomes:
        out.print(table)
    shown = ", ".join(alone if verbose or len(alone) <= 12 else [*alone[:12], "…"])
    out.print(f"left alone: {pluralize(len(alone), 'metric')}{': ' if alone else ''}{shown}", soft_wrap=True)


events.add_command(rejected)
events.add_command(replay)


@click.command()
@click.argument("event_type", metavar="TYPE")
@click.option("--path", "paths", multiple=True, help="A path that changed, from the project's folder.")
@click.option("--key", "keys", multiple=True, help="An object that changed (with --bucket).")
@click.option("--bucket", help="The bucket of --key.")
@json_option
@pass_session
def plan(
    session: Session, event_type: str, paths: Sequence[str], keys: Sequence[str], bucket: str | None, as_json: bool
) -> None:
    """What an event would measure, and why. Changes nothing, needs no server.

    \b
    Examples:
      dims plan dims.git.commit --path docs/guide.md
      dims plan com.amazonaws.s3.ObjectCreated:Put --bucket my-lake --key raw/2026.json
      dims plan scraper_complete
    """
    config = session.config
    data: dict[str, Any] = {}
    if paths or event_type.startswith(("dims.git.", "dims.files.")):
        data = {"root": str(config.project), "paths": list(paths)}
    if keys or bucket:
        if not bucket:
            raise UsageError("--key needs --bucket: an object is in a bucket")
        data |= {"bucket": bucket, "keys": list(keys)}
    planned = Planner(config).plan(Event.new(event_type, "dims:plan", now=datetime.now(UTC), data=data))
    alone = sum(len(names) for names in config.metrics_by_source.values()) - len(planned.planned)
    if as_json:
        concerns = [{"metric": c.metric, "rule": c.rule, "reason": c.reason} for c in planned.planned]
        session.print_json({"rules": list(planned.rules), "concerns": concerns, "left_alone": alone})
        return
    if not planned.rules:
        session.out.print(f"no rule matches {event_type}: it would be stored as unmatched", soft_wrap=True)
        return
    table = plain_table("metric", "rule", "why")
    for concern in planned.planned:
        table.add_row(concern.metric, concern.rule, escape_control(concern.reason))
    session.out.print(table)
    measured = pluralize(len(planned.planned), "metric")
    session.out.print(f"{event_type} would measure {measured} and leave {alone:,} alone", soft_wrap=True)


@click.command()
@click.argument("event_type", metavar="TYPE", required=False)
@click.option("--subject", help="What it is about.")
@click.option("--data", help="A JSON object; @FILE reads one, - reads standard input.")
@click.option("--from-file", metavar="FILE|-", help="Many events: a JSON object a line; - reads standard input.")
@click.option("--wait", is_flag=True, help="Follow it in the database, and print its runs' verdicts.")
@click.option("--timeout", type=click.FloatRange(min=0.1), default=60, show_default=True, help="Seconds for --wait.")
@pass_session
def enqueue(
    session: Session,
    event_type: str | None,
    subject: str | None,
    data: str | None,
    from_file: str | None,
    wait: bool,
    timeout: float,
) -> None:
    """Send an event and print its id. TYPE is an event type or a rule's name.

    \b
    Examples:
      dims enqueue scraper_complete --wait
      dims enqueue dims.scraper.complete --subject espn --data '{"games": 12}'
      dims enqueue --from-file events.jsonl
    """
    config = session.config
    if from_file:
        if event_type or subject or data or wait:
            raise UsageError("--from-file takes TYPE, --subject and --data from its lines, and cannot --wait")
        exit_with(enqueue_file(from_file, session.env, config.home, "dims"))
    if event_type is None:
        raise UsageError("TYPE is missing (or --from-file)")
    event = event_of(event_type, subject, data_of(data), None)
    waits = deliver(event, session.env, config.home)
    click.echo(event.id)
    if waits:
        click.echo(f"dims: {waits}", err=True)
    if not wait:
        return
    with session.database() as engine:
        outcomes = _wait(engine, event.id, time.monotonic() + timeout)
    for one in outcomes:
        metric = config.metrics.get(one.metric)
        value = format_value(one.value, one.unit, metric, one.as_of) if one.as_of else NO_VALUE
        drift = format_drift(one.value, one.baseline, one.drift_pct)
        click.echo(f"run {one.run_id}  {one.metric}  {value}  {drift}  {format_served(one)}")
    click.echo(f"{pluralize(len(outcomes), 'metric')} measured")
    if any(one.outcome == "failed" for one in outcomes):
        exit_with(3)
    high: Severity = "high"
    severe = any(one.severity in SEVERITIES and at_least(one.severity, high) for one in outcomes)
    exit_with(int(severe or any(one.outcome == "held" for one in outcomes)))


def _wait(engine: Engine, event_id: str, until: float) -> list[ServedMetric]:
    """What became of each metric of an event, once all have a reading. Raises MeasureError past the time."""
    stored = None
    while time.monotonic() < until:
        with transaction(engine) as connection:
            stored = stored or event_by_id(connection, event_id)
            outcomes = served_metrics(connection, stored) if stored else []
        if stored and stored.outcome != "planned":
            raise NotFound(f"no rule matches it: it is stored as {stored.outcome} ({stored.reason or stored.type})")
        if stored and all(one.run_id is not None for one in outcomes):
            return outcomes
        time.sleep(0.1)
    what = "its metrics were not all measured" if stored else "it was not stored"
    raise MeasureError(f"{what} in time: is `dims up` running? `dims events show {event_id}` tells how far it came")
