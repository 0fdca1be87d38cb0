"""Send wake-ups to workers. A wake-up says where to look. It carries nothing that could be lost."""

from __future__ import annotations

from typing import Any

from celery import Celery

from dims_worker.broker.queues import INGEST, NOTIFY, VERIFY
from dims_worker.config import Config

WAKEUP_TTL = 30
"""Seconds after which an unanswered bell is void: the sweep has rung again long since."""


def send_ingest_wakeup(app: Celery) -> None:
    """Somebody look at the stream."""
    _send_wakeup(app, INGEST, INGEST, said="the stream")


def send_verify_wakeup(app: Celery, config: Config, source: str, why: str, more: str = "") -> None:
    """Somebody look at what is due of a source; where it names a queue, one of that queue's workers.

    `why`, and the command that tells `more`, are for those who watch the bells (Flower's columns args and kwargs, of
    which it shows 50 characters each); nobody else reads them.
    """
    _send_wakeup(app, VERIFY, config.queue_of(source) or VERIFY, source, said=f"{source} · {why}", more=more)


def send_notify_wakeup(app: Celery, channel: str) -> None:
    """Somebody send to a channel what it is to be told."""
    _send_wakeup(app, NOTIFY, VERIFY, channel, said=channel)


def _send_wakeup(app: Celery, task: str, queue: str, *args: Any, said: str, more: str = "") -> None:
    app.send_task(
        task,
        args=args,
        queue=queue,
        expires=WAKEUP_TTL,
        ignore_result=True,
        retry=False,
        argsrepr=said,
        kwargsrepr=more,
    )
