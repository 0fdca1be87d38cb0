"""Gather the evidence for a change: the events since the baseline, the part they do not explain, and missing names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Literal

from sqlalchemy import Connection

from dims_worker.config import Config, S3Metric, SourceMetric
from dims_worker.domain.decide import drift_pct
from dims_worker.events import GIT_REFS_CHANGED, SCHEDULE_TICK, VERIFY_REQUESTED, WORKFLOW_REQUESTED
from dims_worker.probes import probe_for
from dims_worker.probes.base import Value
from dims_worker.store import change_events
from dims_worker.store.change_events import MAX_NAMED_KEYS, EventSpan, Folder
from dims_worker.store.engine import clock
from dims_worker.store.events import LoggedEvent, events_between

RUN_REQUESTS = (SCHEDULE_TICK, VERIFY_REQUESTED, WORKFLOW_REQUESTED)
"""The types of events that request a measurement and report no change."""
GIT = "dims.git."
COMMITS = 10
"""The most commits to name."""
PREFIXES = 5
"""The most prefixes to list separately."""
MAX_NAMES = 60
"""The most names of a gap to show on the dashboard."""


@dataclass(frozen=True, slots=True)
class ValueChange:
    """A value that replaces another, or would: the change happened between these two instants."""

    old: Value
    new: Value
    after: datetime
    until: datetime

    @property
    def real(self) -> bool:
        """Whether the values differ."""
        return drift_pct(self.old, self.new) != 0


@dataclass(frozen=True, slots=True)
class ReportedEvents:
    """What events report. `commits` and the keys of a prefix are the newest, `others` and `requested` count by type."""

    number: int
    commits: tuple[LoggedEvent, ...] = ()
    number_of_commits: int = 0
    uploads: tuple[Folder, ...] = ()
    others: Mapping[str, int] | None = None
    requested: Mapping[str, int] | None = None

    @property
    def created(self) -> int:
        return sum(folder.created for folder in self.uploads)

    @property
    def removed(self) -> int:
        return sum(folder.removed for folder in self.uploads)

    @property
    def number_of_changes(self) -> int:
        """The number of events that report a change."""
        return self.number - sum((self.requested or {}).values())


@dataclass(frozen=True, slots=True)
class Unexplained:
    """The part of a change that no event explains: all of it, or `objects` more or fewer than the reported keys.

    `kinds` are the types of the sources. Those in `silent` have no producer. `later` counts the events since.
    """

    what: Literal["all", "more", "fewer"]
    objects: int | None
    kinds: tuple[str, ...]
    silent: tuple[str, ...]
    later: int


@dataclass(frozen=True, slots=True)
class Gap:
    """Names that a reading lists beside its value, such as missing ids. `total` is how many there are in all."""

    name: str
    named: tuple[Any, ...]
    total: int


@dataclass(frozen=True, slots=True)
class Evidence:
    """The evidence for a change. `seen` is the change in the number of objects, for a metric that counts a bucket."""

    reported: ReportedEvents
    changed: bool
    unexplained: Unexplained | None
    seen: int | None


def gather_evidence(connection: Connection, config: Config, metric: str, change: ValueChange) -> Evidence:
    """Return the evidence from the events that concern a metric or its inputs, between baseline and reading."""
    reads = sorted(config.with_inputs([metric])) if metric in config.metrics else [metric]
    span = EventSpan(reads, change.after, change.until)
    types, folders = change_events.count_by_type(connection, span), change_events.folders(connection, span)
    reported = summarize_events(types, change_events.commits(connection, span, COMMITS), folders)
    seen = _objects(config, metric, change)
    unexplained = find_unexplained(reported, change, seen)
    if unexplained:
        later, _ = events_between(connection, reads, change.until, clock(connection), 1)
        kinds = _kinds(config, reads)
        silent = tuple(kind for kind in kinds if not probe_for(kind).change_types)
        unexplained = replace(unexplained, kinds=kinds, silent=silent, later=later)
    return Evidence(reported, change.real, unexplained, seen)


def summarize_events(
    types: Mapping[str, int], commits: Sequence[LoggedEvent], folders: Sequence[Folder]
) -> ReportedEvents:
    """Group events by what they report."""
    others = {kind: number for kind, number in types.items() if not _is_detailed(kind) and kind not in RUN_REQUESTS}
    return ReportedEvents(
        number=sum(types.values()),
        commits=tuple(commits),
        number_of_commits=sum(number for kind, number in types.items() if _names_commit(kind)),
        uploads=by_prefix(folders),
        others=others,
        requested={kind: number for kind, number in types.items() if kind in RUN_REQUESTS},
    )


def _is_detailed(kind: str) -> bool:
    """Return whether events of a type are listed one by one or by their keys."""
    return _names_commit(kind) or kind.startswith((change_events.CREATED, *change_events.REMOVED))


def _names_commit(kind: str) -> bool:
    return kind.startswith(GIT) and kind != GIT_REFS_CHANGED


def by_prefix(folders: Sequence[Folder]) -> tuple[Folder, ...]:
    """Merge the deepest folders into their parents until few are left, and sort them by number of objects."""
    merged = {(folder.bucket, folder.folder): folder for folder in folders}
    while len(merged) > PREFIXES and (depth := max(path.count("/") for _, path in merged)) > 1:
        parents: dict[tuple[str, str], Folder] = {}
        for folder in merged.values():
            path = folder.folder
            if path.count("/") == depth:
                path = path.rstrip("/").rpartition("/")[0] + "/"
            parent = parents.get((folder.bucket, path))
            parents[folder.bucket, path] = _merge(parent, folder) if parent else replace(folder, folder=path)
        merged = parents
    return tuple(sorted(merged.values(), key=lambda each: (-each.created - each.removed, each.bucket, each.folder)))


def _merge(first: Folder, second: Folder) -> Folder:
    newer, older = (first, second) if first.last > second.last else (second, first)
    return replace(
        first,
        created=first.created + second.created,
        removed=first.removed + second.removed,
        newest=(*newer.newest, *older.newest)[:MAX_NAMED_KEYS],
        last=newer.last,
    )


def find_unexplained(reported: ReportedEvents, change: ValueChange, seen: int | None) -> Unexplained | None:
    """Return the part of a change that no event reports.

    A created key may have replaced an object, and a removed key may not have existed. So only an increase beyond the
    created keys, or a decrease beyond the removed keys, is unexplained.
    """
    if not change.real:
        return None
    if not reported.number_of_changes:
        return Unexplained("all", None, (), (), 0)
    if seen is None:
        return None
    if seen > reported.created:
        return Unexplained("more", seen - reported.created, (), (), 0)
    return Unexplained("fewer", -seen - reported.removed, (), (), 0) if seen < -reported.removed else None


def _objects(config: Config, metric: str, change: ValueChange) -> int | None:
    """Return the change in the number of objects, for a metric that counts the objects of a bucket."""
    declared = config.metrics.get(metric)
    if not isinstance(declared, S3Metric) or declared.measure != "count":
        return None
    if not isinstance(change.old, int) or not isinstance(change.new, int):
        return None
    return change.new - change.old


def _kinds(config: Config, reads: Sequence[str]) -> tuple[str, ...]:
    """Return the types of the sources that some metrics read."""
    declared = [config.metrics[name] for name in reads if name in config.metrics]
    sources = {metric.source for metric in declared if isinstance(metric, SourceMetric)}
    return tuple(sorted({config.sources[name].type for name in sources}))


def named_gaps(details: Mapping[str, Any] | None, value: Value) -> tuple[Gap, ...]:
    """Return the lists of names in the details of a reading, with how many there are in all."""
    gaps = []
    for name, named in (details or {}).items():
        if isinstance(named, list) and named and all(isinstance(each, str | int) for each in named):
            stem = name.removesuffix("_ids").removesuffix("_names")
            total = (details or {}).get(stem if stem != name else f"{name}_total")
            if name == "missing":  # missing days: the value of the metric is their number
                total = value
            whole = isinstance(total, int) and not isinstance(total, bool)
            gaps.append(Gap(name, tuple(named), max(int(total or 0), len(named)) if whole else len(named)))
    return tuple(gaps)


@dataclass(frozen=True, slots=True)
class NamedGap:
    """A gap with the unit of its metric, which names the `rows` of a query."""

    gap: Gap
    unit: str

    @property
    def title(self) -> str:
        return (self.unit or "names") if self.gap.name == "rows" else self.gap.name.replace("_", " ")

    @property
    def names(self) -> Sequence[Any]:
        return self.gap.named[:MAX_NAMES]

    @property
    def more(self) -> int:
        return self.gap.total - len(self.names)
