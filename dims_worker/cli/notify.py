"""`dims notify`: whether the channels work, what people were told, and sending what waits."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import click
from rich.text import Text

from dims_worker.cli.main import exit_with
from dims_worker.cli.session import Session, json_option, pass_session
from dims_worker.cli.tables import plain_table
from dims_worker.config import Config
from dims_worker.errors import NotFound, NotSent, UsageError
from dims_worker.formatting import NO_VALUE, escape_control, format_age, format_ago, pluralize
from dims_worker.notifications import sender as room
from dims_worker.store.engine import clock, transaction
from dims_worker.store.notifications import ChannelRow, Notification, channel_rows, list_notifications

LISTED = 1_000


@click.group()
def notify() -> None:
    """Who is told: test the channels, see what stands and what is still to be sent, send it.

    \b
    Examples:
      dims notify test
      dims notify list
    """


@notify.command()
@click.argument("channel", required=False)
@pass_session
def test(session: Session, channel: str | None) -> None:
    """Send a test message to each channel, or to CHANNEL. Exit 3 where one did not take it."""
    failed = False
    for name in _chosen(session.config, channel):
        if not session.config.notify.channels[name].on:
            session.out.print(f"{name}: off, its url is empty")
            failed |= channel is not None
            continue
        try:
            session.out.print(f"{name}: sent, {room.send_test(session.config, name)}", soft_wrap=True)
        except NotSent as error:
            failed = True
            session.out.print(f"{name}: not sent: {error}", style="magenta", soft_wrap=True)
    exit_with(3 if failed else 0)


@notify.command()
@click.argument("channel", required=False)
@pass_session
def send(session: Session, channel: str | None) -> None:
    """Send what waits, to each channel or to CHANNEL, without waiting for a worker or a back-off."""
    config, failed = session.config, False
    chosen = _chosen(config, channel)
    with session.database() as engine:
        with transaction(engine) as connection:
            room.queue_overdue(connection, config)
        for name in chosen:
            if not config.notify.channels[name].on:
                session.out.print(f"{name}: off, its url is empty")
                failed |= channel is not None
                continue
            sent = room.send_pending(engine, config, name, at_once=True)
            failed |= sent.error is not None
            session.out.print(f"{name}: {sent}", style="magenta" if sent.error else None, soft_wrap=True)
    exit_with(3 if failed else 0)


def _chosen(config: Config, channel: str | None) -> list[str]:
    if not config.notify.channels:
        raise UsageError(f"no channel is configured in {config.file}: write `notify: {{channels: …}}`")
    if channel is not None and channel not in config.notify.channels:
        raise NotFound(f"no channel is called {channel}; there are {', '.join(config.notify.channels)}")
    return [channel] if channel else list(config.notify.channels)


@notify.command("list")
@json_option
@pass_session
def list_(session: Session, as_json: bool) -> None:
    """How it stands with each channel, and the states that people were told of or are still to be told."""
    config = session.config
    with session.database() as engine, transaction(engine) as connection:
        channels = channel_rows(connection, list(config.notify.channels))
        found, now = list_notifications(connection, limit=LISTED), clock(connection)
    if as_json:
        session.print_json(
            {
                "channels": [{**_facts(one), "on": config.notify.channels[one.channel].on} for one in channels],
                "notifications": [_facts(one) for one in found],
            }
        )
        return
    for one in channels:
        session.out.print(f"{one.channel}: {_channel_text(config, one, now)}", soft_wrap=True)
    if not found:
        session.out.print("nothing stands, and nothing is to be sent")
        return
    table = plain_table("channel", "metric", "state", "since", "told")
    for each in found:
        table.add_row(each.channel, each.metric, each.state, format_ago(each.since, now), _told(each, now))
    session.out.print(table)


def _facts(row: ChannelRow | Notification) -> dict[str, Any]:
    return {name: getattr(row, name) for name in row.__slots__}


def _channel_text(config: Config, row: ChannelRow, now: datetime) -> str:
    waits = f"{pluralize(row.unsent, 'notification')} to be sent" if row.unsent else "nothing to be sent"
    if not config.notify.channels[row.channel].on:
        return f"off, its url is empty; {waits}"
    if row.failures:
        again = f", again in {format_age(row.not_before - now)}" if row.not_before and row.not_before > now else ""
        return f"failed {pluralize(row.failures, 'time')}{again}: {escape_control(row.error)}; {waits}"
    return f"last message {format_ago(row.sent_at, now)}; {waits}"


def _told(row: Notification, now: datetime) -> Text:
    if row.unsent:
        return Text("still to be sent" if row.sent_at is None else "its end is still to be sent", "yellow")
    return Text(format_ago(row.sent_at, now) if row.sent_at else NO_VALUE)
