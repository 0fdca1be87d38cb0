"""What every workflow keeps to."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Protocol

from dims_worker.config import Config
from dims_worker.errors import MeasureError
from dims_worker.probes.base import Deadline, Reading, Scanned

Progress = Callable[[str], None]
"""Is told, in a few words, what is being done now."""


def quiet(_: str) -> None:
    """Nobody watches."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a workflow found.

    `result` is JSON: `workflow`, `generated_at` (ISO 8601, UTC), `quick`, `unreached` (source -> reason) and the
    workflow's own parts. `scanned` are the readings to record: the workflow's own (value `ok` or `attention`,
    failed where a source was not reached) and those of the metrics that it looked at.
    """

    result: Mapping[str, Any]
    scanned: Scanned

    @property
    def unreached(self) -> Mapping[str, str]:
        found: Mapping[str, str] = self.result["unreached"]
        return found


@dataclass(slots=True)
class Workbench:
    """What a workflow works with, and what it notes while it does."""

    config: Config
    now: datetime
    deadline: Deadline
    quick: bool = False
    options: frozenset[str] = frozenset()
    progress: Progress = quiet
    readings: list[Reading] = field(default_factory=list)
    requests: int = 0
    unreached: dict[str, str] = field(default_factory=dict)

    def reach(self, source: str, scan: Callable[[], Any]) -> Any:
        """What `scan` gives; None, and the reason noted, where the source cannot be reached.

        A source that was not reached is an error of the report, never an empty answer.
        """
        try:
            return scan()
        except MeasureError as error:
            self.unreached[source] = str(error)
            return None


class Workflow(Protocol):
    """One workflow: `examine` scans, `markdown` is pure and tells a stored result."""

    def examine(self, bench: Workbench) -> dict[str, Any]:
        """The workflow's own parts of the result, with `attention`: a list of sentences for people."""
        ...

    def markdown(self, result: Mapping[str, Any]) -> str:
        """The report of a stored result, in a stable order."""
        ...
