"""`dims schedule`: the rules with a schedule, when each ticked and when it will."""

from __future__ import annotations

from datetime import datetime

import click

from dims_worker.cli.session import Session, json_option, pass_session
from dims_worker.cli.tables import plain_table
from dims_worker.domain import schedule as room
from dims_worker.formatting import NO_VALUE, format_age, format_ago
from dims_worker.store import schedules
from dims_worker.store.engine import clock, transaction


@click.command()
@json_option
@pass_session
def schedule(session: Session, as_json: bool) -> None:
    """The next and the last tick of each rule with a schedule.

    \b
    Examples:
      dims schedule
      dims schedule --json
    """
    config = session.config
    rules = {name: rule for name, rule in config.rules.items() if rule.schedule}
    with session.database() as engine, transaction(engine) as connection:
        seen, now = schedules.schedule_states(connection), clock(connection)
    missed = {event.subject for event in room.missed_ticks(rules, schedules.missed_since(seen), now)}
    rows = [
        {
            "rule": name, "schedule": rule.schedule, "timezone": rule.timezone,
            "next": room.next_tick(rule, now), "last": seen[name].last_tick if name in seen else None,
            "catch_up": rule.catch_up, "missed": name in missed,
        }
        for name, rule in rules.items()
    ]  # fmt: skip
    if as_json:
        session.print_json({"schedules": rows})
        return
    if not rows:
        session.out.print("no rule has a schedule")
        return
    table = plain_table("rule", "schedule", "time zone", "next tick (UTC)", "last tick (UTC)", "state")
    for row in rows:
        state = "missed: made up for by the next sweep" if row["missed"] else "ok" if row["last"] else "not ticked yet"
        next_, last = row["next"], row["last"]
        assert isinstance(next_, datetime)
        ticked = f"{last:%Y-%m-%d %H:%M}, {format_ago(last, now)}" if isinstance(last, datetime) else NO_VALUE
        table.add_row(str(row["rule"]), str(row["schedule"]), str(row["timezone"]),
                      f"{next_:%Y-%m-%d %H:%M}, in {format_age(next_ - now)}", ticked, state)  # fmt: skip
    session.out.print(table)
