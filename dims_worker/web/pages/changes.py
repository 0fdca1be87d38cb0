"""Show what changed: the values of the last days that became baselines, the largest change first."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from dims_worker.analysis.changes import AcceptedDrift, recent_changes
from dims_worker.config import Config
from dims_worker.store.engine import clock
from dims_worker.text.changes import acceptance_sentence, change_sentence
from dims_worker.text.evidence import PlacedLine, placed_lines
from dims_worker.web.api.query_parameters import integer_parameter, query_value
from dims_worker.web.context import web_context
from dims_worker.web.incident_cards import CardFacts, IncidentCard, arrows

SPANS = (1, 7, 30, 90)
"""The days that the page offers."""
DAYS = integer_parameter("days", "How many days to look back.", 3650, 7)
MAX_CHANGES = 50
"""Changes that the page lists, the largest."""


@dataclass(frozen=True, slots=True)
class ChangeCard:
    """An accepted change as text. `lines` are its evidence, `how` is who accepted it."""

    change: AcceptedDrift
    sentence: str
    how: str
    lines: Sequence[PlacedLine]
    incident: IncidentCard | None

    @classmethod
    def of(cls, config: Config, change: AcceptedDrift, now: datetime) -> ChangeCard:
        how = acceptance_sentence(change, now)
        return cls(
            change,
            arrows(change_sentence(config, change, now)),
            f"Accepted {how}" if change.accepted.how == "policy" else f"{how[:1].upper()}{how[1:]}",
            list(placed_lines(change.evidence, now)) if change.evidence else [],
            IncidentCard.of(CardFacts(config, now), change.incident) if change.incident else None,
        )


def changes_page(request: Request) -> Response:
    site, days = web_context(request), query_value(request, DAYS)
    with site.read_transaction() as connection:
        now = clock(connection)
        changes = recent_changes(connection, site.config, now - timedelta(days=days), MAX_CHANGES + 1)
    values = {
        "section": "changes",
        "title": "What changed",
        "now": now,
        "days": days,
        "spans": SPANS if days in SPANS else sorted((*SPANS, days)),
        "cards": [ChangeCard.of(site.config, change, now) for change in changes[:MAX_CHANGES]],
        "more": len(changes) > MAX_CHANGES,
        "configured": site.config.definitions,
    }
    return site.page(request, "changes.html", values)


routes: list[BaseRoute] = [Route("/changes", changes_page)]
