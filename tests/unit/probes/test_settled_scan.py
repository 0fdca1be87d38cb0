"""A source that changes while it is scanned is scanned again, and a reading that cannot be trusted says so."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from dims_worker.config import FilesMetric, FilesSource
from dims_worker.errors import MeasureError
from dims_worker.probes import settled_scan
from dims_worker.probes.base import Deadline, Probe, Reading, ScanContext, ScanResult
from dims_worker.probes.settled_scan import SettledScan

METRICS = {name: FilesMetric(source="one", measure="count") for name in ("m.a", "m.b")}


class Changing(Probe[Any, Any]):
    """A probe whose states the test lists. Each scan counts as its value how often the metric was scanned."""

    follows_state = True

    def __init__(self, *states: Mapping[str, str | None] | Exception) -> None:
        self.answers = list(states)
        self.scans: list[list[str]] = []

    def scan(self, source: Any, metrics: Mapping[str, Any], context: ScanContext, deadline: Deadline) -> ScanResult:
        self.scans.append(sorted(metrics))
        value = len(self.scans)
        return ScanResult(tuple(Reading(name, value, "files", "exact") for name in metrics), api_calls=1)

    def states(
        self, source: Any, metrics: Mapping[str, Any], context: ScanContext, deadline: Deadline
    ) -> Mapping[str, str | None]:
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return {name: state for name, state in answer.items() if name in metrics}


@pytest.fixture(autouse=True)
def without_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(settled_scan, "REST", 0)


def settle(probe: Changing, known: Mapping[str, str] | None = None) -> ScanResult:
    source, context = FilesSource(type="files", path="one"), ScanContext(Path("/project"), Path("/project/.dims"))
    return SettledScan(probe, source, context, Deadline.after(timedelta(seconds=60))).run(METRICS, known or {})


def values(result: ScanResult) -> dict[str, tuple[Any, str]]:
    return {reading.metric: (reading.value, reading.method) for reading in result.readings}


def test_equal_states_before_and_after_make_a_reading_exact() -> None:
    probe = Changing({"m.a": "1", "m.b": "1"}, {"m.a": "1", "m.b": "1"})
    result = settle(probe)
    assert values(result) == {"m.a": (1, "exact"), "m.b": (1, "exact")}
    assert (result.states, result.unchanged, result.api_calls) == ({"m.a": "1", "m.b": "1"}, frozenset(), 1)


def test_only_what_changed_meanwhile_is_scanned_again() -> None:
    probe = Changing({"m.a": "1", "m.b": "1"}, {"m.a": "2", "m.b": "1"}, {"m.a": "2"})
    result = settle(probe)
    assert values(result) == {"m.a": (2, "exact"), "m.b": (1, "exact")}
    assert probe.scans == [["m.a", "m.b"], ["m.a"]]
    assert result.states == {"m.a": "2", "m.b": "1"}


def test_what_changes_each_time_is_approximate_and_has_no_state() -> None:
    probe = Changing(*({"m.a": str(number), "m.b": "1"} for number in range(4)))
    result = settle(probe)
    assert values(result) == {"m.a": (3, "approximate"), "m.b": (1, "exact")}
    assert dict(result.readings[0].details) == {"changed_while_measured": True}
    assert result.states == {"m.b": "1"}


def test_a_state_that_is_too_recent_is_read_again() -> None:
    probe = Changing({"m.a": None, "m.b": "1"}, {"m.a": None, "m.b": "1"}, {"m.a": "2"})
    result = settle(probe)
    assert values(result) == {"m.a": (2, "exact"), "m.b": (1, "exact")}
    assert result.states == {"m.a": "2", "m.b": "1"}


def test_a_metric_without_a_state_is_scanned_once() -> None:
    result = settle(probe := Changing({"m.a": "1"}, {"m.a": "1"}))
    assert values(result) == {"m.a": (1, "exact"), "m.b": (1, "exact")}
    assert (probe.scans, result.states) == ([["m.a", "m.b"]], {"m.a": "1"})


def test_a_known_state_needs_no_reading() -> None:
    probe = Changing({"m.a": "1", "m.b": "2"}, {"m.b": "2"})
    result = settle(probe, known={"m.a": "1", "m.b": "1"})
    assert values(result) == {"m.b": (1, "exact")}
    assert (probe.scans, result.unchanged) == ([["m.b"]], frozenset({"m.a"}))


def test_nothing_is_scanned_if_all_states_are_known() -> None:
    result = settle(probe := Changing({"m.a": "1", "m.b": "1"}), known={"m.a": "1", "m.b": "1"})
    assert (probe.scans, result.readings, result.unchanged) == ([], (), frozenset({"m.a", "m.b"}))


def test_a_state_that_cannot_be_compared_in_time_makes_the_reading_approximate() -> None:
    probe = Changing({"m.a": "1", "m.b": "1"}, MeasureError("no time"), MeasureError("no time"), MeasureError("no"))
    assert {method for _, method in values(settle(probe)).values()} == {"approximate"}


def test_a_source_whose_states_cannot_be_read_is_left_to_the_scan() -> None:
    result = settle(Changing(MeasureError("gone"), {"m.a": "1", "m.b": "1"}), known={"m.a": "1"})
    assert values(result) == {"m.a": (1, "exact"), "m.b": (1, "exact")}


def test_a_source_that_cannot_be_scanned_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: Any) -> ScanResult:
        raise MeasureError("gone")

    monkeypatch.setattr(Changing, "scan", fails)
    with pytest.raises(MeasureError, match="gone"):
        settle(Changing({"m.a": "1", "m.b": "1"}))
