"""Bells without Celery: who rings them is real, and so is who answers them; the test decides when, and whether."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any
from unittest.mock import patch

from redis import Redis
from sqlalchemy import Engine

from dims_worker.broker.queues import HELP_REQUESTED, INGEST
from dims_worker.config import Config
from dims_worker.domain.plan import Planner
from dims_worker.pipeline import ingest, verify
from dims_worker.worker import dispatcher, sweep
from dims_worker.worker.wakeups import send_verify_wakeup
from tests.integration.stepped_process import halt

AWAY = "the database is away"

Bell = tuple[str, ...]
"""The task, and the source where it has one."""


@dataclass
class Bells:
    """In the place of a Celery app: the bells that were rung and not answered."""

    engine: Engine
    redis: Redis
    rung: set[Bell] = field(default_factory=set)

    def send_task(self, task: str, *, args: Bell, **_: Any) -> None:
        halt("ring")
        self.rung.add((task, *args))

    def round(self, config: Config, *, takes_in: bool = True) -> set[Bell]:
        """A worker starts, and its doorman makes one round: register, mend, sweep, take in. Returns what is rung."""
        made = dispatcher.Dispatcher(self, config, takes_in=takes_in)  # type: ignore[arg-type]
        made.stopped = once = _OneRound()  # type: ignore[assignment]
        with (
            patch.object(dispatcher, "WAIT_MS", 1),
            patch.object(dispatcher, "connect", lambda *_, **__: self.redis),
            patch.object(dispatcher, "engine", lambda _: self.engine),
            patch.object(sweep, "engine", lambda _: self.engine),
        ):
            made.run()
        assert not once.troubled or made.trouble == AWAY, f"the doorman waits: {made.trouble}"
        return self.rung

    def take(self) -> Bell:
        """Any one that was rung."""
        bell = min(self.rung)
        self.rung.remove(bell)
        return bell

    def answer(self, config: Config, task: str, *source: str) -> None:
        """What the tasks do."""
        if task == INGEST:
            self.redis.delete(HELP_REQUESTED)
            for touched, why in sorted(ingest.ingest_stream(self.redis, self.engine, Planner(config)).sources.items()):
                send_verify_wakeup(self, config, touched, why)  # type: ignore[arg-type]
            return
        while verify.measure_due(self.engine, config, *source):
            pass


@dataclass
class _OneRound:
    """In the place of the event that stops a doorman."""

    asked: int = 0
    troubled: bool = False

    def is_set(self) -> bool:
        self.asked += 1
        return self.asked > 2

    def wait(self, seconds: float) -> None:
        self.asked, self.troubled = 2, seconds == dispatcher.RETRY
