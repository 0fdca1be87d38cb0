"""Define `dims notify`: test the notification channels, list their messages and send them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime

import click
from rich.text import Text

from dims_worker.cli.main import exit_with
from dims_worker.cli.session import Session, examples, json_option, pass_session
from dims_worker.cli.tables import plain_table
from dims_worker.config import Config
from dims_worker.errors import NotFound, NotSent, UsageError
from dims_worker.formatting import NO_VALUE, escape_control, format_ago, format_remaining, pluralize
from dims_worker.incidents.overdue import Sweep, sweep_incidents
from dims_worker.notifications import sender
from dims_worker.notifications.selection import SendSelection
from dims_worker.store.engine import clock, transaction
from dims_worker.store.notifications import ChannelRow, Notification, channel_rows, list_notifications
from dims_worker.text.json_documents import facts

LIST_LIMIT = 1_000


@click.group()
@examples("dims notify test", "dims notify list")
def notify() -> None:
    """Test the notification channels, and list or send their messages.

    A channel is a place where people read messages, such as an e-mail address or a Slack channel. DIMS sends one
    message when an alert starts and one when it ends.
    """


@notify.command()
@examples("dims notify test", "dims notify test ops")
@click.argument("channel", required=False)
@pass_session
def test(session: Session, channel: str | None) -> None:
    """Send a test message to CHANNEL, or to every channel.

    The exit code is 3 if a channel did not accept the message.
    """
    failed = False
    for name in _channel_names(session.config, channel):
        if _is_off(session, name):
            failed |= channel is not None
            continue
        try:
            session.print_text(f"{name}: sent, {sender.send_test(session.config, name)}")
        except NotSent as error:
            failed = True
            session.print_text(f"{name}: not sent: {error}", "magenta")
    exit_with(3 if failed else 0)


@notify.command()
@examples("dims notify send", "dims notify send ops", "dims notify send --digest")
@click.argument("channel", required=False)
@click.option("--digest", is_flag=True, help="Also send the digest now, before it is due.")
@pass_session
def send(session: Session, channel: str | None, digest: bool) -> None:
    """Send waiting notifications now, to CHANNEL or to every channel.

    It does not wait for a worker, or for the delay after a failure. What is muted still waits for the end of the mute,
    and what is over `notify.max_messages_per_day` for the digest.
    """
    config, failed = session.config, False
    names = _channel_names(config, channel)
    with session.database() as engine:
        with transaction(engine) as connection:
            now = clock(connection)
            sweep_incidents(connection, config, Sweep(now, now))
            sender.queue_overdue(connection, config, now)
        for name in names:
            if _is_off(session, name):
                failed |= channel is not None
                continue
            result = sender.send_pending(engine, config, name, at_once=True, digest_now=digest)
            failed |= result.error is not None
            session.print_text(f"{name}: {result}", "magenta" if result.error else None)
    exit_with(3 if failed else 0)


def _channel_names(config: Config, channel: str | None) -> list[str]:
    """Return CHANNEL, or every channel without it. Raises UsageError or NotFound."""
    if not config.notify.channels:
        raise UsageError(f"{config.file} declares no channel. Write one under `notify: {{channels: ...}}`.")
    if channel is not None and channel not in config.notify.channels:
        raise NotFound(f"no channel is called {channel}. The channels are {', '.join(config.notify.channels)}.")
    return [channel] if channel else list(config.notify.channels)


def _is_off(session: Session, name: str) -> bool:
    """Return whether a channel is off, and print that it is."""
    off = not session.config.notify.channels[name].on
    if off:
        session.print_text(f"{name}: off, its url is empty")
    return off


@notify.command("list")
@examples("dims notify list", "dims notify list --json")
@json_option
@pass_session
def list_(session: Session, as_json: bool) -> None:
    """Show the state of each channel, and its sent and waiting alerts."""
    config = session.config
    with session.database() as engine, transaction(engine) as connection:
        channels = channel_rows(connection, list(config.notify.channels))
        notifications, now = list_notifications(connection, limit=LIST_LIMIT), clock(connection)
        selections = {row.channel: sender.read_selection(connection, config, row.channel, now) for row in channels}
    waits = {each.id: why for selection in selections.values() for why, rows in _waiting(selection) for each in rows}
    if as_json:
        rows = [
            {
                **facts(row),
                "on": config.notify.channels[row.channel].on,
                "muted": len(selections[row.channel].muted),
                "over_limit": len(selections[row.channel].over_limit),
                "digest_at": selections[row.channel].digest_at,
            }
            for row in channels
        ]
        listed = [{**facts(row), "waits_for": waits.get(row.id)} for row in notifications]
        session.print_json({"channels": rows, "notifications": listed})
        return
    for row in channels:
        session.print_text(f"{row.channel}: {_channel_text(config, row, selections[row.channel], now)}")
    if not notifications:
        session.out.print("no alert is active, and nothing waits to be sent")
        return
    table = plain_table("channel", "metric", "state", "since", "sent")
    for each in notifications:
        sent = _sent_text(each, waits.get(each.id), now)
        table.add_row(each.channel, each.metric, each.state, format_ago(each.since, now), sent)
    session.out.print(table)


def _waiting(selection: SendSelection) -> Iterator[tuple[str, Sequence[Notification]]]:
    """Yield what each group of notifications that are not sent now waits for."""
    yield "end of mute", selection.muted
    yield "digest", selection.over_limit
    yield "acknowledged", selection.acknowledged


def waiting_text(row: ChannelRow) -> str:
    """Return how many notifications of a channel wait to be sent."""
    return f"{pluralize(row.unsent, 'notification')} to be sent" if row.unsent else "nothing to be sent"


def _channel_text(config: Config, row: ChannelRow, selection: SendSelection, now: datetime) -> str:
    state = f"last message {format_ago(row.sent_at, now)}"
    if not config.notify.channels[row.channel].on:
        state = "off, its url is empty"
    elif row.failures:
        later = row.not_before and row.not_before > now
        retry = f", retry {format_remaining(row.not_before, now)}" if row.not_before and later else ""
        state = f"failed {pluralize(row.failures, 'time')}{retry}: {escape_control(row.error)}"
    parts = [state, waiting_text(row)]
    if selection.muted:
        parts.append(f"{len(selection.muted):,} muted")
    if selection.digest_at:
        parts.append(f"{len(selection.over_limit):,} for the digest {format_remaining(selection.digest_at, now)}")
    return "; ".join(parts)


def _sent_text(row: Notification, waits_for: str | None, now: datetime) -> Text:
    if waits_for == "acknowledged":
        return Text("not sent: acknowledged", "dim")
    if row.unsent:
        text = "waits to be sent" if row.sent_at is None else "its end waits to be sent"
        return Text(f"{text} ({waits_for})" if waits_for else text, "yellow")
    return Text(format_ago(row.sent_at, now) if row.sent_at else NO_VALUE)
