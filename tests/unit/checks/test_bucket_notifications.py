"""Whether the filters of a bucket's notifications let through what its metrics read."""

from __future__ import annotations

from typing import Any

import pytest

from dims_worker.checks.bucket_notifications import coverage_check
from dims_worker.config import S3Metric

ALL = ["s3:ObjectCreated:*", "s3:ObjectRemoved:*"]


def metric(*prefixes: str, suffix: tuple[str, ...] = ()) -> S3Metric:
    return S3Metric(source="lake", measure="count", prefix=prefixes or ("",), suffix=suffix)


def target(events: list[str] = ALL, prefix: str = "", suffix: str = "") -> dict[str, Any]:
    rules = [{"Name": "Prefix", "Value": prefix}, {"Name": "suffix", "Value": suffix}]
    return {"Events": events, "Filter": {"Key": {"FilterRules": rules}}}


@pytest.mark.parametrize(
    "answer",
    [
        {"EventBridgeConfiguration": {}},
        {"QueueConfigurations": [target()]},
        {"QueueConfigurations": [{"Events": ALL}]},
        {"LambdaFunctionConfigurations": [target(prefix="raw/")]},
        {"TopicConfigurations": [target(["s3:ObjectCreated:*"]), target(["s3:ObjectRemoved:*"], prefix="ra")]},
        {"CloudFunctionConfiguration": {}, "QueueConfigurations": [target(suffix=".json")]},
    ],
)
def test_notifications_that_cover_the_metrics(answer: dict[str, Any]) -> None:
    found = coverage_check("events of lake", "nba", answer, [metric("raw/pbp/", suffix=(".json",))])
    assert found.state == "ok", found


@pytest.mark.parametrize(
    ("answer", "summary"),
    [
        ({}, "nba has no notifications, so no upload causes an event"),
        ({"QueueConfigurations": []}, "nba has no notifications, so no upload causes an event"),
        (
            {"QueueConfigurations": [target(prefix="other/")]},
            "nba does not report all uploads below raw/ (only other/*); nor all deletions below raw/ (only other/*)",
        ),
        ({"QueueConfigurations": [target(["s3:ObjectCreated:*"])]}, "nba does not report deletions"),
        (
            {"QueueConfigurations": [target(["s3:ObjectCreated:Put", "s3:ObjectRemoved:*"])]},
            "nba does not report ObjectCreated:Post, ObjectCreated:Copy, ObjectCreated:CompleteMultipartUpload",
        ),
        (
            {"QueueConfigurations": [target(["s3:ObjectCreated:*", "s3:ObjectRemoved:Delete"])]},
            "nba does not report ObjectRemoved:DeleteMarkerCreated",
        ),
        (
            {"QueueConfigurations": [target(["s3:ObjectCreated:*"], suffix=".csv"), target(["s3:ObjectRemoved:*"])]},
            "nba does not report all uploads below raw/ (only *.csv)",
        ),
    ],
)
def test_what_notifications_leave_out(answer: dict[str, Any], summary: str) -> None:
    found = coverage_check("events of lake", "nba", answer, [metric("raw/")])
    assert (found.state, found.summary) == ("warning", summary)
    assert "The S3 Lambda" in found.fix


def test_every_prefix_of_every_metric_counts() -> None:
    answer = {"QueueConfigurations": [target(prefix="a/"), target(prefix="b/")]}
    assert coverage_check("x", "nba", answer, [metric("a/x"), metric("b/")]).state == "ok"
    found = coverage_check("x", "nba", answer, [metric("a/", "c/"), metric()])
    assert "below c/" in found.summary and "of the whole bucket" in found.summary and "below a/" not in found.summary
