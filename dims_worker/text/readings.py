"""Write what DIMS did with a reading, as text and as a JSON document."""

from __future__ import annotations

from typing import Any

from dims_worker.config import Config
from dims_worker.domain.decide import BY_PERSON, IN_FUTURE, Judge, age_of
from dims_worker.domain.run import RunReading
from dims_worker.formatting import escape_control
from dims_worker.probes.reading_notes import reading_doubts
from dims_worker.store.runs import PastReading
from dims_worker.text.events import DONE

JudgedReading = RunReading | PastReading
"""A reading with its verdict: one of a run, or a row of the history."""
_COLUMNS = "metric value unit baseline drift_pct status severity tier method as_of error outcome reason details "
_COLUMNS += "expected_low expected_high"


def broken_limit_text(config: Config, reading: JudgedReading) -> str | None:
    """Return the limit of the current policy that a reading broke when it was measured, as text, or None."""
    if reading.method == "failed" or reading.metric not in config.metrics:
        return None
    return Judge.of(config, reading.metric).format_broken_limit(reading.value, reading.as_of)


def done_text(reading: JudgedReading, broken: str | None = None) -> str:
    """Return what DIMS did with a reading: `ok`, `new: first baseline`, `held: waits for approval`.

    `broken` is the limit that its value breaks, as text: such a reading is not `ok`. Doubts about the value follow.
    """
    done = _done(reading)
    if broken is not None:
        done = limit_text(broken) if done == "ok" else f"{done}; {limit_text(broken)}"
    return escape_control("; ".join([done, *reading_doubts(reading.method, reading.details)]))


def limit_text(broken: str) -> str:
    """Return a broken limit with its name: `in the future: …`, or `beyond its limit: 5 is above max = 4`."""
    return broken if broken.startswith(IN_FUTURE) else f"beyond its limit: {broken}"


def _done(reading: JudgedReading) -> str:
    if reading.status == "new" and reading.outcome == "accepted":
        return "new: first baseline"
    if reading.outcome == "superseded" and reading.reason:
        reason = reading.reason if reading.error is None else f"failed: {reading.error}; {reading.reason}"
        return escape_control(reason)
    if reading.status == "ok" and reading.outcome in ("accepted", "looked"):
        return "ok"
    if reading.outcome == "held" and reading.reason:
        # The drift beside it is that from the baseline, which can be nearly 0
        total = next((part for part in reading.reason.split("; ") if part.endswith(BY_PERSON)), None)
        return f"held: {escape_control(total)}" if total else DONE["held"]
    return DONE.get(reading.outcome, reading.outcome)


def reading_json(config: Config, reading: JudgedReading) -> dict[str, Any]:
    """Return a reading as `--json` prints it. An age is a number in its unit at `as_of`, with the instant beside it."""
    document = {name: getattr(reading, name) for name in _COLUMNS.split()}
    metric = config.metrics.get(reading.metric)
    if metric is not None and metric.is_age:
        for name in ("value", "baseline"):
            document[name] = age_of(document[name], reading.as_of, reading.unit)
        document["instant"] = reading.value
    return document
