"""Estimate the monthly cost of a lake and a database from the configured prices. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

S3_PRICE = "s3_gib_month"
STORAGE_PRICE = "rds_gib_month"
CLASS_PRICE = "rds_class"
"""Names in the `prices` section. The last one has a monthly price for each class, `db.t3.micro: 14.60`."""
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
    """Return the line of S3 storage. `size` is in bytes, and the price is for a GiB and month."""
    return CostLine("S3 storage", size / GIB, "GiB", S3_PRICE, price_of(prices, S3_PRICE))


def instance_lines(
    prices: Prices, name: str, instance_class: str, class_price: float | None, storage_gib: int
) -> list[CostLine]:
    """Return the lines of class and storage of an RDS instance. `class_price` is from `DatabaseInstance.price`."""
    price_name = f"{CLASS_PRICE}.{instance_class}"
    return [
        CostLine(f"RDS {name}: class {instance_class}", 1, "month", price_name, class_price),
        CostLine(f"RDS {name}: storage", storage_gib, "GiB", STORAGE_PRICE, price_of(prices, STORAGE_PRICE)),
    ]


def estimate(lines: Sequence[CostLine], missing: Sequence[str]) -> dict[str, Any]:
    """Return the lines and their sum a month. The sum is None if a price or a source is missing, because unknown
    is not 0. `known_usd` is the sum of the known lines."""
    unpriced = [line.price_name for line in lines if line.price is None]
    known = sum(line.usd for line in lines if line.usd is not None)
    return {
        "lines": [line.to_json() for line in lines],
        "known_usd": known,
        "sum_usd": None if unpriced or missing else known,
        "unpriced": unpriced,
        "missing": list(missing),
    }
