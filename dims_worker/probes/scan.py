"""A pass over a source, limited in time whatever the source does."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Mapping

from dims_worker.config import Metric, Source
from dims_worker.errors import MeasureError
from dims_worker.probes import probe_for
from dims_worker.probes.base import Deadline, Reading, ScanContext, ScanResult, readings_by_name

log = logging.getLogger(__name__)

GRACE = 3.0
"""Seconds after its timeout at which a scan that has not ended is abandoned."""


class Scan:
    """One pass over a source, in a thread that is abandoned if it does not end in time.

    A probe checks its own deadline. A blocking call below it (a server that sends a byte a second, a dead
    mount) cannot be interrupted. DIMS abandons the thread: the readings fail, and the lease is released.
    """

    def __init__(
        self,
        name: str,
        source: Source,
        metrics: Mapping[str, Metric],
        context: ScanContext,
        deadline: Deadline | None = None,
    ) -> None:
        self.name, self.source, self.metrics, self.context = name, source, metrics, context
        self.deadline = deadline or Deadline.after(source.timeout)
        self.error: MeasureError | None = None
        """The reason why the source as a whole could not be measured."""
        self._scanned: ScanResult | None = None
        self._thread = threading.Thread(target=self._run, name=f"scan of {name}", daemon=True)
        self._thread.start()

    def result(self) -> ScanResult:
        """Return a reading for every metric, at most `GRACE` seconds after the deadline."""
        end = self.deadline.at + GRACE
        while self._thread.is_alive() and time.monotonic() < end:
            self._thread.join(0.2)  # short, so that Ctrl-C is handled
        scanned = self._scanned
        if scanned is None:
            seconds = self.deadline.timeout.total_seconds()
            self.error = MeasureError(f"the scan took longer than its timeout of {seconds:g} s and was abandoned")
            return self._failed(self.metrics, str(self.error))
        measured = readings_by_name(scanned.readings)
        missing = {name: metric for name, metric in self.metrics.items() if name not in measured}
        if not missing:
            return scanned
        failed = self._failed(missing, "internal error: the probe returned no reading")
        return ScanResult((*scanned.readings, *failed.readings), scanned.api_calls)

    def _run(self) -> None:
        kind = self.source.type
        try:
            self._scanned = probe_for(kind).scan(self.source, self.metrics, self.context, self.deadline)
        except MeasureError as error:
            self.error = error
            self._scanned = self._failed(self.metrics, str(error))
        except Exception as error:
            # A bug in one probe fails its readings, not the run
            log.exception("the probe of source %s failed with an unexpected error", self.name)
            self.error = MeasureError(f"internal error in the {kind} probe: {error!r}")
            self._scanned = self._failed(self.metrics, str(self.error))

    @staticmethod
    def _failed(metrics: Mapping[str, Metric], error: str) -> ScanResult:
        return ScanResult(tuple(Reading.failed(name, metric.shown_unit, error) for name, metric in metrics.items()))
