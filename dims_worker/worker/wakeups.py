"""Send wake-ups to workers. A wake-up says where to look. It carries nothing that could be lost.

A queue holds at most one wake-up for each source, see `dims_worker.broker.pending_wakeups`.
"""

from __future__ import annotations

import contextlib
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from celery import Celery
from kombu.exceptions import OperationalError
from redis import Redis
from redis.exceptions import RedisError
from sqlalchemy import Connection, Engine

from dims_worker.broker import pending_wakeups
from dims_worker.broker.queues import INGEST, NOTIFY, VERIFY, VERIFY_SLOW
from dims_worker.config import Config
from dims_worker.pipeline.ingest import IngestResult
from dims_worker.store import metric_states
from dims_worker.store.engine import transaction
from dims_worker.store.metric_states import DueSource
from dims_worker.store.processes import serves_queue
from dims_worker.worker.slow_scans import SLOW_SCAN

Reserve = Callable[[str, Sequence[str]], dict[str, int]]
"""A function of a queue and the names that need a wake-up in it. It returns those for which one is to be sent, and
the time to send with it."""


@dataclass(frozen=True, slots=True)
class Reason:
    """Why a wake-up is sent: shown in Flower's columns args and kwargs, which have room for 50 characters each."""

    text: str
    details_command: str = ""


SENT = "dims_sent"
"""The header that holds when a wake-up was sent, by the clock of the broker."""
STREAM_WAITS = {"": Reason("the stream")}


class WakeupSender:
    """Sends the wake-ups of one configuration. The senders of all processes share what they note in the broker."""

    def __init__(self, app: Celery, redis: Redis, config: Config) -> None:
        self.app, self.redis, self.config = app, redis, config

    def request_ingest(self) -> None:
        """Ask a worker to ingest the events in the stream, unless one is asked already."""
        self._send_all(INGEST, INGEST, STREAM_WAITS, self._reserve)

    def notify(self, channels: Iterable[str]) -> None:
        """Ask a worker to send the pending notifications of these channels."""
        self._send_all(NOTIFY, VERIFY, {channel: Reason(channel) for channel in channels}, self._reserve)

    def verify(self, engine: Engine, reasons: Mapping[str, Reason]) -> None:
        """Ask for a scan of each of these sources that is due: now, or when its cooldown or back-off ends.

        Call it after the transaction that made them due. A source that a worker scans now gets no wake-up: the worker
        itself calls this function after its run.
        """
        names = [name for source in reasons for name in self.config.scans.get(source, ())]
        if names:
            with transaction(engine) as connection:
                due = due_by_queue(connection, self.config, names)
            self._verify(due, lambda source: reasons[source], self._reserve)

    def verify_scheduled(self, engine: Engine) -> float | None:
        """Ask for scans of the sources whose cooldown has ended. Return the seconds until the next one ends."""
        sources, following = pending_wakeups.pop_scheduled(self.redis)
        self.verify(engine, dict.fromkeys(sources, Reason("its cooldown has ended")))
        return following

    def repeat_lost(self, due: Sequence[tuple[str, DueSource]], channels: Sequence[str], *, ingest: bool) -> None:
        """Send the wake-ups again that were lost, of everything that waits. Only a sweep calls this."""
        if ingest:
            self._send_all(INGEST, INGEST, STREAM_WAITS, self._reserve_lost)
        self._verify(due, lambda _: Reason("still due"), self._reserve_lost)
        self._send_all(NOTIFY, VERIFY, {channel: Reason(channel) for channel in channels}, self._reserve_lost)

    def _verify(self, due: Sequence[tuple[str, DueSource]], reason: Callable[[str], Reason], reserve: Reserve) -> None:
        ready: dict[str, dict[str, Reason]] = defaultdict(dict)
        for queue, item in due:
            if item.delay <= 0:
                why = reason(item.source)
                ready[queue][item.source] = Reason(f"{item.source} · {why.text}", why.details_command)
        pending_wakeups.schedule(self.redis, {item.source: item.delay for _, item in due if item.delay > 0})
        for queue, reasons in ready.items():
            self._send_all(VERIFY, queue, reasons, reserve)

    def _reserve(self, queue: str, names: Sequence[str]) -> dict[str, int]:
        return pending_wakeups.reserve(self.redis, queue, names)

    def _reserve_lost(self, queue: str, names: Sequence[str]) -> dict[str, int]:
        patience_ms = int(self.config.settings.sweep.total_seconds() * 1000)
        return pending_wakeups.reserve_lost(self.redis, queue, names, patience_ms)

    def _send_all(self, task: str, queue: str, reasons: Mapping[str, Reason], reserve: Reserve) -> None:
        """Send a wake-up for each name that `reserve` returns. A name whose wake-up cannot be sent is free again."""
        names = {wakeup_key(task, name): name for name in reasons}
        unsent = reserve(queue, list(names)) if names else {}
        try:
            for key, sent in list(unsent.items()):
                self._send(task, queue, names[key], reasons[names[key]], sent)
                del unsent[key]
        except (OperationalError, RedisError):
            with contextlib.suppress(RedisError):  # then a sweep notices that they were lost
                pending_wakeups.release(self.redis, queue, list(unsent))
            raise

    def _send(self, task: str, queue: str, name: str, reason: Reason, sent: int) -> None:
        self.app.send_task(
            task,
            args=(name,) if name else (),
            queue=queue,
            ignore_result=True,
            retry=False,
            argsrepr=reason.text,
            kwargsrepr=reason.details_command,
            headers={SENT: sent},
        )


def due_by_queue(connection: Connection, config: Config, names: Sequence[str]) -> list[tuple[str, DueSource]]:
    """Return the sources for which some of these metrics are due, each with the queue for its wake-up.

    That is the queue that the source names. Otherwise a slow source has the slow queue, if a worker serves it.
    """
    due = metric_states.due_sources(connection, names)
    slow = {item.source for item in due if (item.scan_seconds or 0) > SLOW_SCAN}
    slow_queue = VERIFY_SLOW if slow and serves_queue(connection, VERIFY_SLOW) else VERIFY
    return [(config.queue_of(item.source) or (slow_queue if item.source in slow else VERIFY), item) for item in due]


def wakeup_key(task: str, name: str) -> str:
    """Return the name under which the broker notes the wake-up of a task, and of a source or channel."""
    return f"{task} {name}"


def reasons(ingested: IngestResult) -> dict[str, Reason]:
    """Return the sources that a batch of events concerns, and why."""
    return {
        source: Reason(str(pending), pending.details_command) for source, pending in sorted(ingested.sources.items())
    }
