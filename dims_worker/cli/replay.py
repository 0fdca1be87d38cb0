"""Define `dims events rejected` and `dims events replay`."""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Sequence
from datetime import UTC, datetime

import click
from sqlalchemy import Connection

from dims_producers.producer_name import producer_name
from dims_producers.publish import append, broker_url
from dims_worker.cli.session import Session, examples, json_option, limit_option, pass_session
from dims_worker.cli.tables import plain_table
from dims_worker.errors import NotFound, UsageError
from dims_worker.events import Event
from dims_worker.formatting import escape_control, format_ago
from dims_worker.store.engine import clock, transaction
from dims_worker.store.events import LoggedEvent, find_events, list_events
from dims_worker.store.rejected_events import mark_replayed
from dims_worker.text.events import format_event

PAYLOAD_WIDTH = 80
"""Characters of a payload in the table."""
JSON_KEYS = ("seq", "received_at", "stream_id", "reason", "payload", "replayed_at")


@click.command()
@examples("dims events rejected", "dims events rejected --all --json")
@click.option("--all", "everything", is_flag=True, help="Also list rejected events that were replayed.")
@limit_option()
@json_option
@pass_session
def rejected(session: Session, everything: bool, limit: int, as_json: bool) -> None:
    """List events that DIMS could not read, and why."""
    with session.database() as engine, transaction(engine) as connection:
        events = list_events(connection, limit=limit, outcome="rejected", replayed=None if everything else False)
        now = clock(connection)
    if as_json:
        rows = [{**{key: getattr(event, key) for key in JSON_KEYS}, "whole": is_whole(event)} for event in events]
        session.print_json({"events": rows})
        return
    if not events:
        session.out.print("no event was rejected")
        return
    table = plain_table("event", "when", "why", "payload", numbers=("event",))
    for event in events:
        payload = escape_control(event.payload)[:PAYLOAD_WIDTH]
        table.add_row(str(event.seq), format_ago(event.received_at, now), escape_control(event.reason), payload)
    session.out.print(table)
    session.print_text("Show one with `dims events show EVENT`. Send one again with `dims events replay EVENT`.")


@click.command()
@examples("dims events replay 17 18 19", "dims events replay 3f2a9c1")
@click.argument("event_ids", metavar="ID...", nargs=-1, required=True)
@pass_session
def replay(session: Session, event_ids: Sequence[str]) -> None:
    """Send events again.

    ID is the number of an event, its id, or the beginning of its id. A rejected event is sent unchanged. A stored event
    is sent with a new id, so that its metrics are measured again.
    """
    url = broker_url(session.env, session.config.home)
    with session.database() as engine:
        with transaction(engine) as connection:
            events = [_find_event(connection, name) for name in event_ids]
        envelopes = [envelope_again(event) for event in events]  # after an error, no event is sent
        append(envelopes, url)
        with transaction(engine) as connection:
            mark_replayed(connection, [event.seq for event in events])
    for event in events:
        click.echo(f"event {event.seq} was sent again: {format_event(event)}")


def envelope_again(event: LoggedEvent) -> str:
    """Return the envelope that sends a logged event again. Raises UsageError if only a part of it was kept."""
    if event.outcome != "rejected":
        assert event.type is not None
        return Event.new(
            event.type,
            producer_name("replay"),
            now=event.event_time or datetime.now(UTC),
            subject=event.subject,
            data=event.data or {},
            id=f"{event.seq}-{uuid.uuid4().hex[:12]}",
        ).to_json()
    if not is_whole(event):
        raise UsageError(
            f"event {event.seq} was too large or not text, and only a part was kept. Send it again from its producer."
        )
    return str(event.payload)


def is_whole(event: LoggedEvent) -> bool:
    """Return whether the payload of a rejected event was kept completely."""
    return hashlib.sha256((event.payload or "").encode()).hexdigest() == event.digest


def _find_event(connection: Connection, name: str) -> LoggedEvent:
    matches = find_events(connection, name)
    if not matches:
        raise NotFound(f"there is no event {name}. List the latest with `dims events`.")
    exact = [event for event in matches if name in (event.event_id, str(event.seq))]
    if not exact and len(matches) > 1:
        examples = f"{matches[0].event_id} and {matches[1].event_id}"
        raise UsageError(f"{len(matches)} events begin with {name}, such as {examples}. Write more of the id.")
    return (exact or matches)[0]
