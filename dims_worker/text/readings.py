"""Write what DIMS did with a reading, as text and as a JSON document."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from sqlalchemy import Connection

from dims_worker.config import Config
from dims_worker.domain.decide import BY_PERSON, age_of
from dims_worker.domain.health import Health, health_of_reading
from dims_worker.domain.run import RunReading
from dims_worker.formatting import escape_control
from dims_worker.store.approval_requests import ApprovalRequest, open_requests
from dims_worker.store.events import ServedMetric
from dims_worker.store.runs import PastReading
from dims_worker.text.events import DONE

JudgedReading = RunReading | PastReading
"""A reading with its verdict: one of a run, or a row of the history."""
_COLUMNS = "metric value unit baseline drift_pct status severity tier method as_of error outcome reason details "
_COLUMNS += "expected_low expected_high"


def reading_text(reading: JudgedReading, health: Health) -> str:
    """Return the health of a metric and what DIMS did with its reading: `lost: down 33 %, incident 7; accepted`."""
    return "; ".join(text for text in (health.explained(), _done(reading, health)) if text)


def past_reading_text(config: Config, reading: JudgedReading, request: int | None = None) -> str:
    """Return what a reading alone says about its metric, and what DIMS did with it: `new: first baseline`.

    `request` is the number of its request, if that is still open.
    """
    health = past_health(config, reading, request)
    if health is None:
        return _done(reading, None)
    return "; ".join(text for text in (health.explained(without="drifted"), _done(reading, health)) if text)


def served_text(config: Config, served: ServedMetric, requests: Mapping[str, ApprovalRequest]) -> str:
    """Return how DIMS answered an event for a metric, by its reading alone. `requests` are those of `held_requests`.

    Examples: `lost; accepted`, `failing: no such bucket; still due`, `due: not measured yet`.
    """
    if served.run_id is None or served.as_of is None:
        return "due: not measured yet"
    reading = served_reading(served)
    text = past_reading_text(config, reading, request_number(reading, requests))
    return f"{text}; still due" if reading.method == "failed" else text


def served_reading(served: ServedMetric) -> RunReading:
    """Return the reading that answered an event, which must be one."""
    assert served.as_of is not None
    columns = ("metric", "value", "as_of", "outcome", "baseline", "drift_pct", "status", "severity", "reason", "error")
    facts: dict[str, Any] = {name: getattr(served, name) for name in columns}
    return RunReading(unit=served.unit or "", method="failed" if served.outcome == "failed" else "exact", **facts)


def held_requests(
    connection: Connection, readings: Iterable[JudgedReading | ServedMetric]
) -> dict[str, ApprovalRequest]:
    """Return the open requests of the metrics whose reading is held, by metric. It takes one query, or none."""
    held = [reading.metric for reading in readings if reading.outcome == "held"]
    return open_requests(connection, held) if held else {}


def request_number(reading: JudgedReading, requests: Mapping[str, ApprovalRequest]) -> int | None:
    """Return the number of the open request of a reading. `requests` are the open ones by metric.

    A request moves on with each newer value, so only the newest held reading has it.
    """
    request = requests.get(reading.metric)
    return request.id if request is not None and request.as_of == reading.as_of else None


def past_health(config: Config, reading: JudgedReading, request: int | None = None) -> Health | None:
    """Return what a reading alone says about the health of its metric, or None if it was not judged."""
    judged = reading.method == "failed" or reading.status is not None
    return health_of_reading(config, reading, request if reading.outcome == "held" else None) if judged else None


def _done(reading: JudgedReading, health: Health | None) -> str:
    """Return what DIMS did with a reading, without what the health says already. An empty text: nothing to add."""
    if reading.outcome == "superseded" and reading.reason:
        reason = reading.reason if reading.error is None else f"failed: {reading.error}; {reading.reason}"
        return escape_control(reason)
    if health is not None and "failing" in health.flags and reading.method == "failed":
        return ""
    if reading.status == "new" and reading.outcome == "accepted":
        return "" if health is not None and "new" in health.flags else "first baseline"
    if reading.status == "ok" and reading.outcome in ("accepted", "looked"):
        return ""
    if reading.outcome == "held":
        return _held(reading, health)
    return DONE.get(reading.outcome, reading.outcome)


def _held(reading: JudgedReading, health: Health | None) -> str:
    """Return why a value is held, if the drift beside it does not show that, and whether its request has ended."""
    parts = (reading.reason or "").split("; ")
    # The drift beside it is that from the baseline, which can be nearly 0
    total = next((escape_control(part) for part in parts if part.endswith(BY_PERSON)), "")
    if health is not None and "waiting" in health.flags:
        return total
    return "; ".join(text for text in ("held", total, "its request has ended") if text)


def reading_json(config: Config, reading: JudgedReading) -> dict[str, Any]:
    """Return a reading as `--json` prints it. An age is a number in its unit at `as_of`, with the instant beside it."""
    document = {name: getattr(reading, name) for name in _COLUMNS.split()}
    metric = config.metrics.get(reading.metric)
    if metric is not None and metric.is_age:
        for name in ("value", "baseline"):
            document[name] = age_of(document[name], reading.as_of, reading.unit)
        document["instant"] = reading.value
    return document
