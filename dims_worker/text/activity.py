"""What is new since the last look, one plain sentence for each event, run and verdict."""

from __future__ import annotations

import itertools
import time
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field

from sqlalchemy import Connection

from dims_worker.config import Config
from dims_worker.formatting import escape_control, format_clock, format_drift, format_duration, format_value, pluralize
from dims_worker.store.approval_requests import open_requests
from dims_worker.store.events import LoggedEvent, batches_after, events_of_batches, last_batch
from dims_worker.store.runs import PastReading, RunRow, last_run, list_runs, readings_of, runs_by_number
from dims_worker.text.events import DONE, format_event, format_event_kind

PATIENCE = 600.0
"""Seconds for which a number that was passed over is looked for: longer than any transaction of ours takes."""
MOST = 5_000
"""So many of them at most: those of transactions that were undone never come."""
BURST = 5
"""So many events of one kind, stored together, are told in one sentence."""


def group_bursts(events: list[LoggedEvent]) -> list[list[LoggedEvent]]:
    """Neighbours that came by one ingest, are of one type and concern the same metrics, together."""
    grouped = itertools.groupby(events, key=lambda e: (e.batch_id, e.type, e.outcome, tuple(e.metrics)))
    return [list(group) for _, group in grouped]


def format_run(run: RunRow) -> str:
    """What a run did: `measured s3: 3 readings in 120 ms, ok`."""
    what = f"measured {escape_control(run.source or 'several sources')}"
    return f"{what}: {pluralize(run.readings, 'reading')} in {format_duration(run.finished_at - run.started_at)}, {run.status}"


@dataclass(frozen=True)
class Activity:
    """Events in the order of their arrival, runs with their readings, and the requests that held ones wait in, by
    metric."""

    events: list[LoggedEvent]
    runs: list[RunRow]
    readings: list[PastReading]
    requests: dict[str, int]


@dataclass
class SequenceTracker:
    """How far a table is known whose numbers are drawn before its rows are committed: `last`, and of the numbers
    before it those `passed` over, each with the time until which it may yet come."""

    last: int = 0
    passed: dict[int, float] = field(default_factory=dict)

    def know(self, found: Collection[int], now: float) -> None:
        """These are there: those of them, of the ones passed over and of all behind `last`, that are."""
        for number in found:
            self.passed.pop(number, None)
        newest = max(found, default=self.last)
        there = set(found)
        between = range(max(self.last + 1, newest - MOST), newest)
        self.passed |= dict.fromkeys((number for number in between if number not in there), now + PATIENCE)
        self.last = max(self.last, newest)
        kept = [(number, until) for number, until in self.passed.items() if until > now]
        self.passed = dict(kept[-MOST:])


@dataclass
class ActivityFollower:
    """What is new since the last look."""

    config: Config
    batches: SequenceTracker = field(default_factory=SequenceTracker)
    runs: SequenceTracker = field(default_factory=SequenceTracker)

    def start(self, connection: Connection) -> None:
        """From now on: what is there already is not told again."""
        now, batch, run = time.monotonic(), last_batch(connection), last_run(connection)
        self.batches, self.runs = (SequenceTracker(max(newest - MOST, 0)) for newest in (batch, run))
        self.batches.know(batches_after(connection, self.batches.last), now)
        self.runs.know([one.run_id for one in list_runs(connection, limit=MOST, after=self.runs.last)], now)

    def news(self, connection: Connection) -> Activity:
        """What was recorded since the last call."""
        now = time.monotonic()
        batches = batches_after(connection, self.batches.last)
        events = events_of_batches(connection, [*self.batches.passed, *batches])
        self.batches.know({event.batch_id for event in events}, now)
        runs = list_runs(connection, limit=MOST, after=self.runs.last)
        runs += runs_by_number(connection, list(self.runs.passed)) if self.runs.passed else []
        self.runs.know([one.run_id for one in runs], now)
        readings = readings_of(connection, [run.run_id for run in runs]) if runs else []
        waiting = open_requests(connection) if any(one.outcome == "held" for one in readings) else {}
        runs.sort(key=lambda run: run.run_id)
        return Activity(events, runs, readings, {metric: request.id for metric, request in waiting.items()})

    def sentences(self, connection: Connection) -> Iterator[str]:
        """What happened since the last call, in the order of its recording."""
        yield from self.told(self.news(connection))

    def told(self, news: Activity) -> Iterator[str]:
        """The same in sentences."""
        told: list[tuple[object, list[str]]] = [(b[0].received_at, self._events(b)) for b in group_bursts(news.events)]
        for run in news.runs:
            mine = [one for one in news.readings if one.run_id == run.run_id]
            told.append((run.finished_at, [self._run(run), *(self.verdict(one, news.requests) for one in mine)]))
        for _, lines in sorted(told, key=lambda pair: str(pair[0])):
            yield from lines

    def _events(self, burst: list[LoggedEvent]) -> list[str]:
        """A sentence an event; a burst of one kind that concerns the same metrics is one sentence."""
        if len(burst) < BURST:
            return [self._event(event, f"event {event.seq}: {format_event(event)}; it") for event in burst]
        first, last = burst[0], burst[-1]
        what = f"events {first.seq} to {last.seq}: {pluralize(len(burst), format_event_kind(first))}, the last {format_event(last)}"
        return [self._event(last, f"{what}; each")]

    def _event(self, event: LoggedEvent, what: str) -> str:
        total = sum(len(names) for names in self.config.metrics_by_source.values())
        if event.outcome == "rejected":
            fate = "is kept, and measured by nobody"
        elif event.outcome == "unmatched":
            fate = "matches no rule"
        elif event.metrics:
            alone = total - len(event.metrics)
            fate = f"concerns {pluralize(len(event.metrics), 'metric')} and leaves {pluralize(alone, 'other')} alone"
        else:
            fate = "concerns no metric"
        return f"{format_clock(event.received_at)}  {what} {fate}"

    def _run(self, run: RunRow) -> str:
        return f"{format_clock(run.finished_at)}  run {run.run_id} {format_run(run)}"

    def verdict(self, one: PastReading, requests: dict[str, int]) -> str:
        metric = self.config.metrics.get(one.metric)
        name = f"{' ' * 10}{one.metric}"
        if one.method == "failed":
            return f"{name} is unavailable: {escape_control(one.error)}; its baseline stays"
        value = format_value(one.value, one.unit, metric, one.as_of)
        if one.status == "new":
            return f"{name} is {value}: new, the first baseline"
        before = format_value(one.baseline, None if isinstance(one.baseline, int) else one.unit, metric, one.as_of)
        done = DONE.get(one.outcome, one.outcome)
        if one.outcome == "held" and one.metric in requests:
            done = f"held until somebody decides (dims approvals approve {requests[one.metric]})"
        if one.status == "ok":
            return f"{name} is still {value}: ok" if one.value == one.baseline else f"{name} is {value}: ok"
        if one.status is None:  # not judged yet
            return f"{name} {before} -> {value}: {done}"
        return (
            f"{name} {before} -> {value}, {format_drift(one.value, one.baseline, one.drift_pct)}, {one.status}: {done}"
        )
