"""`dims status`: what is up, what is down, what lags, in one line each."""

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
from dims_worker.cli.session import Session, json_option, pass_session
from dims_worker.cli.tables import format_retention, plain_table
from dims_worker.config import Config, S3Source
from dims_worker.errors import DimsError
from dims_worker.events import STREAM
from dims_worker.formatting import NO_VALUE, format_age, format_ago, format_elapsed, pluralize
from dims_worker.store import leases, metric_states, retention
from dims_worker.store.approval_requests import open_requests
from dims_worker.store.engine import clock, engine, transaction
from dims_worker.store.events import last_event
from dims_worker.store.notifications import ChannelRow, channel_rows
from dims_worker.store.rejected_events import count_rejected
from dims_worker.store.runs import api_calls_since

MONTH = timedelta(days=30)
SWEEPS = 3
"""What waits for longer than so many sweeps lags."""
NAMED = 3
"""So many metrics are named in a line."""


@dataclass
class StatusLines:
    """One line for each thing: `up …`, `away: …`, `lags: …`; and the numbers behind them."""

    text: dict[str, str] = field(default_factory=dict)
    numbers: dict[str, Any] = field(default_factory=dict)

    @contextmanager
    def reaching(self, name: str, url: str | None) -> Iterator[str | None]:
        """What is asked of a server; where it cannot be reached, that is its line."""
        if url is None:
            self.text[name] = "away: not running here; `dims up` starts it"
        try:
            yield url
        except (DimsError, RedisError, OSError) as error:
            self.text[name] = f"away: {error}"


@click.command()
@json_option
@pass_session
def status(session: Session, as_json: bool) -> None:
    """What is up, what is down, what lags. Exit code 3 where the database or the broker is away."""
    config = session.config
    processes = local.stack_status(config.home)
    servers = local.running(config.home)
    lines = StatusLines()
    with lines.reaching("broker", config.broker_url or (servers.broker_url if servers else None)) as url:
        if url:
            _broker(config, url, lines)
    with lines.reaching("database", config.database_url or (servers.database_url if servers else None)) as url:
        if url:
            _database(config, url, lines)
    _spool(config.home / "spool", lines)
    if as_json:
        told = [{name: getattr(one, name) for name in one.__slots__} for one in processes]
        session.print_json({"home": str(config.home), "processes": told, **lines.text, "numbers": lines.numbers})
    else:
        _print(session, processes, lines)
    exit_with(3 if any(lines.text[server].startswith("away") for server in ("broker", "database")) else 0)


def _broker(config: Config, url: str, lines: StatusLines) -> None:
    """The stream, Celery's queues, beat."""
    names = queue_names(config)
    with connect(url, timeout=3) as client, client.pipeline(transaction=False) as pipe:
        pipe.xlen(STREAM)
        pipe.get(BEAT)
        pipe.get(REFUSED)
        for name in names:
            pipe.llen(name)
        waiting, beat, refused, *lengths = pipe.execute()
        info: Any = client.xinfo_groups(STREAM) if waiting else []
    held = sum(int(group["pending"]) for group in info if group["name"] == event_stream.GROUP.encode())
    odd = f"; {pluralize(int(refused), 'message')} refused: see the workers' logs" if refused else ""
    lines.text["broker"] = f"up, {pluralize(waiting, 'event')} waiting in the stream, {held:,} of them in work{odd}"
    bells = {name: int(length) for name, length in zip(names, lengths, strict=True)}
    lines.text["queues"] = ", ".join(f"{name} {length:,}" for name, length in bells.items())
    seconds = datetime.now(UTC).timestamp() - float(beat) if beat else None
    late = seconds is None or seconds > SWEEPS * config.settings.sweep.total_seconds() + 5
    told = (
        "no sign of it yet" if seconds is None else f"last sign {format_elapsed(timedelta(seconds=max(0.0, seconds)))}"
    )
    lines.text["beat"] = f"{'away: ' if late else 'up, '}{told}"
    lines.numbers |= {
        "stream": int(waiting),
        "in_work": held,
        "refused": int(refused or 0),
        "queues": bells,
        "beat_seconds": seconds,
    }


def _database(config: Config, url: str, lines: StatusLines) -> None:
    """Events, metrics, what waits for a measurement or for a person, and what listing has cost."""
    with transaction(engine(url)) as connection:
        known = list(metric_states.states_of(connection, config.definitions).values())
        waiting, events, now = open_requests(connection), last_event(connection), clock(connection)
        rejected, scans = count_rejected(connection), leases.count_leases(connection)
        made = api_calls_since(connection, MONTH)
        channels = channel_rows(connection, list(config.notify.channels))
        kept = retention.last_retention_run(connection)
    due = [state for state in known if state.due]
    oldest = max((now - state.due_since for state in due if state.due_since), default=timedelta(0))
    failed = [state.metric for state in known if state.error is not None]
    stale = [state.metric for state in known if _is_stale(config, state, now)]
    newest = max((state.as_of for state in known if state.as_of), default=None)
    lines.text["database"] = (
        f"up, {pluralize(events, 'event')}, {rejected:,} rejected; last reading {format_ago(newest, now)}"
    )
    lag = "lags: " if oldest > SWEEPS * config.settings.sweep + config.settings.lease else ""
    waits = f"; the oldest event has waited {format_age(oldest)}" if due else ""
    lines.text["due"] = (
        f"{lag}{len(due)} of {pluralize(len(known), 'metric')}, {pluralize(scans, 'scan')} under way{waits}"
    )
    lines.text["failed"] = _named(failed)
    lines.text["stale"] = _named(stale)
    lines.text["requests"] = f"{pluralize(len(waiting), 'request')} waiting for a person" if waiting else "none"
    lines.text["kept"] = format_retention(kept)
    if channels:
        lines.text["notify"] = "; ".join(_channel(one) for one in channels)
    if (listing := _listing(config, made)) is not None:
        lines.text["listing"] = listing
    lines.numbers |= {
        **{"events": events, "rejected": rejected, "due": len(due), "oldest_due_seconds": oldest.total_seconds()},
        **{
            "unsent": {one.channel: one.unsent for one in channels},
            "scans": scans,
            "housekeeping": kept.day.isoformat() if kept and kept.finished_at else None,
            "failed": failed,
            "stale": stale,
            "requests": len(waiting),
        },
    }


def _channel(row: ChannelRow) -> str:
    waits = f"{pluralize(row.unsent, 'notification')} to be sent" if row.unsent else "nothing to be sent"
    return f"{row.channel} {waits}{f', failed {row.failures} times' if row.failures else ''}"


def _is_stale(config: Config, state: metric_states.MetricState, now: datetime) -> bool:
    after = config.policy_of(state.metric).stale_after if state.metric in config.metrics else None
    return bool(after and state.as_of and now - state.as_of > after)


def _named(metrics: list[str]) -> str:
    more = f", … ({len(metrics)})" if len(metrics) > NAMED else ""
    return ", ".join(metrics[:NAMED]) + more if metrics else "none"


def _listing(config: Config, made: dict[str | None, int]) -> str | None:
    """What listing buckets has cost in the last month, at the configuration's price; None without a bucket."""
    prices = {name: one.list_price for name, one in config.sources.items() if isinstance(one, S3Source)}
    if not prices:
        return None
    dearest = max(prices.values())  # of a look at several sources, or a workflow, it is not known which
    kept = {source: n for source, n in made.items() if source in prices or source not in config.sources}
    cost = sum(n * prices.get(source or "", dearest) / 1000 for source, n in kept.items())
    return f"{pluralize(sum(kept.values()), 'API call')} in 30 days, at most {cost:,.4f} USD"


def _spool(folder: Path, lines: StatusLines) -> None:
    waiting, unread = (sum(1 for _ in os.scandir(f)) if f.is_dir() else 0 for f in (folder / "new", folder / "bad"))
    lines.text["spool"] = f"{pluralize(waiting, 'event')} to be sent" if waiting else "empty"
    lines.text["spool"] += f"; {pluralize(unread, 'file')} could not be read: see {folder / 'bad'}" if unread else ""
    lines.numbers |= {"spool": waiting, "spool_unread": unread}


def _print(session: Session, processes: list[local.ProcessStatus], lines: StatusLines) -> None:
    now = datetime.now(UTC)
    table = plain_table("process", "state", "pid", "since", "restarts", numbers=("pid", "restarts"))
    for one in processes:
        style = {"running": "green", "stopped": "dim"}.get(one.state, "magenta")
        table.add_row(one.name, Text(one.state, style), str(one.pid or NO_VALUE),
                      format_ago(one.since, now) if one.since else NO_VALUE, str(one.restarts))  # fmt: skip
    if processes:
        session.out.print(table)
    for name, line in lines.text.items():
        word = line.partition(",")[0].partition(":")[0]
        style = {"up": "green", "away": "bold magenta", "lags": "yellow"}.get(word, "")
        session.out.print(Text.assemble(f"{name:<9} ", (line, style if word != "up" else "")), soft_wrap=True)
