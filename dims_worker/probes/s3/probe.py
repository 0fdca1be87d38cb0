"""What a bucket holds: objects, bytes, ages, days, ids, and a local tree beside it. One listing serves all
metrics of the bucket."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Hashable, Mapping
from datetime import UTC
from typing import Any

from dims_worker.config import S3Metric, S3Source
from dims_worker.config.metrics import ExpectedObjects
from dims_worker.errors import MeasureError
from dims_worker.probes.base import (
    Change,
    Deadline,
    KeysChanged,
    Probe,
    Reading,
    ScanContext,
    ScanResult,
    exact_reading,
    instant_text,
    missing_reading,
    printable_path,
    size_in_unit,
)
from dims_worker.probes.s3 import completeness, missing_days
from dims_worker.probes.s3.errors import translate_s3_errors
from dims_worker.probes.s3.listing import KeyFilter, ObjectTotals
from dims_worker.probes.s3.survey import EVERYTHING, Survey, expected_keys
from dims_worker.probes.s3.sync import KeyDifference

_CONNECT = 5.0
_READ = 30.0
"""Seconds without a byte after which an API call is tried again."""

Connect = Callable[[S3Source, Deadline], Any]
"""Makes a client with `list_objects_v2` and `close`, such as boto3's."""


def s3_client(source: S3Source, deadline: Deadline) -> Any:
    """A boto3 client whose API calls do not start after the deadline. Raises MeasureError without boto3."""
    try:
        import boto3
        from botocore.config import Config
    except ImportError:
        raise MeasureError("boto3 is not installed: install the extra `s3` (see README.md)") from None
    client = boto3.session.Session().client(
        "s3",
        endpoint_url=source.endpoint_url,
        region_name=source.region,
        config=Config(
            connect_timeout=min(_CONNECT, deadline.left),
            read_timeout=min(_READ, deadline.left),
            retries={"mode": "standard", "max_attempts": 4},
        ),
    )
    # Asked before every attempt: retries end with the deadline too
    client.meta.events.register("before-send.s3", lambda **_: deadline.check())
    return client


class S3Probe(Probe[S3Source, S3Metric]):
    """Measures buckets. S3 has no folders: a prefix below which nothing lies is a true 0 in an existing
    bucket, unless the metric says what `absent:` means."""

    judges = KeysChanged

    def __init__(self, connect: Connect = s3_client) -> None:
        self._connect = connect

    def scan(
        self, source: S3Source, metrics: Mapping[str, S3Metric], around: ScanContext, deadline: Deadline
    ) -> ScanResult:
        """See `Probe.scan`; at most ceil(N / 1000) API calls for N keys, and one more a shard. Raises
        MeasureError where the bucket cannot be listed: missing, refused, out of reach, no credentials, no
        boto3."""
        return self._measured(source, Survey(metrics, around, deadline))

    def compare(
        self, source: S3Source, metrics: Mapping[str, S3Metric], around: ScanContext, deadline: Deadline
    ) -> tuple[ScanResult, dict[str, list[KeyDifference]]]:
        """What `scan` gives and, out of the same pass, every difference of each `sync_status` that could be
        compared: pair by pair, in the order of the keys. Memory grows with the differences."""
        survey = Survey(metrics, around, deadline, keep=EVERYTHING)
        scanned = self._measured(source, survey)
        good = {reading.metric for reading in scanned.readings if reading.method == "exact"}
        return scanned, {name: each.differences for name, each in survey.comparisons.items() if name in good}

    def _measured(self, source: S3Source, survey: Survey) -> ScanResult:
        survey.deadline.check()
        with translate_s3_errors(source):
            client = self._connect(source, survey.deadline)
        with contextlib.closing(client):
            survey.list(client, source)
            expectations = completeness.Expectations(_getter(client, source), survey.around, survey.deadline)
            readings = tuple(_reading(n, metric, survey, expectations) for n, metric in survey.metrics.items())
        return ScanResult(readings, survey.api_calls)

    def touched(self, source: S3Source, metric: S3Metric, change: Change, around: ScanContext) -> str | None:
        """See `Probe.touched`; by the keys alone, for they do not tell an object's size."""
        if not isinstance(change, KeysChanged) or change.bucket != source.bucket:
            return None
        if not change.keys:
            return "unknown keys changed"
        counted = _counted(metric)
        for key in change.keys:
            if key.startswith(counted):  # of many metrics few: the rest is asked of these alone
                bases = [prefix for prefix in counted if key.startswith(prefix)]
                if not (metric.match or metric.suffix) or KeyFilter.of(metric).below(bases).wants(key):
                    return (
                        f"key {printable_path(key)} is under {bases[0]}"
                        if bases[0]
                        else f"key {printable_path(key)} changed"
                    )
            if isinstance(metric.expected, ExpectedObjects) and key.startswith(metric.expected.prefix):
                return f"key {printable_path(key)} is under {metric.expected.prefix}"
        return None

    def reads(self, metric: S3Metric) -> Hashable:
        return _counted(metric), metric.listed, metric.match, metric.suffix


def _counted(metric: S3Metric) -> tuple[str, ...]:
    """The prefixes below which a metric's filters choose."""
    return metric.listed if metric.measure == "sync_status" else metric.prefix


def _getter(client: Any, source: S3Source) -> completeness.Get:
    def get(key: str) -> bytes:
        with translate_s3_errors(source, key):
            answer = client.get_object(Bucket=source.bucket, Key=key)
            with contextlib.closing(answer["Body"]) as body:
                content: bytes = body.read(completeness.MOST_BYTES)
                return content

    return get


def _reading(name: str, metric: S3Metric, survey: Survey, expectations: completeness.Expectations) -> Reading:
    if metric.measure == "sync_status":
        return survey.unfit.get(name) or survey.comparisons[name].reading(name)
    where = " or ".join(prefix or "the bucket" for prefix in metric.prefix)
    found = survey.listing.total(name)
    if metric.has_absent and not survey.listing.seen(name):
        return missing_reading(name, metric, f"nothing lies under {where}")
    if metric.measure == "missing_days":
        return missing_days.missing_days_reading(name, metric, found, where)
    if metric.measure == "completeness":
        with_ids = isinstance(metric.expected, ExpectedObjects)
        keys = survey.listing.total(expected_keys(name)) if with_ids else None
        return completeness.completeness_reading(name, metric, found, keys, expectations)
    return _tallied(name, metric, found, where)


def _tallied(name: str, metric: S3Metric, found: ObjectTotals, where: str) -> Reading:
    if metric.measure == "count":
        return exact_reading(name, metric, found.count)
    if metric.measure == "bytes":
        return exact_reading(name, metric, size_in_unit(metric, found.bytes))
    if not found.count:
        return missing_reading(name, metric, f"no object matches under {where}")
    if metric.measure == "mean_size":
        return exact_reading(name, metric, float(size_in_unit(metric, found.bytes)) / found.count)
    time = found.newest if metric.measure == "newest_age" else found.oldest
    assert time is not None
    return exact_reading(name, metric, instant_text(time.astimezone(UTC)))
