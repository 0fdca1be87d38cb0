"""Replay a year of daily values through the whole pipeline, and count messages and incidents.

    python -m benchmarks.incident_year FOLDER

FOLDER is that of the benchmark `expectation`. All series run at once, each twice: `plain` as it is, and `lossy` with
losses of 30 % to 95 % that last for 12 days. Each day, DIMS gets an event, a program prints the values, and a worker
measures, judges, records and sends, with the policy that `dims init` writes. All of DIMS asks the database
for the time, so the benchmark replaces its clock. A person closes what ordinary values open the next morning.

The limits: 3 messages a year about each metric, and an open incident on each day of each loss. A loss of less than
`min_abs` is noise by policy, and so is a growth. They do not count.
"""

from __future__ import annotations

import json
import random
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

from sqlalchemy import text

from benchmarks.expectation import Series, read_series, synthetic_series
from benchmarks.local_stack import LocalStack, local_stack
from dims_worker.broker.event_stream import STREAM
from dims_worker.cli.init_folder import Amount
from dims_worker.cli.init_template import min_data_bytes, min_data_files
from dims_worker.config import Config
from dims_worker.domain.approvers import Decider
from dims_worker.domain.plan import Planner
from dims_worker.events import FIELD, Event
from dims_worker.incidents.decisions import close_incident
from dims_worker.incidents.overdue import Sweep, sweep_incidents
from dims_worker.notifications.sender import queue_overdue, send_pending
from dims_worker.pipeline.ingest import ingest_stream, register_config
from dims_worker.pipeline.verify import measure_due
from dims_worker.store.engine import clock, transaction
from dims_worker.store.incidents import open_incidents
from tests.fixtures.receivers import Receiver, running_receiver

YEAR = 365
FIRST = 60
"""Days before the year, so that there are bands."""
LOSSES, LASTS = 3, 12
"""How many losses a lossy series has in the year, and for how many days each lasts."""
GROUPS = ("plain", "lossy")
MAX_MESSAGES = 3
PERSON = Decider("person", "option")

CLOCK = (
    "CREATE SCHEMA replay",
    "CREATE TABLE replay.clock AS SELECT pg_catalog.clock_timestamp() AS at, pg_catalog.clock_timestamp() AS since",
    "CREATE FUNCTION replay.clock_timestamp() RETURNS timestamptz LANGUAGE sql VOLATILE AS "
    "'SELECT at + (pg_catalog.clock_timestamp() - since) FROM replay.clock'",
    "CREATE FUNCTION replay.now() RETURNS timestamptz LANGUAGE sql VOLATILE AS 'SELECT replay.clock_timestamp()'",
)
"""A clock that a test can set. The search path puts it before the functions of PostgreSQL."""


@dataclass(frozen=True)
class Metric:
    """A series as a metric, and the values of each day of the replay."""

    name: str
    key: str
    flow: bool
    min_abs: float
    values: list[float]
    lost: Mapping[int, float] = field(default_factory=dict)
    """The days on which values are lost, and what share."""

    def value(self, day: int) -> float:
        return round(self.values[day] * (1 - self.lost[day])) if day in self.lost else self.values[day]

    def is_loss(self, day: int) -> bool:
        """Return whether policy counts what is lost on a day: more than `min_abs`, and 30 % of the value before."""
        return day in self.lost and self.values[day] - self.value(day) > self.min_abs


@dataclass
class Result:
    """What the replay counted, by group, and by kind of series."""

    days: int = 0
    notifications: dict[str, int] = field(default_factory=lambda: dict.fromkeys(GROUPS, 0))
    messages: dict[str, int] = field(default_factory=lambda: dict.fromkeys(GROUPS, 0))
    loss_days: dict[str, int] = field(default_factory=lambda: {"stocks": 0, "flows": 0})
    seen_days: dict[str, int] = field(default_factory=lambda: {"stocks": 0, "flows": 0})
    unseen: list[str] = field(default_factory=list)
    closed: dict[str, int] = field(default_factory=dict)


def make_metrics(data: Sequence[Series], seed: int = 11) -> list[Metric]:
    """Return the metrics of both groups, with the numbers that `dims init` chooses for `min_abs`."""
    chance = random.Random(seed)
    metrics = []
    for number, series in enumerate(data):
        values = [value for _, value in series.values[-(FIRST + YEAR) :]]
        measure = series.name.rsplit(".", 1)[1]
        if measure == "tracked_files":
            min_abs = float(min_data_files(int(values[0])))
        elif measure == "tracked_bytes":
            files = data[number - 1].values[-len(values)][1]  # the series before it, of the same repository
            min_abs = min_data_bytes(Amount(int(files), int(values[0])))
        else:
            min_abs = 10
        category = "git" if series.flow else "data"
        lost: dict[int, float] = {}
        for third in range(LOSSES):
            start = FIRST + third * YEAR // LOSSES + chance.randrange(YEAR // LOSSES - 2 * LASTS)
            share = chance.uniform(0.3, 0.95)
            lost |= {start + day: share for day in range(LASTS) if start + day < len(values)}
        for group, shares in zip(GROUPS, ({}, lost), strict=True):
            name = f"{group}_{category}.n{number}_{measure}"
            metrics.append(Metric(name, f"{group}{number}", series.flow, min_abs, values, shares))
    return metrics


def project(metrics: Sequence[Metric], url: str) -> str:
    """Return the configuration: one program prints all values, and each group has a channel."""
    lines = ["sources: {series: {type: command}}", "policy:", "  categories:"]
    for group in GROUPS:
        lines.append(f"    {group}_data: {{critical: true, direction: down}}")
        lines.append(f"    {group}_git: {{direction: down}}")
    lines.append("metrics:")
    for category in sorted({metric.name.partition(".")[0] for metric in metrics}):
        lines.append(f"  {category}:")
        lines += [
            f"    {metric.name.partition('.')[2]}: {{source: series, command: [cat, today.json], parse: json, "
            f"pointer: {metric.key}, min_abs: {metric.min_abs}}}"
            for metric in metrics
            if metric.name.startswith(f"{category}.")
        ]
    lines += ["rules: {every_day: {on: dims.scraper.complete}}", "notify:", "  channels:"]
    lines += [f'    {group}: {{url: "{url}", metrics: ["{group}_*"]}}' for group in GROUPS]
    return "\n".join(lines) + "\n"


class Replay:
    """A local stack whose database has a clock that this process sets."""

    def __init__(self, stack: LocalStack, metrics: Sequence[Metric]) -> None:
        self.stack, self.metrics, self.result = stack, metrics, Result()
        self.config: Config = stack.config
        self.start = datetime.combine(date(2024, 1, 1), datetime.min.time(), UTC)
        with stack.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as admin:
            for statement in CLOCK:
                admin.execute(text(statement))
            database = stack.engine.url.database
            admin.execute(text(f'ALTER DATABASE "{database}" SET search_path = public, replay, pg_catalog'))
        stack.engine.dispose()
        self.set_clock(0, 0)
        with transaction(stack.engine) as connection:
            register_config(connection, self.config)

    def set_clock(self, day: int, hour: int) -> None:
        at = self.start + timedelta(days=day, hours=hour)
        with self.stack.engine.begin() as connection:
            connection.execute(
                text("UPDATE replay.clock SET at = :at, since = pg_catalog.clock_timestamp()"), {"at": at}
            )
        with transaction(self.stack.engine) as connection:
            if abs(clock(connection) - at) > timedelta(minutes=1):
                raise AssertionError("the database does not use the clock of the replay")

    def run(self, days: int) -> Result:
        """Replay all days. Messages and losses count after the first 60."""
        redis, planner = self.stack.redis(), Planner(self.config)
        for day in range(days):
            self.set_clock(day, 8)
            self.close_ordinary(day)
            self.set_clock(day, 12)
            values = {metric.key: metric.value(day) for metric in self.metrics}
            (self.stack.project / "today.json").write_text(json.dumps(values), encoding="utf-8")
            now = self.start + timedelta(days=day, hours=12)
            event = Event.new("dims.scraper.complete", "replay", now=now, data={}, id=f"day-{day}")
            redis.xadd(STREAM, {FIELD: event.to_json()})
            ingest_stream(redis, self.stack.engine, planner)
            run = measure_due(self.stack.engine, self.config, "series", at_once=True)
            if run is None or run.status != "ok" or len(run.items) != len(self.metrics):
                raise AssertionError(f"day {day} was not measured: {run}")
            self.send(day)
            if day >= FIRST:
                self.result.days += 1
                self.count_losses(day)
        return self.result

    def send(self, day: int) -> None:
        """Do what the sweep does, and send what waits."""
        with transaction(self.stack.engine) as connection:
            now = clock(connection)
            sweep_incidents(connection, self.config, Sweep(now, now - timedelta(hours=1)))
            queue_overdue(connection, self.config)
        for group in GROUPS:
            sent = send_pending(self.stack.engine, self.config, group)
            if sent.error:
                raise AssertionError(sent.error)
            if day >= FIRST:
                self.result.notifications[group] += sent.sent
                self.result.messages[group] += sent.messages

    def close_ordinary(self, day: int) -> None:
        """Close the incidents that ordinary values opened the day before, as a person does."""
        by_name = {metric.name: metric for metric in self.metrics}
        with transaction(self.stack.engine) as connection:
            incidents = open_incidents(connection)
        for incident in incidents:
            if day - 1 in by_name[incident.metric].lost:
                continue  # a real loss waits until the value is back
            close_incident(
                self.stack.engine, self.config, incident.id, version=None, person=PERSON, reason="an ordinary change"
            )
            self.result.closed[incident.metric] = self.result.closed.get(incident.metric, 0) + 1

    def count_losses(self, day: int) -> None:
        with transaction(self.stack.engine) as connection:
            visible = {incident.metric for incident in open_incidents(connection)}
        for metric in self.metrics:
            if metric.is_loss(day):
                kind = "flows" if metric.flow else "stocks"
                self.result.loss_days[kind] += 1
                self.result.seen_days[kind] += metric.name in visible
                if metric.name not in visible:
                    self.result.unseen.append(f"{metric.name} day {day}: {metric.values[day]} -> {metric.value(day)}")


def replay(data: Sequence[Series], days: int = FIRST + YEAR) -> tuple[Result, Receiver]:
    """Replay the last days of all series at once."""
    metrics = make_metrics(data)
    with running_receiver() as receiver, local_stack({"dims.yaml": project(metrics, receiver.url)}) as stack:
        return Replay(stack, metrics).run(days), receiver


def main(folder: str | None = None) -> None:
    """Replay the series of a folder, or a few synthetic ones, and print the counts."""
    data = list(read_series(Path(folder))) if folder else [each for each in synthetic_series() if "stock" in each.name]
    begun = time.monotonic()
    result, _ = replay([each for each in data if len(each.values) >= FIRST + YEAR])
    years = len(data) * result.days / 365
    print(f"a year of {len(data)} series through the whole pipeline ({time.monotonic() - begun:.0f} s):")
    for group in GROUPS:
        about = result.notifications[group] / years
        print(f"  {group}: {about:.2f} messages a year about each metric, {result.messages[group]} messages in all")
    met = result.notifications["plain"] / years <= MAX_MESSAGES
    print(f"  {'within' if met else 'OVER'} the limit of {MAX_MESSAGES} messages about each plain metric")
    for kind, total in result.loss_days.items():
        print(f"  losses of 30 % or more from {kind}: visible on {result.seen_days[kind]:,} of {total:,} days")
    most = sorted(result.closed.items(), key=lambda item: -item[1])[:5]
    print(f"  closed by a person most often: {', '.join(f'{name} {times}' for name, times in most)}")
    for line in result.unseen[:10]:
        print(f"  not visible: {line}")


if __name__ == "__main__":
    main(*sys.argv[1:])
