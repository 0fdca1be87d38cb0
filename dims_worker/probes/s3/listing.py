"""What many metrics find out from one listing of a bucket, a key at a time, in memory that does not grow.

The prefixes of all metrics cut the space of keys into regions: a key belongs to the region of its longest
prefix. Each key is given to its region alone, and once for every different filter there; a metric is the
sum of the regions below its prefixes. So 35 metrics cost little more than one, prefixes may contain each
other, and no order of the keys is relied on: that a key mostly lies where the last one lay is only faster.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from functools import lru_cache, partial
from typing import Any, Protocol

from dims_worker.config import S3Metric
from dims_worker.probes import glob

Entry = Mapping[str, Any]
"""An object as S3 lists it: `Key` (text), `Size` (bytes), `LastModified` (an aware datetime), and `ETag` and
`StorageClass`, which a store may leave out."""

_STANDARD = "STANDARD"
"""The storage class of an entry that names none."""


class Collector(Protocol):
    """Finds something out about objects; what two of them found can be put together."""

    def add(self, entries: list[Entry]) -> None: ...

    def merge(self, other: Any) -> None:
        """Take in what another collector of the same make found."""


Make = Callable[[], Collector]
"""Makes a collector. Hashable: metrics whose makes are equal share one collector."""


@dataclass(slots=True)
class ObjectTotals:
    """Number, bytes, and the newest and oldest change of some objects."""

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
        if other.newest is not None and (self.newest is None or other.newest > self.newest):
            self.newest = other.newest
        if other.oldest is not None and (self.oldest is None or other.oldest < self.oldest):
            self.oldest = other.oldest


@dataclass(slots=True)
class Keys:
    """The objects themselves, key and size, as far as there are no more than `limit` of them."""

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
    """Which objects below its prefixes a metric counts. `bases` are the prefixes that `match` is relative
    to, where it is of more than the key's last part."""

    match: tuple[str, ...] = ()
    suffix: tuple[str, ...] = ()
    smaller_than: int | None = None
    storage_class: tuple[str, ...] = ()
    bases: tuple[str, ...] = ()

    @classmethod
    def of(cls, metric: S3Metric) -> KeyFilter:
        return cls(metric.match, metric.suffix, metric.smaller_than, metric.storage_class)

    def below(self, prefixes: Iterable[str]) -> KeyFilter:
        """The filter for keys that all lie below these prefixes."""
        deep = any("/" in pattern for pattern in self.match)
        bases = tuple(prefixes) if deep else ()
        return KeyFilter(self.match, self.suffix, self.smaller_than, self.storage_class, bases)

    def wants(self, key: str) -> bool:
        """Whether the object could count, as far as its key tells."""
        if self.suffix and not key.endswith(self.suffix):
            return False
        return not self.match or key_test(self.match, self.bases)(key)

    def select(self, entries: list[Entry]) -> list[Entry]:
        """The entries of a region that count."""
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
    """The test of `match`: a pattern without a `/` is of the key's last part, else of what follows a base."""
    names = glob.name_matcher(tuple(pattern for pattern in match if "/" not in pattern))
    if not bases:
        return names
    deep = glob.matcher(tuple(pattern for pattern in match if "/" in pattern))
    return partial(_deep_or_named, names, deep, bases)


def _deep_or_named(names: Callable[[str], bool], deep: Callable[[str], bool], bases: tuple[str, ...], key: str) -> bool:
    # A base without its last `/` leaves one in front of the rest
    return names(key) or any(deep(key[len(b) :].removeprefix("/")) for b in bases if key.startswith(b))


@dataclass(frozen=True, slots=True)
class ListingQuery:
    """What is to be found out, by which collector, about which objects below which prefixes."""

    prefix: tuple[str, ...]
    filter: KeyFilter
    make: Make


@dataclass(slots=True)
class Region:
    """The keys with this prefix and none of the longer ones in `beyond`. `seen` counts them all."""

    prefix: str
    beyond: tuple[str, ...]
    seen: int = 0
    collectors: dict[KeyFilter, dict[Make, Collector]] = field(default_factory=dict)

    def add(self, entries: list[Entry]) -> None:
        self.seen += len(entries)
        for wanted, collectors in self.collectors.items():
            chosen = wanted.select(entries)
            for collector in collectors.values():
                collector.add(chosen)

    def merge(self, other: Region) -> None:
        self.seen += other.seen
        for wanted, collectors in self.collectors.items():
            for make, collector in collectors.items():
                collector.merge(other.collectors[wanted][make])


class Listing:
    """Serves `wants` while a bucket is listed: `add` each page, then ask `total`."""

    def __init__(self, wants: Mapping[Hashable, ListingQuery]) -> None:
        prefixes = {"", *(prefix for want in wants.values() for prefix in want.prefix)}
        # Longest first: the first region whose prefix a key has is the key's
        self._regions = [
            Region(prefix, tuple(p for p in prefixes if p != prefix and p.startswith(prefix)))
            for prefix in sorted(prefixes, key=lambda prefix: (-len(prefix), prefix))
        ]
        self._wants = wants
        self._of: dict[Hashable, list[tuple[Region, KeyFilter]]] = {name: [] for name in wants}
        for region in self._regions:
            for name, want in wants.items():
                bases = [prefix for prefix in want.prefix if region.prefix.startswith(prefix)]
                if bases:
                    wanted = want.filter.below(bases)
                    region.collectors.setdefault(wanted, {}).setdefault(want.make, want.make())
                    self._of[name].append((region, wanted))

    def add(self, page: list[Entry]) -> None:
        """Take a page of entries, in whatever order."""
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
        """Take in what a listing of other keys found for the same wants."""
        for mine, its in zip(self._regions, other._regions, strict=True):
            mine.merge(its)

    def total(self, name: Hashable) -> Any:
        """What was found for a want: a collector of its make."""
        make = self._wants[name].make
        total = make()
        for region, wanted in self._of[name]:
            total.merge(region.collectors[wanted][make])
        return total

    def seen(self, name: Hashable) -> int:
        """How many objects lie below a want's prefixes, counted or not."""
        return sum(region.seen for region, _ in self._of[name])
