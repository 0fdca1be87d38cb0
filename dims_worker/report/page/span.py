"""The days that the page's trends show."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, datetime


@dataclass(frozen=True, slots=True)
class Span:
    """From a day to another, and the moment at which ages are told."""

    first: date
    last: date
    now: datetime

    @property
    def days(self) -> int:
        return (self.last - self.first).days + 1
