"""Define `dims diff`: what changed between two points in time."""

from __future__ import annotations

from typing import Any

import click

from dims_worker.analysis.comparison import MetricDifference, Moment, compare_metrics, parse_moment
from dims_worker.cli.session import Session, examples, json_option, pass_session
from dims_worker.cli.tables import plain_table
from dims_worker.config import Config
from dims_worker.domain.health import WAITS
from dims_worker.formatting import (
    NO_VALUE,
    escape_control,
    format_drift,
    format_number,
    format_utc_short,
    format_value,
    pluralize,
)
from dims_worker.store.engine import transaction
from dims_worker.store.snapshots import SnapshotValue
from dims_worker.text.json_documents import facts


@click.command()
@examples("dims diff --since 7d", "dims diff --since before-import --until 2026-11-01 's3_storage.*'")
@click.argument("pattern", default="*")
@click.option("--since", required=True, help="Compare from here: a span (7d), a date (2026-11-01) or a snapshot.")
@click.option("--until", default="now", show_default=True, help="Compare up to here. Same forms as --since.")
@json_option
@pass_session
def diff(session: Session, pattern: str, since: str, until: str, as_json: bool) -> None:
    """Show which metrics changed between two points in time.

    For each metric that changed, was added or was retired, it prints both values, the difference and what was decided.
    PATTERN limits the metrics, and `*` matches anything.
    """
    config = session.config
    with session.database() as engine, transaction(engine) as connection:
        first, last = parse_moment(connection, since), parse_moment(connection, until)
        differences = compare_metrics(connection, config, first, last, pattern)
    if as_json:
        metrics = [_difference_json(difference) for difference in differences]
        session.print_json({"since": _moment_json(first), "until": _moment_json(last), "metrics": metrics})
        return
    if differences:
        columns = ("metric", "then", "now", "change", "drift", "done")
        table = plain_table(*columns, numbers=("then", "now", "change", "drift"))
        for each in differences:
            change = drift = NO_VALUE
            if each.change is not None:
                change = f"{'+' if each.change > 0 else ''}{format_number(each.change)}"
            if each.now and each.then:
                drift = format_drift(each.now.value, each.then.value, each.drift_pct)
            then, now = _value(config, each, each.then, first), _value(config, each, each.now, last)
            table.add_row(escape_control(each.metric), then, now, change, drift, _done(each))
        session.out.print(table)
    span = f"between {format_utc_short(first.at)} and {format_utc_short(last.at)} (UTC)"
    session.print_text(f"{pluralize(len(differences), 'metric')} changed {span}")


def _value(config: Config, difference: MetricDifference, value: SnapshotValue | None, moment: Moment) -> str:
    if value is None:
        return NO_VALUE
    return format_value(value.value, value.unit, config.metrics.get(difference.metric), moment.at)


def _done(difference: MetricDifference) -> str:
    """Return the decision on the change, or its kind where there is no approval request."""
    decision = difference.decision
    if decision is None:
        return difference.kind
    state = WAITS if decision.state == "open" else decision.state
    by = f" by {escape_control(decision.decided_by)}" if decision.decided_by else ""
    note = f": “{escape_control(decision.note)}”" if decision.note else ""
    return f"{state}{by}{note} (request {decision.request})"


def _moment_json(moment: Moment) -> dict[str, Any]:
    return {"name": moment.name, "at": moment.at, "snapshot": moment.snapshot is not None}


def _difference_json(difference: MetricDifference) -> dict[str, Any]:
    """Return a difference as a JSON document. The value of an age is its instant."""
    then, now = difference.then, difference.now
    newest = now or then
    return {
        "metric": difference.metric,
        "kind": difference.kind,
        "unit": newest.unit if newest else "",
        "then": then and then.value,
        "then_as_of": then and then.as_of,
        "now": now and now.value,
        "now_as_of": now and now.as_of,
        "change": difference.change,
        "drift_pct": difference.drift_pct,
        "decision": difference.decision and facts(difference.decision),
    }
