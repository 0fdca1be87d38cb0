"""What every probe keeps to: one scan of a source in, one reading a metric out."""

from __future__ import annotations

import math
import os
import time
from abc import ABC, abstractmethod
from collections.abc import Hashable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, ClassVar, Generic, Literal, TypeVar

from dims_worker.config import Metric, Source
from dims_worker.config.units import BYTES
from dims_worker.errors import MeasureError

Value = int | float | str | bool | None
Method = Literal["exact", "derived", "failed"]


@dataclass(frozen=True, slots=True)
class Reading:
    """One measurement of one metric: a value, or the error that stood in its way.

    Ages hold the instant, in ISO 8601 UTC; the age is computed when it is read. Numbers are unrounded, in
    `unit`. Raises ValueError for NaN and infinity, which are no measurements.
    """

    metric: str
    value: Value
    unit: str
    method: Method
    error: str | None = None
    details: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if isinstance(self.value, float) and not math.isfinite(self.value):
            raise ValueError(f"{self.metric}: {self.value} is no measurement")
        if (self.method == "failed") != (self.error is not None):
            raise ValueError(f"{self.metric}: a failed reading, and no other, has an error")

    @classmethod
    def failed(cls, metric: str, unit: str, error: str) -> Reading:
        return cls(metric, None, unit, "failed", error)


@dataclass(frozen=True, slots=True)
class ScanResult:
    """What one pass over a source gave: a reading for each metric asked for, and the API calls it cost."""

    readings: tuple[Reading, ...]
    api_calls: int = 0


@dataclass(frozen=True, slots=True)
class Deadline:
    """The monotonic instant by which a scan is stopped."""

    timeout: timedelta
    at: float

    @classmethod
    def after(cls, timeout: timedelta) -> Deadline:
        return cls(timeout, time.monotonic() + timeout.total_seconds())

    @property
    def left(self) -> float:
        """Seconds left, at least a millisecond, as a bound for calls that take one."""
        return max(self.at - time.monotonic(), 0.001)

    def check(self) -> None:
        """Raises MeasureError once the time is over."""
        if time.monotonic() > self.at:
            raise MeasureError(f"took longer than its timeout of {self.timeout.total_seconds():g} s")


@dataclass(frozen=True, slots=True)
class ScanContext:
    """Where a scan takes place: relative paths start at `project`, `home` is never measured.

    `sources` are all that are configured (a metric may ask another one what to expect), `prices` in USD.
    """

    project: Path
    home: Path
    sources: Mapping[str, Source] = field(default_factory=dict, hash=False)
    prices: Mapping[str, float | Mapping[str, float]] = field(default_factory=dict, hash=False)

    def path_of(self, path: str) -> Path:
        return (self.project / Path(path).expanduser()).resolve()


@dataclass(frozen=True, slots=True)
class PathsChanged:
    """Files below `root` (absolute) changed; no paths means that nobody knows which."""

    root: str
    paths: tuple[str, ...] = ()
    history: bool = False
    """Whether a repository's history moved with them, as it does with a commit."""


@dataclass(frozen=True, slots=True)
class KeysChanged:
    """Objects of a bucket changed; no keys means that nobody knows which."""

    bucket: str
    keys: tuple[str, ...] = ()


Change = PathsChanged | KeysChanged

S = TypeVar("S", bound=Source)
M = TypeVar("M", bound=Metric)


class Probe(ABC, Generic[S, M]):
    """Measures one kind of source. Has no state: one instance serves all sources of its kind."""

    judges: ClassVar[type[PathsChanged] | type[KeysChanged] | tuple[()]]
    """The kind of change that `touched` is asked about; none: the metrics follow the rules that name them."""

    @abstractmethod
    def scan(self, source: S, metrics: Mapping[str, M], around: ScanContext, deadline: Deadline) -> ScanResult:
        """One reading for each of `metrics`, out of ONE pass over the source.

        Raises MeasureError where the source as a whole cannot be measured; what concerns one metric alone
        is a failed reading of that metric.
        """

    @abstractmethod
    def touched(self, source: S, metric: M, change: Change, around: ScanContext) -> str | None:
        """Why the change can alter this metric, in a few words; None where it cannot. Pure."""

    def reads(self, metric: M) -> Hashable:
        """What `touched` looks at: where it is equal, and the source the same, a change touches all or none."""
        return id(metric)


def exact_reading(name: str, metric: Metric, value: Value, details: Mapping[str, Any] | None = None) -> Reading:
    """A reading that was counted, in the metric's unit as it is."""
    return Reading(name, value, metric.shown_unit, "exact", None, details or {})


def missing_reading(name: str, metric: Metric, reason: str) -> Reading:
    """The reading of a metric whose folder, file, branch or prefix is not there: what `absent:` says of
    it, with the reason in the details; failed, with the reason as its error, where nothing is said."""
    if metric.has_absent:
        return exact_reading(name, metric, metric.absent, {"absent": reason})
    return Reading.failed(name, metric.shown_unit, reason)


def missing_readings(metrics: Mapping[str, Metric], reason: str) -> tuple[Reading, ...]:
    """The readings of a source that is not there. Raises MeasureError where no metric says `absent:`."""
    if not any(metric.has_absent for metric in metrics.values()):
        raise MeasureError(reason)
    return tuple(missing_reading(name, metric, reason) for name, metric in metrics.items())


def size_in_unit(metric: Metric, size: int) -> int | float:
    """A number of bytes in the metric's unit: an int in bytes, else a float."""
    factor = BYTES[metric.shown_unit]
    return size if factor == 1 else size / factor


def printable_path(path: str) -> str:
    r"""A path as it can stand in JSON: bytes that are no UTF-8 (`os.fsdecode`) become `\xff`."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")


def instant_text(time: datetime) -> str:
    """How an age's reading keeps its instant."""
    return time.isoformat()


def readings_by_name(readings: Iterable[Reading]) -> dict[str, Reading]:
    return {reading.metric: reading for reading in readings}
