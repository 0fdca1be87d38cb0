"""`dims snapshot`: points in time with a name."""

from __future__ import annotations

import click

from dims_worker.analysis.comparison import check_snapshot_name
from dims_worker.cli.session import Session, json_option, pass_session
from dims_worker.cli.tables import format_retention, plain_table
from dims_worker.errors import NotFound, Refused
from dims_worker.formatting import NO_VALUE, escape_control, format_ago, format_utc_seconds, pluralize
from dims_worker.store import retention, snapshots
from dims_worker.store.engine import clock, transaction


@click.group()
def snapshot() -> None:
    """Points in time to compare with: what every metric was then. Each day takes one by itself, named by its date.

    \b
    Examples:
      dims snapshot take before-import --note "the 2026 season is next"
      dims diff --since before-import
    """


@snapshot.command("take")
@click.argument("name", required=False)
@click.option("--note", help="Why.")
@json_option
@pass_session
def take_command(session: Session, name: str | None, note: str | None, as_json: bool) -> None:
    """Keep what every metric is now under a name (else the moment's), for ever."""
    with session.database() as engine, transaction(engine) as connection:
        now = clock(connection)
        moment = format_utc_seconds(now).replace(" ", "T").replace(":", "-")
        named = check_snapshot_name(name) if name is not None else f"at-{moment}"
        taken = snapshots.take_snapshot(connection, named, daily=False, note=note)
        if taken is None:
            raise Refused(f"there is a snapshot {named} already: `dims snapshot delete {named}` ends it")
    if as_json:
        session.print_json({"snapshot": named, "metrics": taken, "taken_at": now})
    else:
        session.out.print(
            f"{named}: {pluralize(taken, 'metric')}; `dims diff --since {named}` compares", soft_wrap=True
        )


@snapshot.command("list")
@json_option
@pass_session
def list_command(session: Session, as_json: bool) -> None:
    """Every snapshot, oldest first, and when old rows were last forgotten."""
    with session.database() as engine, transaction(engine) as connection:
        found, kept, now = (
            snapshots.list_snapshots(connection),
            retention.last_retention_run(connection),
            clock(connection),
        )
    if as_json:
        session.print_json(
            {
                "snapshots": [{name: getattr(one, name) for name in one.__slots__ if name != "id"} for one in found],
                "housekeeping": kept and {
                    "day": kept.day.isoformat(),
                    **{name: getattr(kept, name) for name in kept.__slots__ if name != "day"},
                },
            }
        )  # fmt: skip
        return
    table = plain_table("snapshot", "taken", "metrics", "kept", "what", numbers=("metrics",))
    for one in found:
        kept_for = f"{session.config.settings.snapshot_days} days" if one.daily else "for ever"
        table.add_row(
            one.name, format_ago(one.taken_at, now), f"{one.metrics:,}", kept_for, escape_control(one.note or NO_VALUE)
        )
    session.out.print(table)
    session.out.print(f"housekeeping: {format_retention(kept)}", soft_wrap=True)


@snapshot.command("delete")
@click.argument("name")
@pass_session
def delete_command(session: Session, name: str) -> None:
    """End a snapshot. The history keeps its readings as long as it would without it."""
    with session.database() as engine, transaction(engine) as connection:
        if not snapshots.delete_snapshot(connection, name):
            raise NotFound(f"there is no snapshot {name}: `dims snapshot list` lists them")
    session.out.print(f"{name} is deleted", soft_wrap=True)
