"""What the broker holds beside the stream and the waiting wake-ups: the queues, and three keys."""

from __future__ import annotations

from dims_worker.config import Config

INGEST = "dims.ingest"
"""The task that stores events, and its queue."""
VERIFY = "dims.verify"
"""The task that measures, and the default queue."""
VERIFY_SLOW = "dims.verify.slow"
"""The queue of sources whose last scan was slow. Its workers are its own, so that fast sources never wait for them."""
NOTIFY = "dims.notify"
"""The task that sends notifications, on the default queue: it takes a second, or half a lease if a channel is slow."""
SWEEP = "dims.sweep"
TICK = "dims.tick"

SWEEPS = "dims:sweeps"
"""Counts the sweeps of all workers, so that one worker sweeps in each period."""
BEAT = "dims:beat"
"""When beat was last alive, in seconds since 1970."""
REFUSED = "dims:refused"
"""Counts the messages that workers refused: not JSON, or not in Celery's format."""


def queue_names(config: Config) -> list[str]:
    """Return the names of all queues: the one of ingest, the default one, the slow one, and those that sources name."""
    return [
        INGEST,
        *sorted({VERIFY, VERIFY_SLOW, *(source.queue for source in config.sources.values() if source.queue)}),
    ]
