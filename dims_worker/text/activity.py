"""Follow new events, runs and verdicts, and write one sentence for each."""

from __future__ import annotations

import itertools
import time
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from datetime import datetime

from sqlalchemy import Connection

from dims_worker.config import Config
from dims_worker.formatting import escape_control, format_clock, format_drift, format_duration, format_value, pluralize
from dims_worker.numbers import same_value
from dims_worker.store.approval_requests import open_requests
from dims_worker.store.events import LoggedEvent, batches_after, events_of_batches, last_batch
from dims_worker.store.incidents import Incident, active_stages, incidents_after, incidents_by_number
from dims_worker.store.runs import PastReading, RunRow, last_run, list_runs, readings_of, runs_by_number
from dims_worker.text.events import format_event, format_event_kind
from dims_worker.text.incidents import incident_sentence, incident_status
from dims_worker.text.readings import past_reading_text

SKIPPED_SECONDS = 600.0
"""How long a skipped number may still appear. No transaction of DIMS takes longer."""
MAX_SKIPPED = 5_000
"""The most skipped numbers to remember. Those of transactions that were rolled back never appear."""
BURST = 5
"""From this many events of one kind in one batch on, one sentence reports them all."""
MAX_NEW_INCIDENTS = 200
"""The most incidents to read that opened since the last call. `dims incidents` lists them all."""


def group_bursts(events: list[LoggedEvent]) -> list[list[LoggedEvent]]:
    """Group neighbouring events of one ingest batch that have the same type and concern the same metrics."""
    grouped = itertools.groupby(events, key=lambda e: (e.batch_id, e.type, e.outcome, tuple(e.metrics)))
    return [list(group) for _, group in grouped]


def format_run(run: RunRow) -> str:
    """Return what a run did: `measured s3: 3 readings in 120 ms, ok`."""
    source = escape_control(run.source or "several sources")
    duration = format_duration(run.finished_at - run.started_at)
    return f"measured {source}: {pluralize(run.readings, 'reading')} in {duration}, {run.status}"


@dataclass(frozen=True, slots=True)
class IncidentChange:
    """An incident that a reader does not know yet, or of which people see something else than before.

    `opened`: it was not open at the last call. `at` is when DIMS recorded the change.
    """

    incident: Incident
    opened: bool

    @property
    def at(self) -> datetime:
        incident = self.incident
        return incident.closed_at or (incident.opened_at if self.opened else incident.updated_at)


@dataclass
class IncidentTracker:
    """Track the state, severity and flaps of the incidents that are not closed. `last` is the highest number seen.

    A transaction that draws a low number can commit late, so each unknown number counts as new.
    """

    stages: dict[int, tuple[str, str, int]] = field(default_factory=dict)
    last: int = 0

    def start(self, connection: Connection) -> None:
        """Skip everything that is recorded."""
        self.stages = active_stages(connection)
        newest = incidents_after(connection, 0, 1)
        self.last = newest[0].id if newest else 0

    def read_changes(self, connection: Connection) -> list[IncidentChange]:
        """Return what changed since the last call, by number."""
        stages, before = active_stages(connection), self.stages
        changed = {number for number, stage in stages.items() if before.get(number) != stage}
        found = incidents_by_number(connection, changed | (before.keys() - stages.keys()))
        found |= {each.id: each for each in incidents_after(connection, self.last, MAX_NEW_INCIDENTS)}
        self.stages, self.last = stages, max([self.last, *found])
        return [IncidentChange(found[number], number not in before) for number in sorted(found)]


@dataclass(frozen=True)
class Activity:
    """Events in the order of arrival, runs with their readings, the open approval request of each metric, and the
    incidents that opened, changed or ended."""

    events: list[LoggedEvent]
    runs: list[RunRow]
    readings: list[PastReading]
    requests: dict[str, int]
    incidents: list[IncidentChange] = field(default_factory=list)


@dataclass
class SequenceTracker:
    """Track the rows of a table whose numbers are drawn before the rows are committed.

    `last` is the highest number seen. `skipped` holds the lower numbers that were not there yet, each with the
    monotonic time until which it may still appear.
    """

    last: int = 0
    skipped: dict[int, float] = field(default_factory=dict)

    def mark_seen(self, numbers: Collection[int], now: float) -> None:
        """Record that rows with these numbers exist, and remember the gaps before the highest one."""
        seen = set(numbers)
        newest = max(seen, default=self.last)
        gaps = (number for number in range(max(self.last + 1, newest - MAX_SKIPPED), newest) if number not in seen)
        skipped = {number: until for number, until in self.skipped.items() if number not in seen and until > now}
        skipped |= dict.fromkeys(gaps, now + SKIPPED_SECONDS)
        self.skipped = dict(list(skipped.items())[-MAX_SKIPPED:])
        self.last = max(self.last, newest)


@dataclass
class ActivityFollower:
    """Read what was recorded since the last call, and describe it."""

    config: Config
    batches: SequenceTracker = field(default_factory=SequenceTracker)
    runs: SequenceTracker = field(default_factory=SequenceTracker)
    incidents: IncidentTracker = field(default_factory=IncidentTracker)

    def start(self, connection: Connection) -> None:
        """Start now: skip everything that is already recorded."""
        now, batch, run = time.monotonic(), last_batch(connection), last_run(connection)
        self.batches, self.runs = (SequenceTracker(max(newest - MAX_SKIPPED, 0)) for newest in (batch, run))
        self.batches.mark_seen(batches_after(connection, self.batches.last), now)
        runs = list_runs(connection, limit=MAX_SKIPPED, after=self.runs.last)
        self.runs.mark_seen([run.run_id for run in runs], now)
        self.incidents.start(connection)

    def read_new(self, connection: Connection) -> Activity:
        """Return what was recorded since the last call."""
        now = time.monotonic()
        batches = batches_after(connection, self.batches.last)
        events = events_of_batches(connection, [*self.batches.skipped, *batches])
        self.batches.mark_seen({event.batch_id for event in events}, now)
        runs = list_runs(connection, limit=MAX_SKIPPED, after=self.runs.last)
        runs += runs_by_number(connection, list(self.runs.skipped)) if self.runs.skipped else []
        self.runs.mark_seen([run.run_id for run in runs], now)
        readings = readings_of(connection, [run.run_id for run in runs]) if runs else []
        waiting = open_requests(connection) if any(reading.outcome == "held" for reading in readings) else {}
        runs.sort(key=lambda run: run.run_id)
        requests = {metric: request.id for metric, request in waiting.items()}
        return Activity(events, runs, readings, requests, self.incidents.read_changes(connection))

    def sentences(self, connection: Connection) -> Iterator[str]:
        """Describe what was recorded since the last call, in that order."""
        yield from self.describe(self.read_new(connection))

    def describe(self, activity: Activity) -> Iterator[str]:
        """Yield the sentences of an activity, by time."""
        blocks: list[tuple[object, list[str]]] = [
            (burst[0].received_at, self._describe_burst(burst)) for burst in group_bursts(activity.events)
        ]
        for run in activity.runs:
            readings = [reading for reading in activity.readings if reading.run_id == run.run_id]
            lines = [self._describe_reading(reading, activity.requests) for reading in readings]
            title = f"{format_clock(run.finished_at)}  run {run.run_id} {format_run(run)}"
            blocks.append((run.finished_at, [title, *lines]))
        blocks += [(change.at, [self._describe_incident(change)]) for change in activity.incidents]
        for _, lines in sorted(blocks, key=lambda block: str(block[0])):
            yield from lines

    def _describe_burst(self, burst: list[LoggedEvent]) -> list[str]:
        if len(burst) < BURST:
            return [self._describe_event(event, f"event {event.seq}: {format_event(event)}; it") for event in burst]
        first, last = burst[0], burst[-1]
        kind = pluralize(len(burst), format_event_kind(first))
        subject = f"events {first.seq} to {last.seq}: {kind}, the last {format_event(last)}; each"
        return [self._describe_event(last, subject)]

    def _describe_event(self, event: LoggedEvent, subject: str) -> str:
        total = sum(len(names) for names in self.config.metrics_by_source.values())
        if event.outcome == "rejected":
            effect = "was rejected, and DIMS measures nothing for it"
        elif event.outcome == "unmatched":
            effect = "matches no rule"
        elif event.metrics:
            others = pluralize(total - len(event.metrics), "other")
            effect = f"concerns {pluralize(len(event.metrics), 'metric')} and leaves {others} alone"
        else:
            effect = "concerns no metric"
        return f"{format_clock(event.received_at)}  {subject} {effect}"

    def _describe_incident(self, change: IncidentChange) -> str:
        """Return that an incident opened, changed or ended, and what people and DIMS did about it."""
        incident, at = change.incident, change.at
        what = "ended" if not incident.active else "opened" if change.opened else "changed"
        sentence, status = incident_sentence(self.config, incident, at), incident_status(incident, at)
        after = f" (dims incidents show {incident.id})" if status == "open" else f"; {status}"
        return (
            f"{format_clock(at)}  incident {incident.id} {what}: {escape_control(incident.metric)}: {sentence}{after}"
        )

    def _describe_reading(self, reading: PastReading, requests: dict[str, int]) -> str:
        metric = self.config.metrics.get(reading.metric)
        name = f"{' ' * 10}{reading.metric}"
        text = past_reading_text(self.config, reading, requests.get(reading.metric))
        if reading.method == "failed":
            return f"{name} is {text}; its baseline does not change"
        value = format_value(reading.value, reading.unit, metric, reading.as_of)
        if reading.outcome == "held" and reading.metric in requests:
            text = f"{text} (dims approvals approve {requests[reading.metric]})"
        if reading.status in (None, "new", "ok"):
            still = "still " if reading.status == "ok" and same_value(reading.value, reading.baseline) else ""
            return f"{name} is {still}{value}: {text}"
        unit = None if isinstance(reading.baseline, int) else reading.unit
        baseline = format_value(reading.baseline, unit, metric, reading.as_of)
        drift = format_drift(reading.value, reading.baseline, reading.drift_pct)
        return f"{name} {baseline} -> {value}, {drift}: {text}"
