"""The Celery app: queues, serializer, beat schedule, and the bells. A message is only a bell: it says *look
there*, and carries nothing that could be lost."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

from celery import Celery
from celery.schedules import BaseSchedule, schedstate
from kombu.entity import Queue

from dims_worker import schedule
from dims_worker.broker import INGEST, NOTIFY, VERIFY, queues
from dims_worker.config import Config, Rule
from dims_worker.errors import BrokerUnreachable
from producers.address import Address

SWEEP = "dims.sweep"
TICK = "dims.tick"

BELL_TTL = 30
"""Seconds after which an unanswered bell is void: the sweep has rung again long since."""


def build_app(config: Config) -> Celery:
    """A Celery app for this configuration. Raises BrokerUnreachable where no broker is named."""
    if config.broker_url is None:
        raise BrokerUnreachable("no broker is named: set DIMS_BROKER_URL, or start one with `dims up`")
    app = Celery("dims", set_as_current=True)
    app.conf.update(
        **broker_for_celery(config.broker_url),
        task_serializer="json",
        accept_content=["json"],
        result_accept_content=["json"],
        task_ignore_result=True,
        task_default_queue=VERIFY,
        task_queues=[Queue(name) for name in queues(config)],  # type: ignore[no-untyped-call]
        task_create_missing_queues=False,
        task_acks_late=False,  # a lost bell is rung again by the sweep
        worker_prefetch_multiplier=1,
        worker_consumer="dims_worker.consumer:Consumer",  # refuses and counts what is no bell
        worker_cancel_long_running_tasks_on_connection_loss=False,  # True loses tasks (celery 5.6)
        worker_hijack_root_logger=True,
        worker_send_task_events=True,
        task_send_sent_event=True,
        broker_connection_retry_on_startup=True,
        broker_connection_max_retries=None,
        broker_transport_options={
            # Bounds of silence: a connection that died without a word is noticed within some 20 s
            "socket_timeout": 5,
            "socket_connect_timeout": 5,
            "socket_keepalive": True,
            "health_check_interval": 5,
            "global_keyprefix": "",
        },
        beat_schedule={
            "sweep": {
                "task": SWEEP,
                "schedule": config.settings.sweep,
                "options": {"queue": INGEST, "expires": BELL_TTL},
            },
            **_ticks(config),
        },
        timezone="UTC",
        enable_utc=True,
    )
    return app


def _ticks(config: Config) -> dict[str, Any]:
    """A beat entry for each rule with a schedule: it publishes an event, like any producer."""
    return {
        f"tick {name}": {"task": TICK, "args": [name], "schedule": Ticks(rule), "options": {"queue": INGEST}}
        for name, rule in config.rules.items()
        if rule.schedule
    }


class Ticks(BaseSchedule):  # type: ignore[misc]
    """A rule's schedule as beat asks for it. A tick of long ago is not due: the sweep makes up for what was missed."""

    def __init__(self, rule: Rule, now: Callable[[], datetime] | None = None) -> None:
        super().__init__(nowfun=now or _now)
        self.rule = rule

    def is_due(self, last_run_at: datetime) -> schedstate:
        """Whether a tick came since beat last ran it, and the seconds until the next."""
        now = self.now()
        tick = schedule.last_tick(self.rule, now)
        due = tick > last_run_at and now - tick < schedule.GRACE
        return schedstate(due, (schedule.next_tick(self.rule, now) - now).total_seconds())

    def remaining_estimate(self, last_run_at: datetime) -> timedelta:
        """The time until the next tick."""
        now: datetime = self.now()
        return schedule.next_tick(self.rule, now) - now

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Ticks) and other.rule == self.rule

    def __hash__(self) -> int:
        return hash((self.rule.schedule, self.rule.timezone))

    def __reduce__(self) -> tuple[type[Ticks], tuple[Rule]]:
        return Ticks, (self.rule,)  # beat keeps its entries in a file


def _now() -> datetime:
    return datetime.now(UTC)


def broker_for_celery(url: str) -> dict[str, Any]:
    """The two settings that name the broker, as kombu wants them: Valkey speaks Redis, and TLS stands beside
    the URL (in it, kombu would verify no certificate unless told to, and Flower would not see it)."""
    address = Address.of(url)
    return {"broker_url": address.for_kombu, "broker_use_ssl": dict(address.tls) if address.tls else False}


def ring_ingest(app: Celery) -> None:
    """Somebody look at the stream."""
    _ring(app, INGEST, INGEST, said="the stream")


def ring_verify(app: Celery, config: Config, source: str, why: str, more: str = "") -> None:
    """Somebody look at what is due of a source; where it names a queue, one of that queue's workers.

    `why`, and the command that tells `more`, are for those who watch the bells (Flower's columns args and kwargs, of
    which it shows 50 characters each); nobody else reads them.
    """
    _ring(app, VERIFY, config.queue_of(source) or VERIFY, source, said=f"{source} · {why}", more=more)


def ring_notify(app: Celery, channel: str) -> None:
    """Somebody send to a channel what it is to be told."""
    _ring(app, NOTIFY, VERIFY, channel, said=channel)


def _ring(app: Celery, task: str, queue: str, *args: Any, said: str, more: str = "") -> None:
    app.send_task(
        task, args=args, queue=queue, expires=BELL_TTL, ignore_result=True, retry=False, argsrepr=said, kwargsrepr=more
    )
