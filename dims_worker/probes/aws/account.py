"""Asking an AWS account: RDS, CloudWatch, Cost Explorer. Each distinct thing is asked for once."""

from __future__ import annotations

import contextlib
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any, Self, TypeVar

from dims_worker.config import AwsSource
from dims_worker.errors import MeasureError
from dims_worker.probes.aws.errors import translate_aws_errors
from dims_worker.probes.base import Deadline

_CONNECT = 5.0
_READ = 30.0
"""Seconds without a byte after which an API call is tried again."""

_LOOK_BACK = timedelta(days=3)
"""CloudWatch has a bucket's size once a day, up to two days late."""

_MOST_PAGES = 100

Connect = Callable[[AwsSource, Deadline, str], Any]
"""Makes the client of a service (`rds`, `cloudwatch`, `ce`), such as boto3's."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class DatabaseInstance:
    """A database instance of RDS; `storage` is what is allocated, in GiB."""

    name: str
    storage: int
    kind: str
    engine: str
    engine_version: str
    status: str

    def price(self, prices: Mapping[str, Any]) -> float | None:
        """USD a month of its class, by `rds_class` in the prices (`db.t3.micro` or `t3.micro`)."""
        table = prices.get("rds_class")
        if not isinstance(table, Mapping):
            return None
        price = table.get(self.kind, table.get(self.kind.removeprefix("db.")))
        return None if price is None else float(price)


@dataclass(frozen=True, slots=True)
class BucketSize:
    """A bucket's bytes at the newest daily datapoint, by storage type."""

    time: datetime
    by_type: Mapping[str, int]

    @property
    def bytes(self) -> int:
        return sum(self.by_type.values())


@dataclass(frozen=True, slots=True)
class Cost:
    """What was charged from `start` until before `end` (days in UTC), unblended, the dearest service first."""

    start: date
    end: date
    currency: str
    by_service: Mapping[str, Decimal]
    estimated: bool
    """Whether AWS has not closed all of the days yet."""

    @property
    def total(self) -> Decimal:
        return sum(self.by_service.values(), Decimal(0))


def aws_client(source: AwsSource, deadline: Deadline, service: str) -> Any:
    """A boto3 client whose API calls do not start after the deadline. Raises MeasureError without boto3."""
    try:
        import boto3
        from botocore.config import Config
    except ImportError:
        raise MeasureError("boto3 is not installed: install the extra `s3` (see README.md)") from None
    client = boto3.session.Session().client(
        service,
        endpoint_url=source.endpoint_url,
        region_name=source.region,
        config=Config(
            connect_timeout=min(_CONNECT, deadline.left),
            read_timeout=min(_READ, deadline.left),
            retries={"mode": "standard", "max_attempts": 4},
        ),
    )
    # Asked before every attempt: retries end with the deadline too
    client.meta.events.register(f"before-send.{client.meta.service_model.service_id.hyphenize()}", _checks(deadline))
    return client


def _checks(deadline: Deadline) -> Callable[..., None]:
    return lambda **_: deadline.check()


class AwsAccount:
    """An account, for the time of one scan. `api_calls` counts the answers; every question raises MeasureError,
    in plain words, where it is refused or cannot be asked."""

    def __init__(self, source: AwsSource, deadline: Deadline, today: date, connect: Connect = aws_client) -> None:
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
        """A database instance, by its identifier."""
        return self._once(("instance", name), lambda: self._instance(name))

    def bucket_size(self, bucket: str, storage_types: tuple[str, ...]) -> BucketSize | None:
        """A bucket's size as CloudWatch knows it; None where it has no datapoint of the last days."""
        return self._once(("size", bucket, storage_types), lambda: self._bucket_size(bucket, storage_types))

    def cost(self, days: int) -> Cost:
        """The cost of the last full days (UTC). AWS takes 0.01 USD for the question."""
        return self._once(("cost", days), lambda: self._cost(days))

    def _once(self, key: object, ask: Callable[[], T]) -> T:
        if key not in self._known:
            try:
                self._known[key] = ask()
            except MeasureError as error:
                self._known[key] = error
        known = self._known[key]
        if isinstance(known, MeasureError):
            raise known
        return known  # type: ignore[no-any-return]  # what this key's `ask` gave

    def _call(self, what: str, service: str, action: str, operation: str, **arguments: Any) -> Any:
        with translate_aws_errors(what, action, self._source.endpoint_url or "AWS"):
            self._deadline.check()
            if service not in self._clients:
                self._clients[service] = self._connect(self._source, self._deadline, service)
            answer = getattr(self._clients[service], operation)(**arguments)
        self.api_calls += 1
        return answer

    def _instance(self, name: str) -> DatabaseInstance:
        what = f"RDS instance {name}"
        action = "rds:DescribeDBInstances"
        answer = self._call(what, "rds", action, "describe_db_instances", DBInstanceIdentifier=name)
        if not answer.get("DBInstances"):
            raise MeasureError(f"there is no {what}")
        found = answer["DBInstances"][0]
        return DatabaseInstance(
            name=name,
            storage=int(found["AllocatedStorage"]),
            kind=str(found["DBInstanceClass"]),
            engine=str(found.get("Engine", "")),
            engine_version=str(found.get("EngineVersion", "")),
            status=str(found.get("DBInstanceStatus", "")),
        )

    def _bucket_size(self, bucket: str, storage_types: tuple[str, ...]) -> BucketSize | None:
        what = f"the size of bucket {bucket}"
        midnight = datetime(self._today.year, self._today.month, self._today.day, tzinfo=UTC)
        answer = self._call(
            *(what, "cloudwatch", "cloudwatch:GetMetricData", "get_metric_data"),
            MetricDataQueries=[_size_query(number, bucket, kind) for number, kind in enumerate(storage_types)],
            StartTime=midnight - _LOOK_BACK,
            EndTime=midnight + timedelta(days=1),
        )
        sizes: dict[datetime, dict[str, int]] = defaultdict(dict)
        for result in answer["MetricDataResults"]:
            if result.get("StatusCode", "Complete") != "Complete":
                raise MeasureError(f"CloudWatch gave {what} only in part ({result['StatusCode']})")
            kind = storage_types[int(result["Id"].removeprefix("q"))]
            for time, value in zip(result["Timestamps"], result["Values"], strict=True):
                sizes[time.astimezone(UTC)][kind] = round(value)
        if not sizes:
            return None
        newest = max(sizes)  # a type that has none then lost its last object before
        return BucketSize(newest, sizes[newest])

    def _cost(self, days: int) -> Cost:
        start = self._today - timedelta(days=days)
        what = f"the cost of {days} days"
        costs: dict[str, Decimal] = defaultdict(Decimal)
        currencies: set[str] = set()
        seen = estimated = False
        more: dict[str, str] = {}
        for _ in range(_MOST_PAGES):
            answer = self._call(
                *(what, "ce", "ce:GetCostAndUsage", "get_cost_and_usage"),
                TimePeriod={"Start": start.isoformat(), "End": self._today.isoformat()},
                Granularity="DAILY",
                Metrics=["UnblendedCost"],
                GroupBy=[{"Type": "DIMENSION", "Key": "SERVICE"}],
                **more,
            )
            for day in answer["ResultsByTime"]:
                seen, estimated = True, estimated or bool(day.get("Estimated"))
                for group in day["Groups"]:
                    amount = group["Metrics"]["UnblendedCost"]
                    costs[group["Keys"][0]] += Decimal(amount["Amount"])
                    currencies.add(amount["Unit"])
            if not (token := answer.get("NextPageToken")):
                break
            more = {"NextPageToken": token}
        else:
            raise MeasureError(f"Cost Explorer gives {what} in more than {_MOST_PAGES} pages")
        if not seen:
            raise MeasureError(f"Cost Explorer gave no day of {what}: it is on a day after it is switched on")
        if len(currencies) > 1:
            raise MeasureError(f"{what} are in more than one currency: {', '.join(sorted(currencies))}")
        dearest = sorted(costs.items(), key=lambda item: (-item[1], item[0]))
        return Cost(start, self._today, next(iter(currencies), "USD"), dict(dearest), estimated)


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
