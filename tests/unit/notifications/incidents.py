"""Incidents for tests of notifications."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from dims_worker.store.incidents import Incident, Kind

NOW = datetime(2026, 11, 22, 9, tzinfo=UTC)
HOUR = timedelta(hours=1)


def incident(number: int, kind: Kind = "drift", metric: str = "lake.objects", **facts: Any) -> Incident:
    """Return an open incident that began an hour before NOW."""
    usual: dict[str, Any] = dict.fromkeys(Incident.__slots__) | {
        "story": number,
        "state": "open",
        "version": 1,
        "severity": "high",
        "reason": "down 97.5 %",
        "value": 1,
        "unit": "files",
        "anchor": 40,
        "run_id": 7,
        "opened_at": NOW - HOUR,
        "updated_at": NOW - HOUR,
        "flaps": 0,
    }
    return Incident(**{**usual, "id": number, "kind": kind, "metric": metric, **facts})


def flapping(number: int, kind: Kind = "drift", **facts: Any) -> Incident:
    """Return an incident that came back twice within the quiet period."""
    return incident(number, kind, **{"flaps": 2, "flapping_until": NOW + 6 * HOUR, **facts})


def acknowledged(number: int, kind: Kind = "drift", **facts: Any) -> Incident:
    """Return an incident that a person has acknowledged."""
    return incident(number, kind, state="acknowledged", acknowledged_at=NOW, acknowledged_by="ada", **facts)
