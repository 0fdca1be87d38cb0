"""What many metrics find out from one listing of a bucket, a key at a time, in memory that does not grow.

The prefixes of all metrics cut the space of keys into regions: a key belongs to the region of its longest
prefix. Each key is added to its region alone, and once for every different filter there; a metric is the
sum of the regions below its prefixes. So 35 metrics cost little more than one, prefixes may contain each
other, and no order of the keys is relied on: that a key mostly lies where the last one lay is only faster.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from functools import lru_cache, partial
from typing import TYPE_CHECKING, Any

from dims_worker.config import S3Metric
from dims_worker.probes import glob

if TYPE_CHECKING:
    from collections.abc import Callable

Entry = Mapping[str, Any]
"""An object as S3 lists it: `Key` (text), `Size` (bytes), `LastModified` (an aware datetime)."""


@dataclass(slots=True)
class Tally:
    """Number, bytes, and the newest and oldest change of some objects."""

    count: int = 0
    bytes: int = 0
    newest: datetime | None = None
    oldest: datetime | None = None

    def add(self, entries: list[Entry]) -> None:
        if entries:
            times = [entry["LastModified"] for entry in entries]
            self.merge(Tally(len(entries), sum([e["Size"] for e in entries]), max(times), min(times)))

    def merge(self, other: Tally) -> None:
        self.count += other.count
        self.bytes += other.bytes
        if other.newest is not None and (self.newest is None or other.newest > self.newest):
            self.newest = other.newest
        if other.oldest is not None and (self.oldest is None or other.oldest < self.oldest):
            self.oldest = other.oldest


@dataclass(frozen=True, slots=True)
class Filter:
    """Which objects below its prefixes a metric counts. `bases` are the prefixes that `match` is relative
    to, where it is of more than the key's last part."""

    match: tuple[str, ...]
    suffix: tuple[str, ...]
    smaller_than: int | None
    bases: tuple[str, ...] = ()

    @classmethod
    def of(cls, metric: S3Metric, prefixes: Iterable[str]) -> Filter:
        deep = any("/" in pattern for pattern in metric.match)
        return cls(metric.match, metric.suffix, metric.smaller_than, tuple(prefixes) if deep else ())

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


@dataclass(slots=True)
class Region:
    """The keys with this prefix and none of the longer ones in `beyond`. `seen` counts them all."""

    prefix: str
    beyond: tuple[str, ...]
    seen: int = 0
    tallies: dict[Filter, Tally] = field(default_factory=dict)

    def add(self, entries: list[Entry]) -> None:
        self.seen += len(entries)
        for wanted, tally in self.tallies.items():
            tally.add(wanted.select(entries))


class Listing:
    """Counts for `metrics` while a bucket is listed: `add` each page, then ask `total`."""

    def __init__(self, metrics: Mapping[str, S3Metric]) -> None:
        prefixes = {"", *(prefix for metric in metrics.values() for prefix in metric.prefix)}
        # Longest first: the first region whose prefix a key has is the key's
        self._regions = [
            Region(prefix, tuple(p for p in prefixes if p != prefix and p.startswith(prefix)))
            for prefix in sorted(prefixes, key=len, reverse=True)
        ]
        self._of: dict[str, list[tuple[Region, Filter]]] = {name: [] for name in metrics}
        for region in self._regions:
            for name, metric in metrics.items():
                bases = [prefix for prefix in metric.prefix if region.prefix.startswith(prefix)]
                if bases:
                    wanted = Filter.of(metric, bases)
                    region.tallies.setdefault(wanted, Tally())
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

    def total(self, name: str) -> Tally:
        """What a metric counted."""
        total = Tally()
        for region, wanted in self._of[name]:
            total.merge(region.tallies[wanted])
        return total

    def seen(self, name: str) -> int:
        """How many objects lie below a metric's prefixes, counted or not."""
        return sum(region.seen for region, _ in self._of[name])


def prefixes_to_list(metrics: Iterable[S3Metric]) -> tuple[str, ...]:
    """The prefixes whose listings together hold all that the metrics read, none of them in another.

    For now the longest one that all prefixes share: where they share none, the whole bucket.
    """
    prefixes = [prefix for metric in metrics for prefix in metric.prefix]
    return (os.path.commonprefix(prefixes),)  # noqa: RUF071 - a prefix is text: it may end within a name
