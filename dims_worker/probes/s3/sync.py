"""A local tree against a prefix: what is only here, only there, or different.

Both sides come in the order of their keys, so they are merged as they come, and neither is held in memory.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Callable, Iterator
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
_DISORDER = "the store does not list keys in order, so that the local files cannot be merged with them"


@dataclass(frozen=True, slots=True)
class KeyDifference:
    """A key that differs: of a file at `path`, where there is one, and of an object; sizes in bytes, None
    where a side lacks it. A key with `os.fsdecode`'s surrogates is no object's."""

    kind: Kind
    key: str
    path: str
    local: int | None
    s3: int | None


@dataclass(slots=True)
class SyncTotals:
    """How two sides compare. `same` and the kinds of differences count each key of the union once."""

    only_local: int = 0
    only_s3: int = 0
    different: int = 0
    same: int = 0
    markers: int = 0
    """Empty objects whose keys end in `/`: they stand for folders, and no file could equal them."""

    def merge(self, other: SyncTotals) -> None:
        for each in fields(self):
            setattr(self, each.name, getattr(self, each.name) + getattr(other, each.name))

    @property
    def union(self) -> int:
        return self.only_local + self.only_s3 + self.different + self.same

    @property
    def drift_pct(self) -> float:
        """Differences in % of the union; two empty sides differ in nothing."""
        return 100 * (self.only_local + self.only_s3 + self.different) / self.union if self.union else 0.0


STATUSES: dict[float, Status] = {5: "synced", 15: "minor_drift", 30: "moderate_drift"}
"""Below how many % a comparison is called what; from the last on it is `major_drift`."""


def status_of(drift_pct: float) -> Status:
    return next((status for limit, status in STATUSES.items() if drift_pct < limit), "major_drift")


@dataclass(slots=True)
class SyncMerge:
    """One pair's merge over one span of keys: `add` every page in turn, then `finish`.

    What stands in its way becomes `failure`, and concerns this pair alone. Kept are the first `keep`
    differences of each kind.
    """

    tree: LocalTree
    wanted: Callable[[str], bool]
    checksum: bool
    keep: float
    sides: SyncTotals = field(default_factory=SyncTotals)
    kept: list[KeyDifference] = field(default_factory=list)
    failure: str | None = None
    _files: Iterator[LocalFile] = field(init=False)
    _file: LocalFile | None = None
    _begun: bool = False
    _last: str = ""

    def __post_init__(self) -> None:
        self._files = self.tree.files(self.wanted)

    def add(self, page: list[Entry]) -> None:
        """Take the next page of the listing; what lies outside the tree's prefix and span is passed over."""
        prefix = self.tree.prefix
        try:
            for entry in () if self.failure else page:
                key: str = entry["Key"]
                if key.startswith(prefix) and key != prefix:
                    self._object(key, entry)
        except MeasureError as error:
            self.failure = str(error)

    def finish(self) -> None:
        """The listing is over: what is left of the local side is only there."""
        try:
            if not self.failure:
                self._pass(None)
        except MeasureError as error:
            self.failure = str(error)

    def _object(self, key: str, entry: Entry) -> None:
        if key <= self._last:
            raise MeasureError(_DISORDER)
        self._last = key
        if not self.tree.span.holds(key) or not self.wanted(key):
            return
        if key.endswith("/") and not entry["Size"]:
            self.sides.markers += 1
            return
        self._pass(key)
        file = self._file
        if file is None or file.key != key:
            self._differs("only_s3", key, None, entry["Size"])
            return
        same = self._is_same(file, entry)
        if same:
            self.sides.same += 1
        elif same is None:
            self._differs("only_s3", key, None, entry["Size"])
        else:
            self._differs("different", key, file, entry["Size"])
        self._file = next(self._files, None)

    def _pass(self, key: str | None) -> None:
        """Go on to the first file that does not come before a key; those that do are only local."""
        if not self._begun:
            self._begun = True
            self._file = next(self._files, None)
        while (file := self._file) is not None and (key is None or file.key < key):
            self._differs("only_local", file.key, file, None)
            self._file = next(self._files, None)

    def _is_same(self, file: LocalFile, entry: Entry) -> bool | None:
        """Whether file and object are equal, by size, then by MD5 where the ETag is one; None: the file has
        vanished."""
        if file.size != entry["Size"]:
            return False
        tag = str(entry.get("ETag", "")).strip('"').lower()
        if not self.checksum or not _MD5.fullmatch(tag):
            return True
        found = md5(file.path, self.tree.deadline)
        return None if found is None else found == tag

    def _differs(self, kind: Kind, key: str, file: LocalFile | None, s3: int | None) -> None:
        count = getattr(self.sides, kind) + 1
        setattr(self.sides, kind, count)
        if count <= self.keep:
            path = file.path if file else f"{self.tree.folder}/{key[len(self.tree.prefix) :]}"
            self.kept.append(KeyDifference(kind, key, path, file.size if file else None, s3))


# --- a metric's pairs --------------------------------------------------------------------------------


@dataclass(slots=True)
class SyncComparison:
    """All pairs of a metric, each over all spans of the listing. `keep` names of each kind are kept a pair."""

    metric: S3Metric
    around: ScanContext
    deadline: Deadline
    keep: float
    _of_pair: list[tuple[Pair, list[SyncMerge]]] = field(init=False)

    def __post_init__(self) -> None:
        self._of_pair = [(pair, []) for pair in self.metric.pairs]

    def merges(self, span: KeySpan = WHOLE) -> list[SyncMerge]:
        """The merges that a listing of the span must fill. Spans are asked for in their order."""
        found = []
        for pair, merges in self._of_pair:
            if span.reaches(prefix := _prefix(pair)):
                tree = LocalTree(
                    _folder(self.metric, pair, self.around), prefix, str(self.around.home), self.deadline, span
                )
                wanted = KeyFilter(self.metric.match, self.metric.suffix).below((prefix,)).wants
                merges.append(SyncMerge(tree, wanted, self.metric.checksum, self.keep))
                found.append(merges[-1])
        return found

    @property
    def differences(self) -> list[KeyDifference]:
        """What was kept: pair by pair, in the order of the keys."""
        return [difference for _, merges in self._of_pair for merge in merges for difference in merge.kept]

    def reading(self, name: str) -> Reading:
        """The reading of `sync_status`: the status, with the numbers and the first names in the details."""
        failures = [merge.failure for _, merges in self._of_pair for merge in merges if merge.failure]
        if failures:
            return Reading.failed(name, self.metric.shown_unit, failures[0])
        everything, pairs = SyncTotals(), []
        for pair, merges in self._of_pair:
            sides = SyncTotals()
            for merge in merges:
                sides.merge(merge.sides)
            everything.merge(sides)
            pairs.append({"folder": pair.folder, "prefix": pair.prefix, **_numbers(sides)})
        details = {**_numbers(everything), **self._names(), "pairs": pairs}
        return exact_reading(name, self.metric, status_of(everything.drift_pct), details)

    def _names(self) -> dict[str, list[str]]:
        named: dict[str, list[str]] = {f"{kind}_names": [] for kind in KINDS}
        for difference in self.differences:
            names = named[f"{difference.kind}_names"]
            if len(names) < self.metric.names:
                names.append(printable_path(difference.key))
        return named


def unfit(name: str, metric: S3Metric, around: ScanContext) -> Reading | None:
    """The reading of a metric whose local side cannot be compared at all; None where it can."""
    for pair in metric.pairs:
        folder = _folder(metric, pair, around)
        try:
            is_folder = stat.S_ISDIR(os.stat(folder).st_mode)  # noqa: PTH116 - a str is what the pass works with
        except (FileNotFoundError, NotADirectoryError):
            return missing_reading(name, metric, f"{printable_path(folder)} does not exist")
        except OSError as error:
            return Reading.failed(name, metric.shown_unit, f"{printable_path(folder)}: {error.strerror}")
        if not is_folder:
            return Reading.failed(name, metric.shown_unit, f"{printable_path(folder)} is no folder")
    return None


def _numbers(sides: SyncTotals) -> dict[str, Any]:
    numbers = {each.name: getattr(sides, each.name) for each in fields(sides)}
    return {**numbers, "union": sides.union, "sync_drift_pct": sides.drift_pct}


def _prefix(pair: Pair) -> str:
    return f"{pair.prefix.rstrip('/')}/" if pair.prefix else ""


def _folder(metric: S3Metric, pair: Pair, around: ScanContext) -> str:
    return str(around.path_of(f"{metric.local}/{pair.folder}"))
