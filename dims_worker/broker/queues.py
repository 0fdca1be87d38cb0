"""What the broker holds beside the stream: the queues of wake-ups, and three keys."""

from __future__ import annotations

from dims_worker.config import Config

INGEST = "dims.ingest"
"""The task that stores events, and its queue."""
VERIFY = "dims.verify"
"""The task that measures, and the default queue."""
NOTIFY = "dims.notify"
"""The task that sends notifications, on the default queue: it takes a second, or half a lease if a channel is slow."""
SWEEP = "dims.sweep"
TICK = "dims.tick"

HELP_REQUESTED = "dims:wakeup:ingest"
"""Set while an ingest wake-up is on its way. The ingest task deletes it BEFORE it reads the stream."""
BEAT = "dims:beat"
"""When beat was last alive, in seconds since 1970."""
REFUSED = "dims:refused"
"""Counts the messages that workers refused: not JSON, or not in Celery's format."""


def queue_names(config: Config) -> list[str]:
    """Return the names of all queues: the one of ingest, the default one, and those that sources name."""
    return [INGEST, *sorted({VERIFY, *(source.queue for source in config.sources.values() if source.queue)})]
