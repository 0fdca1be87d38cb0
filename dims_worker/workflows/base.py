"""What every workflow keeps to."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, Protocol, TypeVar

from dims_worker.config import Config, S3Source
from dims_worker.errors import MeasureError
from dims_worker.probes.base import Deadline, Reading, ScanContext, ScanResult
from dims_worker.probes.s3.listing import Entry
from dims_worker.probes.s3.pages import WHOLE, OutOfOrder, common, disjoint, list_pages
from dims_worker.probes.s3.probe import s3_client

Progress = Callable[[str], None]
"""Is told, in a few words, what is being done now."""


def no_progress(_: str) -> None:
    """Nobody watches."""


@dataclass(frozen=True, slots=True)
class WorkflowOutcome:
    """What a workflow found.

    `result` is JSON: `workflow`, `generated_at` (ISO 8601, UTC), `quick`, `unreached` (source -> reason) and the
    workflow's own parts. `scanned` are the readings to record: the workflow's own (value `ok` or `attention`,
    failed where a source was not reached) and those of the metrics that it looked at.
    """

    result: Mapping[str, Any]
    scanned: ScanResult

    @property
    def unreached(self) -> Mapping[str, str]:
        found: Mapping[str, str] = self.result["unreached"]
        return found


T = TypeVar("T")


class PageConsumer(Protocol):
    """Takes the pages of a listing. Entries of no interest may be among them."""

    def add(self, entries: list[Entry], /) -> None: ...


TakerT = TypeVar("TakerT", bound=PageConsumer)


@dataclass(slots=True)
class WorkflowContext:
    """What a workflow works with, and what it notes while it does."""

    config: Config
    now: datetime
    deadline: Deadline
    quick: bool = False
    options: frozenset[str] = frozenset()
    progress: Progress = no_progress
    readings: list[Reading] = field(default_factory=list)
    api_calls: int = 0
    unreached: dict[str, str] = field(default_factory=dict)

    @property
    def around(self) -> ScanContext:
        config = self.config
        return ScanContext(config.project, config.home, config.sources, config.prices)

    def reach(self, source: str, scan: Callable[[], T]) -> T | None:
        """What `scan` gives; None, and the reason noted, where the source cannot be reached.

        A source that was not reached is an error of the report, never an empty answer.
        """
        try:
            return scan()
        except MeasureError as error:
            self.miss(source, str(error))
            return None

    def miss(self, source: str, reason: str) -> None:
        """Note that a source was not reached; a second reason stands beside the first."""
        known = self.unreached.get(source)
        if known is None or reason not in known:
            self.unreached[source] = f"{known}; {reason}" if known else reason

    def listed(self, source: str, prefixes: Iterable[str], make: Callable[[], TakerT]) -> TakerT:
        """A taker that took one listing of the bucket's objects below the prefixes, and some between them.

        Raises MeasureError. A store that does not keep the order of keys is listed anew, without leaps.
        """
        declared = self.config.sources[source]
        assert isinstance(declared, S3Source)
        wanted = disjoint(prefixes)
        try:
            return self._listed(declared, wanted, make())
        except OutOfOrder:
            return self._listed(declared, (common(wanted),), make())

    def _listed(self, source: S3Source, prefixes: tuple[str, ...], taker: TakerT) -> TakerT:
        with contextlib.closing(s3_client(source, self.deadline)) as client:
            taken = 0
            for page in list_pages(client, source, prefixes, WHOLE, self._sent):
                taken += len(page)
                taker.add(page)
                self.progress(f"listing {source.bucket}: {taken:,} objects")
                self.deadline.check()
        return taker

    def _sent(self) -> None:
        self.api_calls += 1


class Workflow(Protocol):
    """One workflow: `examine` scans, `markdown` is pure and tells a stored result."""

    def examine(self, bench: WorkflowContext) -> dict[str, Any]:
        """The workflow's own parts of the result, with `attention`: a list of sentences for people."""
        ...

    def markdown(self, result: Mapping[str, Any]) -> str:
        """The report of a stored result, in a stable order."""
        ...


def write_changed(path: Path, text: str, same: Callable[[str, str], bool] = str.__eq__) -> bool:
    """Write a text file whole, or not at all. False: it says the same already, and only its time moves, because
    it was proven right again. Raises OSError."""
    if path.is_file() and same(path.read_text(encoding="utf-8", errors="replace"), text):
        os.utime(path)
        return False
    if path.exists() and not path.is_file():  # /dev/stdout, a pipe: to be written to, not to be replaced
        path.write_text(text, encoding="utf-8")
        return True
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    draft.write_text(text, encoding="utf-8")
    draft.replace(path)
    return True
