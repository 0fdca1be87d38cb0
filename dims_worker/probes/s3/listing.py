"""Compute many metrics from one listing of a bucket, in constant memory.

The prefixes of all metrics divide the keys into regions. A key belongs to the region of its longest prefix.
Each region tests its keys once for every different filter, and a metric is the sum of the regions below its
prefixes. So 35 metrics cost little more than one, and prefixes may contain each other. Any order of the keys
gives the same result. Sorted keys are faster, because consecutive keys share a region.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from functools import lru_cache
from typing import Any, NamedTuple, Protocol

from dims_worker.config import S3Metric
from dims_worker.probes import glob

Entry = Mapping[str, Any]
"""An object as S3 lists it: `Key` (text), `Size` (bytes), `LastModified` (an aware datetime), and the optional
`ETag` and `StorageClass`."""
Page = list[Entry]
"""The objects that one LIST call returns."""

_STANDARD = "STANDARD"
"""The storage class of an entry without one."""


class Collector(Protocol):
    """Collects facts about objects. Two collectors can be merged."""

    def add(self, entries: list[Entry]) -> None: ...

    def merge(self, other: Any) -> None:
        """Add what another collector of the same factory collected."""


class CollectorFactory(NamedTuple):
    """How to create a collector. Metrics with equal factories share one collector."""

    create: Callable[..., Collector]
    arguments: tuple[Hashable, ...] = ()

    def __call__(self) -> Collector:
        return self.create(*self.arguments)


@dataclass(slots=True)
class ObjectTotals:
    """The number and bytes of objects, and their newest and oldest modification."""

    count: int = 0
    bytes: int = 0
    newest: datetime | None = None
    oldest: datetime | None = None

    def add(self, entries: list[Entry]) -> None:
        if entries:
            times = [entry["LastModified"] for entry in entries]
            self.merge(ObjectTotals(len(entries), sum([e["Size"] for e in entries]), max(times), min(times)))

    def merge(self, other: ObjectTotals) -> None:
        self.count += other.count
        self.bytes += other.bytes
        self.newest = max(filter(None, (self.newest, other.newest)), default=None)
        self.oldest = min(filter(None, (self.oldest, other.oldest)), default=None)


@dataclass(slots=True)
class StorageClasses:
    """The number of objects in each storage class."""

    counts: Counter[str] = field(default_factory=Counter)

    def add(self, entries: list[Entry]) -> None:
        self.counts.update([entry.get("StorageClass") or _STANDARD for entry in entries])

    def merge(self, other: StorageClasses) -> None:
        self.counts += other.counts


@dataclass(slots=True)
class Keys:
    """The keys and sizes of objects, if there are at most `limit`."""

    limit: int
    count: int = 0
    sizes: dict[str, int] = field(default_factory=dict)

    def add(self, entries: list[Entry]) -> None:
        self.count += len(entries)
        if self.count <= self.limit:
            self.sizes.update((entry["Key"], entry["Size"]) for entry in entries)

    def merge(self, other: Keys) -> None:
        self.count += other.count
        if self.count <= self.limit:
            self.sizes.update(other.sizes)


@dataclass(frozen=True, slots=True)
class KeyFilter:
    """Which objects below its prefixes a metric counts. `bases` are the prefixes that patterns of `match` with a
    `/` are relative to."""

    match: tuple[str, ...] = ()
    suffix: tuple[str, ...] = ()
    smaller_than: int | None = None
    storage_class: tuple[str, ...] = ()
    bases: tuple[str, ...] = ()

    @classmethod
    def of(cls, metric: S3Metric) -> KeyFilter:
        return cls(metric.match, metric.suffix, metric.smaller_than, metric.storage_class)

    def below(self, prefixes: Iterable[str]) -> KeyFilter:
        """Return the filter for keys that are all below these prefixes."""
        deep = any("/" in pattern for pattern in self.match)
        bases = tuple(prefixes) if deep else ()
        return KeyFilter(self.match, self.suffix, self.smaller_than, self.storage_class, bases)

    def accepts_key(self, key: str) -> bool:
        """Return whether an object with this key can count."""
        if self.suffix and not key.endswith(self.suffix):
            return False
        return not self.match or key_test(self.match, self.bases)(key)

    def select(self, entries: list[Entry]) -> list[Entry]:
        """Return the entries that count."""
        if self.suffix:
            entries = [entry for entry in entries if entry["Key"].endswith(self.suffix)]
        if self.match:
            test = key_test(self.match, self.bases)
            entries = [entry for entry in entries if test(entry["Key"])]
        if self.smaller_than is not None:
            limit = self.smaller_than
            entries = [entry for entry in entries if entry["Size"] < limit]
        if self.storage_class:
            classes = frozenset(self.storage_class)
            entries = [entry for entry in entries if (entry.get("StorageClass") or _STANDARD) in classes]
        return entries


@lru_cache(4096)
def key_test(match: tuple[str, ...], bases: tuple[str, ...]) -> Callable[[str], bool]:
    """Return the test of `match`. A pattern without `/` tests the last part of the key, others what follows a base."""
    names = glob.name_matcher(tuple(pattern for pattern in match if "/" not in pattern))
    if not bases:
        return names
    deep = glob.matcher(tuple(pattern for pattern in match if "/" in pattern))
    # A base without a trailing `/` leaves one at the start of the rest
    return lambda key: names(key) or any(deep(key[len(b) :].removeprefix("/")) for b in bases if key.startswith(b))


@dataclass(frozen=True, slots=True)
class ListingQuery:
    """Which collector gets which objects below which prefixes."""

    prefix: tuple[str, ...]
    filter: KeyFilter
    factory: CollectorFactory


@dataclass(slots=True)
class Region:
    """The keys with this prefix and none of the longer prefixes in `beyond`. `seen` counts all of them."""

    prefix: str
    beyond: tuple[str, ...]
    seen: int = 0
    collectors: dict[KeyFilter, dict[CollectorFactory, Collector]] = field(default_factory=dict)

    def add(self, entries: list[Entry]) -> None:
        self.seen += len(entries)
        for wanted, collectors in self.collectors.items():
            chosen = wanted.select(entries)
            for collector in collectors.values():
                collector.add(chosen)

    def merge(self, other: Region) -> None:
        self.seen += other.seen
        for wanted, collectors in self.collectors.items():
            for factory, collector in collectors.items():
                collector.merge(other.collectors[wanted][factory])


class Listing:
    """Answers queries from the pages of a listing: `add` each page, then call `total`."""

    def __init__(self, queries: Mapping[Hashable, ListingQuery]) -> None:
        prefixes = {"", *(prefix for query in queries.values() for prefix in query.prefix)}
        # Longest first: a key belongs to the first region whose prefix it has
        self._regions = [
            Region(prefix, tuple(p for p in prefixes if p != prefix and p.startswith(prefix)))
            for prefix in sorted(prefixes, key=lambda prefix: (-len(prefix), prefix))
        ]
        self._queries = queries
        self._of: dict[Hashable, list[tuple[Region, KeyFilter]]] = {name: [] for name in queries}
        for region in self._regions:
            for name, query in queries.items():
                bases = [prefix for prefix in query.prefix if region.prefix.startswith(prefix)]
                if bases:
                    wanted = query.filter.below(bases)
                    region.collectors.setdefault(wanted, {}).setdefault(query.factory, query.factory())
                    self._of[name].append((region, wanted))

    def add(self, page: list[Entry]) -> None:
        """Add a page of entries, in any order."""
        runs: dict[str, list[Entry]] = {}
        region = self._regions[-1]
        inside, beyond = region.prefix, region.beyond
        run = runs.setdefault(inside, [])
        for entry in page:
            key = entry["Key"]
            if not key.startswith(inside) or key.startswith(beyond):
                region = next(each for each in self._regions if key.startswith(each.prefix))
                inside, beyond = region.prefix, region.beyond
                run = runs.setdefault(inside, [])
            run.append(entry)
        for region in self._regions:
            if run := runs.get(region.prefix, []):
                region.add(run)

    def merge(self, other: Listing) -> None:
        """Add what a listing of other keys collected for the same queries."""
        for region, others in zip(self._regions, other._regions, strict=True):
            region.merge(others)

    def total(self, name: Hashable) -> Any:
        """Return the merged collector of a query."""
        factory = self._queries[name].factory
        total = factory()
        for region, wanted in self._of[name]:
            total.merge(region.collectors[wanted][factory])
        return total

    def seen(self, name: Hashable) -> int:
        """Return the number of objects below the prefixes of a query, counted or not."""
        return sum(region.seen for region, _ in self._of[name])

    def empty_prefixes(self, prefixes: Iterable[str]) -> list[str]:
        """Return the prefixes without any object. They are prefixes of queries."""
        filled = [region.prefix for region in self._regions if region.seen]
        return [prefix for prefix in prefixes if prefix and not any(each.startswith(prefix) for each in filled)]
