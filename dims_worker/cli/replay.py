"""`dims events rejected` and `dims events replay`: what could not be taken, and sending events again."""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Sequence
from datetime import UTC, datetime

import click
from sqlalchemy import Connection

from dims_producers.producer_name import producer_name
from dims_producers.publish import append, broker_url
from dims_worker.cli.session import Session, json_option, pass_session
from dims_worker.cli.tables import plain_table
from dims_worker.errors import NotFound, UsageError
from dims_worker.events import Event
from dims_worker.formatting import escape_control, format_ago
from dims_worker.store.engine import clock, transaction
from dims_worker.store.events import LoggedEvent, find_events, list_events
from dims_worker.store.rejected_events import mark_replayed
from dims_worker.text.events import format_event

SHOWN = 80
"""Characters of a payload in the table."""


@click.command()
@click.option("--all", "everything", is_flag=True, help="Those that were replayed, too.")
@click.option("--limit", type=click.IntRange(1, 10_000), default=20, show_default=True, help="How many to show.")
@json_option
@pass_session
def rejected(session: Session, everything: bool, limit: int, as_json: bool) -> None:
    """The latest events that could not be taken, and why."""
    with session.database() as engine, transaction(engine) as connection:
        found = list_events(connection, limit=limit, outcome="rejected", replayed=None if everything else False)
        now = clock(connection)
    if as_json:
        names = ("seq", "received_at", "stream_id", "reason", "payload", "replayed_at")
        whole = [{**{name: getattr(event, name) for name in names}, "whole": is_whole(event)} for event in found]
        session.print_json({"events": whole})
        return
    if not found:
        session.out.print("no event was rejected")
        return
    table = plain_table("event", "when", "why", "payload", numbers=("event",))
    for event in found:
        table.add_row(
            str(event.seq),
            format_ago(event.received_at, now),
            escape_control(event.reason),
            escape_control(event.payload)[:SHOWN],
        )
    session.out.print(table)
    session.out.print("`dims events show EVENT` tells more; `dims events replay EVENT…` sends it again", soft_wrap=True)


@click.command()
@click.argument("event_ids", metavar="ID…", nargs=-1, required=True)
@pass_session
def replay(session: Session, event_ids: Sequence[str]) -> None:
    """Send events again. ID is an event's id (or how it begins) or its number.

    What was rejected is sent as it was; what was stored is sent under an id of its own, so that what it concerns is
    measured anew.

    \b
    Examples:
      dims events replay 17 18 19
      dims events replay 3f2a9c1
    """
    url = broker_url(session.env, session.config.home)
    with session.database() as engine:
        with transaction(engine) as connection:
            found = [_one(connection, name) for name in event_ids]
        envelopes = [envelope_again(event) for event in found]  # all of them, or none is sent
        append(envelopes, url)
        with transaction(engine) as connection:
            mark_replayed(connection, [event.seq for event in found])
    for event in found:
        click.echo(f"event {event.seq} is sent again: {format_event(event)}")


def envelope_again(event: LoggedEvent) -> str:
    """The envelope to send for an event of the log. Raises UsageError where it was kept only in part."""
    if event.outcome != "rejected":
        assert event.type is not None
        data, id = event.data or {}, f"{event.seq}-{uuid.uuid4().hex[:12]}"
        again = Event.new(event.type, producer_name("replay"), now=event.event_time or datetime.now(UTC),
                          subject=event.subject, data=data, id=id)  # fmt: skip
        return again.to_json()
    if not is_whole(event):
        raise UsageError(
            f"event {event.seq} was too large or no text, and was kept only in part: its producer must send it again"
        )
    return str(event.payload)


def is_whole(event: LoggedEvent) -> bool:
    """Whether a rejected payload was kept to the letter."""
    return hashlib.sha256((event.payload or "").encode()).hexdigest() == event.digest


def _one(connection: Connection, name: str) -> LoggedEvent:
    found = find_events(connection, name)
    if not found:
        raise NotFound(f"there is no event {name}: `dims events` lists the latest")
    exact = [event for event in found if name in (event.event_id, str(event.seq))]
    if not exact and len(found) > 1:
        raise UsageError(f"{len(found)} events begin with {name}, such as {found[0].event_id} and {found[1].event_id}")
    return (exact or found)[0]
