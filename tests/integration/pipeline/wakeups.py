"""Wake-ups without Celery. Sender and receiver are real. The test decides if and when a wake-up arrives."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any
from unittest.mock import patch

from redis import Redis
from sqlalchemy import Engine

from dims_worker.broker import pending_wakeups
from dims_worker.broker.queues import INGEST
from dims_worker.config import Config
from dims_worker.domain.plan import Planner
from dims_worker.pipeline import ingest, verify
from dims_worker.worker import dispatcher, sweep
from dims_worker.worker.wakeups import Reason, WakeupSender, reasons, wakeup_key
from tests.integration.stepped_process import halt

UNREACHABLE = "the database is unreachable"

Wakeup = tuple[str, ...]
"""The task, and its source if it has one."""


@dataclass
class Wakeups:
    """Replaces the Celery app: the wake-ups that were sent and not handled."""

    engine: Engine
    redis: Redis
    sent: set[Wakeup] = field(default_factory=set)

    def send_task(self, task: str, *, args: Wakeup, **_: Any) -> None:
        halt("send")
        self.sent.add((task, *args))

    def round(self, config: Config, *, ingests: bool = True) -> set[Wakeup]:
        """Let a dispatcher do one round: register, repair, sweep, ingest. Return the sent wake-ups."""
        started = dispatcher.Dispatcher(self, config, ingests=ingests)  # type: ignore[arg-type]
        started.stopped = once = _OneRound()  # type: ignore[assignment]
        with (
            patch.object(dispatcher, "WAIT_MS", 1),
            patch.object(dispatcher, "connect", lambda *_, **__: self.redis),
            patch.object(dispatcher, "engine", lambda _: self.engine),
            patch.object(sweep, "engine", lambda _: self.engine),
        ):
            started.run()
        assert not once.failed or started.problem == UNREACHABLE, f"the dispatcher waits: {started.problem}"
        return self.sent

    def pop(self) -> Wakeup:
        """Remove and return one sent wake-up."""
        wakeup = min(self.sent)
        self.sent.remove(wakeup)
        return wakeup

    def handle(self, config: Config, task: str, source: str = "") -> None:
        """Do what the task does."""
        halt("receive")
        pending_wakeups.receive(self.redis, task, wakeup_key(task, source), 0)  # both tasks have a queue of their name
        if task == INGEST:
            ingested = ingest.ingest_stream(self.redis, self.engine, Planner(config))
            self._sender(config).verify(self.engine, reasons(ingested))
        elif verify.measure_due(self.engine, config, source):
            self._sender(config).verify(self.engine, {source: Reason("more is due")})

    def _sender(self, config: Config) -> WakeupSender:
        return WakeupSender(self, self.redis, config)  # type: ignore[arg-type]


@dataclass
class _OneRound:
    """Replaces the event that stops a dispatcher: lets it do one round."""

    checks: int = 0
    failed: bool = False

    def is_set(self) -> bool:
        self.checks += 1
        return self.checks > 2

    def wait(self, seconds: float) -> None:
        self.checks, self.failed = 2, seconds == dispatcher.RETRY
