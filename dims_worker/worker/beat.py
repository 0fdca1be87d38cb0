"""Give Celery beat the rules that have a schedule."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

from celery.schedules import BaseSchedule, schedstate

from dims_worker.broker.queues import INGEST, TICK
from dims_worker.config import Config, Rule
from dims_worker.domain import schedule


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


def _now() -> datetime:
    return datetime.now(UTC)
