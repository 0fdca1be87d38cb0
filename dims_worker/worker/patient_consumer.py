"""A Celery consumer that checks its broker before it reads, and waits while the broker is unreachable or refuses.

Celery waits up to 30 s between two attempts to connect. It does not wait at all when the connection works and only
commands are refused. It logs each attempt, with a traceback.
"""

from __future__ import annotations

import contextlib
import logging
import time
from typing import Any

from celery.exceptions import WorkerShutdown
from celery.worker.consumer import Consumer as CeleryConsumer
from celery.worker.state import maybe_shutdown

from dims_worker.broker.outage_log import BROKER, outages
from dims_worker.errors import WrongBroker
from dims_worker.worker.broker_check import wait_for_broker
from dims_worker.worker.outage_report import report_failure

log = logging.getLogger(__name__)

LONGEST_PAUSE = 2.0
"""The longest pause between two attempts to connect, in seconds. The first one is a quarter of it."""
PAUSE = 1.0
"""Seconds between a command that the broker refused and the next attempt."""
SETTLED = 3.0
"""Seconds of reading without an error after which the broker is back. A read takes a second at most."""

_PART = "the consumer"


class PatientConsumer(CeleryConsumer):  # type: ignore[misc]
    """See the module."""

    def connect(self) -> Any:
        try:
            wait_for_broker(self.app.dims_config, maybe_shutdown)
        except WrongBroker as error:
            log.critical("the worker ends: %s", error)
            raise WorkerShutdown(error.exit_code) from None
        return super().connect()

    def ensure_connected(self, conn: Any) -> Any:
        connected = conn.ensure_connection(
            lambda error, interval: self._failed(error),
            self.app.conf.broker_connection_max_retries,
            interval_start=LONGEST_PAUSE / 4,
            interval_step=LONGEST_PAUSE / 4,
            interval_max=LONGEST_PAUSE,
            callback=maybe_shutdown,
        )
        self.first_connection_attempt = False
        return connected

    def on_connection_error_before_connected(self, exc: Exception) -> None:
        self._failed(exc)
        time.sleep(PAUSE)

    def on_connection_error_after_connected(self, exc: Exception) -> None:
        """Close the connection, so that a new one is made. Celery's method also logs a traceback and a long warning."""
        self._failed(exc)
        with contextlib.suppress(Exception):  # it may be closed already, in any state
            self.connection.collect()
        time.sleep(PAUSE)

    def on_ready(self) -> None:
        super().on_ready()
        if self.timer is not None:  # an error in the loop clears the timer
            self.timer.call_after(SETTLED, outages.succeeded, (BROKER, _PART))

    def _failed(self, error: Exception) -> None:
        report_failure(_PART, error, self.app.dims_config)
