"""The Celery app: queues, serializer and beat schedule.

A message is only a wake-up. It says where to look and carries nothing that could be lost.
"""

from __future__ import annotations

from typing import Any

from celery import Celery
from kombu.entity import Queue

from dims_producers.broker_url import BrokerAddress
from dims_worker.broker.queues import INGEST, SWEEP, VERIFY, queue_names
from dims_worker.broker.transport import use_broker_transport
from dims_worker.config import Config
from dims_worker.errors import BrokerUnreachable
from dims_worker.worker import outage_filter
from dims_worker.worker.beat import rule_schedules


def build_app(config: Config) -> Celery:
    """Return a Celery app for this configuration. Raises BrokerUnreachable if no broker is configured."""
    if config.broker_url is None:
        raise BrokerUnreachable("no broker is configured: set DIMS_BROKER_URL, or start one with `dims up`")
    use_broker_transport()
    outage_filter.install()
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
        task_acks_late=False,  # the sweep sends a lost wake-up again
        # A worker takes a wake-up only when it has a free process, so none waits behind a long scan
        worker_prefetch_multiplier=1,
        worker_disable_prefetch=True,
        worker_enable_prefetch_count_reduction=False,  # True silences a worker after a reconnect (celery 5.6)
        # A child is replaced now and then, so that what a library leaks cannot grow for months
        worker_max_tasks_per_child=10_000,
        worker_max_memory_per_child=512 * 1024,  # KiB, checked after each task
        worker_consumer="dims_worker.worker.message_guard:MessageGuard",  # refuses and counts what is no wake-up
        worker_cancel_long_running_tasks_on_connection_loss=False,  # True loses tasks (celery 5.6)
        worker_hijack_root_logger=True,
        worker_send_task_events=True,
        task_send_sent_event=True,
        broker_channel_error_retry=True,  # an error reply is over after a while, like a lost connection
        broker_connection_retry_on_startup=True,
        broker_connection_max_retries=None,
        broker_transport_options={
            # A connection that died without an error is noticed within about 20 s
            "socket_timeout": 5,
            "socket_connect_timeout": 5,
            "socket_keepalive": True,
            "health_check_interval": 5,
            "global_keyprefix": "",
        },
        beat_scheduler="dims_worker.worker.beat_scheduler:PatientScheduler",
        beat_schedule={
            "sweep": {
                "task": SWEEP,
                "schedule": config.settings.sweep,
                "options": {"queue": INGEST, "expires": 30},
            },
            **rule_schedules(config),
        },
        timezone="UTC",
        enable_utc=True,
    )
    return app


def broker_for_celery(url: str) -> dict[str, Any]:
    """Return the two settings that name the broker, in kombu's form: Valkey speaks Redis, and TLS is a setting
    of its own. Inside the URL, kombu would verify no certificate by default, and Flower would not see it."""
    address = BrokerAddress.of(url)
    return {"broker_url": address.for_kombu, "broker_use_ssl": dict(address.tls) if address.tls else False}
