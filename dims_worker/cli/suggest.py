"""Define `dims suggest`: thresholds that fit the history of a metric, and what other policies would have sent."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

import click

from dims_worker.analysis.policy_replay import REPLAYED, PastChange, Replay, load_replay
from dims_worker.analysis.suggestions import AcceptedReading, Suggestion, suggest_policy
from dims_worker.cli.session import Session, examples, json_option, pass_session
from dims_worker.domain.expectation import HORIZON
from dims_worker.formatting import format_age, pluralize
from dims_worker.store.engine import clock, transaction
from dims_worker.store.history import metric_trend

ACCEPTED = ("accepted", "approved")


@click.command()
@examples("dims suggest s3_storage.total_objects", "dims suggest 'espn_data.*' --days 90")
@click.argument("pattern")
@click.option("--days", type=click.IntRange(1, 3650), default=365, show_default=True, help="Go back this many days.")
@json_option
@pass_session
def suggest(session: Session, pattern: str, days: int, as_json: bool) -> None:
    """Suggest thresholds for metrics, based on their accepted readings.

    It prints the reason for each threshold, and YAML to paste into the configuration. It also replays the last 90 days
    under other policies: how many messages and approval requests each would have sent, and which incidents and
    requests it would have missed. PATTERN is a metric, and `*` matches anything.
    """
    config = session.config
    suggestions: dict[str, Suggestion] = {}
    replays: dict[str, Replay | None] = {}
    names = sorted(session.select_metrics([pattern]), key=list(config.metrics).index)
    with session.database() as engine, transaction(engine) as connection:
        for name in names:
            known = metric_trend(connection, name, max(timedelta(days=days), REPLAYED + timedelta(days=HORIZON)))
            first = clock(connection) - timedelta(days=days)
            points = [point for point in known if point.as_of > first]
            accepted = [AcceptedReading(point.as_of, point.value) for point in points if point.outcome in ACCEPTED]
            policy, is_age = config.policy_of(name), config.metrics[name].is_age
            suggestions[name] = each = suggest_policy(policy, accepted, is_age=is_age)
            replays[name] = None if is_age else load_replay(connection, name, policy, known, each.advice)
    if as_json:
        documents = [_document(name, each, replays[name]) for name, each in suggestions.items()]
        session.print_json({"suggestions": documents})
        return
    for name, each in suggestions.items():
        replay = replays[name]
        lines = [*suggestion_lines(name, each, counted=replay is None), *replay_lines(replay)]
        session.print_text("\n".join(lines))
    if yaml := suggestion_yaml(suggestions):
        session.print_text(f"\n{yaml}")


def suggestion_lines(name: str, suggestion: Suggestion, *, counted: bool = True) -> list[str]:
    """Return the sentences about the suggestion for one metric. `counted`: how many notifications it would have sent,
    judged by the drift alone. A replay says it with the expected band."""
    title = f"{name}: {pluralize(suggestion.readings, 'accepted reading')} in {format_age(suggestion.span)}"
    if suggestion.too_few:
        return [title, f"  {suggestion.too_few}"]
    if not suggestion.advice:
        return [title, "  the current policy fits"]
    advice = [f"  {each.key}: {yaml_inline(each.value)}: {each.reason}" for each in suggestion.advice]
    then = pluralize(suggestion.then, "notification")
    effect = f"  you would have had {then} with this policy, and {suggestion.today:,} with the current one"
    return [title, *advice, *([effect] if counted else [])]


def replay_lines(replay: Replay | None) -> list[str]:
    """Return the table of what each policy would have sent."""
    if replay is None:
        return []
    title = f"  the last {REPLAYED.days} days under other policies, {pluralize(replay.values, 'daily value')}:"
    names = [_policy_name(each.changes) for each in replay.policies]
    width = max(map(len, names))
    lines = [title, f"    {'policy':<{width}}   messages   requests   missed"]
    for name, each in zip(names, replay.policies, strict=True):
        missed = ", ".join(f"{change.kind} {change.number} ({change.result})" for change in each.missed) or "none"
        lines.append(f"    {name:<{width}}   {each.messages:>8,}   {each.requests:>8,}   {missed}")
    return lines


def _policy_name(changes: Mapping[str, Any]) -> str:
    """Return the keys that a policy changes as YAML: `direction: down`."""
    return ", ".join(f"{key}: {yaml_inline(value)}" for key, value in changes.items()) or "the current one"


def yaml_inline(value: Any) -> str:
    """Return a value as YAML on one line."""
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{key}: {yaml_inline(part)}" for key, part in value.items()) + "}"
    return value if isinstance(value, str) else json.dumps(value)


def suggestion_yaml(suggestions: Mapping[str, Suggestion]) -> str:
    """Return the YAML to paste into the configuration, or an empty text if every policy fits."""
    lines: list[str] = []
    last_category = None
    for name, suggestion in suggestions.items():
        if suggestion.advice:
            category, _, metric = name.partition(".")
            lines += [f"  {category}:"] if category != last_category else []
            policy = {advice.key: advice.value for advice in suggestion.advice}
            lines.append(f"    {metric}: {yaml_inline(policy)}")
            last_category = category
    return "\n".join(["metrics:", *lines]) if lines else ""


def _document(name: str, suggestion: Suggestion, replay: Replay | None) -> dict[str, Any]:
    return {
        "metric": name,
        "readings": suggestion.readings,
        "days": suggestion.span / timedelta(days=1),
        "too_few": suggestion.too_few,
        "policy": {advice.key: advice.value for advice in suggestion.advice},
        "reasons": {advice.key: advice.reason for advice in suggestion.advice},
        "notifications": {"today": suggestion.today, "then": suggestion.then},
        "replay": _replay_document(replay) if replay else None,
    }


def _replay_document(replay: Replay) -> dict[str, Any]:
    policies = [
        {
            "changes": each.changes,
            "messages": each.messages,
            "requests": each.requests,
            "missed": [_change_document(change) for change in each.missed],
        }
        for each in replay.policies
    ]
    past = [_change_document(change) for change in replay.past]
    return {"days": REPLAYED.days, "values": replay.values, "past": past, "policies": policies}


def _change_document(change: PastChange) -> dict[str, Any]:
    return {name: getattr(change, name) for name in ("kind", "number", "result", "value")}
