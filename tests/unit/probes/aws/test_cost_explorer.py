"""Answers of Cost Explorer, as its API reference and public reports describe them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from dims_worker.config import AwsMetric, AwsSource
from dims_worker.errors import MeasureError
from dims_worker.probes.aws.account import AwsAccount
from dims_worker.probes.aws.cost_explorer import Cost
from dims_worker.probes.aws.probe import AwsProbe
from dims_worker.probes.base import Deadline, Reading, ScanContext
from dims_worker.workflows.aws_inventory import report

TODAY = date(2026, 11, 30)
Groups = Sequence[tuple[Sequence[str], str]]


class Explorer:
    """Answers with prepared pages, and keeps the requests."""

    def __init__(self, pages: Sequence[Mapping[str, Any]]) -> None:
        self.pages = list(pages)
        self.requests: list[dict[str, Any]] = []

    def get_cost_and_usage(self, **request: Any) -> Mapping[str, Any]:
        self.requests.append(request)
        return self.pages.pop(0)

    def close(self) -> None:
        """Close nothing."""


def money(amount: str, unit: str = "USD") -> dict[str, Any]:
    return {"UnblendedCost": {"Amount": amount, "Unit": unit}}


def day(number: int, groups: Groups, *, estimated: bool = False, unit: str = "USD", **more: Any) -> dict[str, Any]:
    start = TODAY - timedelta(days=number)
    return {
        "TimePeriod": {"Start": start.isoformat(), "End": (start + timedelta(days=1)).isoformat()},
        "Estimated": estimated,
        "Total": {},
        "Groups": [{"Keys": list(keys), "Metrics": money(amount, unit)} for keys, amount in groups],
        **more,
    }


def cost_of(explorer: Explorer, days: int = 2) -> Cost:
    source = AwsSource(type="aws", region="us-east-1")
    with AwsAccount(source, Deadline.after(timedelta(seconds=5)), TODAY, lambda *_: explorer) as account:
        return account.cost(days)


def ask(*results: Mapping[str, Any], days: int = 2) -> Cost:
    return cost_of(Explorer([{"ResultsByTime": list(results)}]), days)


def reading(explorer: Explorer, **keys: Any) -> Reading:
    probe = AwsProbe(lambda *_: explorer, lambda: TODAY)
    metric = AwsMetric(source="a", measure="cost", days=2, **keys)
    context = ScanContext(Path("/project"), Path("/project/.dims"))
    source = AwsSource(type="aws", region="us-east-1")
    (only,) = probe.scan(source, {"m": metric}, context, Deadline.after(timedelta(seconds=5))).readings
    return only


def test_credits_that_cover_everything_do_not_look_free() -> None:
    groups: Groups = [
        (("Amazon S3", "Usage"), "10.00"),
        (("Amazon S3", "Credit"), "-10.00"),
        (("Amazon RDS", "Usage"), "20.00"),
        (("Amazon RDS", "Tax"), "2.00"),
        (("Amazon RDS", "Credit"), "-21.00"),
        (("Amazon RDS", "Refund"), "-1.00"),
    ]
    explorer = Explorer([{"ResultsByTime": [day(1, groups), day(2, [])]}])
    cost = cost_of(explorer)
    assert (cost.total, cost.usage, cost.credits) == (0, 32, -32)
    assert cost.usage_by_service == {"Amazon RDS": 22, "Amazon S3": 10}
    assert [group["Key"] for group in explorer.requests[0]["GroupBy"]] == ["SERVICE", "RECORD_TYPE"]
    found = reading(Explorer([{"ResultsByTime": [day(1, groups), day(2, [])]}]))
    assert (found.value, found.details["usage"], found.details["credits"]) == (0.0, 32.0, -32.0)
    for part, value in (("usage", 32.0), ("credits", -32.0), ("paid", 0.0)):
        assert reading(Explorer([{"ResultsByTime": [day(1, groups), day(2, [])]}]), part=part).value == value


def test_without_a_record_type_the_sign_shows_a_credit() -> None:
    cost = ask(day(1, [(("S3",), "10"), (("Credits",), "-10")]), day(2, []))
    assert (cost.total, cost.usage, cost.credits) == (0, 10, -10)


def test_negative_rounding_noise_is_no_credit_and_shows_no_sign() -> None:
    cost = ask(day(1, [(("S3", "Usage"), "-0.0000012"), (("RDS", "Usage"), "1.0E-10")]), day(2, []))
    assert (cost.credits, cost.total) == (0, Decimal("-0.0000011999"))
    assert report.cents(float(cost.total)) == "0.00" and report.cents(-1.5) == "-1.50"


def test_an_amount_of_0_may_have_no_currency() -> None:
    assert ask(day(1, [(("A", "Usage"), "0")], unit="N/A"), day(2, [(("B", "Usage"), "3")])).currency == "USD"
    nothing = ask(day(1, [(("A", "Usage"), "0")], unit="N/A"), day(2, []))
    assert (nothing.currency, nothing.total) == ("", 0)
    assert reading(Explorer([{"ResultsByTime": [day(1, []), day(2, [])]}]), unit="CNY").value == 0.0
    with pytest.raises(MeasureError, match="an amount without a currency for A"):
        ask(day(1, [(("A", "Usage"), "3")], unit="N/A"))


def test_currencies_are_not_added() -> None:
    with pytest.raises(MeasureError, match="more than one currency: CNY, USD"):
        ask(day(1, [(("A", "Usage"), "1")], unit="CNY"), day(2, [(("A", "Usage"), "1")]))


def test_a_total_without_groups_counts() -> None:
    cost = ask(day(1, [], Total=money("5")), day(2, [(("S3", "Usage"), "1")], Total=money("1")))
    assert dict(cost.by_service) == {"(no service)": 5, "S3": 1}


def test_estimated_and_missing_days_are_named() -> None:
    cost = ask(day(1, [(("S3", "Usage"), "1")], estimated=True), day(3, []), days=4)
    assert (cost.estimated, cost.estimated_days) == (True, ("2026-11-29",))
    assert cost.missing_days == ("2026-11-26", "2026-11-28")
    found = reading(Explorer([{"ResultsByTime": [day(1, [(("S3", "Usage"), "1")])]}]))
    assert (found.method, found.details["missing_days"]) == ("approximate", ["2026-11-28"])


def test_pages_of_one_day_are_added() -> None:
    pages = [
        {"ResultsByTime": [day(1, [(("A", "Usage"), "1")]), day(2, [])], "NextPageToken": "x"},
        {"ResultsByTime": [day(1, [(("B", "Usage"), "2")])]},
    ]
    explorer = Explorer(pages)
    assert cost_of(explorer).total == 3 and explorer.requests[1]["NextPageToken"] == "x"


@pytest.mark.parametrize(
    ("pages", "problem"),
    [
        ([{"ResultsByTime": []}], "returned no data"),
        ([{}], "not valid \\(KeyError: 'ResultsByTime'"),
        ([{"ResultsByTime": None}], "not valid"),
        ([{"ResultsByTime": [{"TimePeriod": {}, "Estimated": False}]}], "not valid \\(KeyError: 'Groups'"),
        ([{"ResultsByTime": [day(1, [], Groups=None)]}], "has neither groups nor a total"),
        ([{"ResultsByTime": [day(1, [], Groups=[{"Keys": ["A"], "Metrics": {}}])]}], "not valid"),
        ([{"ResultsByTime": [day(1, [((), "1")])]}], "not valid"),
        ([{"ResultsByTime": [day(1, [(("A",), "one")])]}], "not valid"),
        ([{"ResultsByTime": [day(1, [(("A",), "NaN")])]}], "the amount NaN for A"),
        ([{"ResultsByTime": [day(1, [(("A",), "Infinity")])]}], "the amount Infinity"),
        ([{"ResultsByTime": [day(1, [(("A", "Usage"), "1"), (("A", "Usage"), "1")])]}], "A, Usage of 2026-11-29 twice"),
        ([{"ResultsByTime": [], "NextPageToken": "x"}] * 2, "repeats a page"),
    ],
)
def test_an_answer_that_cannot_be_whole_fails(pages: Sequence[Mapping[str, Any]], problem: str) -> None:
    with pytest.raises(MeasureError, match=problem):
        cost_of(Explorer(pages))


def test_the_report_shows_usage_and_credits_apart() -> None:
    services = [{"service": "Amazon S3", "amount": 0.0, "usage": 30.0, "credits": -30.0}]
    paid = {"days": 30, "start": "2026-10-31", "end": "2026-11-30", "currency": "USD", "total": 0.0, "usage": 30.0}
    paid |= {"credits": -30.0, "estimated": True, "estimated_days": ["2026-11-29"], "missing_days": ["2026-11-01"]}
    cost = {"lines": [], "unpriced": [], "missing": [], "sum_usd": None, "known_usd": 0}
    parts: dict[str, Any] = {"attention": [], "bucket": "b", "lake": None, "instance": None, "database": None}
    parts |= {"cost": cost, "paid": {**paid, "services": services}, "left_out": []}
    text = report.markdown(parts)
    assert "**0.00 USD**. AWS may still change the amount." in text
    assert "Usage, with taxes and fees: **30.00 USD**. Credits and refunds: **-30.00 USD**." in text
    assert "AWS may still change: 2026-11-29." in text and "left out, so the amounts are too small: 2026-11-01." in text
    assert "| Amazon S3 | 30.00 | -30.00 | 0.00 |" in text
    assert ["paid in 30 days", "0.00 USD (usage 30.00, credits -30.00)"] in report.summary(parts)
