"""Read an AWS account: RDS, CloudWatch, Cost Explorer. Each distinct value is requested once."""

from __future__ import annotations

import contextlib
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Any, Self, TypeVar

from dims_worker.config import AwsSource
from dims_worker.errors import MeasureError
from dims_worker.probes.aws.cost_explorer import Cost, CostAnswer, cost_request
from dims_worker.probes.aws.errors import translate_aws_errors
from dims_worker.probes.base import Deadline, result_of, result_or_error
from dims_worker.probes.boto3_client import create_client

__all__ = ["AwsAccount", "BucketSize", "Connect", "Cost", "DatabaseInstance"]

_LOOK_BACK = timedelta(days=3)
"""CloudWatch reports the size of a bucket once a day, up to two days late."""

_MAX_PAGES = 100

Connect = Callable[[AwsSource, Deadline, str], Any]
"""Creates the client of a service (`rds`, `cloudwatch`, `ce`), such as the one of boto3."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class DatabaseInstance:
    """A database instance of RDS. `storage` is the allocated storage in GiB, None if AWS does not report it."""

    name: str
    storage: int | None
    kind: str
    engine: str
    engine_version: str
    status: str

    def price(self, prices: Mapping[str, Any]) -> float | None:
        """Return the USD a month of its class, from `rds_class` in the prices (`db.t3.micro` or `t3.micro`)."""
        table = prices.get("rds_class")
        if not isinstance(table, Mapping):
            return None
        price = table.get(self.kind, table.get(self.kind.removeprefix("db.")))
        return None if price is None else float(price)


@dataclass(frozen=True, slots=True)
class BucketSize:
    """The bytes of a bucket at the newest daily datapoint, by storage type."""

    time: datetime
    by_type: Mapping[str, int]

    @property
    def bytes(self) -> int:
        return sum(self.by_type.values())


class AwsAccount:
    """An account during one scan. `api_calls` counts the answers. Every method raises MeasureError, which says
    why, if AWS refuses the call or cannot be reached."""

    def __init__(self, source: AwsSource, deadline: Deadline, today: date, connect: Connect = create_client) -> None:
        self.api_calls = 0
        self._source = source
        self._deadline = deadline
        self._today = today
        self._connect = connect
        self._clients: dict[str, Any] = {}
        self._known: dict[object, Any] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for client in self._clients.values():
            with contextlib.suppress(Exception):
                client.close()

    def instance(self, name: str) -> DatabaseInstance:
        """Return a database instance by its identifier."""
        return self._cached(("instance", name), lambda: self._instance(name))

    def bucket_size(self, bucket: str, storage_types: tuple[str, ...]) -> BucketSize | None:
        """Return the size of a bucket from CloudWatch, or None if it has no datapoint of the last days."""
        return self._cached(("size", bucket, storage_types), lambda: self._bucket_size(bucket, storage_types))

    def cost(self, days: int) -> Cost:
        """Return the cost of the last full days (UTC). AWS charges 0.01 USD for this call."""
        return self._cached(("cost", days), lambda: self._cost(days))

    def _cached(self, key: object, fetch: Callable[[], T]) -> T:
        if key not in self._known:
            self._known[key] = result_or_error(fetch)
        known: T | MeasureError = self._known[key]
        return result_of(known)

    def _call(self, subject: str, action: str, operation: str, **arguments: Any) -> Any:
        service = action.partition(":")[0]
        with translate_aws_errors(subject, action, self._source.endpoint_url or "AWS"):
            self._deadline.check()
            if service not in self._clients:
                self._clients[service] = self._connect(self._source, self._deadline, service)
            answer = getattr(self._clients[service], operation)(**arguments)
        self.api_calls += 1
        return answer

    def _instance(self, name: str) -> DatabaseInstance:
        subject = f"RDS instance {name}"
        answer = self._call(subject, "rds:DescribeDBInstances", "describe_db_instances", DBInstanceIdentifier=name)
        if not answer.get("DBInstances"):
            raise MeasureError(f"{subject} does not exist: check `instance` and `region`")
        instance = answer["DBInstances"][0]
        kind = instance.get("DBInstanceClass")
        if not kind:
            raise MeasureError(f"AWS reports no class for {subject}")
        return DatabaseInstance(
            name=name,
            storage=_storage(instance),
            kind=str(kind),
            engine=str(instance.get("Engine", "")),
            engine_version=str(instance.get("EngineVersion", "")),
            status=str(instance.get("DBInstanceStatus", "")),
        )

    def _bucket_size(self, bucket: str, storage_types: tuple[str, ...]) -> BucketSize | None:
        subject = f"the size of bucket {bucket}"
        midnight = datetime(self._today.year, self._today.month, self._today.day, tzinfo=UTC)
        answer = self._call(
            subject,
            "cloudwatch:GetMetricData",
            "get_metric_data",
            MetricDataQueries=[_size_query(number, bucket, kind) for number, kind in enumerate(storage_types)],
            StartTime=midnight - _LOOK_BACK,
            EndTime=midnight + timedelta(days=1),
        )
        if answer.get("NextToken"):
            raise MeasureError(f"CloudWatch returned only a part of {subject}: set fewer storage types")
        sizes: dict[datetime, dict[str, int]] = defaultdict(dict)
        try:
            for result in answer["MetricDataResults"]:
                if result["StatusCode"] != "Complete":
                    raise MeasureError(f"CloudWatch returned only a part of {subject} ({result['StatusCode']})")
                kind = storage_types[int(result["Id"].removeprefix("q"))]
                for time, value in zip(result["Timestamps"], result["Values"], strict=True):
                    sizes[time.astimezone(UTC)][kind] = round(value)
        except (KeyError, IndexError, ValueError, TypeError) as error:
            raise MeasureError(
                f"CloudWatch's answer for {subject} is not valid ({type(error).__name__}: {error})"
            ) from None
        if not sizes:
            return None
        newest = max(sizes)  # a storage type without a value at that time has no objects any more
        return BucketSize(newest, sizes[newest])

    def _cost(self, days: int) -> Cost:
        start = self._today - timedelta(days=days)
        subject = f"the cost of {days} days"
        answer = CostAnswer(subject, start, self._today)
        more: dict[str, str] = {}
        for _ in range(_MAX_PAGES):
            page = self._call(
                subject, "ce:GetCostAndUsage", "get_cost_and_usage", **cost_request(start, self._today), **more
            )
            token = answer.add_page(page)
            if token is None:
                return answer.cost()
            more = {"NextPageToken": token}
        raise MeasureError(f"Cost Explorer returned more than {_MAX_PAGES} pages for {subject}: set fewer `days`")


def _storage(instance: Mapping[str, Any]) -> int | None:
    """Return the allocated storage in GiB. Aurora grows by itself and reports 1, and a new instance may report 0."""
    storage = instance.get("AllocatedStorage") or None
    return None if storage is None or str(instance.get("Engine", "")).startswith("aurora") else int(storage)


def _size_query(number: int, bucket: str, storage_type: str) -> dict[str, Any]:
    # https://docs.aws.amazon.com/AmazonS3/latest/userguide/metrics-dimensions.html
    dimensions = {"BucketName": bucket, "StorageType": storage_type}
    return {
        "Id": f"q{number}",
        "MetricStat": {
            "Metric": {
                "Namespace": "AWS/S3",
                "MetricName": "BucketSizeBytes",
                "Dimensions": [{"Name": name, "Value": value} for name, value in dimensions.items()],
            },
            "Period": 86400,
            "Stat": "Average",
        },
    }
