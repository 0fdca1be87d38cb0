"""Rules with a schedule, as Celery beat reads them."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

from celery.schedules import BaseSchedule, schedstate

from dims_worker.broker.queues import INGEST, TICK
from dims_worker.config import Config, Rule
from dims_worker.domain import schedule


def rule_schedules(config: Config) -> dict[str, Any]:
    """A beat entry for each rule with a schedule: it publishes an event, like any producer."""
    return {
        f"tick {name}": {"task": TICK, "args": [name], "schedule": RuleSchedule(rule), "options": {"queue": INGEST}}
        for name, rule in config.rules.items()
        if rule.schedule
    }


class RuleSchedule(BaseSchedule):  # type: ignore[misc]
    """A rule's schedule as beat asks for it. A tick of long ago is not due: the sweep makes up for what was missed."""

    def __init__(self, rule: Rule, now: Callable[[], datetime] | None = None) -> None:
        super().__init__(nowfun=now or _now)
        self.rule = rule

    def is_due(self, last_run_at: datetime) -> schedstate:
        """Whether a tick came since beat last ran it, and the seconds until the next."""
        now = self.now()
        tick = schedule.last_tick(self.rule, now)
        due = tick > last_run_at and now - tick < schedule.TICK_GRACE
        return schedstate(due, (schedule.next_tick(self.rule, now) - now).total_seconds())

    def remaining_estimate(self, last_run_at: datetime) -> timedelta:
        """The time until the next tick."""
        now: datetime = self.now()
        return schedule.next_tick(self.rule, now) - now

    def __eq__(self, other: object) -> bool:
        return isinstance(other, RuleSchedule) and other.rule == self.rule

    def __hash__(self) -> int:
        return hash((self.rule.schedule, self.rule.timezone))

    def __reduce__(self) -> tuple[type[RuleSchedule], tuple[Rule]]:
        return RuleSchedule, (self.rule,)  # beat keeps its entries in a file


def _now() -> datetime:
    return datetime.now(UTC)
