"""Keep Celery, kombu and Flower from repeating that a server is unreachable: `OutageLog` has logged it once."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

from celery.signals import after_setup_logger, after_setup_task_logger
from kombu.exceptions import OperationalError
from redis.exceptions import RedisError

from dims_producers.broker_refusal import broker_reason
from dims_worker.broker.outage_log import BROKER, outages

AGAIN = 60.0
"""Seconds after which the same message of a library may appear again outside an outage."""

_LIBRARIES = ("celery", "kombu", "redis", "flower", "tornado")
_PHRASES = ("Connection to broker lost", "Trying again", "consumer: Cannot connect", "Couldn't ack")


class OutageFilter(logging.Filter):
    """Drop a library's messages about the broker during an outage. Otherwise, shorten them to one line."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._clock = clock
        self._shown: dict[str, float] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        if record.levelno < logging.WARNING or record.name.partition(".")[0] not in _LIBRARIES:
            return True
        error = _broker_error(record)
        if error is None and not str(record.msg).startswith(_PHRASES):
            return True
        if outages.is_out(BROKER):
            return False
        now, key = self._clock(), f"{record.name} {record.msg}"
        if now - self._shown.get(key, float("-inf")) < AGAIN:
            return False
        self._shown[key] = now
        if error is not None:
            record.msg, record.args = "%s: %s", (str(record.msg).partition(":")[0], broker_reason(error))
            record.exc_info = record.exc_text = None
        return True


def _broker_error(record: logging.LogRecord) -> BaseException | None:
    """Return the error of the broker that a record is about, also if another error wraps it."""
    error = record.exc_info[1] if record.exc_info else None
    for _ in range(5):
        if error is None or isinstance(error, RedisError | OperationalError | ConnectionError):
            return error
        error = error.__cause__ or error.__context__
    return None


def filter_logs(logger: logging.Logger, **_: object) -> None:
    """Add the filter to each handler of a logger, which sees the messages of the loggers below it too."""
    for handler in logger.handlers:
        if not any(isinstance(each, OutageFilter) for each in handler.filters):
            handler.addFilter(_FILTER)


_FILTER = OutageFilter()


def install() -> None:
    """Filter what Celery's programs log. Celery configures its handlers later, and sends a signal then."""
    after_setup_logger.connect(filter_logs)
    after_setup_task_logger.connect(filter_logs)
