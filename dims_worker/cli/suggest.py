"""`dims suggest`: policy that fits a metric's own history, with the reasons, to be pasted."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

import click

from dims_worker.analysis.suggestions import AcceptedReading, Suggestion
from dims_worker.analysis.suggestions import suggest_policy as fitting
from dims_worker.cli.session import Session, json_option, pass_session
from dims_worker.errors import NotFound
from dims_worker.formatting import format_age, pluralize
from dims_worker.store.engine import transaction
from dims_worker.store.history import metric_trend

ACCEPTED = ("accepted", "approved")


@click.command()
@click.argument("pattern")
@click.option("--days", type=click.IntRange(1, 3650), default=365, show_default=True, help="How far back to look.")
@json_option
@pass_session
def suggest(session: Session, pattern: str, days: int, as_json: bool) -> None:
    """Thresholds for a metric from what was accepted of it, with the reasons, as YAML to be pasted.

    \b
    Examples:
      dims suggest s3_storage.total_objects
      dims suggest 'espn_data.*' --days 90
    """
    config = session.config
    names = sorted(config.select([pattern]), key=list(config.metrics).index)
    if not names:
        raise NotFound(f"no metric is called {pattern}: `dims metrics` lists them all")
    found: dict[str, Suggestion] = {}
    with session.database() as engine, transaction(engine) as connection:
        for name in names:
            points = metric_trend(connection, name, timedelta(days=days))
            accepted = [AcceptedReading(one.as_of, one.value) for one in points if one.outcome in ACCEPTED]
            found[name] = fitting(config.policy_of(name), accepted, is_age=config.metrics[name].is_age)
    if as_json:
        session.print_json({"suggestions": [_document(name, one) for name, one in found.items()]})
        return
    for name, one in found.items():
        session.out.print("\n".join(suggestion_lines(name, one)), soft_wrap=True)
    if pasted := suggestion_yaml(found):
        session.out.print(f"\n{pasted}", soft_wrap=True)


def suggestion_lines(name: str, one: Suggestion) -> list[str]:
    """A metric's suggestion in sentences."""
    told = [f"{name}: {pluralize(one.readings, 'accepted reading')} in {format_age(one.span)}"]
    if one.too_few:
        return [*told, f"  {one.too_few}"]
    told += [f"  {advice.key}: {yaml_inline(advice.value)}: {advice.reason}" for advice in one.advice]
    if not one.advice:
        return [*told, "  today's policy fits"]
    return [
        *told,
        f"  with it people would have been told {pluralize(one.then, 'time')}, with today's policy {one.today:,}",
    ]


def yaml_inline(value: Any) -> str:
    """A value as YAML has it on one line."""
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{key}: {yaml_inline(part)}" for key, part in value.items()) + "}"
    return value if isinstance(value, str) else json.dumps(value)


def suggestion_yaml(found: Mapping[str, Suggestion]) -> str:
    """What is to be pasted into the configuration; nothing where all fits."""
    written: list[str] = []
    last = None
    for name, one in found.items():
        if one.advice:
            category, _, metric = name.partition(".")
            written += [f"  {category}:"] if category != last else []
            written.append(f"    {metric}: {yaml_inline({advice.key: advice.value for advice in one.advice})}")
            last = category
    return "\n".join(["metrics:", *written]) if written else ""


def _document(name: str, one: Suggestion) -> dict[str, Any]:
    return {
        "metric": name,
        "readings": one.readings,
        "days": one.span / timedelta(days=1),
        "too_few": one.too_few,
        "policy": {advice.key: advice.value for advice in one.advice},
        "reasons": {advice.key: advice.reason for advice in one.advice},
        "told": {"today": one.today, "then": one.then},
    }
