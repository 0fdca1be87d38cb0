"""The interface of all probes: one scan of a source returns one reading for each metric."""

from __future__ import annotations

import math
import os
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import timedelta
from decimal import Decimal
from io import FileIO
from pathlib import Path
from typing import Any, ClassVar, Generic, Literal, TypeVar

from dims_worker.config import Metric, Source
from dims_worker.config.units import BYTES
from dims_worker.errors import MeasureError

Value = int | float | Decimal | str | bool | None
Method = Literal["exact", "approximate", "derived", "failed"]
"""`approximate`: the source changed while it was measured, each time that DIMS tried."""


@dataclass(frozen=True, slots=True)
class Reading:
    """One measurement of one metric: a value, or the error that prevented it.

    The value of an age is its instant in ISO 8601 UTC. The age itself is computed when it is shown. Numbers
    are unrounded, in `unit`, with all digits of their source. Raises ValueError for NaN and infinity.
    """

    metric: str
    value: Value
    unit: str
    method: Method
    error: str | None = None
    details: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if isinstance(self.value, float | Decimal) and not math.isfinite(self.value):
            raise ValueError(f"{self.metric}: {self.value} is not a measurement")
        if (self.method == "failed") != (self.error is not None):
            raise ValueError(f"{self.metric}: a reading has an error if and only if it failed")

    @classmethod
    def failed(cls, metric: str, unit: str, error: str) -> Reading:
        return cls(metric, None, unit, "failed", error)


@dataclass(frozen=True, slots=True)
class ScanResult:
    """The result of one pass over a source: a reading for each requested metric, and the number of API calls.

    `crashed`: the process that scanned died, or computed without an end. One of the metrics may be the cause.
    `states` are the states that the readings were measured from (see `Probe.states`). `unchanged` are metrics without a
    reading, because their state is the one of their last reading.
    """

    readings: tuple[Reading, ...]
    api_calls: int = 0
    crashed: bool = False
    states: Mapping[str, str] = field(default_factory=dict)
    unchanged: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Deadline:
    """The monotonic instant at which a scan must stop."""

    timeout: timedelta
    at: float

    @classmethod
    def after(cls, timeout: timedelta) -> Deadline:
        return cls(timeout, time.monotonic() + timeout.total_seconds())

    @property
    def left(self) -> float:
        """The seconds left, at least 0.001, so that they can be passed as a timeout."""
        return max(self.at - time.monotonic(), 0.001)

    @property
    def over(self) -> bool:
        """Whether the time is over."""
        return time.monotonic() > self.at

    def share(self, parts: int) -> Deadline:
        """Return the deadline of one of `parts` that share the time left."""
        left = self.left / parts
        return Deadline(timedelta(seconds=left), time.monotonic() + left)

    def check(self) -> None:
        """Raise MeasureError once the time is over."""
        if self.over:
            raise MeasureError(f"the scan took longer than its timeout of {self.timeout.total_seconds():g} s")


@dataclass(frozen=True, slots=True)
class ScanContext:
    """Where a scan takes place. Relative paths start at `project`. The data directory `home` is never measured.

    `sources` are all configured sources, because a metric may query another one for what it expects. `prices`
    are in USD.
    """

    project: Path
    home: Path
    sources: Mapping[str, Source] = field(default_factory=dict, hash=False)
    prices: Mapping[str, float | Mapping[str, float]] = field(default_factory=dict, hash=False)

    def path_of(self, path: str) -> Path:
        return (self.project / Path(path).expanduser()).resolve()


@dataclass(frozen=True, slots=True)
class PathsChanged:
    """Files below `root` (absolute) changed. An empty `paths` means that the changed files are unknown."""

    root: str
    paths: tuple[str, ...] = ()
    history: bool = False
    """Whether the history of a repository changed too, as it does with a commit."""
    worktrees: tuple[str, ...] = ()
    """The tops of other worktrees of that repository. They have the same branches, but their own HEAD."""

    def unknown(self) -> PathsChanged:
        """Return the same change without its paths."""
        return replace(self, paths=())


@dataclass(frozen=True, slots=True)
class KeysChanged:
    """Objects of a bucket changed. An empty `keys` means that the changed objects are unknown."""

    bucket: str
    keys: tuple[str, ...] = ()

    def unknown(self) -> KeysChanged:
        """Return the same change without its keys."""
        return replace(self, keys=())


Change = PathsChanged | KeysChanged

IN_PROGRESS = "in_progress"
"""The detail of a reading that was taken in the middle of an operation, such as a rebase: it names the operation. The
reading is shown, but it is not accepted as the baseline, and it opens no approval request."""

S = TypeVar("S", bound=Source)
M = TypeVar("M", bound=Metric)
T = TypeVar("T")


class Probe(ABC, Generic[S, M]):
    """Measures one type of source. A probe has no state: one instance serves all sources of its type."""

    change_types: ClassVar[type[PathsChanged] | type[KeysChanged] | tuple[()]] = ()
    """The kind of change that `touched` can answer for. With (), only rules that name a metric affect it."""

    follows_state: ClassVar[bool] = False
    """Whether `states` answers. An event about such a source then makes all its metrics due, and those that have not
    changed are not measured. So a change whose event never came is found too."""

    scan_returns_states: ClassVar[bool] = False
    """Whether `scan` returns the states that it saw. Otherwise DIMS asks for them before each scan."""

    @abstractmethod
    def scan(self, source: S, metrics: Mapping[str, M], context: ScanContext, deadline: Deadline) -> ScanResult:
        """Return one reading for each of `metrics`, from ONE pass over the source.

        Raises MeasureError when the source as a whole cannot be measured. A problem of one metric becomes a
        failed reading of that metric.
        """

    def touched(self, source: S, metric: M, change: Change, context: ScanContext) -> str | None:
        """Return why the change can alter this metric, in a few words, or None if it cannot. Pure."""
        return None

    def states(
        self, source: S, metrics: Mapping[str, M], context: ScanContext, deadline: Deadline
    ) -> Mapping[str, str | None]:
        """Return the present state of what each metric reads. Equal states mean an equal value.

        This reads no content of files. None means that the state is too recent to rely on: a file that changes twice
        within a tick of the clock may have the same size and times, so a measure that reads content has no state until
        the files are at rest. A metric that is left out has no state at all, and is measured each time.
        Raises MeasureError like `scan`.
        """
        return {}

    def is_related(self, source: S, change: Change, context: ScanContext) -> bool:
        """Return whether the change happened where the source is, whatever its paths are. Pure."""
        return False

    def steps_to_compare(self, source: S, metric: M, change: Change) -> int:
        """Return a bound of the steps that `touched` takes. A step is about 5 ns."""
        return 0

    def touch_key(self, metric: M) -> Hashable:
        """Return a key: metrics of a source with equal keys are all touched by a change, or none of them is."""
        return id(metric)


def result_or_error(call: Callable[..., T], *arguments: Any) -> T | MeasureError:
    """Return the result of the call, or the MeasureError that it raises, so that either can be kept."""
    try:
        return call(*arguments)
    except MeasureError as error:
        return error


def result_of(kept: T | MeasureError) -> T:
    """Return a kept result, or raise the kept error."""
    if isinstance(kept, MeasureError):
        raise kept
    return kept


def exact_reading(name: str, metric: Metric, value: Value, details: Mapping[str, Any] | None = None) -> Reading:
    """Return an exact reading, in the unit of the metric."""
    return Reading(name, value, metric.shown_unit, "exact", None, details or {})


def missing_reading(name: str, metric: Metric, reason: str) -> Reading:
    """Return the reading of a metric whose folder, file, branch or prefix does not exist.

    It is the value of `absent:` with the reason in its details, or a failed reading if `absent:` is not set.
    """
    if metric.has_absent:
        return exact_reading(name, metric, metric.absent, {"absent": reason})
    return Reading.failed(name, metric.shown_unit, reason)


def missing_readings(metrics: Mapping[str, Metric], reason: str) -> tuple[Reading, ...]:
    """Return the readings of a source that does not exist. Raises MeasureError if no metric sets `absent:`."""
    if not any(metric.has_absent for metric in metrics.values()):
        raise MeasureError(reason)
    return tuple(missing_reading(name, metric, reason) for name, metric in metrics.items())


def size_in_unit(metric: Metric, size: int) -> int | float:
    """Convert bytes to the unit of the metric: an int for bytes, otherwise a float."""
    factor = BYTES[metric.shown_unit]
    return size if factor == 1 else size / factor


def printable_path(path: str) -> str:
    r"""Make a path or a key safe for JSON in PostgreSQL: bytes that are not UTF-8 (see `os.fsdecode`) become `\xff`,
    and NUL becomes `\x00`."""
    return os.fsencode(path).decode("utf-8", "backslashreplace").replace("\0", r"\x00")


def open_regular_file(path: str) -> FileIO:
    """Open a file to read it. If it was replaced meanwhile, this follows no symbolic link and waits for no pipe."""
    return FileIO(path, opener=lambda name, flags: os.open(name, flags | os.O_NOFOLLOW | os.O_NONBLOCK))


def readings_by_name(readings: Iterable[Reading]) -> dict[str, Reading]:
    return {reading.metric: reading for reading in readings}
