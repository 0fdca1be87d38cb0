"""`dims diff`: what changed between two points in time."""

from __future__ import annotations

from typing import Any

import click

from dims_worker.analysis.comparison import MetricDifference, Moment, compare_metrics, parse_moment
from dims_worker.cli.session import Session, json_option, pass_session
from dims_worker.cli.tables import plain_table
from dims_worker.config import Config
from dims_worker.formatting import NO_VALUE, escape_control, format_drift, format_number, format_value, pluralize
from dims_worker.store.engine import transaction
from dims_worker.store.snapshots import SnapshotValue


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
        first, last = parse_moment(connection, since), parse_moment(connection, until)
        found = compare_metrics(connection, config, first, last, pattern)
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
                escape_control(one.metric), _value(config, one, one.then, first), _value(config, one, one.now, last),
                NO_VALUE if one.change is None else f"{'+' if one.change > 0 else ''}{format_number(one.change)}",
                format_drift(one.now.value, one.then.value, one.drift_pct) if one.now and one.then else NO_VALUE,
                _done(one),
            )  # fmt: skip
        session.out.print(table)
    session.out.print(
        f"{pluralize(len(found), 'metric')} differ{'s' if len(found) == 1 else ''} between "
        f"{first.at:%Y-%m-%d %H:%M} and {last.at:%Y-%m-%d %H:%M} (UTC)", soft_wrap=True
    )  # fmt: skip


def _value(config: Config, one: MetricDifference, was: SnapshotValue | None, at: Moment) -> str:
    if was is None:
        return NO_VALUE
    return format_value(was.value, was.unit, config.metrics.get(one.metric), at.at)


def _done(one: MetricDifference) -> str:
    """What people decided of it or are to decide; what became of it otherwise."""
    if one.decision is None:
        return one.kind
    said = f"by {escape_control(one.decision.decided_by)}" if one.decision.decided_by else ""
    note = f": “{escape_control(one.decision.note)}”" if one.decision.note else ""
    state = "held: waits for approval" if one.decision.state == "open" else one.decision.state
    return f"{state} {said}".strip() + f"{note} (request {one.decision.request})"


def _moment_json(one: Moment) -> dict[str, Any]:
    return {"name": one.name, "at": one.at, "snapshot": one.snapshot is not None}


def _json(one: MetricDifference) -> dict[str, Any]:
    """A difference as `--json` prints it: an age as its instant."""
    decided = one.decision
    return {
        "metric": one.metric, "kind": one.kind, "unit": (one.now or one.then or SnapshotValue(None, "", None)).unit,  # type: ignore[arg-type]
        "then": one.then and one.then.value, "then_as_of": one.then and one.then.as_of,
        "now": one.now and one.now.value, "now_as_of": one.now and one.now.as_of,
        "change": one.change, "drift_pct": one.drift_pct,
        "decision": decided and {name: getattr(decided, name) for name in decided.__slots__},
    }  # fmt: skip
