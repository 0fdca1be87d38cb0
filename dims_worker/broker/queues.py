"""What lies in the broker beside the stream: the queues of bells, and three keys."""

from __future__ import annotations

from dims_worker.config import Config

INGEST = "dims.ingest"
"""The queue, and the task, of those who take events in."""
VERIFY = "dims.verify"
"""The usual queue, and the task, of those who measure."""

NOTIFY = "dims.notify"
"""The task of those who tell people, on the usual queue: it takes a second, and a channel that is slow half a lease."""

HELP_REQUESTED = "dims:bell:ingest"
"""Set while a bell for ingest is on its way; ingest deletes it BEFORE it reads the stream."""
BEAT = "dims:beat"
"""Beat's last sign of life, in seconds since 1970."""
REFUSED = "dims:refused"
"""Counts the messages that workers refused: no JSON, or not of Celery's shape."""


def queue_names(config: Config) -> list[str]:
    """The names of all queues: ingest's own, the usual one, those that sources name."""
    return [INGEST, *sorted({VERIFY, *(source.queue for source in config.sources.values() if source.queue)})]


SWEEP = "dims.sweep"


TICK = "dims.tick"
