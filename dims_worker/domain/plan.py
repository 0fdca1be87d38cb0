"""Plan which metrics an event can affect, and why. Pure: no database, no clock, no network."""

from __future__ import annotations

from collections.abc import Collection, Hashable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any

from dims_worker.config import WORKFLOW_OPTIONS, Config, DerivedMetric, Rule, Source, SourceMetric
from dims_worker.config.runtime import WORKFLOW
from dims_worker.config.workflows import AUDIT
from dims_worker.errors import EventError
from dims_worker.events import MAX_PATHS, S3_PREFIX, SCHEDULE_TICK, VERIFY_REQUESTED, WORKFLOW_REQUESTED, Event
from dims_worker.probes import probe_for
from dims_worker.probes.base import Change, KeysChanged, PathsChanged, Probe, ScanContext

REQUEST = "request"
"""The built-in rule of `dims.verify.requested` and `dims.workflow.requested`: the event names what to measure."""

MAX_STEPS = 4_000_000
"""The most steps that comparing one event with patterns may take, by the bounds that the probes give: about 20 ms. What
is not compared counts as concerned. So no event and no configuration can block ingest, and no change is lost."""

_SAMPLE = "x" * 256
"""A path or key. An event that cannot take more steps than a few of them needs no count."""

_NOT_COMPARED = "the event names too much to compare it"


@dataclass(frozen=True, slots=True)
class PlannedMetric:
    """A metric that an event can affect, by which rule, and why."""

    metric: str
    rule: str
    reason: str


@dataclass(frozen=True, slots=True)
class Plan:
    """The rules that an event matched and the metrics that it concerns, in alphabetical order.

    `compared` are other metrics of the same sources. They are measured if their state differs from the one that they
    were measured from, because an event says where to look, and not what is there.
    """

    rules: tuple[str, ...]
    planned: tuple[PlannedMetric, ...]
    compared: tuple[str, ...] = ()

    @property
    def metrics(self) -> tuple[str, ...]:
        return tuple(planned.metric for planned in self.planned)


@dataclass(frozen=True, slots=True)
class _MetricGroup:
    """Metrics of one source that the same changes touch. The plan checks a change against the first of them only."""

    key: Hashable
    metric: SourceMetric
    source: Source
    probe: Probe[Any, Any]
    names: list[str] = field(default_factory=list)


class _Comparison:
    """Compares one change with groups of metrics, each group once.

    With `bounded`, it takes at most MAX_STEPS.
    """

    def __init__(self, change: Change | None, context: ScanContext, *, bounded: bool) -> None:
        self._change = change
        self._context = context
        self._left = MAX_STEPS if bounded else None
        self._reasons: dict[Hashable, str | None] = {}

    def reason(self, group: _MetricGroup, otherwise: str | None) -> str | None:
        """Return why the change concerns a group, or None. For a change that its probe cannot compare: `otherwise`."""
        if self._change is None:
            return "the event does not say what changed"
        if not isinstance(self._change, group.probe.change_types):
            return otherwise
        if group.key not in self._reasons:
            self._reasons[group.key] = self._compare(group, self._change)
        return self._reasons[group.key]

    def _compare(self, group: _MetricGroup, change: Change) -> str | None:
        if self._left is not None:
            # Most changes are elsewhere. To know that takes a few steps without the paths
            if group.probe.touched(group.source, group.metric, change.unknown(), self._context) is None:
                return None
            self._left -= group.probe.steps_to_compare(group.source, group.metric, change)
            if self._left < 0:
                return _NOT_COMPARED
        return group.probe.touched(group.source, group.metric, change, self._context)


class Planner:
    """A configuration, prepared to plan many events."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self.context = ScanContext(config.project, config.home, config.sources, config.prices)
        self._candidates = {
            name: self._grouped(config.select(rule.patterns) | self._metrics_of(rule.sources))
            for name, rule in config.rules.items()
        }
        self._with_workflow = {
            name: dict.fromkeys(self._measured(config.workflow_metrics(name)), f"the workflow {name} measures it")
            for name in config.configured_workflows
        }
        self._always = {name: self._always_due(rule) for name, rule in config.rules.items()}
        self._comparable = {
            source: tuple(name for name in names if config.metric_of(name).enabled)
            for source, names in config.metrics_by_source.items()
            if probe_for(config.sources[source].type).follows_state
        }
        self._rules_of: dict[str, tuple[str, ...]] = {}
        groups = {group.key: group for groups in self._candidates.values() for group in groups}
        self._steps_of_sample = sum(map(_steps_of_sample, groups.values()))

    def plan(self, event: Event) -> Plan:
        """Return the metrics and workflows that the event concerns. Derived metrics follow from their inputs."""
        if event.type == VERIFY_REQUESTED:
            names = self._measured(self.config.select(_texts(event.data.get("metrics"))))
            return Plan((REQUEST,), tuple(PlannedMetric(name, REQUEST, "was requested") for name in names))
        if event.type == WORKFLOW_REQUESTED:
            return self._requested_workflow(event)
        rules = self._matching(event)
        change = change_of(event)
        bounded = change is not None and self._steps_of_sample * _samples(change) > MAX_STEPS
        comparison = _Comparison(change, self.context, bounded=bounded)
        planned: dict[str, PlannedMetric] = {}
        for rule in rules:
            for name, reason in self._reasons(rule, comparison):
                planned.setdefault(name, PlannedMetric(name, rule, reason))
            for name, reason in self._always[rule].items():
                planned.setdefault(name, PlannedMetric(name, rule, reason))
        compared = self._compared(planned, self._related_sources(rules, change))
        return Plan(rules, tuple(planned[name] for name in sorted(planned)), compared)

    def _related_sources(self, rules: Iterable[str], change: Change | None) -> set[str]:
        """Return the sources that follow their state, where the change happened, and that a rule has metrics of."""
        if change is None or not self._comparable:
            return set()
        names = {group.metric.source for rule in rules for group in self._candidates[rule]} & self._comparable.keys()
        return {
            name
            for name in names
            if probe_for(self.config.sources[name].type).is_related(self.config.sources[name], change, self.context)
        }

    def _compared(self, planned: Collection[str], related: set[str]) -> tuple[str, ...]:
        """Return the metrics whose state to compare: of the sources of planned metrics, and of those in `related`."""
        if not self._comparable:
            return ()
        sources = related | {source for name in planned if (source := self.config.source_of(name))}
        others = {name for source in sources for name in self._comparable.get(source, ())}
        return tuple(sorted(others.difference(planned)))

    def concerned(self, rule: str, change: Change | None) -> frozenset[str]:
        """Return what an event that matches the rule concerns, if it describes this change. None: it describes none."""
        comparison = _Comparison(change, self.context, bounded=False)
        return frozenset(name for name, _ in self._reasons(rule, comparison)) | self._always[rule].keys()

    def _requested_workflow(self, event: Event) -> Plan:
        """Plan a workflow and its metrics. With `check`, the process that requests it measures them itself.

        Raises EventError for an unknown option.
        """
        _check_options(event.data.get("options", []))
        requested = str(event.data.get("workflow"))
        short = AUDIT if requested == "all" else requested
        if short not in self._with_workflow:
            return Plan((REQUEST,), ())
        reasons = {f"{WORKFLOW}{short}": "was requested"}
        if event.data.get("check") is not True:
            reasons |= self._with_workflow[short]
        return Plan((REQUEST,), tuple(PlannedMetric(name, REQUEST, reasons[name]) for name in sorted(reasons)))

    def _metrics_of(self, sources: Iterable[str]) -> frozenset[str]:
        """Return the enabled metrics of some sources."""
        named = (name for source in sources for name in self.config.metrics_by_source[source])
        return frozenset(name for name in named if self.config.metrics[name].enabled)

    def _always_due(self, rule: Rule) -> Mapping[str, str]:
        """Return what a rule concerns whatever the event says has changed, and why: its workflows and their metrics,
        and the metrics of other sources that read one of the rule's sources."""
        reasons: dict[str, str] = {}
        for workflow in rule.workflows:
            reasons[f"{WORKFLOW}{workflow}"] = "the rule runs it"
            reasons |= {name: why for name, why in self._with_workflow[workflow].items() if name not in reasons}
        for name in self.config.readers_of(rule.sources) - self._metrics_of(rule.sources):
            metric = self.config.metrics[name]
            assert isinstance(metric, SourceMetric)
            reasons[name] = f"it reads {', '.join(sorted(metric.sources.intersection(rule.sources)))}"
        return reasons

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
            key = (metric.source, probe.touch_key(metric))
            groups.setdefault(key, _MetricGroup(key, metric, source, probe)).names.append(name)
        return tuple(groups.values())

    def _reasons(self, rule: str, comparison: _Comparison) -> Iterator[tuple[str, str]]:
        """Yield the metrics of a rule that a change concerns, and why."""
        declared = self.config.rules[rule]
        for group in self._candidates[rule]:
            named = "the rule names its source" if group.metric.source in declared.sources else None
            if reason := comparison.reason(group, "the rule names it" if declared.metrics else named):
                for name in group.names:
                    yield name, reason


def _steps_of_sample(group: _MetricGroup) -> int:
    change: Change = PathsChanged("/", (_SAMPLE,), history=True)
    if isinstance(change, group.probe.change_types):
        return group.probe.steps_to_compare(group.source, group.metric, change)
    return group.probe.steps_to_compare(group.source, group.metric, KeysChanged("", (_SAMPLE,)))


def _samples(change: Change) -> int:
    """Return how many samples take at least as many steps as this change."""
    names = change.paths if isinstance(change, PathsChanged) else change.keys
    return max(len(names), -(-sum(map(len, names)) // len(_SAMPLE)))


def change_of(event: Event) -> Change | None:
    """Return the change that an event describes, or None if it describes none."""
    data = event.data
    if event.type.startswith(S3_PREFIX) or "bucket" in data:
        bucket = data.get("bucket")
        key = data.get("key") or (event.subject if event.type.startswith(S3_PREFIX) else None)
        if isinstance(bucket, str):
            return KeysChanged(bucket, (key,) if isinstance(key, str) and key else _scope(data.get("keys")))
    root = data.get("root")
    if isinstance(root, str) and root:
        history = event.type.startswith("dims.git.")
        worktrees = _scope(data.get("worktrees")) if history else ()
        return PathsChanged(root, _scope(data.get("paths")), history=history, worktrees=worktrees)
    return None


def _scope(value: Any) -> tuple[str, ...]:
    """Return the paths or keys of an event. () means that they are unknown, or too many to compare."""
    return names if len(names := _texts(value)) <= MAX_PATHS else ()


def _check_options(options: Any) -> None:
    """Raise EventError if these are no options of a workflow."""
    if not isinstance(options, list) or not all(option in WORKFLOW_OPTIONS for option in options):
        raise EventError(f"options must be a list of these: {', '.join(WORKFLOW_OPTIONS)}. It is {options!r:.80}")


def _texts(value: Any) -> tuple[str, ...]:
    """Return a list of texts as a tuple, and anything else as ()."""
    listed = isinstance(value, list) and all(isinstance(item, str) for item in value)
    return tuple(value) if listed else ()


def explain_plan(config: Config, event: Event) -> Mapping[str, str | None]:
    """Return for every metric with a source why the event concerns it, or None if it does not."""
    reasons = {planned.metric: planned.reason for planned in Planner(config).plan(event).planned}
    return {name: reasons.get(name) for names in config.metrics_by_source.values() for name in names}
