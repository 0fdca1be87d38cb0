"""Beat's scheduler: it checks the broker before it sends anything, and logs an outage in one line."""

from __future__ import annotations

import logging
import os
import time
from typing import Any

from celery.beat import SchedulingError

from dims_worker.broker.outage_log import BROKER, outages
from dims_worker.errors import WrongBroker
from dims_worker.worker.beat import ReportedScheduler
from dims_worker.worker.broker_check import wait_for_broker
from dims_worker.worker.outage_report import report_failure

log = logging.getLogger(__name__)

LONGEST_PAUSE = 2.0
"""The longest pause between two attempts to connect, in seconds."""

_PART = "beat"


class PatientScheduler(ReportedScheduler):
    """See the module. The setting `beat_scheduler` names this class."""

    _checked = False

    def tick(self, *args: Any, **kwargs: Any) -> float:
        if not self._checked:
            try:
                wait_for_broker(self.app.dims_config, self._note_tick)
            except WrongBroker as error:
                log.critical("beat ends: %s", error)
                self.close()
                os._exit(error.exit_code)  # Celery's beat would turn a SystemExit into the exit code 0
            self._checked = True
        return super().tick(*args, **kwargs)

    def apply_entry(self, entry: Any, producer: Any = None) -> None:
        """Send what is due. If the broker refuses, the next period sends it again."""
        log.info("Scheduler: Sending due task %s (%s)", entry.name, entry.task)  # as Celery does
        try:
            self.apply_async(entry, producer=producer, advance=False)
        except SchedulingError as error:
            self._checked = False  # the broker may come back as another project's
            self._failed(error.__cause__ or error.__context__ or error)
        else:
            outages.succeeded(BROKER, _PART)

    def _ensure_connected(self) -> Any:
        return self.connection.ensure_connection(
            lambda error, interval: self._failed(error),
            self.app.conf.broker_connection_max_retries,
            interval_start=LONGEST_PAUSE / 4,
            interval_step=LONGEST_PAUSE / 4,
            interval_max=LONGEST_PAUSE,
        )

    def _note_tick(self) -> None:
        """Show the watchdog that the loop waits for a server, and does not hang."""
        self.ticked = time.monotonic()

    def _failed(self, error: BaseException) -> None:
        self._note_tick()
        report_failure(_PART, error, self.app.dims_config)
