"""Scan a source that can change meanwhile: compare its state before and after, and scan again if it differs."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from dims_worker.config import Metric, Source
from dims_worker.errors import MeasureError
from dims_worker.probes.base import (
    Deadline,
    Probe,
    Reading,
    ScanContext,
    ScanResult,
    readings_by_name,
    result_or_error,
)
from dims_worker.probes.reading_notes import CHANGED

TRIES = 3
"""How often DIMS scans a source that changes during each scan."""
REST = 0.12
"""Seconds to wait for files to be at rest. It is longer than the tick of the clock that stamps files."""


@dataclass(slots=True)
class SettledScan:
    """Scans a source until its state is the same before and after, or TRIES times."""

    probe: Probe[Any, Any]
    source: Source
    context: ScanContext
    deadline: Deadline
    api_calls: int = 0
    readings: dict[str, Reading] = field(default_factory=dict)
    states: dict[str, str] = field(default_factory=dict)

    def run(self, metrics: Mapping[str, Metric], known: Mapping[str, str]) -> ScanResult:
        """Return a reading for each metric, except for those whose present state is the `known` one.

        A reading during which the source changed each time has the method `approximate`. Raises MeasureError.
        """
        needs_states = known or not self.probe.scan_returns_states
        before = result_or_error(self._states_of, metrics) if needs_states else {}
        if isinstance(before, MeasureError):
            before = {}  # the scan says what is wrong, or that the source is absent
        unchanged = frozenset(name for name, state in known.items() if before.get(name) == state)
        pending = {name: metric for name, metric in metrics.items() if name not in unchanged}
        for attempt in range(TRIES):
            if not pending:
                break
            if attempt:
                time.sleep(REST)
            pending = self._scan(pending, before)
            before = self.states
        for name in pending:
            reading = self.readings[name]
            details = {**reading.details, CHANGED: True}
            self.readings[name] = replace(reading, method="approximate", details=details)
            self.states.pop(name, None)
        settled = {name: state for name, state in self.states.items() if self.readings[name].method == "exact"}
        return ScanResult(tuple(self.readings.values()), self.api_calls, states=settled, unchanged=unchanged)

    def _scan(self, metrics: Mapping[str, Metric], before: Mapping[str, str | None]) -> dict[str, Metric]:
        """Scan once. Return the metrics whose state changed meanwhile. Raises MeasureError in the first scan."""
        try:
            scanned = self.probe.scan(self.source, metrics, self.context, self.deadline)
        except MeasureError:
            if not self.readings:
                raise
            return dict(metrics)  # no time is left, or the source is gone: keep what the former scan read
        self.api_calls += scanned.api_calls
        self.readings |= readings_by_name(scanned.readings)
        try:
            after = self._states_of(metrics)
        except MeasureError:
            return {name: metric for name, metric in metrics.items() if self._is_good(name)}
        start = {**before, **scanned.states}
        changed: dict[str, Metric] = {}
        for name, metric in metrics.items():
            if name not in after or not self._is_good(name):
                continue
            state = after[name]
            if state is None or (name in start and start[name] != state):
                changed[name] = metric
            if state is not None:
                self.states[name] = state
        return changed

    def _is_good(self, name: str) -> bool:
        return name in self.readings and self.readings[name].method != "failed"

    def _states_of(self, metrics: Mapping[str, Metric]) -> Mapping[str, str | None]:
        return self.probe.states(self.source, metrics, self.context, self.deadline)
