"""The loaded configuration, and what the rest of DIMS derives from it."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from fnmatch import fnmatchcase
from functools import cached_property
from pathlib import Path
from typing import Any

from dims_worker.config.formula import PRICES
from dims_worker.config.maintenance import MaintenanceWindow
from dims_worker.config.metrics import DerivedMetric, Metric, SourceMetric
from dims_worker.config.notifications import NotifySection
from dims_worker.config.policy import Origin, Policy, PolicySection, explicit_keys
from dims_worker.config.rules import Rule
from dims_worker.config.settings import Settings
from dims_worker.config.sources import Source
from dims_worker.config.web import WebSection
from dims_worker.config.workflows import (
    AUDIT,
    SYNC_STATUS,
    WORKFLOW_NAMES,
    WorkflowConfig,
    WorkflowName,
    WorkflowsSection,
)
from dims_worker.events import is_name

WORKFLOW = "workflow."
"""DIMS claims and records a workflow like a metric with a source of its own. Both are named `workflow.gap-analysis`."""
_WORKFLOW_OUTCOME = Metric()
_PRICE_KEY = re.compile(r"[a-z][a-z0-9_]*")
"""The keys of a mapping of prices that a formula can name."""


@dataclass(frozen=True)
class Config:
    """The whole configuration. `metrics` is by full name, `category.name`, in the file's order."""

    file: Path
    files: tuple[Path, ...]
    """`file` and the files that it includes."""
    project: Path
    """The folder that relative paths start from."""
    home: Path
    """The data directory, `$DIMS_HOME`. DIMS neither measures nor watches it."""
    sources: Mapping[str, Source]
    metrics: Mapping[str, Metric]
    rules: Mapping[str, Rule]
    watch: tuple[str, ...] = ()
    policy: PolicySection = field(default_factory=PolicySection)
    settings: Settings = field(default_factory=Settings)
    prices: Mapping[str, float | Mapping[str, float]] = field(default_factory=dict)
    workflows: WorkflowsSection = field(default_factory=WorkflowsSection)
    notify: NotifySection = field(default_factory=NotifySection)
    maintenance: Mapping[str, MaintenanceWindow] = field(default_factory=dict)
    web: WebSection = field(default_factory=WebSection)
    database_url: str | None = field(default=None, repr=False)
    broker_url: str | None = field(default=None, repr=False)

    @cached_property
    def metrics_by_source(self) -> Mapping[str, tuple[str, ...]]:
        """The metrics of each source, including disabled ones."""
        by_source: dict[str, list[str]] = {source: [] for source in self.sources}
        for name, metric in self.metrics.items():
            if isinstance(metric, SourceMetric):
                by_source[metric.source].append(name)
        return {source: tuple(names) for source, names in by_source.items()}

    @cached_property
    def enabled_metrics(self) -> tuple[str, ...]:
        """The metrics that DIMS measures by itself. Every output that counts metrics counts these."""
        return tuple(name for name, metric in self.metrics.items() if metric.enabled)

    @cached_property
    def disabled_metrics(self) -> tuple[str, ...]:
        """The metrics that DIMS measures only when a person or a rule names them. Totals leave them out."""
        return tuple(name for name, metric in self.metrics.items() if not metric.enabled)

    @cached_property
    def scans(self) -> Mapping[str, tuple[str, ...]]:
        """What a worker claims and measures together: the metrics of each source, and each workflow by itself."""
        workflows = (f"{WORKFLOW}{name}" for name in self.configured_workflows)
        return {**self.metrics_by_source, **{name: (name,) for name in workflows}}

    def source_of(self, name: str) -> str | None:
        """Return the source of a metric or workflow, and None for a derived metric."""
        metric = self.metrics.get(name)
        if metric is None:
            return name if name in self.scans else None
        return metric.source if isinstance(metric, SourceMetric) else None

    def metric_of(self, name: str) -> Metric:
        """Return a metric's configuration. A workflow's outcome is judged like a text."""
        return _WORKFLOW_OUTCOME if name.startswith(WORKFLOW) else self.metrics[name]

    def workflow_of(self, name: str) -> WorkflowConfig | None:
        """Return the configuration of `workflow.gap-analysis` or another workflow, and None for any other name."""
        short = name.removeprefix(WORKFLOW)
        known = next((each for each in self.configured_workflows if each == short and name in self.scans), None)
        return self.workflows.find(known) if known else None

    def workflow_metrics(self, name: WorkflowName) -> frozenset[str]:
        """Return the metrics that a workflow measures. An audit also measures those of the workflows that it runs."""
        parts = self.configured_workflows if name == AUDIT else (name,)
        patterns: list[str] = []
        for part in parts:
            declared = self.workflows.find(part)
            patterns += declared.metrics if declared else ()
        compared = self.workflows.sync_status if SYNC_STATUS in parts else None
        return self.select([*patterns, compared.metric] if compared else patterns)

    def readers_of(self, sources: Collection[str]) -> frozenset[str]:
        """Return the enabled metrics that read any of these sources, also as what they compare with."""
        return frozenset(
            name
            for name, metric in self.metrics.items()
            if isinstance(metric, SourceMetric) and metric.enabled and not metric.sources.isdisjoint(sources)
        )

    def reacts_to(self, kind: str) -> bool:
        """Return whether a rule matches events of this type."""
        rules = self.rules.items()
        return any(kind == name or any(fnmatchcase(kind, pattern) for pattern in rule.on) for name, rule in rules)

    def cooldown_of(self, source: str) -> timedelta:
        return timedelta(0) if source.startswith(WORKFLOW) else self.sources[source].cooldown

    def queue_of(self, source: str) -> str | None:
        """Return the queue that a source names, or None for the default queue."""
        return None if source.startswith(WORKFLOW) else self.sources[source].queue

    @cached_property
    def derived(self) -> Mapping[str, DerivedMetric]:
        """The derived metrics in topological order: inputs come first."""
        waiting = {name: metric for name, metric in self.metrics.items() if isinstance(metric, DerivedMetric)}
        ordered: dict[str, DerivedMetric] = {}
        while waiting:
            ready = [name for name, metric in waiting.items() if not metric.inputs & waiting.keys()]
            if not ready:
                raise ValueError("cyclic derive")  # `check_references` reports the cycle
            ordered.update((name, waiting.pop(name)) for name in ready)
        return ordered

    @cached_property
    def configured_workflows(self) -> tuple[WorkflowName, ...]:
        """The workflows that can run. `audit` is one of them only if there is another."""
        names = tuple(name for name in WORKFLOW_NAMES if self.workflows.find(name) is not None)
        return names if len(names) > 1 else ()

    @cached_property
    def price_of(self) -> Mapping[str, float]:
        """The prices that a derived metric can use, by `prices.NAME`, or `prices.NAME.KEY` for one in a mapping."""
        plain = {f"{PRICES}.{name}": price for name, price in self.prices.items() if not isinstance(price, Mapping)}
        nested = {
            f"{PRICES}.{name}.{key.lower()}": price
            for name, table in self.prices.items()
            if isinstance(table, Mapping)
            for key, price in table.items()
            if _PRICE_KEY.fullmatch(key.lower())
        }
        return {**plain, **nested}

    def policy_of(self, name: str) -> Policy:
        """Return the policy of a metric: its own keys override its category's, and these the general ones."""
        if name not in self._policies:
            policy = self.policy.overridden_by(self._category(name)).overridden_by(self.metric_of(name))
            self._policies[name] = policy
        return self._policies[name]

    @cached_property
    def _policies(self) -> dict[str, Policy]:
        """The policies that `policy_of` has returned. A run asks for that of each metric several times."""
        return {}

    @cached_property
    def owners(self) -> Mapping[str, str]:
        """The owner of each metric and workflow that has one."""
        names = (*self.metrics, *(f"{WORKFLOW}{name}" for name in self.configured_workflows))
        found = {name: self.policy_of(name).owner for name in names}
        return {name: owner for name, owner in found.items() if owner}

    @cached_property
    def owner_names(self) -> frozenset[str]:
        """Everyone who owns a metric or a workflow."""
        return frozenset(self.owners.values())

    def policy_origins(self, name: str) -> Mapping[str, Origin]:
        """Return the layer that each key of a metric's policy comes from."""
        layers: dict[Origin, dict[str, Any]] = {
            "metric": explicit_keys(self.metric_of(name)),
            "category": explicit_keys(self._category(name)),
            "general": explicit_keys(self.policy),
        }
        return {
            key: next((origin for origin, keys in layers.items() if key in keys), "default")
            for key in Policy.model_fields
        }

    def _category(self, name: str) -> Policy | None:
        return self.policy.categories.get(name.partition(".")[0])

    def definition(self, name: str) -> str:
        """Return a digest of what is measured and how, inputs included.

        Descriptions, policy, display and keys that are set to their default do not change it.
        """
        return hashlib.sha256(self._definition(name).encode()).hexdigest()[:16]

    @cached_property
    def definitions(self) -> Mapping[str, str]:
        """The digest of every metric and every workflow."""
        workflows = (name for name in self.scans if name not in self.sources)
        return {name: self.definition(name) for name in (*self.metrics, *workflows)}

    @cached_property
    def digest(self) -> str:
        """A digest of everything that workers do: what they measure, and how they judge, react and notify.

        Two processes with the same digest have read the same configuration. Paths of a host, URLs and secrets do not
        change it.
        """
        parts = [f"{name} {digest} {self.metric_of(name).enabled}" for name, digest in self.definitions.items()]
        parts += [f"{name} {self.policy_of(name).model_dump_json()}" for name in self.definitions]
        parts += [f"{name} {rule.model_dump_json()}" for name, rule in self.rules.items()]
        parts += [f"{name} {source.cooldown} {source.queue}" for name, source in self.sources.items()]
        parts += [self.settings.model_dump_json(), repr(sorted(self.prices.items())), *sorted(self.notify.channels)]
        parts += [f"{name} {window.model_dump_json()}" for name, window in self.maintenance.items()]
        parts.append(f"{self.notify.max_messages_per_day} {self.notify.quiet_period}")
        return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:12]

    def _definition(self, name: str) -> str:
        metric = self.metric_of(name)
        ignored = {"description", "precision", "enabled", *Policy.model_fields}
        keys = metric.model_dump_json(exclude=ignored, exclude_defaults=True)
        if isinstance(metric, SourceMetric):
            return keys + self.sources[metric.source].definition
        if isinstance(metric, DerivedMetric):
            return keys + "".join(self._definition(name) for name in sorted(metric.inputs))
        return keys

    def select(self, patterns: Iterable[str]) -> frozenset[str]:
        """Return the metrics that match any of the patterns. A disabled metric matches only its full name."""
        chosen: set[str] = set()
        for pattern in dict.fromkeys(patterns):
            if pattern in self.metrics:
                chosen.add(pattern)
            elif not is_name(pattern):  # an event may name thousands that do not exist
                chosen |= {name for name, each in self.metrics.items() if each.enabled and fnmatchcase(name, pattern)}
        return frozenset(chosen)

    def with_inputs(self, names: Iterable[str]) -> frozenset[str]:
        """Return the names and all their inputs, at any depth."""
        seen: set[str] = set()
        waiting = list(names)
        while waiting:
            name = waiting.pop()
            if name not in seen:
                seen.add(name)
                metric = self.metrics[name]
                waiting.extend(metric.inputs if isinstance(metric, DerivedMetric) else ())
        return frozenset(seen)

    def dependents(self, names: Iterable[str]) -> tuple[str, ...]:
        """Return the enabled derived metrics that these metrics change, in topological order."""
        changed = set(names)
        dependents: list[str] = []
        for name, metric in self.derived.items():
            if metric.enabled and metric.inputs & changed:
                changed.add(name)
                dependents.append(name)
        return tuple(dependents)

    def path_of(self, path: str) -> Path:
        """Return a configured path as an absolute path."""
        return self.project / Path(path).expanduser()
