"""Check that every metric, source, price, category and workflow that the configuration refers to exists."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from fnmatch import fnmatchcase
from typing import Any

from dims_worker.config.formula import PRICES, parse_formula
from dims_worker.config.metrics import DerivedMetric, ExpectedQuery, S3Metric
from dims_worker.config.runtime import WORKFLOW, Config
from dims_worker.config.sources import AwsSource, FilesSource, S3Source, Source, SqlSource
from dims_worker.config.workflows import WORKFLOW_NAMES
from dims_worker.config.yaml_document import Where, YamlDocument

_ROLES: dict[str, type[Source]] = {"source": FilesSource, "lake": S3Source, "warehouse": SqlSource, "aws": AwsSource}
"""The type of source that each key of a workflow must name."""


def check_references(document: YamlDocument, config: Config) -> None:
    """Report every name that does not exist or that is of the wrong type."""
    written = {
        f"{category}.{name}"
        for category, metrics in _part(document, "metrics").items()
        if isinstance(metrics, dict)
        for name in metrics
    }
    _check_derived(document, config, written)
    for name, metric in config.metrics.items():
        if isinstance(metric, S3Metric) and isinstance(metric.expected, ExpectedQuery):
            where = ("metrics", *name.split("."), "expected", "source")
            _check_source(document, config, where, metric.expected.source, SqlSource)
    _check_rules(document, config, written)
    _check_workflows(document, config, written)
    _check_channels(document, config, written)
    _check_maintenance(document, config, written)
    categories = {name.partition(".")[0]: None for name in written}
    for category in config.policy.categories:
        if category not in categories:
            document.blame(("policy", "categories", category), unknown_name_error(category, "category", categories))
    for index, name in enumerate(config.watch):
        _check_source(document, config, ("watch", index), name, FilesSource)


def unknown_name_error(name: str, kind: str, known: Mapping[str, Any]) -> str:
    """Return `unknown metric 'x'` with the closest known name, or else with all known names."""
    if close := difflib.get_close_matches(name, known, n=1):
        hint = f"did you mean `{close[0]}`?"
    else:
        hint = f"write one of {', '.join(sorted(known))}" if known else f"no {kind} is configured"
    return f"unknown {kind} {name!r}; {hint}"


def _part(document: YamlDocument, section: str) -> dict[str, Any]:
    value = document.tree.get(section)
    return value if isinstance(value, dict) else {}


def _check_source(document: YamlDocument, config: Config, where: Where, name: str, kind: type[Source]) -> None:
    known = config.sources.get(name)
    if known is not None and not isinstance(known, kind):
        wanted = getattr(kind.model_fields["type"].annotation, "__args__", ("?",))[0]
        document.blame(where, f"{name} is a source of type {known.type}; name a source of type {wanted}")
    elif name not in (written := _part(document, "sources")):
        document.blame(where, unknown_name_error(name, "source", written))


def _check_patterns(
    document: YamlDocument, config: Config, where: Where, patterns: tuple[str, ...], written: set[str]
) -> None:
    for pattern in patterns:
        if not any(fnmatchcase(metric, pattern) for metric in written):
            document.blame(where, unknown_name_error(pattern, "metric", config.metrics))


def _check_rules(document: YamlDocument, config: Config, written: set[str]) -> None:
    for name, rule in config.rules.items():
        _check_patterns(document, config, ("rules", name, "metrics"), rule.metrics, written)
        for source in rule.sources:
            _check_source(document, config, ("rules", name, "sources"), source, Source)
        for workflow in rule.workflows:
            if workflow not in config.configured_workflows:
                key = workflow.replace("-", "_")
                document.blame(("rules", name, "workflows"), f"{workflow} is not configured; add `workflows: {key}:`")


def _check_workflows(document: YamlDocument, config: Config, written: set[str]) -> None:
    for name in WORKFLOW_NAMES:
        workflow = config.workflows.find(name)
        if workflow is None:
            continue
        where = ("workflows", name.replace("-", "_"))
        _check_patterns(document, config, (*where, "metrics"), workflow.metrics, written)
        for key, kind in _ROLES.items():
            source = getattr(workflow, key, None)
            if isinstance(source, str):
                _check_source(document, config, (*where, key), source, kind)
        compared = getattr(workflow, "metric", None)
        if compared is not None:
            metric = config.metrics.get(compared)
            if not (isinstance(metric, S3Metric) and metric.measure == "sync_status") and compared in written | {None}:
                document.blame((*where, "metric"), f"{compared} must be a metric with `measure: sync_status`")
            elif compared not in written:
                document.blame((*where, "metric"), unknown_name_error(compared, "metric", config.metrics))


def _notified_names(config: Config, written: set[str]) -> set[str]:
    """Return what DIMS can send messages about: metrics, workflows, and rules."""
    workflows = (f"{WORKFLOW}{name}" for name in config.configured_workflows)
    return {*written, *workflows, *(f"rule:{name}" for name in config.rules)}


def _check_channels(document: YamlDocument, config: Config, written: set[str]) -> None:
    names = _notified_names(config, written)
    for name, channel in config.notify.channels.items():
        if "metrics" in channel.model_fields_set:
            _check_patterns(document, config, ("notify", "channels", name, "metrics"), channel.metrics, names)


def _check_maintenance(document: YamlDocument, config: Config, written: set[str]) -> None:
    names = _notified_names(config, written)
    categories = {name.partition(".")[0]: None for name in written}
    for name, window in config.maintenance.items():
        _check_patterns(document, config, ("maintenance", name, "metrics"), window.metrics, names)
        for category in window.categories:
            if category not in categories:
                where = ("maintenance", name, "categories")
                document.blame(where, unknown_name_error(category, "category", categories))
        for source in window.sources:
            _check_source(document, config, ("maintenance", name, "sources"), source, Source)


def _check_derived(document: YamlDocument, config: Config, written: set[str]) -> None:
    derived = {name: metric for name, metric in config.metrics.items() if isinstance(metric, DerivedMetric)}
    for name, metric in derived.items():
        where = ("metrics", *name.split("."), "derive")
        for unknown in sorted(metric.inputs - written):
            document.blame(where, unknown_name_error(unknown, "metric", config.metrics))
        for known in sorted(metric.inputs & config.metrics.keys()):
            if config.metrics[known].is_age:
                document.blame(where, f"{known} is an age; a formula takes only numbers")
        for price in sorted(n for n in parse_formula(metric.derive).names if n.startswith(f"{PRICES}.")):
            if price not in config.price_of:
                document.blame(where, unknown_name_error(price, "price", config.price_of))
    for cycle in _cycles(derived):
        document.blame(("metrics", *cycle[0].split("."), "derive"), f"depends on itself: {' -> '.join(cycle)}")


def _cycles(derived: Mapping[str, DerivedMetric]) -> list[list[str]]:
    """Return each cycle once. It begins and ends with its first name in alphabetical order."""
    cycles: dict[frozenset[str], list[str]] = {}

    def follow(path: list[str]) -> None:
        for name in sorted(derived[path[-1]].inputs & derived.keys()):
            if name in path:
                cycle = path[path.index(name) :]
                first = cycle.index(min(cycle))
                cycles.setdefault(frozenset(cycle), [*cycle[first:], *cycle[:first], cycle[first]])
            elif name not in done:
                follow([*path, name])
        done.add(path[-1])

    done: set[str] = set()
    for name in sorted(derived):
        if name not in done:
            follow([name])
    return list(cycles.values())
