"""One listing of a bucket for all due metrics: one stream, or several in parallel."""

from __future__ import annotations

import threading
from collections.abc import Hashable, Iterable, Mapping, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from typing import Any

from dims_worker.config import S3Metric, S3Source
from dims_worker.config.metrics import ExpectedObjects
from dims_worker.probes.base import Deadline, Reading, ScanContext
from dims_worker.probes.s3.completeness import MAX_OBJECTS, Ids
from dims_worker.probes.s3.listing import (
    CollectorFactory,
    KeyFilter,
    Keys,
    Listing,
    ListingQuery,
    ObjectTotals,
    Page,
    StorageClasses,
)
from dims_worker.probes.s3.missing_days import Days
from dims_worker.probes.s3.pages import (
    WHOLE,
    KeySpan,
    disjoint,
    key_spans,
    list_in_order_or_not,
    list_pages,
    list_pages_without_order,
)
from dims_worker.probes.s3.sync import SyncComparison, SyncMerge, local_folder_problem

_MAX_LISTERS = 8
"""The most spans that are listed at the same time. A boto3 client has ten connections."""


@dataclass(slots=True)
class _Part:
    """The results of one span."""

    span: KeySpan
    listing: Listing
    merges: list[SyncMerge]

    def add(self, page: Page) -> None:
        self.listing.add(page)
        for merge in self.merges:
            merge.add(page)


@dataclass(slots=True)
class Survey:
    """The results of a listing for `metrics`."""

    metrics: Mapping[str, S3Metric]
    context: ScanContext
    deadline: Deadline
    api_calls: int = 0
    listing: Listing = field(init=False)
    comparisons: dict[str, SyncComparison] = field(default_factory=dict)
    problems: dict[str, Reading] = field(default_factory=dict)
    _queries: dict[Hashable, ListingQuery] = field(init=False)
    _stopped: threading.Event = field(default_factory=threading.Event)
    _counting: threading.Lock = field(default_factory=threading.Lock)

    def __post_init__(self) -> None:
        self._queries = _listing_queries(self.metrics)
        for name, metric in self.metrics.items():
            if metric.measure == "sync_status" and (reading := local_folder_problem(name, metric, self.context)):
                self.problems[name] = reading
        self._reset()

    def _reset(self) -> None:
        self.listing = Listing(self._queries)
        for name, metric in self.metrics.items():
            if metric.measure == "sync_status" and name not in self.problems:
                self.comparisons[name] = SyncComparison(metric, self.context, self.deadline, metric.names)

    def list(self, client: Any, source: S3Source) -> None:
        """List the prefixes of the metrics, split at the shards of the source.

        A store that does not keep the order of keys is listed in one stream. Raises MeasureError if the bucket
        cannot be listed, or the deadline is over.
        """
        prefixes = [prefix for metric in self.metrics.values() for prefix in metric.listed]
        list_in_order_or_not(
            source,
            lambda: self._list(client, source, disjoint(prefixes), key_spans(source.shards)),
            lambda: self._list_without_order(client, source, prefixes),
        )
        self.deadline.check()

    def _list(self, client: Any, source: S3Source, prefixes: tuple[str, ...], spans: Sequence[KeySpan]) -> None:
        parts = [
            _Part(span, Listing(self._queries), [m for each in self.comparisons.values() for m in each.merges(span)])
            for span in spans
        ]
        if len(parts) == 1:
            self._part(client, source, prefixes, parts[0])
        else:
            self._list_in_parallel(client, source, prefixes, parts)
        for part in parts:
            self.listing.merge(part.listing)

    def _list_without_order(self, client: Any, source: S3Source, prefixes: Sequence[str]) -> None:
        self._reset()  # a listing in order may have been tried
        self._stopped.clear()
        merges = [merge for each in self.comparisons.values() for merge in each.merges(sort=True)]
        part = _Part(WHOLE, self.listing, merges)
        self._collect(list_pages_without_order(client, source, prefixes, self._count_api_call), part)

    def _list_in_parallel(
        self, client: Any, source: S3Source, prefixes: tuple[str, ...], parts: Sequence[_Part]
    ) -> None:
        with ThreadPoolExecutor(min(len(parts), _MAX_LISTERS), "shard") as pool:
            try:
                listed = [pool.submit(self._part, client, source, prefixes, part) for part in parts]
                wait(listed, return_when=FIRST_EXCEPTION)
            finally:  # stop the others once one has failed
                self._stopped.set()
        for each in listed:
            each.result()

    def _part(self, client: Any, source: S3Source, prefixes: tuple[str, ...], part: _Part) -> None:
        self._collect(list_pages(client, source, prefixes, part.span, self._count_api_call), part)

    def _collect(self, pages: Iterable[Page], part: _Part) -> None:
        for page in pages:
            part.add(page)
            self.deadline.check()
            if self._stopped.is_set():
                return
        for merge in part.merges:
            merge.finish()

    def _count_api_call(self) -> None:
        with self._counting:
            self.api_calls += 1


def expected_keys(name: str) -> Hashable:
    """Return the key of the query for the objects that contain the expected ids of a metric."""
    return (name, "expected")


def storage_classes(name: str) -> Hashable:
    """Return the key of the query for the storage classes of all objects below the prefixes of a metric."""
    return (name, "classes")


def _listing_queries(metrics: Mapping[str, S3Metric]) -> dict[Hashable, ListingQuery]:
    queries: dict[Hashable, ListingQuery] = {}
    for name, metric in metrics.items():
        if metric.measure == "sync_status":
            continue
        queries[name] = ListingQuery(metric.prefix, KeyFilter.of(metric), _collector_factory(metric))
        if metric.storage_class:
            queries[storage_classes(name)] = ListingQuery(metric.prefix, KeyFilter(), CollectorFactory(StorageClasses))
        if metric.measure == "completeness" and isinstance(metric.expected, ExpectedObjects):
            only_json = KeyFilter(suffix=(".json",))
            queries[expected_keys(name)] = ListingQuery(
                (metric.expected.prefix,), only_json, CollectorFactory(Keys, (MAX_OBJECTS,))
            )
    return queries


def _collector_factory(metric: S3Metric) -> CollectorFactory:
    match metric.measure:
        case "missing_days":
            return CollectorFactory(Days, (metric.date, metric.names, metric.prefix))
        case "completeness":
            return CollectorFactory(Ids, (metric.id, metric.min_size))
    return CollectorFactory(ObjectTotals)
