"""The loaded configuration and the questions that the rooms above ask it."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from fnmatch import fnmatchcase
from functools import cached_property
from pathlib import Path
from typing import Any

from dims_worker.config.formula import PRICES
from dims_worker.config.metrics import DerivedMetric, Metric, SourceMetric
from dims_worker.config.notifications import NotifySection
from dims_worker.config.policy import Origin, Policy, PolicySection, explicit_keys
from dims_worker.config.rules import Rule
from dims_worker.config.settings import Settings
from dims_worker.config.sources import Source
from dims_worker.config.web import WebSection
from dims_worker.config.workflows import WORKFLOW_NAMES, WorkflowConfig, WorkflowName, WorkflowsSection

WORKFLOW = "workflow."
"""A configured workflow is due, claimed and recorded like a metric of a source of its own; both are called
`workflow.gap-analysis`."""
_WORKFLOW_OUTCOME = Metric()


@dataclass(frozen=True)
class Config:
    """Everything that was configured. `metrics` is by full name, `category.name`, in the file's order."""

    file: Path
    files: tuple[Path, ...]
    """It, and what it includes."""
    project: Path
    """The folder that relative paths start from."""
    home: Path
    """`$DIMS_HOME`: never measured, never watched."""
    sources: Mapping[str, Source]
    metrics: Mapping[str, Metric]
    rules: Mapping[str, Rule]
    watch: tuple[str, ...] = ()
    policy: PolicySection = field(default_factory=PolicySection)
    settings: Settings = field(default_factory=Settings)
    prices: Mapping[str, float | Mapping[str, float]] = field(default_factory=dict)
    workflows: WorkflowsSection = field(default_factory=WorkflowsSection)
    notify: NotifySection = field(default_factory=NotifySection)
    web: WebSection = field(default_factory=WebSection)
    database_url: str | None = field(default=None, repr=False)
    broker_url: str | None = field(default=None, repr=False)

    @cached_property
    def of_source(self) -> Mapping[str, tuple[str, ...]]:
        """The enabled or disabled metrics of each source, by name."""
        found: dict[str, list[str]] = {source: [] for source in self.sources}
        for name, metric in self.metrics.items():
            if isinstance(metric, SourceMetric):
                found[metric.source].append(name)
        return {source: tuple(names) for source, names in found.items()}

    @cached_property
    def scans(self) -> Mapping[str, tuple[str, ...]]:
        """What is claimed and measured together: the metrics of each source, and each workflow by itself."""
        runs = (f"{WORKFLOW}{name}" for name in self.configured_workflows)
        return {**self.of_source, **{run: (run,) for run in runs}}

    def source_of(self, name: str) -> str | None:
        """The source of a metric, or of a workflow itself; None for a derived metric."""
        metric = self.metrics.get(name)
        if metric is None:
            return name if name in self.scans else None
        return metric.source if isinstance(metric, SourceMetric) else None

    def metric_of(self, name: str) -> Metric:
        """A metric's configuration; a workflow's outcome is judged like a plain text."""
        return _WORKFLOW_OUTCOME if name.startswith(WORKFLOW) else self.metrics[name]

    def workflow_of(self, name: str) -> WorkflowConfig | None:
        """The configuration of a workflow, called `workflow.gap-analysis`; None for anything else."""
        short = name.removeprefix(WORKFLOW)
        known = next((each for each in self.configured_workflows if each == short and name in self.scans), None)
        return self.workflows.named(known) if known else None

    def cooldown_of(self, source: str) -> timedelta:
        return timedelta(0) if source.startswith(WORKFLOW) else self.sources[source].cooldown

    def queue_of(self, source: str) -> str | None:
        """The queue that a source names; None: the usual one."""
        return None if source.startswith(WORKFLOW) else self.sources[source].queue

    @cached_property
    def derived(self) -> Mapping[str, DerivedMetric]:
        """The derived metrics in topological order: what one reads stands before it."""
        waiting = {name: metric for name, metric in self.metrics.items() if isinstance(metric, DerivedMetric)}
        ordered: dict[str, DerivedMetric] = {}
        while waiting:
            ready = [name for name, metric in waiting.items() if not metric.inputs & waiting.keys()]
            if not ready:
                raise ValueError("cyclic derive")  # refused at load
            ordered.update((name, waiting.pop(name)) for name in ready)
        return ordered

    @cached_property
    def configured_workflows(self) -> tuple[WorkflowName, ...]:
        """The workflows that can be run; `audit` where there is another one to audit with."""
        named = tuple(name for name in WORKFLOW_NAMES if self.workflows.named(name) is not None)
        return named if len(named) > 1 else ()

    @cached_property
    def price_of(self) -> Mapping[str, float]:
        """The prices that a derived metric may name, as `prices.NAME`."""
        return {f"{PRICES}.{name}": price for name, price in self.prices.items() if not isinstance(price, Mapping)}

    def policy_of(self, name: str) -> Policy:
        """The policy of a metric: its own keys before its category's, these before the general section's."""
        return self.policy.under(self._category(name)).under(self.metric_of(name))

    def policy_origins(self, name: str) -> Mapping[str, Origin]:
        """Which layer each key of a metric's policy comes from."""
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
        """A digest of what is measured and how, inputs included; descriptions, policy and display are no part
        of it, nor are keys that say what would be so without them."""
        return hashlib.sha256(self._definition(name).encode()).hexdigest()[:16]

    @cached_property
    def definitions(self) -> Mapping[str, str]:
        """The digest of every metric and of every workflow's outcome."""
        workflows = (name for name in self.scans if name not in self.sources)
        return {name: self.definition(name) for name in (*self.metrics, *workflows)}

    def _definition(self, name: str) -> str:
        metric = self.metric_of(name)
        aside = {"description", "precision", "enabled", *Policy.model_fields}
        said = metric.model_dump_json(exclude=aside, exclude_defaults=True)
        if isinstance(metric, SourceMetric):
            return said + self.sources[metric.source].definition
        if isinstance(metric, DerivedMetric):
            return said + "".join(self._definition(read) for read in sorted(metric.inputs))
        return said

    def select(self, patterns: Iterable[str]) -> frozenset[str]:
        """The metrics that any of the patterns names; a disabled one must be named in full."""
        return frozenset(
            name
            for pattern in patterns
            for name, metric in self.metrics.items()
            if name == pattern or (metric.enabled and fnmatchcase(name, pattern))
        )

    def with_inputs(self, names: Iterable[str]) -> frozenset[str]:
        """The names and whatever they derive from, however deep."""
        found: set[str] = set()
        waiting = list(names)
        while waiting:
            name = waiting.pop()
            if name not in found:
                found.add(name)
                metric = self.metrics[name]
                waiting.extend(metric.inputs if isinstance(metric, DerivedMetric) else ())
        return frozenset(found)

    def dependents(self, names: Iterable[str]) -> tuple[str, ...]:
        """The derived metrics that the names can change, in topological order."""
        changed = set(names)
        found: list[str] = []
        for name, metric in self.derived.items():
            if metric.enabled and metric.inputs & changed:
                changed.add(name)
                found.append(name)
        return tuple(found)

    def path_of(self, path: str) -> Path:
        """A configured path as an absolute one."""
        return self.project / Path(path).expanduser()
