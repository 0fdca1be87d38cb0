"""Define `dims schedule`: the rules with a schedule, and their last and next ticks."""

from __future__ import annotations

import click

from dims_worker.cli.session import Session, examples, json_option, pass_session
from dims_worker.cli.tables import plain_table
from dims_worker.domain.schedule import missed_ticks, next_tick
from dims_worker.formatting import NO_VALUE, format_ago, format_remaining, format_utc_short
from dims_worker.store.engine import clock, transaction
from dims_worker.store.schedules import missed_since, schedule_states


@click.command()
@examples("dims schedule", "dims schedule --json")
@json_option
@pass_session
def schedule(session: Session, as_json: bool) -> None:
    """List the rules with a schedule, and their last and next ticks.

    A tick is a time at which a schedule asks for a measurement.
    """
    rules = {name: rule for name, rule in session.config.rules.items() if rule.schedule}
    with session.database() as engine, transaction(engine) as connection:
        states, now = schedule_states(connection), clock(connection)
    last = {name: states[name].last_tick if name in states else None for name in rules}
    following = {name: next_tick(rule, now) for name, rule in rules.items()}
    missed_rules = {event.subject for event in missed_ticks(rules, missed_since(states), now)}
    if as_json:
        rows = [
            {
                "rule": name,
                "schedule": rule.schedule,
                "timezone": rule.timezone,
                "next": following[name],
                "last": last[name],
                "catch_up": rule.catch_up,
                "missed": name in missed_rules,
            }
            for name, rule in rules.items()
        ]
        session.print_json({"schedules": rows})
        return
    if not rules:
        session.out.print("no rule has a schedule")
        return
    table = plain_table("rule", "schedule", "time zone", "next tick (UTC)", "last tick (UTC)", "state")
    for name, rule in rules.items():
        tick, coming = last[name], following[name]
        state = "missed: the next sweep catches up" if name in missed_rules else "ok" if tick else "no tick yet"
        last_text = f"{format_utc_short(tick)}, {format_ago(tick, now)}" if tick else NO_VALUE
        next_text = f"{format_utc_short(coming)}, {format_remaining(coming, now)}"
        table.add_row(name, str(rule.schedule), str(rule.timezone), next_text, last_text, state)
    session.out.print(table)
