"""`dims diff`: what changed between two points in time."""

from __future__ import annotations

from typing import Any

import click

from dims_worker.cli.readings import plain_table
from dims_worker.cli.session import Session, json_option, pass_session
from dims_worker.cli.words import NOTHING, clean, count, drift_text, number, value_text
from dims_worker.config import Config
from dims_worker.snapshot import Difference, Moment, differences, moment
from dims_worker.store.engine import transaction
from dims_worker.store.snapshots import Was


@click.command()
@click.argument("pattern", default="*")
@click.option("--since", required=True, help="A span (7d), a date (2026-11-01), or a snapshot.")
@click.option("--until", default="now", show_default=True, help="Likewise.")
@json_option
@pass_session
def diff(session: Session, pattern: str, since: str, until: str, as_json: bool) -> None:
    """What changed: each metric's value then and now, how much, and what was decided; new and retired ones too.

    \b
    Examples:
      dims diff --since 7d
      dims diff --since before-import --until 2026-11-01 's3_storage.*'
    """
    config = session.config
    with session.database() as engine, transaction(engine) as connection:
        first, last = moment(connection, since), moment(connection, until)
        found = differences(connection, config, first, last, pattern)
    if as_json:
        session.print_json(
            {"since": _moment_json(first), "until": _moment_json(last), "metrics": [_json(one) for one in found]}
        )
        return
    if found:
        table = plain_table("metric", "then", "now", "change", "drift", "done",
                            numbers=("then", "now", "change", "drift"))  # fmt: skip
        for one in found:
            table.add_row(
                clean(one.metric), _value(config, one, one.then, first), _value(config, one, one.now, last),
                NOTHING if one.change is None else f"{'+' if one.change > 0 else ''}{number(one.change)}",
                drift_text(one.now.value, one.then.value, one.drift_pct) if one.now and one.then else NOTHING,
                _done(one),
            )  # fmt: skip
        session.out.print(table)
    session.out.print(
        f"{count(len(found), 'metric')} differ{'s' if len(found) == 1 else ''} between "
        f"{first.at:%Y-%m-%d %H:%M} and {last.at:%Y-%m-%d %H:%M} (UTC)", soft_wrap=True
    )  # fmt: skip


def _value(config: Config, one: Difference, was: Was | None, at: Moment) -> str:
    if was is None:
        return NOTHING
    return value_text(was.value, was.unit, config.metrics.get(one.metric), at.at)


def _done(one: Difference) -> str:
    """What people decided of it or are to decide; what became of it otherwise."""
    if one.decision is None:
        return one.kind
    said = f"by {clean(one.decision.decided_by)}" if one.decision.decided_by else ""
    note = f": “{clean(one.decision.note)}”" if one.decision.note else ""
    state = "held: waits for approval" if one.decision.state == "open" else one.decision.state
    return f"{state} {said}".strip() + f"{note} (request {one.decision.request})"


def _moment_json(one: Moment) -> dict[str, Any]:
    return {"name": one.name, "at": one.at, "snapshot": one.snapshot is not None}


def _json(one: Difference) -> dict[str, Any]:
    """A difference as `--json` prints it: an age as its instant."""
    decided = one.decision
    return {
        "metric": one.metric, "kind": one.kind, "unit": (one.now or one.then or Was(None, "", None)).unit,  # type: ignore[arg-type]
        "then": one.then and one.then.value, "then_as_of": one.then and one.then.as_of,
        "now": one.now and one.now.value, "now_as_of": one.now and one.now.as_of,
        "change": one.change, "drift_pct": one.drift_pct,
        "decision": decided and {name: getattr(decided, name) for name in decided.__slots__},
    }  # fmt: skip
