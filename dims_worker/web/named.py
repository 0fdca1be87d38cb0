"""Names that a reading keeps, as pages tell them: what is missing, different, or could not be read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from dims_worker.evidence import Gap

NAMED = 60
"""So many names of a gap are told."""


@dataclass(frozen=True, slots=True)
class Named:
    """A gap; `rows` of a query are what its metric counts."""

    gap: Gap
    unit: str

    @property
    def title(self) -> str:
        return (self.unit or "names") if self.gap.name == "rows" else self.gap.name.replace("_", " ")

    @property
    def names(self) -> Sequence[Any]:
        return self.gap.named[:NAMED]

    @property
    def more(self) -> int:
        return self.gap.total - len(self.names)
