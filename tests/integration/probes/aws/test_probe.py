"""AwsProbe against moto over HTTP: RDS, CloudWatch, Cost Explorer; each value requested once, clear errors."""

from __future__ import annotations

import json
import socket
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import boto3
import pytest

from dims_worker.config import AwsMetric, AwsSource
from dims_worker.errors import MeasureError
from dims_worker.probes.aws.errors import translate_aws_errors
from dims_worker.probes.aws.probe import AwsProbe
from dims_worker.probes.base import Deadline, Reading, ScanContext, ScanResult, readings_by_name

if TYPE_CHECKING:
    from tests.integration.probes.conftest import Store

TODAY = date(2024, 3, 10)
PRICES: Mapping[str, float | Mapping[str, float]] = {"rds_class": {"t3.small": 29.2, "db.m5.large": 130.0}}


def metric(measure: str, **more: Any) -> AwsMetric:
    return AwsMetric(source="account", measure=measure, **more)


def scan(url: str, prices: Mapping[str, Any] = PRICES, seconds: float = 30, **metrics: AwsMetric) -> ScanResult:
    context = ScanContext(Path("/project"), Path("/project/.dims"), {}, prices)
    source = AwsSource(type="aws", endpoint_url=url)
    deadline = Deadline.after(timedelta(seconds=seconds))
    return AwsProbe(today=lambda: TODAY).scan(source, metrics, context, deadline)


def only_reading(scanned: ScanResult) -> Reading:
    (reading,) = scanned.readings
    return reading


def post(store: Store, path: str, body: bytes) -> None:
    headers = {"Content-Type": "application/json"}
    urllib.request.urlopen(urllib.request.Request(f"{store.url}/moto-api/{path}", body, headers, method="POST")).read()


@pytest.fixture
def account(store: Store) -> Iterator[Store]:
    """An account with one RDS instance; reset at the end."""
    client = boto3.client("rds", endpoint_url=store.url)
    client.create_db_instance(
        DBInstanceIdentifier="nba-sim-db",
        DBInstanceClass="db.t3.small",
        Engine="postgres",
        EngineVersion="15.4",
        AllocatedStorage=20,
        MasterUsername="me",
        MasterUserPassword="a-secret-word",
    )
    client.close()
    yield store
    post(store, "reset", b"")


def put_sizes(store: Store, *points: tuple[str, str, datetime, float]) -> None:
    client = boto3.client("cloudwatch", endpoint_url=store.url)
    for bucket, kind, moment, size in points:
        dimensions = [{"Name": "BucketName", "Value": bucket}, {"Name": "StorageType", "Value": kind}]
        data = {"MetricName": "BucketSizeBytes", "Dimensions": dimensions, "Timestamp": moment, "Value": size}
        client.put_metric_data(Namespace="AWS/S3", MetricData=[{**data, "Unit": "Bytes"}])
    client.close()


def prime_costs(store: Store, *pages: dict[str, Any]) -> None:
    post(store, "static/ce/cost-and-usage-results", json.dumps({"results": pages}).encode())


def day(start: date, estimated: bool = False, unit: str = "USD", **services: str) -> dict[str, Any]:
    groups = [
        {"Keys": [name], "Metrics": {"UnblendedCost": {"Amount": amount, "Unit": unit}}}
        for name, amount in services.items()
    ]
    period = {"Start": start.isoformat(), "End": (start + timedelta(days=1)).isoformat()}
    return {"TimePeriod": period, "Total": {}, "Groups": groups, "Estimated": estimated}


def test_storage_and_class_of_an_instance_take_one_call(account: Store) -> None:
    scanned = scan(
        account.url,
        storage=metric("rds_storage", instance="nba-sim-db"),
        kind=metric("rds_class", instance="nba-sim-db"),
        decimal=metric("rds_storage", instance="nba-sim-db", unit="GB"),
    )
    readings = readings_by_name(scanned.readings)
    assert [(r.value, r.unit) for r in scanned.readings] == [(20, "GiB"), ("db.t3.small", ""), (21.47483648, "GB")]
    assert type(readings["storage"].value) is int
    assert readings["storage"].details == readings["kind"].details
    assert readings["kind"].details == {
        "class": "db.t3.small",
        "engine": "postgres",
        "engine_version": "15.4",
        "status": "available",
        "storage_gib": 20,
        "class_usd_month": 29.2,
    }
    assert scanned.api_calls == 1
    json.dumps([asdict(reading) for reading in scanned.readings])


@pytest.mark.parametrize(
    ("prices", "price"),
    [
        ({}, None),
        ({"rds_class": 5.0}, None),
        ({"rds_class": {"t3.micro": 14.6}}, None),
        ({"rds_class": {"db.t3.small": 30, "t3.small": 29.2}}, 30.0),
    ],
)
def test_the_price_of_a_class(prices: Mapping[str, Any], price: float | None, account: Store) -> None:
    reading = only_reading(scan(account.url, prices, kind=metric("rds_class", instance="nba-sim-db")))
    assert reading.details.get("class_usd_month") == price and ("class_usd_month" in reading.details) == (
        price is not None
    )


def test_a_missing_instance_is_named(account: Store) -> None:
    scanned = scan(
        account.url,
        gone=metric("rds_storage", instance="gone-db"),
        too=metric("rds_class", instance="gone-db"),
        here=metric("rds_class", instance="nba-sim-db"),
    )
    gone, too, here = scanned.readings
    assert gone.error == too.error and f"RDS instance gone-db does not exist at {account.url}" in str(gone.error)
    assert here.value == "db.t3.small"


def test_the_size_of_a_bucket(account: Store) -> None:
    midnight = datetime(2024, 3, 10, tzinfo=UTC)
    put_sizes(
        account,
        ("lake", "StandardStorage", midnight - timedelta(days=2), 1e12),
        ("lake", "StandardStorage", midnight - timedelta(days=1), 123_456_789_012),
        ("lake", "GlacierStorage", midnight - timedelta(days=1), 1000),
        ("lake", "StandardIAStorage", midnight - timedelta(days=2), 7),
        ("other", "StandardStorage", midnight - timedelta(days=1), 5),
        ("old", "StandardStorage", midnight - timedelta(days=20), 5),
    )
    types = ("StandardStorage", "GlacierStorage", "StandardIAStorage")
    scanned = scan(
        account.url,
        standard=metric("bucket_bytes", bucket="lake"),
        unit=metric("bucket_bytes", bucket="lake", unit="GB"),
        all=metric("bucket_bytes", bucket="lake", storage_type=types),
        old=metric("bucket_bytes", bucket="old"),
        none=metric("bucket_bytes", bucket="gone", absent=0),
    )
    standard, unit, whole, old, none = scanned.readings
    assert standard.value == 123_456_789_012 and type(standard.value) is int
    assert unit.value == 123.456789012
    assert whole.value == 123_456_790_012
    assert whole.details == {
        "time": "2024-03-09T00:00:00+00:00",
        "by_storage_type": {"StandardStorage": 123_456_789_012, "GlacierStorage": 1000},
    }
    assert str(old.error).startswith("S3 bucket old: CloudWatch has no size (StandardStorage) for the last 3 days")
    assert none.value == 0 and "bucket gone" in none.details["absent"]
    assert scanned.api_calls == 4


def test_the_cost_of_the_last_days(account: Store) -> None:
    many = {f"service {number:02}": "0.01" for number in range(12)}
    days = [day(date(2024, 3, 8), RDS="1.10", S3="0.20"), day(date(2024, 3, 9), True, S3="0.0000000001", **many)]
    prime_costs(account, {"ResultsByTime": days})
    scanned = scan(account.url, cost=metric("cost", days=2), again=metric("cost", days=2, absent=None))
    reading = scanned.readings[0]
    assert (reading.value, reading.unit) == (1.4200000001, "USD")
    assert (reading.details["start"], reading.details["end"]) == ("2024-03-08", "2024-03-10")
    assert list(reading.details["by_service"].items())[:3] == [("RDS", 1.1), ("S3", 0.2000000001), ("service 00", 0.01)]
    assert len(reading.details["by_service"]) == 10 and reading.details["estimated"] is True
    assert scanned.api_calls == 1 and scanned.readings[1].value == reading.value


def test_a_cost_of_many_pages_and_an_empty_cost(account: Store) -> None:
    page = {"ResultsByTime": [day(date(2024, 3, 9), S3="1.5")], "NextPageToken": "more"}
    prime_costs(account, page, {"ResultsByTime": [day(date(2024, 3, 9), RDS="2.25")]})
    scanned = scan(account.url, cost=metric("cost", days=1))
    assert (only_reading(scanned).value, scanned.api_calls) == (3.75, 2)
    prime_costs(account, {"ResultsByTime": [day(date(2024, 3, 3))]})
    assert only_reading(scan(account.url, cost=metric("cost", days=7))).value == 0.0


def test_a_cost_that_is_not_available_fails(account: Store) -> None:
    assert "Cost Explorer returned no data for" in str(
        only_reading(scan(account.url, cost=metric("cost", days=3))).error
    )
    prime_costs(account, {"ResultsByTime": [day(date(2024, 3, 6), unit="CNY", S3="1")]})
    text = only_reading(scan(account.url, cost=metric("cost", days=4))).error
    assert text == "AWS charges in CNY, not USD. Set `unit: CNY`"
    assert only_reading(scan(account.url, cost=metric("cost", days=4, unit="CNY"))).value == 1.0


def every() -> dict[str, AwsMetric]:
    return {
        "storage": metric("rds_storage", instance="nba-sim-db"),
        "size": metric("bucket_bytes", bucket="lake"),
        "cost": metric("cost"),
    }


def errors(scanned: ScanResult) -> list[str]:
    assert [reading.method for reading in scanned.readings] == ["failed"] * 3
    assert "a-secret" not in repr(scanned)
    return [str(reading.error) for reading in scanned.readings]


def test_wrong_credentials_fail(account: Store) -> None:
    post(account, "reset-auth", b"0")
    try:
        scanned = scan(account.url, **every())
    finally:
        post(account, "reset-auth", b"inf")
    for error in errors(scanned):
        assert "unknown access key or wrong secret key" in error and "AWS_PROFILE" in error
    assert scanned.api_calls == 0


def test_no_credentials(account: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    for error in errors(scan(account.url, **every())):
        assert f"at {account.url}: no usable credentials" in error


def test_no_region(account: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_DEFAULT_REGION")
    assert only_reading(scan(account.url, m=every()["storage"])).error == (
        "RDS instance nba-sim-db: no region. Set `region` of the source, or AWS_DEFAULT_REGION"
    )


def test_no_boto3(account: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "boto3", None)
    hint = "boto3 is not installed. Run: pip install 'dims-worker[s3]'"
    assert set(errors(scan(account.url, **every()))) == {hint}


def test_an_unreachable_endpoint_fails(account: Store) -> None:
    reading = only_reading(scan("http://me:a-secret@127.0.0.1:9", seconds=3, m=every()["storage"]))
    assert reading.method == "failed" and "a-secret" not in str(reading.error)
    assert "is unreachable (" in str(reading.error) or "timeout" in str(reading.error)


def test_an_endpoint_that_never_answers_is_abandoned_at_the_deadline(account: Store) -> None:
    held: list[socket.socket] = []
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def accept() -> None:
            while True:
                try:
                    held.append(listening.accept()[0])
                except OSError:
                    return

        threading.Thread(target=accept, daemon=True).start()
        begun = time.monotonic()
        scanned = scan(f"http://127.0.0.1:{listening.getsockname()[1]}", seconds=1, **every())
        assert time.monotonic() - begun < 30  # boto3 alone would wait a minute for each answer
        listening.shutdown(socket.SHUT_RDWR)
    for connection in held:
        connection.close()
    for error in errors(scanned):
        assert "timeout" in error.lower()


@pytest.mark.parametrize(
    ("code", "text"),
    [
        ("AccessDeniedException", "the cost at AWS: access denied. Grant ce:Get"),
        ("ExpiredTokenException", "the cost at AWS: the credentials have expired. Log in again"),
        ("ThrottlingException", "the cost at AWS: too many calls (ThrottlingException)"),
        ("DataUnavailableException", "the cost at AWS: refused: no data"),
    ],
)
def test_refusals_are_explained(code: str, text: str) -> None:
    from botocore.exceptions import ClientError

    with pytest.raises(MeasureError) as raised, translate_aws_errors("the cost", "ce:Get", "AWS"):
        raise ClientError({"Error": {"Code": code, "Message": "no data"}}, "GetCostAndUsage")
    assert text in str(raised.value)
