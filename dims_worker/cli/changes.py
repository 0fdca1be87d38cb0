"""Define `dims changes`: the accepted drifts of the last days, the largest first."""

from __future__ import annotations

from datetime import datetime, timedelta

import click

from dims_worker.analysis.changes import AcceptedDrift, recent_changes
from dims_worker.cli.explain import print_lines
from dims_worker.cli.session import Session, examples, json_option, limit_option, pass_session
from dims_worker.cli.since_option import parse_since_option
from dims_worker.formatting import format_utc, pluralize
from dims_worker.store.engine import clock, transaction
from dims_worker.text.changes import change_document, change_headline, change_lines

SINCE_HELP = "Go back to here: a span, such as 24h, or a date."


@click.command()
@examples("dims changes", "dims changes --since 24h --limit 5", "dims changes --since 2026-11-01 --json")
@click.option("--since", callback=parse_since_option, default="7d", show_default=True, help=SINCE_HELP)
@limit_option()
@json_option
@pass_session
def changes(session: Session, since: timedelta | datetime, limit: int, as_json: bool) -> None:
    """List what changed and was accepted, the largest change first.

    It lists each value that became a baseline although it drifted, up or down, by policy or by a person. The size is
    how far the value lies outside its expected band or, without a band, its drift in percent. Each change comes with
    its evidence: the events since the value before it.
    """
    config = session.config
    with session.database() as engine, transaction(engine) as connection:
        now = clock(connection)
        begin = since if isinstance(since, datetime) else now - since
        found = recent_changes(connection, config, begin, limit)
    if as_json:
        session.print_json({"since": begin, "changes": [change_document(config, each, now) for each in found]})
        return
    for change in found:
        _print_change(session, change, now)
    if not found:
        session.print_text(f"no drift was accepted since {format_utc(begin)}")
        return
    more = f"; --limit {limit} may hide others" if len(found) == limit else ""
    session.print_text(f"{pluralize(len(found), 'change')} since {format_utc(begin)}{more}")


def _print_change(session: Session, change: AcceptedDrift, now: datetime) -> None:
    session.print_text(change_headline(session.config, change, now), "bold")
    print_lines(session, change_lines(session.config, change, now))
