"""What an AWS account says of itself: RDS storage and class, a bucket's size by CloudWatch, the actual cost."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, date, datetime
from typing import Any

from dims_worker.config import AwsMetric, AwsSource
from dims_worker.config.units import BYTES
from dims_worker.errors import MeasureError
from dims_worker.probes.aws.account import AwsAccount, BucketSize, Connect, Cost, DatabaseInstance, aws_client
from dims_worker.probes.base import (
    Change,
    Deadline,
    Probe,
    Reading,
    ScanContext,
    ScanResult,
    exact_reading,
    instant_text,
    missing_reading,
    size_in_unit,
)

__all__ = ["AwsAccount", "AwsProbe", "BucketSize", "Cost", "DatabaseInstance"]

_TOP = 10
"""Services that are kept with a cost."""


def _utc_today() -> date:
    return datetime.now(UTC).date()


class AwsProbe(Probe[AwsSource, AwsMetric]):
    """Measures an account. No event tells what changed in one: a metric follows the rules that name it."""

    judges = ()

    def __init__(self, connect: Connect = aws_client, today: Callable[[], date] = _utc_today) -> None:
        self._connect = connect
        self._today = today

    def scan(
        self, source: AwsSource, metrics: Mapping[str, AwsMetric], around: ScanContext, deadline: Deadline
    ) -> ScanResult:
        """See `Probe.scan`; an API call for each distinct thing (and page of cost). What is refused fails its own
        metrics alone, as credentials may be good for one service and not for another."""
        deadline.check()
        with AwsAccount(source, deadline, self._today(), self._connect) as account:
            readings = tuple(_tried(name, metric, account, around) for name, metric in metrics.items())
            return ScanResult(readings, account.api_calls)

    def touched(self, source: AwsSource, metric: AwsMetric, change: Change, around: ScanContext) -> str | None:
        """See `Probe.touched`: never, by paths or keys."""
        return None


def _tried(name: str, metric: AwsMetric, account: AwsAccount, around: ScanContext) -> Reading:
    try:
        return _reading(name, metric, account, around)
    except MeasureError as error:
        return Reading.failed(name, metric.shown_unit, str(error))


def _reading(name: str, metric: AwsMetric, account: AwsAccount, around: ScanContext) -> Reading:
    match metric.measure:
        case "rds_storage" | "rds_class":
            assert metric.instance is not None  # the model sees to it
            found = account.instance(metric.instance)
            value = found.kind if metric.measure == "rds_class" else _gibibytes(metric, found.storage)
            return exact_reading(name, metric, value, _details(found, around.prices))
        case "bucket_bytes":
            assert metric.bucket is not None
            size = account.bucket_size(metric.bucket, metric.storage_type)
            if size is None:
                types = " or ".join(metric.storage_type)
                return missing_reading(
                    name,
                    metric,
                    f"CloudWatch has no size of bucket {metric.bucket} ({types}) of the last 3 days; "
                    "check `bucket`, `region` and `storage_type`",
                )
            details = {"time": instant_text(size.time), "by_storage_type": dict(size.by_type)}
            return exact_reading(name, metric, size_in_unit(metric, size.bytes), details)
        case "cost":
            return _cost(name, metric, account.cost(metric.days))


def _gibibytes(metric: AwsMetric, storage: int) -> int | float:
    """GiB in the metric's unit: as AWS has them, an int."""
    if BYTES[metric.shown_unit] == BYTES["GiB"]:
        return storage
    return size_in_unit(metric, storage * BYTES["GiB"])


def _details(found: DatabaseInstance, prices: Mapping[str, Any]) -> dict[str, Any]:
    price = found.price(prices)
    return {
        "class": found.kind,
        "engine": found.engine,
        "engine_version": found.engine_version,
        "status": found.status,
        "storage_gib": found.storage,
        **({} if price is None else {"class_usd_month": price}),
    }


def _cost(name: str, metric: AwsMetric, cost: Cost) -> Reading:
    if cost.currency != metric.shown_unit:
        raise MeasureError(f"the account is charged in {cost.currency}, not {metric.shown_unit}: set `unit`")
    details = {
        "start": cost.start.isoformat(),
        "end": cost.end.isoformat(),
        "by_service": {service: float(amount) for service, amount in list(cost.by_service.items())[:_TOP]},
        "estimated": cost.estimated,
    }
    return exact_reading(name, metric, float(cost.total), details)
