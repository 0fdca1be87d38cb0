"""The Celery app: queues, serializer, beat schedule, and the bells. A message is only a bell: it says *look
there*, and carries nothing that could be lost."""

from __future__ import annotations

from typing import Any

from celery import Celery
from kombu.entity import Queue

from dims_producers.broker_url import BrokerAddress
from dims_worker.broker.queues import INGEST, SWEEP, VERIFY, queue_names
from dims_worker.config import Config
from dims_worker.errors import BrokerUnreachable
from dims_worker.worker.beat import rule_schedules
from dims_worker.worker.wakeups import WAKEUP_TTL


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
        task_queues=[Queue(name) for name in queue_names(config)],  # type: ignore[no-untyped-call]
        task_create_missing_queues=False,
        task_acks_late=False,  # a lost bell is rung again by the sweep
        worker_prefetch_multiplier=1,
        worker_consumer="dims_worker.worker.message_guard:MessageGuard",  # refuses and counts what is no bell
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
                "options": {"queue": INGEST, "expires": WAKEUP_TTL},
            },
            **rule_schedules(config),
        },
        timezone="UTC",
        enable_utc=True,
    )
    return app


def broker_for_celery(url: str) -> dict[str, Any]:
    """The two settings that name the broker, as kombu wants them: Valkey speaks Redis, and TLS stands beside
    the URL (in it, kombu would verify no certificate unless told to, and Flower would not see it)."""
    address = BrokerAddress.of(url)
    return {"broker_url": address.for_kombu, "broker_use_ssl": dict(address.tls) if address.tls else False}
