"""Give Celery beat the rules that have a schedule, and report that beat runs."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

from celery import signals
from celery.beat import PersistentScheduler
from celery.schedules import BaseSchedule, schedstate
from redis.exceptions import RedisError

from dims_producers.publish import connect
from dims_worker.broker.queues import INGEST, TICK
from dims_worker.config import Config, Rule
from dims_worker.domain import schedule
from dims_worker.errors import DimsError
from dims_worker.local.stall import EXIT_STALLED, MAX_PATIENCE, MIN_PATIENCE, OBSERVE_SECONDS, StallDetector
from dims_worker.store.engine import engine
from dims_worker.store.process_reporter import ProcessReporter, identify_process
from dims_worker.store.processes import ProcessProgress

log = logging.getLogger(__name__)

BROKER_SECONDS = 3.0
"""How long the broker may take to answer a ping."""


def rule_schedules(config: Config) -> dict[str, Any]:
    """Return a beat entry for each rule with a schedule. Its task publishes an event, like any producer."""
    return {
        f"tick {name}": {"task": TICK, "args": [name], "schedule": RuleSchedule(rule), "options": {"queue": INGEST}}
        for name, rule in config.rules.items()
        if rule.schedule
    }


class RuleSchedule(BaseSchedule):  # type: ignore[misc]
    """The schedule of a rule, in beat's interface. An old tick is not due: the sweep publishes missed ticks."""

    def __init__(self, rule: Rule, now: Callable[[], datetime] | None = None) -> None:
        super().__init__(nowfun=now or _now)
        self.rule = rule

    def is_due(self, last_run_at: datetime) -> schedstate:
        """Return whether a tick came since beat last ran the entry, and the seconds until the next tick."""
        now = self.now()
        tick = schedule.last_tick(self.rule, now)
        due = tick > last_run_at and now - tick < schedule.TICK_GRACE
        return schedstate(due, (schedule.next_tick(self.rule, now) - now).total_seconds())

    def remaining_estimate(self, last_run_at: datetime) -> timedelta:
        """Return the time until the next tick."""
        now: datetime = self.now()
        return schedule.next_tick(self.rule, now) - now

    def __eq__(self, other: object) -> bool:
        return isinstance(other, RuleSchedule) and other.rule == self.rule

    def __hash__(self) -> int:
        return hash((self.rule.schedule, self.rule.timezone))

    def __reduce__(self) -> tuple[type[RuleSchedule], tuple[Rule]]:
        return RuleSchedule, (self.rule,)  # beat pickles its entries


class ReportedScheduler(PersistentScheduler):  # type: ignore[misc]
    """Celery's scheduler, with a row in `dims_processes`. `last_sweep_at` is when its loop last ran.

    The row is from beat's own process, so each host that runs beat has one, and it ends with beat.
    """

    def __init__(self, *args: Any, **options: Any) -> None:
        self.ticked = time.monotonic()
        self.problem: str | None = None
        self._reporter: ProcessReporter | None = None
        super().__init__(*args, **options)

    def tick(self, *args: Any, **options: Any) -> float:
        self.ticked = time.monotonic()
        return float(super().tick(*args, **options))

    def report(self) -> None:
        """Start the threads that write beat's row and observe its loop."""
        config = self.app.dims_config
        threading.Thread(target=self._observe, name="watchdog", daemon=True).start()
        if config.database_url is not None:
            identity = identify_process("beat", config)
            self._reporter = ProcessReporter(
                engine(config.database_url), identity, config.settings.sweep, self._progress
            )
            self._reporter.start()

    def close(self) -> None:
        if self._reporter:
            self._reporter.stop()
        super().close()

    def _progress(self) -> ProcessProgress:
        return ProcessProgress(swept=_now() - timedelta(seconds=time.monotonic() - self.ticked), problem=self.problem)

    def _stall_reason(self) -> str | None:
        """Return why beat seems stalled. Its loop runs once a sweep period, and at least every `max_interval`."""
        silent = time.monotonic() - self.ticked
        longest = min(self.app.dims_config.settings.sweep.total_seconds(), self.max_interval)
        return f"its loop has not run for {silent:.0f} s" if silent > longest + MAX_PATIENCE else None

    def _observe(self) -> None:
        """End beat with the exit code 75 if its loop hangs although the broker answers."""
        detector = StallDetector(OBSERVE_SECONDS)
        while True:
            time.sleep(OBSERVE_SECONDS)
            if reason := self._stall_reason():
                try:
                    connect(str(self.app.dims_config.broker_url), timeout=BROKER_SECONDS).ping()
                except (DimsError, RedisError, OSError):
                    reason = None  # beat waits for the broker
            self.problem = reason
            if detector.observe(time.monotonic(), reason, self.ticked, MIN_PATIENCE):
                log.error("beat makes no progress: %s. It ends now, so that its supervisor starts it again", reason)
                os._exit(EXIT_STALLED)


@signals.beat_init.connect  # type: ignore[untyped-decorator]
def _report_beat(sender: Any, **_: Any) -> None:
    sender.scheduler.report()


def _now() -> datetime:
    return datetime.now(UTC)
