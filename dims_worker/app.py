"""The Celery app: queues, serializer, beat schedule, and the bells. A message is only a bell: it says *look
there*, and carries nothing that could be lost."""

from __future__ import annotations

from typing import Any

from celery import Celery
from celery.schedules import ParseException, crontab
from kombu.entity import Queue

from dims_worker.config import Config
from dims_worker.errors import BrokerUnreachable, ConfigError
from producers.address import Address

INGEST = "dims.ingest"
VERIFY = "dims.verify"
SWEEP = "dims.sweep"
TICK = "dims.tick"

BELL_TTL = 30
"""Seconds after which an unanswered bell is void: the sweep has rung again long since."""


def build_app(config: Config) -> Celery:
    """A Celery app for this configuration. Raises BrokerUnreachable where no broker is named."""
    if config.broker_url is None:
        raise BrokerUnreachable("no broker is named: set DIMS_BROKER_URL, or start one with `dims up`")
    app = Celery("dims", set_as_current=True)
    queues = {VERIFY, *(source.queue for source in config.sources.values() if source.queue)}
    app.conf.update(
        **broker_for_celery(config.broker_url),
        task_serializer="json",
        accept_content=["json"],
        result_accept_content=["json"],
        task_ignore_result=True,
        task_default_queue=VERIFY,
        task_queues=[Queue(name) for name in (INGEST, *sorted(queues))],  # type: ignore[no-untyped-call]
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
            "socket_timeout": 10,
            "socket_connect_timeout": 5,
            "socket_keepalive": True,
            "health_check_interval": 10,
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
    entries = {}
    for name, rule in config.rules.items():
        if rule.schedule is None:
            continue
        minute, hour, day, month, weekday = rule.schedule.split()
        try:
            when = crontab(minute=minute, hour=hour, day_of_month=day, month_of_year=month, day_of_week=weekday)
        except (ParseException, ValueError) as error:
            raise ConfigError(f"{config.file}: rules.{name}.schedule: {rule.schedule!r}: {error}") from None
        entries[f"tick {name}"] = {"task": TICK, "args": [name], "schedule": when, "options": {"queue": INGEST}}
    return entries


def broker_for_celery(url: str) -> dict[str, Any]:
    """The two settings that name the broker, as kombu wants them: Valkey speaks Redis, and TLS stands beside
    the URL (in it, kombu would verify no certificate unless told to, and Flower would not see it)."""
    address = Address.of(url)
    return {"broker_url": address.for_kombu, "broker_use_ssl": dict(address.tls) if address.tls else False}


def ring_ingest(app: Celery) -> None:
    """Somebody look at the stream."""
    _ring(app, INGEST, INGEST)


def ring_verify(app: Celery, config: Config, source: str) -> None:
    """Somebody look at what is due of a source; where it names a queue, one of that queue's workers."""
    _ring(app, VERIFY, config.queue_of(source) or VERIFY, source)


def _ring(app: Celery, task: str, queue: str, *args: Any) -> None:
    app.send_task(task, args=args, queue=queue, expires=BELL_TTL, ignore_result=True, retry=False)
