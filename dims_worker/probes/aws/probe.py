"""Measure an AWS account: RDS storage and class, bucket sizes from CloudWatch, the actual cost."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import UTC, date, datetime
from typing import Any

from dims_worker.config import AwsMetric, AwsSource
from dims_worker.config.units import BYTES
from dims_worker.errors import MeasureError
from dims_worker.probes.aws.account import AwsAccount, Connect, Cost, DatabaseInstance
from dims_worker.probes.base import (
    Deadline,
    Probe,
    Reading,
    ScanContext,
    ScanResult,
    exact_reading,
    missing_reading,
    size_in_unit,
)
from dims_worker.probes.boto3_client import create_client

_TOP = 10
"""The number of services that are kept with a cost."""


def _utc_today() -> date:
    return datetime.now(UTC).date()


class AwsProbe(Probe[AwsSource, AwsMetric]):
    """Measures an account. No event reports changes in an account: use rules that name the metrics."""

    def __init__(self, connect: Connect = create_client, today: Callable[[], date] = _utc_today) -> None:
        self._connect = connect
        self._today = today

    def scan(
        self, source: AwsSource, metrics: Mapping[str, AwsMetric], context: ScanContext, deadline: Deadline
    ) -> ScanResult:
        """See `Probe.scan`. Makes one call for each distinct value, and one a page of the cost. A refused call
        fails only its own metrics, because credentials may allow one service and not another."""
        deadline.check()
        with AwsAccount(source, deadline, self._today(), self._connect) as account:
            readings = tuple(_reading_or_failure(name, metric, account, context) for name, metric in metrics.items())
            return ScanResult(readings, account.api_calls)


def _reading_or_failure(name: str, metric: AwsMetric, account: AwsAccount, context: ScanContext) -> Reading:
    try:
        return _reading(name, metric, account, context)
    except MeasureError as error:
        return Reading.failed(name, metric.shown_unit, str(error))


def _reading(name: str, metric: AwsMetric, account: AwsAccount, context: ScanContext) -> Reading:
    match metric.measure:
        case "rds_storage" | "rds_class":
            assert metric.instance is not None  # the configuration requires it
            instance = account.instance(metric.instance)
            value = instance.kind if metric.measure == "rds_class" else _gibibytes(metric, instance)
            return exact_reading(name, metric, value, _details(instance, context.prices))
        case "bucket_bytes":
            assert metric.bucket is not None
            size = account.bucket_size(metric.bucket, metric.storage_type)
            if size is None:
                types = " or ".join(metric.storage_type)
                return missing_reading(
                    name,
                    metric,
                    f"S3 bucket {metric.bucket}: CloudWatch has no size ({types}) for the last 3 days. "
                    "Check `bucket`, `region` and `storage_type`",
                )
            details = {"time": size.time.isoformat(), "by_storage_type": dict(size.by_type)}
            return exact_reading(name, metric, size_in_unit(metric, size.bytes), details)
        case "cost":
            return _cost(name, metric, account.cost(metric.days))


def _gibibytes(metric: AwsMetric, instance: DatabaseInstance) -> int | float:
    """Convert GiB to the unit of the metric: an int if that is GiB, as AWS reports it. Raises MeasureError."""
    storage = instance.storage
    if storage is None:
        raise MeasureError(
            f"AWS reports no allocated storage for {instance.name} ({instance.engine}, {instance.status}). The storage "
            "of Aurora grows by itself: measure the size of the database with SQL"
        )
    if BYTES[metric.shown_unit] == BYTES["GiB"]:
        return storage
    return size_in_unit(metric, storage * BYTES["GiB"])


def _details(instance: DatabaseInstance, prices: Mapping[str, Any]) -> dict[str, Any]:
    price = instance.price(prices)
    return {
        "class": instance.kind,
        "engine": instance.engine,
        "engine_version": instance.engine_version,
        "status": instance.status,
        "storage_gib": instance.storage,
        **({} if price is None else {"class_usd_month": price}),
    }


def _cost(name: str, metric: AwsMetric, cost: Cost) -> Reading:
    if cost.currency and cost.currency != metric.shown_unit:
        raise MeasureError(f"AWS charges in {cost.currency}, not {metric.shown_unit}. Set `unit: {cost.currency}`")
    details = {
        "start": cost.start.isoformat(),
        "end": cost.end.isoformat(),
        "by_service": {service: float(amount) for service, amount in list(cost.by_service.items())[:_TOP]},
        "usage": float(cost.usage),
        "credits": float(cost.credits),
        "estimated": cost.estimated,
        "estimated_days": list(cost.estimated_days),
        "missing_days": list(cost.missing_days),
    }
    amount = {"paid": cost.total, "usage": cost.usage, "credits": cost.credits}[metric.part]
    reading = exact_reading(name, metric, float(amount), details)
    return replace(reading, method="approximate") if cost.missing_days else reading
