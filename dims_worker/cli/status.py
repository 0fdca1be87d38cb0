"""Define `dims status`: what runs, what is unreachable and what is behind."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import click
from redis.exceptions import RedisError
from rich.text import Text

from dims_producers.publish import connect
from dims_worker import local
from dims_worker.broker import event_stream
from dims_worker.broker.queues import BEAT, REFUSED, queue_names
from dims_worker.cli.main import exit_with
from dims_worker.cli.notify import waiting_text
from dims_worker.cli.session import Session, examples, json_option, pass_session
from dims_worker.cli.tables import format_retention, plain_table
from dims_worker.config import Config, S3Source
from dims_worker.errors import DimsError
from dims_worker.events import STREAM
from dims_worker.formatting import NO_VALUE, format_age, format_ago, format_elapsed, pluralize
from dims_worker.store import leases, metric_states
from dims_worker.store.approval_requests import open_requests
from dims_worker.store.engine import clock, engine, transaction
from dims_worker.store.events import last_event
from dims_worker.store.notifications import ChannelRow, channel_rows
from dims_worker.store.rejected_events import count_rejected
from dims_worker.store.retention import last_retention_run
from dims_worker.store.runs import api_calls_since
from dims_worker.text.json_documents import facts

MONTH = timedelta(days=30)
LATE_SWEEPS = 3
"""What waits for longer than this many sweeps is behind."""
NAMED_METRICS = 3
"""A line names at most this many metrics."""
LABELS = {"requests": "approvals"}
"""The labels of lines whose key in the JSON document differs."""
LINE_STYLES = {"unreachable": "bold magenta", "behind": "yellow"}
"""The colour of a line, by its first word."""


@dataclass
class StatusLines:
    """One line for each part, such as `up, ...`, `unreachable: ...` or `behind: ...`, and the numbers in them."""

    text: dict[str, str] = field(default_factory=dict)
    numbers: dict[str, Any] = field(default_factory=dict)

    @contextmanager
    def reaching(self, name: str, url: str | None) -> Iterator[str | None]:
        """Query a server. If it cannot be reached, write that in its line."""
        if url is None:
            self.text[name] = "unreachable: it does not run here. Start it with `dims up`."
        try:
            yield url
        except (DimsError, RedisError, OSError) as error:
            self.text[name] = f"unreachable: {error}"

    def is_unreachable(self, name: str) -> bool:
        return self.text[name].startswith("unreachable")


@click.command()
@examples("dims status", "dims status --json | jq .numbers")
@json_option
@pass_session
def status(session: Session, as_json: bool) -> None:
    """Show what runs, what is unreachable and what is behind.

    The exit code is 3 if the database or the broker is unreachable.
    """
    config = session.config
    processes = local.stack_status(config.home)
    servers = local.running(config.home)
    lines = StatusLines()
    with lines.reaching("broker", config.broker_url or (servers.broker_url if servers else None)) as url:
        if url:
            _add_broker(config, url, lines)
    with lines.reaching("database", config.database_url or (servers.database_url if servers else None)) as url:
        if url:
            _add_database(config, url, lines)
    _add_spool(config.home / "spool", lines)
    if as_json:
        rows = [facts(process) for process in processes]
        session.print_json({"home": str(config.home), "processes": rows, **lines.text, "numbers": lines.numbers})
    else:
        _print(session, processes, lines)
    exit_with(3 if lines.is_unreachable("broker") or lines.is_unreachable("database") else 0)


def _add_broker(config: Config, url: str, lines: StatusLines) -> None:
    """Add the event stream, the queues of Celery, and beat."""
    names = queue_names(config)
    with connect(url, timeout=3) as client, client.pipeline(transaction=False) as pipe:
        pipe.xlen(STREAM)
        pipe.get(BEAT)
        pipe.get(REFUSED)
        for name in names:
            pipe.llen(name)
        waiting, beat, refused, *lengths = pipe.execute()
        info: Any = client.xinfo_groups(STREAM) if waiting else []
    in_work = sum(int(group["pending"]) for group in info if group["name"] == event_stream.GROUP.encode())
    problem = f"; {pluralize(int(refused), 'message')} refused: see the logs of the workers" if refused else ""
    lines.text["broker"] = f"up, {pluralize(waiting, 'event')} waiting in the stream, {in_work:,} in work{problem}"
    queues = {name: int(length) for name, length in zip(names, lengths, strict=True)}
    lines.text["queues"] = ", ".join(f"{name} {length:,}" for name, length in queues.items())
    seconds = datetime.now(UTC).timestamp() - float(beat) if beat else None
    late = seconds is None or seconds > LATE_SWEEPS * config.settings.sweep.total_seconds() + 5
    tick = "no tick yet" if seconds is None else f"last tick {format_elapsed(timedelta(seconds=max(0.0, seconds)))}"
    lines.text["beat"] = f"{'unreachable: ' if late else 'up, '}{tick}"
    lines.numbers |= {
        "stream": int(waiting),
        "in_work": in_work,
        "refused": int(refused or 0),
        "queues": queues,
        "beat_seconds": seconds,
    }


def _add_database(config: Config, url: str, lines: StatusLines) -> None:
    """Add events, metrics, what waits for a measurement or for approval, and the cost of listings."""
    with transaction(engine(url)) as connection:
        states = list(metric_states.states_of(connection, config.definitions).values())
        requests, events, now = open_requests(connection), last_event(connection), clock(connection)
        rejected, scans = count_rejected(connection), leases.count_leases(connection)
        api_calls = api_calls_since(connection, MONTH)
        channels = channel_rows(connection, list(config.notify.channels))
        retention = last_retention_run(connection)
    due = [state for state in states if state.due]
    oldest = max((now - state.due_since for state in due if state.due_since), default=timedelta(0))
    failed = [state.metric for state in states if state.error is not None]
    stale = [state.metric for state in states if _is_stale(config, state, now)]
    newest = max((state.as_of for state in states if state.as_of), default=None)
    behind = "behind: " if oldest > LATE_SWEEPS * config.settings.sweep + config.settings.lease else ""
    waited = f"; the oldest event has waited {format_age(oldest)}" if due else ""
    lines.text |= {
        "database": f"up, {pluralize(events, 'event')}, {rejected:,} rejected; last reading {format_ago(newest, now)}",
        "due": f"{behind}{len(due)} of {pluralize(len(states), 'metric')}, {pluralize(scans, 'scan')} running{waited}",
        "failed": _metric_names(failed),
        "stale": _metric_names(stale),
        "requests": f"{pluralize(len(requests), 'request')} waiting for approval" if requests else "none",
        "retention": format_retention(retention),
    }
    if channels:
        lines.text["notify"] = "; ".join(_channel_text(row) for row in channels)
    if (listing := _listing_text(config, api_calls)) is not None:
        lines.text["listing"] = listing
    lines.numbers |= {
        "events": events,
        "rejected": rejected,
        "due": len(due),
        "oldest_due_seconds": oldest.total_seconds(),
        "unsent": {row.channel: row.unsent for row in channels},
        "scans": scans,
        "retention_finished": retention.day.isoformat() if retention and retention.finished_at else None,
        "failed": failed,
        "stale": stale,
        "requests": len(requests),
    }


def _channel_text(row: ChannelRow) -> str:
    failures = f", failed {pluralize(row.failures, 'time')}" if row.failures else ""
    return f"{row.channel} {waiting_text(row)}{failures}"


def _is_stale(config: Config, state: metric_states.MetricState, now: datetime) -> bool:
    after = config.policy_of(state.metric).stale_after if state.metric in config.metrics else None
    return bool(after and state.as_of and now - state.as_of > after)


def _metric_names(metrics: list[str]) -> str:
    more = f", … ({len(metrics)})" if len(metrics) > NAMED_METRICS else ""
    return ", ".join(metrics[:NAMED_METRICS]) + more if metrics else "none"


def _listing_text(config: Config, api_calls: dict[str | None, int]) -> str | None:
    """Return what listing buckets cost in the last month at the configured price, or None without a bucket."""
    prices = {name: source.list_price for name, source in config.sources.items() if isinstance(source, S3Source)}
    if not prices:
        return None
    highest = max(prices.values())  # for runs over several sources, whose calls are not counted by source
    counted = {source: n for source, n in api_calls.items() if source in prices or source not in config.sources}
    cost = sum(n * prices.get(source or "", highest) / 1000 for source, n in counted.items())
    return f"{pluralize(sum(counted.values()), 'API call')} in 30 days, at most {cost:,.4f} USD"


def _add_spool(folder: Path, lines: StatusLines) -> None:
    waiting, bad = (sum(1 for _ in os.scandir(f)) if f.is_dir() else 0 for f in (folder / "new", folder / "bad"))
    problem = f"; {pluralize(bad, 'file')} could not be read: see {folder / 'bad'}" if bad else ""
    lines.text["spool"] = f"{pluralize(waiting, 'event')} to be sent{problem}" if waiting else f"empty{problem}"
    lines.numbers |= {"spool": waiting, "spool_unread": bad}


def _print(session: Session, processes: list[local.ProcessStatus], lines: StatusLines) -> None:
    now = datetime.now(UTC)
    table = plain_table("process", "state", "pid", "since", "restarts", numbers=("pid", "restarts"))
    for process in processes:
        state = Text(process.state, {"running": "green", "stopped": "dim"}.get(process.state, "magenta"))
        since = format_ago(process.since, now) if process.since else NO_VALUE
        table.add_row(process.name, state, str(process.pid or NO_VALUE), since, str(process.restarts))
    if processes:
        session.out.print(table)
    for name, line in lines.text.items():
        word = line.partition(",")[0].partition(":")[0]
        label = f"{LABELS.get(name, name):<9} "
        session.out.print(Text.assemble(label, (line, LINE_STYLES.get(word, ""))), soft_wrap=True)
