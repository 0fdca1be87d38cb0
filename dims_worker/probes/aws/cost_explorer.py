"""Read the answers of Cost Explorer: usage, credits, and the days that are estimated or missing. Pure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import date, timedelta
from decimal import Decimal, InvalidOperation
from typing import Any

from dims_worker.errors import MeasureError

METRIC = "UnblendedCost"
CREDITS = frozenset({"credit", "refund"})
"""The record types that reduce what is paid and are no usage. All others, such as Tax, count as usage."""
NO_SERVICE = "(no service)"
"""The name of an amount that Cost Explorer assigns to no service."""

_NO_UNIT = ("", "N/A")


@dataclass(frozen=True, slots=True)
class Cost:
    """The unblended cost from `start` until before `end` (days in UTC), most expensive service first.

    `by_service` is what is paid: usage and credits. `currency` is empty if every amount is 0 and has none.
    """

    start: date
    end: date
    currency: str
    by_service: Mapping[str, Decimal]
    estimated: bool
    """Whether AWS may still change the amount of some days."""
    credits_by_service: Mapping[str, Decimal] = field(default_factory=dict)
    """Credits and refunds, which are negative. They are part of `by_service`."""
    estimated_days: tuple[str, ...] = ()
    missing_days: tuple[str, ...] = ()
    """The days that the answer does not contain."""

    @property
    def total(self) -> Decimal:
        return sum(self.by_service.values(), Decimal(0))

    @property
    def credits(self) -> Decimal:
        return sum(self.credits_by_service.values(), Decimal(0))

    @property
    def usage(self) -> Decimal:
        """What would be paid without credits and refunds."""
        return self.total - self.credits

    @property
    def usage_by_service(self) -> dict[str, Decimal]:
        """Usage by service, the most expensive first."""
        nothing = Decimal(0)
        usage = {name: amount - self.credits_by_service.get(name, nothing) for name, amount in self.by_service.items()}
        return _ranked(usage)


def cost_request(start: date, end: date) -> dict[str, Any]:
    """Return the arguments of GetCostAndUsage for the days from `start` until before `end`."""
    return {
        "TimePeriod": {"Start": start.isoformat(), "End": end.isoformat()},
        "Granularity": "DAILY",
        "Metrics": [METRIC],
        "GroupBy": [{"Type": "DIMENSION", "Key": "SERVICE"}, {"Type": "DIMENSION", "Key": "RECORD_TYPE"}],
    }


class CostAnswer:
    """The pages of one answer. Its methods raise MeasureError for what cannot be the whole and valid answer."""

    def __init__(self, subject: str, start: date, end: date) -> None:
        self._subject, self._start, self._end = subject, start, end
        self._paid: dict[str, Decimal] = defaultdict(Decimal)
        self._credits: dict[str, Decimal] = defaultdict(Decimal)
        self._currencies: set[str] = set()
        self._days: dict[str, bool] = {}
        self._seen: set[tuple[str, tuple[str, ...]]] = set()
        self._tokens: set[str] = set()
        self._has_results = self._is_estimated = False

    def add_page(self, page: Mapping[str, Any]) -> str | None:
        """Add a page. Return the token of the next one, or None after the last."""
        try:
            for day in page["ResultsByTime"]:
                self._add_day(day)
        except (KeyError, TypeError, AttributeError, IndexError, ValueError, InvalidOperation) as error:
            raise MeasureError(
                f"Cost Explorer's answer for {self._subject} is not valid ({type(error).__name__}: {error})"
            ) from None
        token = page.get("NextPageToken") or None
        if token in self._tokens:
            raise MeasureError(f"Cost Explorer repeats a page of {self._subject}. Measure again later")
        if token is not None:
            self._tokens.add(token)
        return token

    def cost(self) -> Cost:
        if not self._has_results:
            raise MeasureError(
                f"Cost Explorer returned no data for {self._subject}: it has data a day after you enable it"
            )
        if len(self._currencies) > 1:
            raise MeasureError(f"{self._subject} is in more than one currency: {', '.join(sorted(self._currencies))}")
        return Cost(
            self._start,
            self._end,
            next(iter(self._currencies), ""),
            _ranked(self._paid),
            self._is_estimated,
            _ranked(self._credits),
            tuple(sorted(day for day, is_estimated in self._days.items() if is_estimated)),
            tuple(day for day in _dates(self._start, self._end) if self._days and day not in self._days),
        )

    def _add_day(self, result: Mapping[str, Any]) -> None:
        day = str((result.get("TimePeriod") or {}).get("Start", ""))
        is_estimated = bool(result.get("Estimated"))
        self._has_results = True
        self._is_estimated |= is_estimated
        if day:
            self._days[day] = self._days.get(day, False) or is_estimated
        total = (result.get("Total") or {}).get(METRIC)
        groups = result["Groups"] if total is None else result.get("Groups")
        if groups is None and total is None:
            raise MeasureError(f"Cost Explorer has neither groups nor a total for {day} in {self._subject}")
        for group in groups or ():
            self._add_group(day, tuple(group["Keys"]), group["Metrics"][METRIC])
        if not groups and total is not None:
            self._add_group(day, (NO_SERVICE,), total)

    def _add_group(self, day: str, keys: tuple[str, ...], money: Mapping[str, Any]) -> None:
        if day and (day, keys) in self._seen:
            raise MeasureError(f"Cost Explorer has {', '.join(keys)} of {day} twice in {self._subject}")
        self._seen.add((day, keys))
        service, *record_types = keys
        amount, unit = Decimal(money["Amount"]), str(money.get("Unit", ""))
        if not amount.is_finite():
            raise MeasureError(f"Cost Explorer has the amount {amount} for {service} in {self._subject}")
        if unit not in _NO_UNIT:
            self._currencies.add(unit)
        elif amount:
            raise MeasureError(f"Cost Explorer has an amount without a currency for {service} in {self._subject}")
        self._paid[service] += amount
        # Without a record type, only the sign shows that it is a credit
        if record_types[0].lower() in CREDITS if record_types else amount < 0:
            self._credits[service] += amount


def _ranked(amounts: Mapping[str, Decimal]) -> dict[str, Decimal]:
    return dict(sorted(amounts.items(), key=lambda item: (-item[1], item[0])))


def _dates(start: date, end: date) -> Iterator[str]:
    for number in range((end - start).days):
        yield (start + timedelta(days=number)).isoformat()
