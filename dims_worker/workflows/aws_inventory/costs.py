"""Estimate the monthly cost of a lake and a database from the configured prices. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from dims_worker.workflows.aws_inventory.lake import STANDARD

S3_PRICE = "s3_gib_month"
STORAGE_PRICE = "rds_gib_month"
CLASS_PRICE = "rds_class"
"""Names in the `prices` section. The last one has a monthly price for each class, `db.t3.micro: 14.60`. The first one
is a price, or has one for each storage class, `STANDARD: 0.023`."""
GIB = 2**30

Prices = Mapping[str, float | Mapping[str, float]]


@dataclass(frozen=True, slots=True)
class CostLine:
    """One line of an estimate. `price_name` is its name in `prices`. `price` is None if it is not configured."""

    what: str
    amount: float
    unit: str
    price_name: str
    price: float | None

    @property
    def usd(self) -> float | None:
        return None if self.price is None else self.amount * self.price

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "usd": self.usd}


def price_of(prices: Prices, name: str) -> float | None:
    price = prices.get(name)
    return None if price is None or isinstance(price, Mapping) else float(price)


def lake_line(prices: Prices, size: int) -> CostLine:
    """Return the line of S3 storage with one price. `size` is in bytes, and the price is for a GiB and month."""
    return CostLine("S3 storage", size / GIB, "GiB", S3_PRICE, price_of(prices, S3_PRICE))


def lake_lines(prices: Prices, lake: Mapping[str, Any]) -> list[CostLine]:
    """Return the lines of S3 storage: one, or one for each storage class if the price is a mapping of classes.

    Prices are for a GiB and month. `lake` is from `PrefixCollector.to_json`.
    """
    by_class = prices.get(S3_PRICE)
    if not isinstance(by_class, Mapping):
        return [lake_line(prices, lake["bytes"])]
    known = {kind.upper(): float(price) for kind, price in by_class.items()}
    return [
        CostLine(
            f"S3 storage: {each['class']}",
            each["bytes"] / GIB,
            "GiB",
            f"{S3_PRICE}.{each['class']}",
            known.get(each["class"].upper()),
        )
        for each in lake["classes"]
    ]


def lake_notes(prices: Prices, lake: Mapping[str, Any]) -> list[str]:
    """Return what the lines of the lake do not count, and where one price is used for different storage classes."""
    notes = [
        "The cost of S3 storage is for the current objects. Old versions of objects, unfinished uploads, requests and "
        "transfers are not counted."
    ]
    others = [each for each in lake["classes"] if each["class"] != STANDARD]
    if others and price_of(prices, S3_PRICE) is not None:
        names = ", ".join(f"{each['class']} ({each['bytes']:,} bytes)" for each in others)
        notes.append(
            f"prices.{S3_PRICE} is one price for every storage class, also for {names}. To price each class, write a "
            f"mapping such as {{STANDARD: 0.023, {others[0]['class']}: …}}."
        )
    return notes


def instance_lines(
    prices: Prices, name: str, instance_class: str, class_price: float | None, storage_gib: int | None
) -> list[CostLine]:
    """Return the lines of class and storage of an RDS instance. `class_price` is from `DatabaseInstance.price`.

    There is no line for a storage that AWS does not report.
    """
    lines = [
        CostLine(f"RDS {name}: class {instance_class}", 1, "month", f"{CLASS_PRICE}.{instance_class}", class_price)
    ]
    if storage_gib is not None:
        price = price_of(prices, STORAGE_PRICE)
        lines.append(CostLine(f"RDS {name}: storage", storage_gib, "GiB", STORAGE_PRICE, price))
    return lines


def estimate(
    lines: Sequence[CostLine], missing: Sequence[str], unknown: Sequence[str] = (), notes: Sequence[str] = ()
) -> dict[str, Any]:
    """Return the lines and their sum a month. The sum is None if a price, a source or an amount is missing, because
    unknown is not 0. `known_usd` is the sum of the known lines."""
    unpriced = [line.price_name for line in lines if line.price is None]
    known = sum(line.usd for line in lines if line.usd is not None)
    return {
        "lines": [line.to_json() for line in lines],
        "known_usd": known,
        "sum_usd": None if unpriced or missing or unknown else known,
        "unpriced": unpriced,
        "missing": list(missing),
        "unknown": list(unknown),
        "notes": list(notes),
    }
