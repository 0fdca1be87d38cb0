"""The interface of workflows, and the context they run in."""

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
from dims_worker.probes.s3.errors import translate_s3_errors
from dims_worker.probes.s3.listing import Entry
from dims_worker.probes.s3.pages import WHOLE, disjoint, list_in_order_or_not, list_pages, list_pages_without_order
from dims_worker.probes.s3.probe import s3_client

Progress = Callable[[str], None]
"""Called with a short text about what is being done now."""


def no_progress(_: str) -> None:
    """Report nothing."""


@dataclass(frozen=True, slots=True)
class WorkflowOutcome:
    """The outcome of a workflow.

    `result` is JSON: `workflow`, `generated_at` (ISO 8601, UTC), `quick`, `unreached` (source -> reason) and the
    parts of the workflow. `scanned` has the readings to record: that of the workflow (`ok`, `attention`, or failed
    if a source was not reached), and those of the metrics that it measured.
    """

    result: Mapping[str, Any]
    scanned: ScanResult

    @property
    def unreached(self) -> Mapping[str, str]:
        unreached: Mapping[str, str] = self.result["unreached"]
        return unreached


T = TypeVar("T")


class PageConsumer(Protocol):
    """Consumes the pages of a listing, which may also contain entries outside its prefixes."""

    def add(self, entries: list[Entry], /) -> None: ...


ConsumerT = TypeVar("ConsumerT", bound=PageConsumer)


@dataclass(slots=True)
class WorkflowContext:
    """The inputs of a workflow, and what it records while it runs."""

    config: Config
    now: datetime
    deadline: Deadline
    quick: bool = False
    options: frozenset[str] = frozenset()
    progress: Progress = no_progress
    with_metrics: bool = True
    """Whether the workflow measures its metrics itself, as a check. After an event they are due, and a worker measures
    and judges them with the other metrics of their sources."""
    readings: list[Reading] = field(default_factory=list)
    api_calls: int = 0
    unreached: dict[str, str] = field(default_factory=dict)

    @property
    def scan_context(self) -> ScanContext:
        config = self.config
        return ScanContext(config.project, config.home, config.sources, config.prices)

    def add_reading(self, reading: Reading) -> None:
        """Record a reading of a metric in the run of the workflow, unless a worker measures the metric elsewhere."""
        if self.with_metrics:
            self.readings.append(reading)

    def reach(self, source: str, scan: Callable[[], T]) -> T | None:
        """Return the result of `scan`. If it raises MeasureError, record the reason and return None.

        The report shows a source that was not reached as an error, never as an empty answer.
        """
        try:
            return scan()
        except MeasureError as error:
            self.mark_unreached(source, str(error))
            return None

    def mark_unreached(self, source: str, reason: str) -> None:
        """Record why a source was not reached. A second reason is appended to the first."""
        known = self.unreached.get(source)
        if known is None or reason not in known:
            self.unreached[source] = f"{known}; {reason}" if known else reason

    def list_bucket(
        self,
        source: str,
        prefixes: Iterable[str],
        create: Callable[[], ConsumerT],
        create_without_order: Callable[[], ConsumerT] | None = None,
    ) -> ConsumerT:
        """List the objects below the prefixes, and some between them, and return a consumer that got all pages.

        Raises MeasureError. A store that does not keep the order of keys is listed in one stream, and
        `create_without_order` creates its consumer.
        """
        declared = self.config.sources[source]
        assert isinstance(declared, S3Source)
        wanted = disjoint(prefixes)
        with translate_s3_errors(declared):
            client = s3_client(declared, self.deadline)
        with contextlib.closing(client):
            return list_in_order_or_not(
                declared,
                lambda: self._fill(
                    declared, create(), list_pages(client, declared, wanted, WHOLE, self._count_api_call)
                ),
                lambda: self._fill(
                    declared,
                    (create_without_order or create)(),
                    list_pages_without_order(client, declared, wanted, self._count_api_call),
                ),
            )

    def _fill(self, source: S3Source, consumer: ConsumerT, pages: Iterable[list[Entry]]) -> ConsumerT:
        listed = 0
        for page in pages:
            listed += len(page)
            consumer.add(page)
            self.progress(f"listing {source.bucket}: {listed:,} objects")
            self.deadline.check()
        return consumer

    def _count_api_call(self) -> None:
        self.api_calls += 1


@dataclass(frozen=True, slots=True)
class Workflow:
    """One workflow. `run` scans, and returns the parts of the result, with `attention`: a list of sentences for people.
    `markdown` returns the report of a stored result, in a stable order. It is pure."""

    run: Callable[[WorkflowContext], dict[str, Any]]
    markdown: Callable[[Mapping[str, Any]], str]


def write_changed(path: Path, text: str, same: Callable[[str, str], bool] = str.__eq__) -> bool:
    """Write a text file atomically. Return False if its content is the same: only its modification time is updated
    then, which shows that it is current. Raises OSError."""
    if path.is_file() and same(path.read_text(encoding="utf-8", errors="replace"), text):
        os.utime(path)
        return False
    if path.exists() and not path.is_file():  # /dev/stdout or a pipe: write to it, do not replace it
        path.write_text(text, encoding="utf-8")
        return True
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    draft.write_text(text, encoding="utf-8")
    draft.replace(path)
    return True
