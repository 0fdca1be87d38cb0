"""Plan which metrics an event can affect, and why. Pure: no database, no clock, no network."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any

from dims_worker.config import Config, DerivedMetric, Source, SourceMetric
from dims_worker.config.runtime import WORKFLOW
from dims_worker.events import S3_PREFIX, SCHEDULE_TICK, VERIFY_REQUESTED, WORKFLOW_REQUESTED, Event
from dims_worker.probes import probe_for
from dims_worker.probes.base import Change, KeysChanged, PathsChanged, Probe, ScanContext

REQUEST = "request"
"""The built-in rule of `dims.verify.requested` and `dims.workflow.requested`: the event names what to measure."""


@dataclass(frozen=True, slots=True)
class PlannedMetric:
    """A metric that an event can affect, by which rule, and why."""

    metric: str
    rule: str
    reason: str


@dataclass(frozen=True, slots=True)
class Plan:
    """The rules that an event matched and the metrics that it concerns, in alphabetical order."""

    rules: tuple[str, ...]
    planned: tuple[PlannedMetric, ...]

    @property
    def metrics(self) -> tuple[str, ...]:
        return tuple(planned.metric for planned in self.planned)


@dataclass(frozen=True, slots=True)
class _MetricGroup:
    """Metrics of one source that the same changes touch. The plan checks a change against the first of them only."""

    metric: SourceMetric
    source: Source
    probe: Probe[Any, Any]
    names: list[str] = field(default_factory=list)


class Planner:
    """A configuration, prepared to plan many events."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self.context = ScanContext(config.project, config.home, config.sources, config.prices)
        self._candidates = {
            # A rule with workflows and no metrics concerns only the workflows
            name: self._grouped(config.select(rule.metrics or (() if rule.workflows else ("*",))))
            for name, rule in config.rules.items()
        }
        self._rules_of: dict[str, tuple[str, ...]] = {}

    def plan(self, event: Event) -> Plan:
        """Return the metrics and workflows that the event concerns. Derived metrics follow from their inputs."""
        if event.type == VERIFY_REQUESTED:
            names = self._measured(self.config.select(_texts(event.data.get("metrics"))))
            return Plan((REQUEST,), tuple(PlannedMetric(name, REQUEST, "was requested") for name in names))
        if event.type == WORKFLOW_REQUESTED:
            return self._requested_workflow(str(event.data.get("workflow")))
        rules = self._matching(event)
        change = change_of(event)
        planned: dict[str, PlannedMetric] = {}
        for rule in rules:
            for name, reason in self._reasons(rule, change):
                planned.setdefault(name, PlannedMetric(name, rule, reason))
            for workflow in self.config.rules[rule].workflows:
                name = f"{WORKFLOW}{workflow}"
                planned.setdefault(name, PlannedMetric(name, rule, "the rule runs it"))
        return Plan(rules, tuple(planned[name] for name in sorted(planned)))

    def _requested_workflow(self, workflow: str) -> Plan:
        name = f"{WORKFLOW}{'audit' if workflow == 'all' else workflow}"
        return Plan((REQUEST,), (PlannedMetric(name, REQUEST, "was requested"),) if name in self.config.scans else ())

    def _matching(self, event: Event) -> tuple[str, ...]:
        """Return the rules that an event matches. A tick matches the rule that it names."""
        if event.type == SCHEDULE_TICK:
            rule = event.data.get("rule")
            return (rule,) if isinstance(rule, str) and rule in self.config.rules else ()
        kind = event.type
        if kind not in self._rules_of:
            rules = tuple(
                name
                for name, rule in self.config.rules.items()
                if kind == name or any(fnmatchcase(kind, pattern) for pattern in rule.on)
            )
            if len(self._rules_of) > 10_000:  # any producer can send new types, so the cache needs a bound
                self._rules_of.clear()
            self._rules_of[kind] = rules
        return self._rules_of[kind]

    def _measured(self, names: Iterable[str]) -> tuple[str, ...]:
        """Return the metrics that have a source, with the inputs of derived metrics instead of the derived ones."""
        everything = self.config.with_inputs(names)
        return tuple(sorted(n for n in everything if not isinstance(self.config.metrics[n], DerivedMetric)))

    def _grouped(self, names: Iterable[str]) -> tuple[_MetricGroup, ...]:
        """Group the metrics that the same changes touch, so that a plan checks a change once per group."""
        groups: dict[Hashable, _MetricGroup] = {}
        for name in self._measured(names):
            metric = self.config.metrics[name]
            assert isinstance(metric, SourceMetric)
            source = self.config.sources[metric.source]
            probe = probe_for(source.type)
            group = groups.setdefault((metric.source, probe.touch_key(metric)), _MetricGroup(metric, source, probe))
            group.names.append(name)
        return tuple(groups.values())

    def _reasons(self, rule: str, change: Change | None) -> Iterator[tuple[str, str]]:
        """Yield the metrics of a rule that a change concerns, and why."""
        named_reason = "the rule names it" if self.config.rules[rule].metrics else None
        for group in self._candidates[rule]:
            if change is None:
                reason: str | None = "the event does not say what changed"
            elif isinstance(change, group.probe.change_types):
                reason = group.probe.touched(group.source, group.metric, change, self.context)
            else:
                reason = named_reason
            if reason:
                for name in group.names:
                    yield name, reason


def change_of(event: Event) -> Change | None:
    """Return the change that an event describes, or None if it describes none."""
    data = event.data
    if event.type.startswith(S3_PREFIX) or "bucket" in data:
        bucket = data.get("bucket")
        key = data.get("key") or (event.subject if event.type.startswith(S3_PREFIX) else None)
        if isinstance(bucket, str):
            return KeysChanged(bucket, (key,) if isinstance(key, str) and key else _texts(data.get("keys")))
    root = data.get("root")
    if isinstance(root, str) and root:
        return PathsChanged(root, _texts(data.get("paths")), history=event.type.startswith("dims.git."))
    return None


def _texts(value: Any) -> tuple[str, ...]:
    """Return a list of texts as a tuple, and anything else as ()."""
    listed = isinstance(value, list) and all(isinstance(item, str) for item in value)
    return tuple(value) if listed else ()


def explain_plan(config: Config, event: Event) -> Mapping[str, str | None]:
    """Return for every metric with a source why the event concerns it, or None if it does not."""
    reasons = {planned.metric: planned.reason for planned in Planner(config).plan(event).planned}
    return {name: reasons.get(name) for names in config.metrics_by_source.values() for name in names}
