"""What speaks for a change: the events between a baseline and a reading, what none of them told, gaps by name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Literal

from sqlalchemy import Connection

from dims_worker.config import Config, S3Metric, SourceMetric
from dims_worker.domain.decide import drift_pct
from dims_worker.events import SCHEDULE_TICK, VERIFY_REQUESTED, WORKFLOW_REQUESTED
from dims_worker.probes import probe_for
from dims_worker.probes.base import Value
from dims_worker.store import change_events as log
from dims_worker.store.change_events import MAX_NAMED_KEYS, EventSpan, Folder
from dims_worker.store.engine import clock
from dims_worker.store.events import LoggedEvent, events_between

ASKING = (SCHEDULE_TICK, VERIFY_REQUESTED, WORKFLOW_REQUESTED)
"""These ask for a measurement, and tell of no change."""
GIT = "dims.git."
COMMITS = 10
"""So many commits are named."""
PREFIXES = 5
"""So many prefixes are told apart."""


@dataclass(frozen=True, slots=True)
class ValueChange:
    """A value that took another's place, or would: between these instants it came about."""

    old: Value
    new: Value
    after: datetime
    until: datetime

    @property
    def real(self) -> bool:
        """Whether there is one."""
        return drift_pct(self.old, self.new) != 0


@dataclass(frozen=True, slots=True)
class ReportedEvents:
    """What events told: `commits` and each prefix's keys are the newest; `others` and `asked` by type."""

    number: int
    commits: tuple[LoggedEvent, ...] = ()
    number_of_commits: int = 0
    uploads: tuple[Folder, ...] = ()
    others: Mapping[str, int] | None = None
    asked: Mapping[str, int] | None = None

    @property
    def created(self) -> int:
        return sum(one.created for one in self.uploads)

    @property
    def removed(self) -> int:
        return sum(one.removed for one in self.uploads)

    @property
    def of_changes(self) -> int:
        """The events that told of a change."""
        return self.number - sum((self.asked or {}).values())


@dataclass(frozen=True, slots=True)
class Unexplained:
    """What no event explains: the whole change, or `objects` more or fewer than the keys that were told.

    `kinds`: of sources; those in `silent` have no producer that could have told. `later`: events that have come since.
    """

    what: Literal["all", "more", "fewer"]
    objects: int | None
    kinds: tuple[str, ...]
    silent: tuple[str, ...]
    later: int


@dataclass(frozen=True, slots=True)
class Gap:
    """Names that a reading keeps beside its value, such as missing ids; `total`: how many there are of them."""

    name: str
    named: tuple[Any, ...]
    total: int


@dataclass(frozen=True, slots=True)
class Evidence:
    """`seen`: the change in objects, of a count of a bucket's; only there can the keys that were told be reckoned."""

    told: ReportedEvents
    changed: bool
    untold: Unexplained | None
    seen: int | None


def gather_evidence(connection: Connection, config: Config, metric: str, change: ValueChange) -> Evidence:
    """The events that concern a metric, or what it derives from, between its baseline and its reading."""
    reads = sorted(config.with_inputs([metric])) if metric in config.metrics else [metric]
    span = EventSpan(reads, change.after, change.until)
    told = summarize_events(
        log.count_by_type(connection, span), log.commits(connection, span, COMMITS), log.folders(connection, span)
    )
    seen = _objects(config, metric, change)
    untold = find_unexplained(told, change, seen)
    if untold:
        later, _ = events_between(connection, reads, change.until, clock(connection), 1)
        kinds = _kinds(config, reads)
        silent = tuple(kind for kind in kinds if not probe_for(kind).change_types)
        untold = replace(untold, kinds=kinds, silent=silent, later=later)
    return Evidence(told, change.real, untold, seen)


def summarize_events(
    types: Mapping[str, int], commits: Sequence[LoggedEvent], folders: Sequence[Folder]
) -> ReportedEvents:
    """Events by what they are. Pure."""
    others = {kind: number for kind, number in types.items() if not _named(kind) and kind not in ASKING}
    return ReportedEvents(
        number=sum(types.values()),
        commits=tuple(commits),
        number_of_commits=sum(number for kind, number in types.items() if kind.startswith(GIT)),
        uploads=by_prefix(folders),
        others=others,
        asked={kind: number for kind, number in types.items() if kind in ASKING},
    )


def _named(kind: str) -> bool:
    """Whether events of a type are told one by one, or by their keys."""
    return kind.startswith((GIT, log.CREATED, *log.REMOVED))


def by_prefix(folders: Sequence[Folder]) -> tuple[Folder, ...]:
    """Folders, brought together until few are left: the deepest with those beside them, most objects first. Pure."""
    found = {(one.bucket, one.folder): one for one in folders}
    while len(found) > PREFIXES and (depth := max(folder.count("/") for _, folder in found)) > 1:
        shorter: dict[tuple[str, str], Folder] = {}
        for one in found.values():
            cut = one.folder.count("/") == depth
            folder = one.folder.rstrip("/").rpartition("/")[0] + "/" if cut else one.folder
            known = shorter.get((one.bucket, folder))
            shorter[one.bucket, folder] = _together(known, one) if known else replace(one, folder=folder)
        found = shorter
    return tuple(sorted(found.values(), key=lambda one: (-one.created - one.removed, one.bucket, one.folder)))


def _together(known: Folder, more: Folder) -> Folder:
    newer, older = (known, more) if known.last > more.last else (more, known)
    return replace(
        known,
        created=known.created + more.created,
        removed=known.removed + more.removed,
        newest=(*newer.newest, *older.newest)[:MAX_NAMED_KEYS],
        last=newer.last,
    )


def find_unexplained(told: ReportedEvents, change: ValueChange, seen: int | None) -> Unexplained | None:
    """What of a change no event told. Pure.

    A key that was created may have been there before, and one that was removed may not: so many objects more than
    were created, or fewer than were removed, are untold; what lies between is not.
    """
    if not change.real:
        return None
    if not told.of_changes:
        return Unexplained("all", None, (), (), 0)
    if seen is None:
        return None
    if seen > told.created:
        return Unexplained("more", seen - told.created, (), (), 0)
    return Unexplained("fewer", -seen - told.removed, (), (), 0) if seen < -told.removed else None


def _objects(config: Config, metric: str, change: ValueChange) -> int | None:
    """The change in objects where the metric counts a bucket's."""
    declared = config.metrics.get(metric)
    if not isinstance(declared, S3Metric) or declared.measure != "count":
        return None
    if not isinstance(change.old, int) or not isinstance(change.new, int):
        return None
    return change.new - change.old


def _kinds(config: Config, reads: Sequence[str]) -> tuple[str, ...]:
    """The kinds of the sources that some metrics read."""
    declared = [config.metrics[name] for name in reads if name in config.metrics]
    return tuple(sorted({config.sources[one.source].type for one in declared if isinstance(one, SourceMetric)}))


def named_gaps(details: Mapping[str, Any] | None, value: Value) -> tuple[Gap, ...]:
    """The names in a reading's details, with how many there are of them in all. Pure."""
    found = []
    for name, named in (details or {}).items():
        plain = isinstance(named, list) and named and all(isinstance(one, str | int) for one in named)
        if plain:
            stem = name.removesuffix("_ids").removesuffix("_names")
            total = (details or {}).get(stem if stem != name else f"{name}_total")
            if name == "missing":  # days: their number is the value itself
                total = value
            whole = isinstance(total, int) and not isinstance(total, bool)
            found.append(Gap(name, tuple(named), max(int(total or 0), len(named)) if whole else len(named)))
    return tuple(found)


MAX_NAMES = 60
"""So many names of a gap are told."""


@dataclass(frozen=True, slots=True)
class NamedGap:
    """A gap; `rows` of a query are what its metric counts."""

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
