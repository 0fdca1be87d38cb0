"""Define `dims snapshot`: named points in time to compare with."""

from __future__ import annotations

import click

from dims_worker.analysis.comparison import check_snapshot_name
from dims_worker.cli.session import Session, examples, json_option, pass_session
from dims_worker.cli.tables import format_retention, plain_table
from dims_worker.errors import NotFound, Refused
from dims_worker.formatting import NO_VALUE, escape_control, format_ago, format_utc_seconds, pluralize
from dims_worker.store import snapshots
from dims_worker.store.engine import clock, transaction
from dims_worker.store.retention import last_retention_run
from dims_worker.text.json_documents import facts


@click.group()
@examples('dims snapshot take before-import --note "the 2026 season is next"', "dims diff --since before-import")
def snapshot() -> None:
    """Take, list and delete snapshots, to compare with later.

    A snapshot keeps the values of all metrics at one time. DIMS also takes one each day, whose name is the date.
    """


@snapshot.command("take")
@examples("dims snapshot take", 'dims snapshot take before-import --note "the 2026 season is next"')
@click.argument("name", required=False)
@click.option("--note", help="Why you take the snapshot.")
@json_option
@pass_session
def take_command(session: Session, name: str | None, note: str | None, as_json: bool) -> None:
    """Take a snapshot, which is kept until you delete it.

    Without NAME, its name is the current time.
    """
    with session.database() as engine, transaction(engine) as connection:
        now = clock(connection)
        moment = format_utc_seconds(now).replace(" ", "T").replace(":", "-")
        name = check_snapshot_name(name) if name is not None else f"at-{moment}"
        count = snapshots.take_snapshot(connection, name, daily=False, note=note)
        if count is None:
            raise Refused(f"the snapshot {name} already exists. Delete it with `dims snapshot delete {name}`.")
    if as_json:
        session.print_json({"snapshot": name, "metrics": count, "taken_at": now})
    else:
        values = pluralize(count, "value")
        session.print_text(f"took the snapshot {name} of {values}. Compare with `dims diff --since {name}`.")


@snapshot.command("list")
@examples("dims snapshot list", "dims snapshot list --json")
@json_option
@pass_session
def list_command(session: Session, as_json: bool) -> None:
    """List all snapshots, and show when old rows were last deleted."""
    with session.database() as engine, transaction(engine) as connection:
        rows, now = snapshots.list_snapshots(connection), clock(connection)
        retention = last_retention_run(connection)
    if as_json:
        session.print_json(
            {
                "snapshots": [{key: value for key, value in facts(row).items() if key != "id"} for row in rows],
                "retention": retention and {**facts(retention), "day": retention.day.isoformat()},
            }
        )
        return
    table = plain_table("snapshot", "taken", "values", "kept", "what", numbers=("values",))
    for row in rows:
        kept = pluralize(session.config.settings.snapshot_days, "day") if row.daily else "until deleted"
        note = escape_control(row.note or NO_VALUE)
        table.add_row(row.name, format_ago(row.taken_at, now), f"{row.metrics:,}", kept, note)
    session.out.print(table)
    session.print_text(f"retention: {format_retention(retention)}")


@snapshot.command("delete")
@examples("dims snapshot delete before-import")
@click.argument("name")
@pass_session
def delete_command(session: Session, name: str) -> None:
    """Delete a snapshot.

    The history keeps its readings as long as it would without the snapshot.
    """
    with session.database() as engine, transaction(engine) as connection:
        if not snapshots.delete_snapshot(connection, name):
            raise NotFound(f"there is no snapshot {name}. List the snapshots with `dims snapshot list`.")
    session.print_text(f"deleted the snapshot {name}")
