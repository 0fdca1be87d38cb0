"""Send wake-ups to workers. A wake-up says where to look. It carries nothing that could be lost."""

from __future__ import annotations

from typing import Any

from celery import Celery

from dims_worker.broker.queues import INGEST, NOTIFY, VERIFY
from dims_worker.config import Config

WAKEUP_TTL = 30
"""Seconds after which an unanswered wake-up expires. By then the sweep has sent another."""


def send_ingest_wakeup(app: Celery) -> None:
    """Ask a worker to ingest the events in the stream."""
    _send_wakeup(app, INGEST, INGEST, shown_args="the stream")


def send_verify_wakeup(app: Celery, config: Config, source: str, reason: str, details_command: str = "") -> None:
    """Ask a worker to measure what is due of a source. If the source names a queue, a worker of that queue does.

    `reason` and `details_command` appear only in Flower's columns args and kwargs, which show 50 characters each.
    """
    _send_wakeup(
        app,
        VERIFY,
        config.queue_of(source) or VERIFY,
        source,
        shown_args=f"{source} · {reason}",
        shown_kwargs=details_command,
    )


def send_notify_wakeup(app: Celery, channel: str) -> None:
    """Ask a worker to send the pending notifications of a channel."""
    _send_wakeup(app, NOTIFY, VERIFY, channel, shown_args=channel)


def _send_wakeup(app: Celery, task: str, queue: str, *args: Any, shown_args: str, shown_kwargs: str = "") -> None:
    app.send_task(
        task,
        args=args,
        queue=queue,
        expires=WAKEUP_TTL,
        ignore_result=True,
        retry=False,
        argsrepr=shown_args,
        kwargsrepr=shown_kwargs,
    )
