"""A pass over a source, bounded in time whatever the source does."""

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
"""Seconds past its timeout after which a scan that does not end is abandoned."""


class Scan:
    """One pass over a source, in a thread that is left behind where it does not end in time.

    A probe watches its own deadline; what blocks beneath it (a server that answers a byte a second, a dead
    mount) cannot be interrupted, only abandoned: the reading fails, and the lease comes free.
    """

    def __init__(
        self,
        name: str,
        source: Source,
        metrics: Mapping[str, Metric],
        around: ScanContext,
        deadline: Deadline | None = None,
    ) -> None:
        self.name, self.source, self.metrics, self.around = name, source, metrics, around
        self.deadline = deadline or Deadline.after(source.timeout)
        self.error: MeasureError | None = None
        """Why the source as a whole could not be measured."""
        self._scanned: ScanResult | None = None
        self._thread = threading.Thread(target=self._run, name=f"scan of {name}", daemon=True)
        self._thread.start()

    def result(self) -> ScanResult:
        """A reading for every metric, at the latest `GRACE` seconds after the deadline."""
        end = self.deadline.at + GRACE
        while self._thread.is_alive() and time.monotonic() < end:
            self._thread.join(0.2)  # short, so that Ctrl-C is heard
        scanned = self._scanned
        if scanned is None:
            seconds = self.deadline.timeout.total_seconds()
            self.error = MeasureError(f"took longer than its timeout of {seconds:g} s, and was abandoned")
            return self._failed(self.metrics, str(self.error))
        given = readings_by_name(scanned.readings)
        missing = {name: metric for name, metric in self.metrics.items() if name not in given}
        if not missing:
            return scanned
        unsaid = self._failed(missing, "the probe gave no reading")
        return ScanResult((*scanned.readings, *unsaid.readings), scanned.api_calls)

    def _run(self) -> None:
        kind = self.source.type
        try:
            self._scanned = probe_for(kind).scan(self.source, self.metrics, self.around, self.deadline)
        except MeasureError as error:
            self.error = error
            self._scanned = self._failed(self.metrics, str(error))
        except Exception as error:
            # A defect in one probe is a failed reading, not a lost run
            log.exception("the probe of %s broke down", self.name)
            self.error = MeasureError(f"internal error in the {kind} probe: {error!r}")
            self._scanned = self._failed(self.metrics, str(self.error))

    @staticmethod
    def _failed(metrics: Mapping[str, Metric], error: str) -> ScanResult:
        return ScanResult(tuple(Reading.failed(name, metric.shown_unit, error) for name, metric in metrics.items()))
