"""Answers of RDS and CloudWatch that lack a part fail, and give no number."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest

from dims_worker.config import AwsSource
from dims_worker.errors import MeasureError
from dims_worker.probes.aws.account import AwsAccount
from dims_worker.probes.base import Deadline

TIME = datetime(2026, 11, 29, tzinfo=UTC)
RESULT = {"Id": "q0", "StatusCode": "Complete", "Timestamps": [TIME], "Values": [5.0]}


class Client:
    """Gives one answer to every call."""

    def __init__(self, answer: Mapping[str, Any]) -> None:
        self.answer = answer

    def describe_db_instances(self, **_: Any) -> Mapping[str, Any]:
        return self.answer

    def get_metric_data(self, **_: Any) -> Mapping[str, Any]:
        return self.answer

    def close(self) -> None:
        """Close nothing."""


def account(answer: Mapping[str, Any]) -> AwsAccount:
    source = AwsSource(type="aws", region="us-east-1")
    deadline = Deadline.after(timedelta(seconds=5))
    return AwsAccount(source, deadline, date(2026, 11, 30), lambda *_: Client(answer))


def without(name: str) -> dict[str, Any]:
    return {key: value for key, value in RESULT.items() if key != name}


@pytest.mark.parametrize(
    "answer",
    [
        *({}, {"MetricDataResults": None}, {"MetricDataResults": [RESULT], "NextToken": "more"}),
        *({"MetricDataResults": [without(name)]} for name in RESULT),
        {"MetricDataResults": [{**RESULT, "StatusCode": "PartialData"}]},
        {"MetricDataResults": [{**RESULT, "Values": [1.0, 2.0]}]},
        {"MetricDataResults": [{**RESULT, "Id": "q7"}]},
        {"MetricDataResults": [{**RESULT, "Values": [float("nan")]}]},
    ],
)
def test_an_incomplete_size_of_a_bucket_fails(answer: Mapping[str, Any]) -> None:
    with pytest.raises(MeasureError, match="CloudWatch"):
        account(answer).bucket_size("lake", ("StandardStorage",))


def test_a_bucket_without_a_size_is_not_0() -> None:
    assert account({"MetricDataResults": [{**RESULT, "Timestamps": [], "Values": []}]}).bucket_size("b", ("S",)) is None


@pytest.mark.parametrize(
    ("fields", "storage"),
    [
        ({"AllocatedStorage": 20, "Engine": "postgres"}, 20),
        ({"AllocatedStorage": 1, "Engine": "aurora-postgresql"}, None),
        ({"AllocatedStorage": 0, "Engine": "postgres", "DBInstanceStatus": "creating"}, None),
        ({"Engine": "postgres"}, None),
    ],
)
def test_the_storage_of_an_instance(fields: Mapping[str, Any], storage: int | None) -> None:
    assert account({"DBInstances": [{"DBInstanceClass": "db.x", **fields}]}).instance("db").storage == storage


def test_an_instance_without_a_class_fails() -> None:
    with pytest.raises(MeasureError, match="reports no class"):
        account({"DBInstances": [{"AllocatedStorage": 20}]}).instance("db")
