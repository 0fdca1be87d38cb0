"""Define `dims mute`: send nothing about some metrics for some time, list mutes, and end them."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import click

from dims_worker.cli.approvals import as_option, decider
from dims_worker.cli.session import Session, examples, json_option, limit_option, pass_session
from dims_worker.cli.tables import plain_table
from dims_worker.config.units import parse_duration
from dims_worker.domain.maintenance import begin_of_next_window, open_windows
from dims_worker.domain.mutes import names_covered, names_in_window, pattern_of_target
from dims_worker.errors import NotFound, UsageError
from dims_worker.formatting import escape_control, format_remaining, format_utc, pluralize
from dims_worker.store.engine import clock, transaction
from dims_worker.store.mutes import MuteRow, active_mutes, end_mute, insert_mute, list_mutes
from dims_worker.text.json_documents import facts

LONGEST = timedelta(days=366)
"""The longest mute. What is off for longer does not belong into the configuration."""
_HELP_OPTIONS = ("-h", "--help")


class _MuteGroup(click.Group):
    """Runs `dims mute TARGET ...` as `dims mute add TARGET ...`."""

    default_command = "add"

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if args and args[0] not in (*self.commands, *_HELP_OPTIONS):
            args = [self.default_command, *args]
        return super().parse_args(ctx, args)


@click.group(cls=_MuteGroup)
@examples(
    'dims mute lake.objects --for 2h --reason "the bucket moves"',
    'dims mute lake --for 1d --reason "the nightly load is off"',
    "dims mute list",
    "dims mute end 3",
)
def mute() -> None:
    """Send no messages about some metrics for some time.

    Muted means recorded but not sent: DIMS still measures, judges and holds, and the incidents stay visible. When the
    mute ends, DIMS sends what is still open, once. What began and ended meanwhile is never sent. To mute at fixed
    times, add `maintenance` windows to the configuration.
    """


def _duration(_: click.Context, __: click.Parameter, value: str) -> timedelta:
    try:
        span = parse_duration(value)
    except ValueError as error:
        raise click.BadParameter(f"{value!r}: {error}") from None
    if not timedelta(0) < span <= LONGEST:
        raise click.BadParameter(f"{value!r}: write a duration of more than 0s and at most {LONGEST.days}d")
    return span


def _reason(_: click.Context, __: click.Parameter, value: str) -> str:
    if not value.strip():
        raise click.BadParameter("write why you mute it")
    return value.strip()


@mute.command()
@examples(
    'dims mute lake.objects --for 2h --reason "the bucket moves"',
    'dims mute add "lake.*" code.files --for 1d --reason "a restore"',
    'dims mute source:warehouse --for 30m --reason "an upgrade"',
)
@click.argument("targets", metavar="TARGET...", nargs=-1, required=True)
@click.option(
    "--for", "span", metavar="DURATION", required=True, callback=_duration, help="How long, such as 2h or 1d."
)
@click.option("--reason", metavar="TEXT", required=True, callback=_reason, help="Why. Lists of mutes show it.")
@as_option
@pass_session
def add(session: Session, targets: tuple[str, ...], span: timedelta, reason: str, name: str | None) -> None:
    """Mute each TARGET. You may leave out the word `add`.

    A TARGET is a metric, a pattern such as `lake.*`, a category, a source, a workflow (`workflow.audit`) or a rule
    (`rule:nightly`). A source covers the metrics that read it, and what is derived from them.
    """
    patterns = list(dict.fromkeys(pattern_of_target(session.config, target) for target in targets))
    person = decider(session, name)
    with session.database() as engine, transaction(engine) as connection:
        now = clock(connection)
        rows = [
            insert_mute(
                connection,
                pattern,
                reason=reason,
                muted_by=person.name,
                known_by=person.known_by,
                now=now,
                until=now + span,
            )
            for pattern in patterns
        ]
    for row in rows:
        count = pluralize(len(names_covered(session.config, [row.pattern])), "metric")
        session.print_text(
            f"mute {row.id}: {row.pattern} ({count}) until {format_utc(row.until)}. To end it: dims mute end {row.id}"
        )


@mute.command("list")
@examples("dims mute list", "dims mute list --all", "dims mute list --json")
@click.option("--all", "everything", is_flag=True, help="Also list mutes that have ended.")
@limit_option(200)
@json_option
@pass_session
def list_(session: Session, everything: bool, limit: int, as_json: bool) -> None:
    """List what is muted, until when and why."""
    config = session.config
    with session.database() as engine, transaction(engine) as connection:
        now = clock(connection)
        rows = list_mutes(connection, limit=limit) if everything else active_mutes(connection, now)[:limit]
    windows = _windows(session, now)
    if as_json:
        mutes = [
            {**facts(row), "active": row.is_active(now), "metrics": sorted(names_covered(config, [row.pattern]))}
            for row in rows
        ]
        session.print_json({"mutes": mutes, "maintenance": windows})
        return
    if not rows:
        session.out.print("nothing is muted by a person")
    else:
        table = plain_table("mute", "what", "metrics", "until", "by", "reason", numbers=("mute", "metrics"))
        for row in rows:
            count = len(names_covered(config, [row.pattern]))
            table.add_row(
                str(row.id), row.pattern, f"{count:,}", _until(row, now), row.muted_by, escape_control(row.reason)
            )
        session.out.print(table)
    for window in windows:
        state = f"open until {format_utc(window['until'])}" if window["until"] else "not open"
        begin = f"next begin {format_utc(window['next_begin'])}"
        covers = pluralize(len(window["metrics"]), "metric")
        session.print_text(f"maintenance window {window['name']}: {state}; {begin}; {covers}")


def _windows(session: Session, now: datetime) -> list[dict[str, Any]]:
    """Return the maintenance windows of the configuration, as they are at `now`."""
    opened = open_windows(session.config.maintenance, now)
    return [
        {
            "name": name,
            "until": opened.get(name),
            "next_begin": begin_of_next_window(window, now),
            "description": window.description,
            "metrics": sorted(names_in_window(session.config, window)),
        }
        for name, window in session.config.maintenance.items()
    ]


def _until(row: MuteRow, now: datetime) -> str:
    if row.is_active(now):
        return f"{format_utc(row.until)} ({format_remaining(row.until, now)})"
    return f"ended {format_utc(row.ended_at or row.until)}"


@mute.command()
@examples("dims mute end 3")
@click.argument("number", type=click.IntRange(1))
@pass_session
def end(session: Session, number: int) -> None:
    """End the mute with this NUMBER. DIMS then sends what is still open."""
    with session.database() as engine, transaction(engine) as connection:
        now = clock(connection)
        before = end_mute(connection, number, now)
    if before is None:
        raise NotFound(f"there is no mute {number}. List them with `dims mute list --all`.")
    if not before.is_active(now):
        raise UsageError(f"mute {number} ended at {format_utc(before.ended_at or before.until)} already.")
    session.print_text(f"mute {number} of {before.pattern} ended. DIMS sends what is still open with the next sweep")
