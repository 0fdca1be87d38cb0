"""What a lake and a database cost a month, by the price table of the configuration. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

S3_PRICE = "s3_gib_month"
STORAGE_PRICE = "rds_gib_month"
CLASS_PRICE = "rds_class"
"""Names in the `prices` section; the last one holds a price a month for each class, `db.t3.micro: 14.60`."""
GIB = 2**30

Prices = Mapping[str, float | Mapping[str, float]]


@dataclass(frozen=True, slots=True)
class CostLine:
    """One line of an estimate. `price` None: the configuration names none, and `name` is what it lacks."""

    what: str
    amount: float
    unit: str
    name: str
    price: float | None

    @property
    def usd(self) -> float | None:
        return None if self.price is None else self.amount * self.price

    def told(self) -> dict[str, Any]:
        return {
            **{"what": self.what, "amount": self.amount, "unit": self.unit, "price_name": self.name},
            **{"price": self.price, "usd": self.usd},
        }


def price_of(prices: Prices, name: str) -> float | None:
    found = prices.get(name)
    return None if found is None or isinstance(found, Mapping) else float(found)


def lake_line(prices: Prices, size: int) -> CostLine:
    """Storage in S3; `size` in bytes, priced by the GiB and month."""
    return CostLine("S3 storage", size / GIB, "GiB", S3_PRICE, price_of(prices, S3_PRICE))


def instance_lines(
    prices: Prices, name: str, instance_class: str, class_price: float | None, storage_gib: int
) -> list[CostLine]:
    """Class and storage of one RDS instance; the price of its class as `Instance.price` finds it."""
    wanted = f"{CLASS_PRICE}.{instance_class}"
    return [
        CostLine(f"RDS {name}: class {instance_class}", 1, "month", wanted, class_price),
        CostLine(f"RDS {name}: storage", storage_gib, "GiB", STORAGE_PRICE, price_of(prices, STORAGE_PRICE)),
    ]


def estimate(lines: Sequence[CostLine], missing: Sequence[str]) -> dict[str, Any]:
    """The lines and their sum a month. The sum is None where a price or a source is missing: what is not known
    is not 0; `known_usd` is the sum of what is."""
    unpriced = [line.name for line in lines if line.price is None]
    known = sum(line.usd for line in lines if line.usd is not None)
    return {
        "lines": [line.told() for line in lines],
        "known_usd": known,
        "sum_usd": None if unpriced or missing else known,
        "unpriced": unpriced,
        "missing": list(missing),
    }
