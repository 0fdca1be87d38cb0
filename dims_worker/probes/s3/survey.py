"""One listing of a bucket for all metrics that are due: in one stream, or a few side by side."""

from __future__ import annotations

import math
import threading
from collections.abc import Hashable, Mapping, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from typing import Any

from dims_worker.config import S3Metric, S3Source
from dims_worker.config.metrics import ExpectedObjects
from dims_worker.probes.base import Deadline, Reading, ScanContext
from dims_worker.probes.s3.completeness import MOST_OBJECTS, IdsOf
from dims_worker.probes.s3.listing import Entry, KeyFilter, Keys, Listing, ListingQuery, Make, ObjectTotals
from dims_worker.probes.s3.missing_days import DaysOf
from dims_worker.probes.s3.pages import WHOLE, KeySpan, OutOfOrder, common, disjoint, key_spans, list_pages
from dims_worker.probes.s3.sync import SyncComparison, SyncMerge, unfit

_LISTERS = 8
"""Spans that are listed at the same time; boto3's clients keep ten connections."""


@dataclass(frozen=True, slots=True)
class KeysOf:
    """Makes the collector of the objects that say what is expected."""

    limit: int

    def __call__(self) -> Keys:
        return Keys(self.limit)


@dataclass(slots=True)
class _Part:
    """What is found out in one span."""

    span: KeySpan
    listing: Listing
    merges: list[SyncMerge]

    def add(self, page: list[Entry]) -> None:
        self.listing.add(page)
        for merge in self.merges:
            merge.add(page)


@dataclass(slots=True)
class Survey:
    """What a listing found for `metrics`. `keep`: how many differences of each kind a `sync_status` keeps,
    a pair, where that is not for the metric to say."""

    metrics: Mapping[str, S3Metric]
    around: ScanContext
    deadline: Deadline
    keep: float | None = None
    api_calls: int = 0
    listing: Listing = field(init=False)
    comparisons: dict[str, SyncComparison] = field(default_factory=dict)
    unfit: dict[str, Reading] = field(default_factory=dict)
    _wants: dict[Hashable, ListingQuery] = field(init=False)
    _stopped: threading.Event = field(default_factory=threading.Event)
    _counting: threading.Lock = field(default_factory=threading.Lock)

    def __post_init__(self) -> None:
        self._wants = _wants(self.metrics)
        for name, metric in self.metrics.items():
            if metric.measure == "sync_status" and (reading := unfit(name, metric, self.around)):
                self.unfit[name] = reading
        self._afresh()

    def _afresh(self) -> None:
        self.listing = Listing(self._wants)
        for name, metric in self.metrics.items():
            if metric.measure == "sync_status" and name not in self.unfit:
                keep = metric.names if self.keep is None else self.keep
                self.comparisons[name] = SyncComparison(metric, self.around, self.deadline, keep)

    def list(self, client: Any, source: S3Source) -> None:
        """Find everything out. Raises MeasureError where the bucket cannot be listed, or it takes too long.

        Listed are the prefixes that are due, cut at the source's shards. A store that keeps no order of keys
        is listed again as it comes, in one stream.
        """
        prefixes = [prefix for metric in self.metrics.values() for prefix in metric.listed]
        try:
            self._list(client, source, disjoint(prefixes), key_spans(source.shards))
        except OutOfOrder:
            self._afresh()
            self._stopped.clear()
            self._list(client, source, (common(prefixes),), (WHOLE,))
        self.deadline.check()

    def _list(self, client: Any, source: S3Source, prefixes: tuple[str, ...], cut: Sequence[KeySpan]) -> None:
        parts = [
            _Part(span, Listing(self._wants), [m for each in self.comparisons.values() for m in each.merges(span)])
            for span in cut
        ]
        if len(parts) == 1:
            self._part(client, source, prefixes, parts[0])
        else:
            self._side_by_side(client, source, prefixes, parts)
        for part in parts:
            self.listing.merge(part.listing)

    def _side_by_side(self, client: Any, source: S3Source, prefixes: tuple[str, ...], parts: Sequence[_Part]) -> None:
        with ThreadPoolExecutor(min(len(parts), _LISTERS), "shard") as pool:
            try:
                listed = [pool.submit(self._part, client, source, prefixes, part) for part in parts]
                wait(listed, return_when=FIRST_EXCEPTION)
            finally:  # nobody waits for the others once one has failed
                self._stopped.set()
        for each in listed:
            each.result()

    def _part(self, client: Any, source: S3Source, prefixes: tuple[str, ...], part: _Part) -> None:
        for page in list_pages(client, source, prefixes, part.span, self._sent):
            part.add(page)
            self.deadline.check()
            if self._stopped.is_set():
                return
        for merge in part.merges:
            merge.finish()

    def _sent(self) -> None:
        with self._counting:
            self.api_calls += 1


def expected_keys(name: str) -> Hashable:
    """The want of a metric's objects that say what is expected."""
    return (name, "expected")


def _wants(metrics: Mapping[str, S3Metric]) -> dict[Hashable, ListingQuery]:
    wants: dict[Hashable, ListingQuery] = {}
    for name, metric in metrics.items():
        if metric.measure == "sync_status":
            continue
        wants[name] = ListingQuery(metric.prefix, KeyFilter.of(metric), _make(metric))
        if metric.measure == "completeness" and isinstance(metric.expected, ExpectedObjects):
            only_json = KeyFilter(suffix=(".json",))
            wants[expected_keys(name)] = ListingQuery((metric.expected.prefix,), only_json, KeysOf(MOST_OBJECTS))
    return wants


def _make(metric: S3Metric) -> Make:
    match metric.measure:
        case "missing_days":
            return DaysOf.of(metric)
        case "completeness":
            return IdsOf.of(metric)
    return ObjectTotals


EVERYTHING = math.inf
"""As `keep`: every difference."""
