"""What became of an event: of each metric that it concerned."""

from __future__ import annotations

from dims_worker.events import Event
from dims_worker.store.events import Logged, Served
from dims_worker.wording import clean


def verdict_text(one: Served) -> str:
    """`moderate, accepted`, `failed: …`, or `due: not measured yet`."""
    if one.run_id is None:
        return "due: not measured yet"
    if one.outcome == "failed":
        return f"failed: {clean(one.error)}; still due"
    return f"{one.status}, {one.outcome}" if one.status else str(one.outcome)


def envelope(event: Logged) -> Event:
    """An event that was not rejected as it came: to be planned again."""
    assert event.event_id and event.producer and event.type and event.event_time
    return Event(event.event_id, event.producer, event.type, event.event_time, event.subject, event.data or {})
