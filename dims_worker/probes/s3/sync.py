"""Compare a local tree with a prefix: what is only local, only in S3, or different.

Both sides are sorted by key, so they are merged as they are read, and neither is in memory as a whole.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Literal

from dims_worker.config import S3Metric
from dims_worker.config.metrics import Pair
from dims_worker.errors import MeasureError
from dims_worker.probes.base import Deadline, Reading, ScanContext, exact_reading, missing_reading, printable_path
from dims_worker.probes.s3.listing import Entry, KeyFilter
from dims_worker.probes.s3.local_tree import LocalFile, LocalTree, md5
from dims_worker.probes.s3.pages import WHOLE, KeySpan

Kind = Literal["only_local", "only_s3", "different"]
KINDS: tuple[Kind, ...] = ("only_local", "only_s3", "different")
Status = Literal["synced", "minor_drift", "moderate_drift", "major_drift"]

_MD5 = re.compile(r"[0-9a-f]{32}")
MAX_SORTED = 1_000_000
"""The most objects of a pair that are sorted in memory, for a store that does not list them in order."""
_DISORDER = "the store does not list keys in order, so they cannot be compared with the local files"


@dataclass(frozen=True, slots=True)
class KeyDifference:
    """A key that differs. `path` is that of its local file, which may not exist. `local` and `s3` are sizes in bytes,
    None if that side has no such key. A key with surrogates (see `os.fsdecode`) cannot exist in S3. `storage_class` is
    that of the object, None if S3 reports none."""

    kind: Kind
    key: str
    path: str
    local: int | None
    s3: int | None
    storage_class: str | None = None


@dataclass(frozen=True, slots=True)
class PairDifferences:
    """The kept differences between a local folder and a prefix (with its `/`), and the kept keys of empty objects
    that represent folders."""

    folder: str
    prefix: str
    differences: tuple[KeyDifference, ...]
    markers: tuple[str, ...]


@dataclass(slots=True)
class SyncTotals:
    """The totals of a comparison. `same` and the kinds of differences count each key of the union once."""

    only_local: int = 0
    only_s3: int = 0
    different: int = 0
    same: int = 0
    markers: int = 0
    """Empty objects whose keys end in `/`. They represent folders, and no file can equal them."""
    same_by_size: int = 0
    """Those of `same` whose content was not compared, because no ETag is an MD5 or `checksum` is off."""

    def merge(self, other: SyncTotals) -> None:
        for each in fields(self):
            setattr(self, each.name, getattr(self, each.name) + getattr(other, each.name))

    @property
    def union(self) -> int:
        return self.only_local + self.only_s3 + self.different + self.same

    @property
    def drift_pct(self) -> float:
        """The differences in % of the union. 0 if both sides are empty."""
        return 100 * (self.only_local + self.only_s3 + self.different) / self.union if self.union else 0.0


STATUSES: dict[float, Status] = {5: "synced", 15: "minor_drift", 30: "moderate_drift"}
"""The status below each limit in %. From the last limit on it is `major_drift`."""


def status_of(drift_pct: float) -> Status:
    return next((status for limit, status in STATUSES.items() if drift_pct < limit), "major_drift")


@dataclass(slots=True)
class SyncMerge:
    """The merge of one pair over one span of keys: `add` every page in order, then `finish`.

    An error is recorded in `failure` and affects only this pair. The first `keep` differences of each kind, and the
    first `keep` keys that represent folders, are kept. With `sort`, pages come in any order: `finish` sorts them, and
    they are in memory until then.
    """

    tree: LocalTree
    wanted: Callable[[str], bool]
    checksum: bool
    keep: float
    sort: bool = False
    totals: SyncTotals = field(default_factory=SyncTotals)
    kept: list[KeyDifference] = field(default_factory=list)
    markers: list[str] = field(default_factory=list)
    failure: str | None = None
    _files: Iterator[LocalFile] = field(init=False)
    _file: LocalFile | None = None
    _begun: bool = False
    _last: str = ""
    _unsorted: list[Entry] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._files = self.tree.files(self.wanted)

    def add(self, page: list[Entry]) -> None:
        """Add the next page of the listing. Keys outside the prefix and the span of the tree are skipped."""
        prefix = self.tree.prefix
        try:
            for entry in () if self.failure else page:
                key: str = entry["Key"]
                if key.startswith(prefix):
                    if self.sort:
                        self._unsorted.append(entry)
                    else:
                        self._add_object(key, entry)
            if len(self._unsorted) > MAX_SORTED:
                raise MeasureError(f"more than {MAX_SORTED:,} objects are under {prefix}, and {_DISORDER}")
        except MeasureError as error:
            self._fail(error)

    def finish(self) -> None:
        """End the merge: all remaining files are only local."""
        try:
            if not self.failure:
                self._unsorted.sort(key=lambda entry: entry["Key"])
                for entry in self._unsorted:
                    self._add_object(entry["Key"], entry)
                self._advance_to(None)
        except MeasureError as error:
            self._fail(error)

    def _fail(self, error: MeasureError) -> None:
        self.failure = str(error)
        self._unsorted.clear()

    def _add_object(self, key: str, entry: Entry) -> None:
        if key <= self._last:
            raise MeasureError(_DISORDER)
        self._last = key
        if not self.tree.span.holds(key) or not self.wanted(key):
            return
        if key.endswith("/") and not entry["Size"]:
            if key != self.tree.prefix:
                self._add_marker(key)
            return
        self._advance_to(key)
        file = self._file
        if file is None or file.key != key:
            self._add_difference("only_s3", key, None, entry)
            return
        same = self._is_same(file, entry)
        if same:
            self.totals.same += 1
        elif same is None:
            self._add_difference("only_s3", key, None, entry)
        else:
            self._add_difference("different", key, file, entry)
        self._file = next(self._files, None)

    def _advance_to(self, key: str | None) -> None:
        """Advance to the first file at or after a key. The files before it are only local."""
        if not self._begun:
            self._begun = True
            self._file = next(self._files, None)
        while (file := self._file) is not None and (key is None or file.key < key):
            self._add_difference("only_local", file.key, file, None)
            self._file = next(self._files, None)

    def _is_same(self, file: LocalFile, entry: Entry) -> bool | None:
        """Return whether file and object are equal, by size, and by MD5 if the ETag is one. None: the file has
        vanished."""
        if file.size != entry["Size"]:
            return False
        tag = str(entry.get("ETag", "")).strip('"').lower()
        if not self.checksum or not _MD5.fullmatch(tag):
            self.totals.same_by_size += 1
            return True
        digest = md5(file.path, self.tree.deadline)
        return None if digest is None else digest == tag

    def _add_marker(self, key: str) -> None:
        self.totals.markers += 1
        if self.totals.markers <= self.keep:
            self.markers.append(key)

    def _add_difference(self, kind: Kind, key: str, file: LocalFile | None, entry: Entry | None) -> None:
        count = getattr(self.totals, kind) + 1
        setattr(self.totals, kind, count)
        if count <= self.keep:
            path = file.path if file else f"{self.tree.folder}/{key[len(self.tree.prefix) :]}"
            size, kept_as = (entry["Size"], entry.get("StorageClass")) if entry else (None, None)
            self.kept.append(KeyDifference(kind, key, path, file.size if file else None, size, kept_as))


@dataclass(slots=True)
class SyncComparison:
    """All pairs of a metric over all spans of the listing. Keeps `keep` differences of each kind for each pair."""

    metric: S3Metric
    context: ScanContext
    deadline: Deadline
    keep: float
    _merges_of: list[tuple[Pair, list[SyncMerge]]] = field(init=False)

    def __post_init__(self) -> None:
        self._merges_of = [(pair, []) for pair in self.metric.pairs]

    def merges(self, span: KeySpan = WHOLE, sort: bool = False) -> list[SyncMerge]:
        """Create the merges that a listing of the span fills. Call it for the spans in order. `sort` is for a
        listing without order."""
        created = []
        for pair, merges in self._merges_of:
            if span.reaches(prefix := _prefix(pair)):
                tree = LocalTree(
                    _folder(self.metric, pair, self.context), prefix, str(self.context.home), self.deadline, span
                )
                wanted = KeyFilter(self.metric.match, self.metric.suffix).below((prefix,)).accepts_key
                merges.append(SyncMerge(tree, wanted, self.metric.checksum, self.keep, sort))
                created.append(merges[-1])
        return created

    @property
    def differences(self) -> list[KeyDifference]:
        """The kept differences: pair by pair, in the order of the keys."""
        return [difference for _, merges in self._merges_of for merge in merges for difference in merge.kept]

    @property
    def by_pair(self) -> list[PairDifferences]:
        """The kept differences of each pair, in the order of the keys."""
        return [
            PairDifferences(
                _folder(self.metric, pair, self.context),
                _prefix(pair),
                tuple(difference for merge in merges for difference in merge.kept),
                tuple(key for merge in merges for key in merge.markers),
            )
            for pair, merges in self._merges_of
        ]

    def reading(self, name: str) -> Reading:
        """Return the reading of `sync_status`: the status, with the totals and the first names in the details."""
        failures = [merge.failure for _, merges in self._merges_of for merge in merges if merge.failure]
        if failures:
            return Reading.failed(name, self.metric.shown_unit, failures[0])
        everything, pairs = SyncTotals(), []
        for pair, merges in self._merges_of:
            totals = SyncTotals()
            for merge in merges:
                totals.merge(merge.totals)
            everything.merge(totals)
            pairs.append({"folder": pair.folder, "prefix": pair.prefix, **_numbers(totals)})
        details: dict[str, Any] = {**_numbers(everything), **self._names(), "pairs": pairs}
        if empty := [pair["prefix"] for pair in pairs if not _objects(pair)]:
            details["empty_prefixes"] = [printable_path(prefix) for prefix in empty]
        return exact_reading(name, self.metric, status_of(everything.drift_pct), details)

    def _names(self) -> dict[str, list[str]]:
        named: dict[str, list[str]] = {f"{kind}_names": [] for kind in KINDS}
        for difference in self.differences:
            names = named[f"{difference.kind}_names"]
            if len(names) < self.metric.names:
                names.append(printable_path(difference.key))
        return named


def local_folder_problem(name: str, metric: S3Metric, context: ScanContext) -> Reading | None:
    """Return the reading of a metric whose local folders cannot be compared, or None if they can."""
    for pair in metric.pairs:
        folder = _folder(metric, pair, context)
        try:
            is_folder = stat.S_ISDIR(os.stat(folder).st_mode)  # noqa: PTH116 - the pass works with str
        except (FileNotFoundError, NotADirectoryError):
            return missing_reading(name, metric, f"{printable_path(folder)} does not exist")
        except OSError as error:
            return Reading.failed(name, metric.shown_unit, f"{printable_path(folder)} cannot be read: {error.strerror}")
        if not is_folder:
            return Reading.failed(
                name, metric.shown_unit, f"{printable_path(folder)} is not a folder: check `local` and `pairs`"
            )
    return None


def _numbers(totals: SyncTotals) -> dict[str, Any]:
    numbers = {each.name: getattr(totals, each.name) for each in fields(totals)}
    return {**numbers, "union": totals.union, "sync_drift_pct": totals.drift_pct}


def _objects(numbers: Mapping[str, Any]) -> int:
    return sum(numbers[name] for name in ("only_s3", "different", "same", "markers"))


def _prefix(pair: Pair) -> str:
    return f"{pair.prefix.rstrip('/')}/" if pair.prefix else ""


def _folder(metric: S3Metric, pair: Pair, context: ScanContext) -> str:
    return str(context.path_of(f"{metric.local}/{pair.folder}"))
