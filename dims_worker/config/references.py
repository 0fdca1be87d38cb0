"""Names that a configuration says and that must name something: metrics, sources, prices, workflows."""

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
"""The kind of source that a workflow's key must name."""


def check_references(document: YamlDocument, config: Config) -> None:
    """Blame every name that names nothing, or something of the wrong kind."""
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
    categories = {name.partition(".")[0]: None for name in written}
    for category in config.policy.categories:
        if category not in categories:
            document.blame(("policy", "categories", category), unknown_name_error(category, "category", categories))
    for index, name in enumerate(config.watch):
        _check_source(document, config, ("watch", index), name, FilesSource)


def unknown_name_error(name: str, what: str, known: Mapping[str, Any]) -> str:
    """`unknown metric 'x'`, and what may have been meant."""
    close = difflib.get_close_matches(name, known, n=1)
    hint = f"is it `{close[0]}`?" if close else f"there are {', '.join(sorted(known)) or 'none'}"
    return f"unknown {what} {name!r}; {hint}"


def _part(document: YamlDocument, section: str) -> dict[str, Any]:
    value = document.tree.get(section)
    return value if isinstance(value, dict) else {}


def _check_source(document: YamlDocument, config: Config, where: Where, name: str, kind: type[Source]) -> None:
    known = config.sources.get(name)
    wanted = kind.model_fields["type"].annotation
    if known is not None and not isinstance(known, kind):
        said = getattr(wanted, "__args__", ("?",))[0]
        document.blame(where, f"{name} is of type {known.type}; only `type: {said}` will do here")
    elif name not in _part(document, "sources"):
        document.blame(where, unknown_name_error(name, "source", config.sources))


def _check_patterns(
    document: YamlDocument, config: Config, where: Where, patterns: tuple[str, ...], written: set[str]
) -> None:
    for pattern in patterns:
        if not any(fnmatchcase(metric, pattern) for metric in written):
            document.blame(where, unknown_name_error(pattern, "metric", config.metrics))


def _check_rules(document: YamlDocument, config: Config, written: set[str]) -> None:
    for name, rule in config.rules.items():
        _check_patterns(document, config, ("rules", name, "metrics"), rule.metrics, written)
        for workflow in rule.workflows:
            if workflow not in config.configured_workflows:
                key = workflow.replace("-", "_")
                document.blame(("rules", name, "workflows"), f"{workflow} is not configured: say `workflows: {key}:`")


def _check_workflows(document: YamlDocument, config: Config, written: set[str]) -> None:
    for name in WORKFLOW_NAMES:
        workflow = config.workflows.named(name)
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
                document.blame((*where, "metric"), f"{compared} is no metric of measure sync_status")
            elif compared not in written:
                document.blame((*where, "metric"), unknown_name_error(compared, "metric", config.metrics))


def _check_channels(document: YamlDocument, config: Config, written: set[str]) -> None:
    told = {*written, *(f"{WORKFLOW}{name}" for name in config.configured_workflows)}
    for name, channel in config.notify.channels.items():
        if "metrics" in channel.model_fields_set:
            _check_patterns(document, config, ("notify", "channels", name, "metrics"), channel.metrics, told)


def _check_derived(document: YamlDocument, config: Config, written: set[str]) -> None:
    derived = {name: metric for name, metric in config.metrics.items() if isinstance(metric, DerivedMetric)}
    for name, metric in derived.items():
        for read in sorted(metric.inputs - written):
            document.blame(("metrics", *name.split("."), "derive"), unknown_name_error(read, "metric", config.metrics))
        for read in sorted(metric.inputs & config.metrics.keys()):
            other = config.metrics[read]
            if other.is_age:
                document.blame(("metrics", *name.split("."), "derive"), f"{read} is an age, which is no number")
        for price in sorted(n for n in parse_formula(metric.derive).names if n.startswith(f"{PRICES}.")):
            if price not in config.price_of:
                where = ("metrics", *name.split("."), "derive")
                document.blame(where, unknown_name_error(price, "price", config.price_of))
    for cycle in _cycles(derived):
        document.blame(("metrics", *cycle[0].split("."), "derive"), f"is cyclic: {' -> '.join(cycle)}")


def _cycles(derived: Mapping[str, DerivedMetric]) -> list[list[str]]:
    """Each cycle once, from its first name in the alphabet back to it."""
    found: dict[frozenset[str], list[str]] = {}

    def follow(path: list[str]) -> None:
        for name in sorted(derived[path[-1]].inputs & derived.keys()):
            if name in path:
                cycle = path[path.index(name) :]
                first = cycle.index(min(cycle))
                found.setdefault(frozenset(cycle), [*cycle[first:], *cycle[:first], cycle[first]])
            elif name not in done:
                follow([*path, name])
        done.add(path[-1])

    done: set[str] = set()
    for name in sorted(derived):
        if name not in done:
            follow([name])
    return list(found.values())
