"""Measure a bucket: objects, bytes, ages, days, ids, and differences to a local tree. One listing serves all
metrics of the bucket."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Hashable, Mapping
from dataclasses import replace
from datetime import UTC
from typing import Any

from dims_worker.config import S3Metric, S3Source
from dims_worker.config.metrics import ExpectedObjects
from dims_worker.probes import glob
from dims_worker.probes.base import (
    Change,
    Deadline,
    KeysChanged,
    Probe,
    Reading,
    ScanContext,
    ScanResult,
    exact_reading,
    missing_reading,
    printable_path,
    size_in_unit,
)
from dims_worker.probes.boto3_client import create_client
from dims_worker.probes.s3 import completeness, missing_days
from dims_worker.probes.s3.errors import translate_s3_errors
from dims_worker.probes.s3.listing import KeyFilter, ObjectTotals
from dims_worker.probes.s3.page_body import check_page_bodies
from dims_worker.probes.s3.survey import Survey, expected_keys, storage_classes

Connect = Callable[[S3Source, Deadline], Any]
"""Creates a client with `list_objects_v2`, `get_object` and `close`, such as the one of boto3."""


def s3_client(source: S3Source, deadline: Deadline) -> Any:
    """Create a boto3 client for S3 that checks the pages of listings, and sends `request_payer` with each request.
    See `create_client`."""
    client = create_client(source, deadline, "s3")
    check_page_bodies(client)
    if source.request_payer:
        header = {"x-amz-request-payer": source.request_payer}
        client.meta.events.register("before-call.s3", lambda params, **_: params["headers"].update(header))
    return client


class S3Probe(Probe[S3Source, S3Metric]):
    """Measures buckets. S3 has no folders, so a prefix without objects in an existing bucket is a true 0, unless
    the metric sets `absent:`."""

    change_types = KeysChanged

    def __init__(self, connect: Connect = s3_client) -> None:
        self._connect = connect

    def scan(
        self, source: S3Source, metrics: Mapping[str, S3Metric], context: ScanContext, deadline: Deadline
    ) -> ScanResult:
        """See `Probe.scan`. Makes at most ceil(N / 1000) calls for N keys, and one more a shard. Raises MeasureError
        if the bucket cannot be listed: missing, access denied, unreachable, no credentials, no boto3."""
        survey = Survey(metrics, context, deadline)
        deadline.check()
        with translate_s3_errors(source):
            client = self._connect(source, deadline)
        with contextlib.closing(client):
            survey.list(client, source)
            expectations = completeness.Expectations(_getter(client, source), context, deadline)
            readings = tuple(_reading(n, metric, survey, expectations) for n, metric in metrics.items())
        return ScanResult(readings, survey.api_calls)

    def touched(self, source: S3Source, metric: S3Metric, change: Change, context: ScanContext) -> str | None:
        """See `Probe.touched`. Only keys are compared, because events may not have the sizes."""
        if not isinstance(change, KeysChanged) or change.bucket != source.bucket:
            return None
        if not change.keys:
            return "unknown keys changed"
        prefixes = _counted_prefixes(metric)
        for key in change.keys:
            if key.startswith(prefixes):  # a fast test that excludes most metrics
                bases = [prefix for prefix in prefixes if key.startswith(prefix)]
                if not (metric.match or metric.suffix) or KeyFilter.of(metric).below(bases).accepts_key(key):
                    return f"key {printable_path(key)} {f'is under {bases[0]}' if bases[0] else 'changed'}"
            if isinstance(metric.expected, ExpectedObjects) and key.startswith(metric.expected.prefix):
                return f"key {printable_path(key)} is under {metric.expected.prefix}"
        return None

    def steps_to_compare(self, source: S3Source, metric: S3Metric, change: Change) -> int:
        """See `Probe.steps_to_compare`. A key may be below several prefixes, and is compared from each."""
        if not isinstance(change, KeysChanged):
            return 0
        return glob.steps_of(metric.match, change.keys) * max(1, len(metric.prefix)) + _STEPS_PER_KEY * len(change.keys)

    def touch_key(self, metric: S3Metric) -> Hashable:
        return _counted_prefixes(metric), metric.listed, metric.match, metric.suffix


_STEPS_PER_KEY = 50
"""The steps for a key besides matching it."""


def _counted_prefixes(metric: S3Metric) -> tuple[str, ...]:
    """Return the prefixes that the filters of a metric apply to."""
    return metric.listed if metric.measure == "sync_status" else metric.prefix


def _getter(client: Any, source: S3Source) -> completeness.Get:
    def get(key: str) -> bytes:
        with translate_s3_errors(source, key):
            answer = client.get_object(Bucket=source.bucket, Key=key)
            with contextlib.closing(answer["Body"]) as body:
                content: bytes = body.read(completeness.MAX_BYTES)
                return content

    return get


NOT_COUNTED = "old versions, and uploads that are not finished"
"""What a listing does not contain, although the store may charge for it."""


def _reading(name: str, metric: S3Metric, survey: Survey, expectations: completeness.Expectations) -> Reading:
    if metric.measure == "sync_status":
        return survey.problems.get(name) or survey.comparisons[name].reading(name)
    place = " or ".join(prefix or "the bucket" for prefix in metric.prefix)
    if metric.has_absent and not survey.listing.seen(name):
        return missing_reading(name, metric, f"there are no objects under {place}")
    reading = _measured(name, metric, survey, expectations, place)
    return (
        replace(reading, details={**reading.details, **_hints(name, metric, survey)})
        if reading.error is None
        else reading
    )


def _hints(name: str, metric: S3Metric, survey: Survey) -> dict[str, Any]:
    """Return details that show a typing error in the configuration: such a prefix or storage class has no objects."""
    hints: dict[str, Any] = {}
    if empty := survey.listing.empty_prefixes(metric.prefix):
        hints["empty_prefixes"] = [printable_path(prefix) for prefix in empty]
    if metric.storage_class:
        hints["storage_classes"] = dict(sorted(survey.listing.total(storage_classes(name)).counts.items()))
    return hints


def _measured(
    name: str, metric: S3Metric, survey: Survey, expectations: completeness.Expectations, place: str
) -> Reading:
    collected = survey.listing.total(name)
    if metric.measure == "missing_days":
        return missing_days.missing_days_reading(name, metric, collected, place)
    if metric.measure == "completeness":
        with_ids = isinstance(metric.expected, ExpectedObjects)
        keys = survey.listing.total(expected_keys(name)) if with_ids else None
        return completeness.completeness_reading(name, metric, collected, keys, expectations)
    return _totals_reading(name, metric, collected, place)


def _totals_reading(name: str, metric: S3Metric, totals: ObjectTotals, place: str) -> Reading:
    details = {"not_counted": NOT_COUNTED}
    if metric.measure == "count":
        return exact_reading(name, metric, totals.count, details)
    if metric.measure == "bytes":
        return exact_reading(name, metric, size_in_unit(metric, totals.bytes), details)
    if not totals.count:
        return missing_reading(name, metric, f"no object under {place} matches")
    if metric.measure == "mean_size":
        return exact_reading(name, metric, float(size_in_unit(metric, totals.bytes)) / totals.count, details)
    time = totals.newest if metric.measure == "newest_age" else totals.oldest
    assert time is not None
    return exact_reading(name, metric, time.astimezone(UTC).isoformat())
