"""Filter the metrics of the overview by words, category and state. The filter is part of the page's address."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from urllib.parse import urlencode

from starlette.datastructures import QueryParams

from dims_worker.analysis.health import HEALTH_STATES, MetricHealth
from dims_worker.config import Config

LONGEST = 200
"""Characters of a search."""


@dataclass(frozen=True, slots=True)
class StateFilter:
    """A state to filter by. `style` is the CSS class of its colour."""

    title: str
    style: str
    matches: Callable[[MetricHealth], object]


STATE_FILTERS: Mapping[str, StateFilter] = {
    "waiting": StateFilter("waiting", "warn", HEALTH_STATES["waiting"]),
    "failed": StateFilter("failed", "lost", HEALTH_STATES["failed"]),
    "limit": StateFilter("beyond limits", "bad", HEALTH_STATES["beyond limits"]),
    "stale": StateFilter("stale", "warn", HEALTH_STATES["stale"]),
    "drifted": StateFilter("drifted", "bad", HEALTH_STATES["drifted"]),
    "unmeasured": StateFilter("unmeasured", "quiet", HEALTH_STATES["unmeasured"]),
    "due": StateFilter("due", "quiet", HEALTH_STATES["due"]),
    "well": StateFilter("well", "ok", lambda health: health.well),
}
"""By the name in the address (`?state=failed`)."""


@dataclass(frozen=True, slots=True)
class MetricFilter:
    """The filter of the overview. An empty text does not filter."""

    q: str = ""
    category: str = ""
    state: str = ""

    @classmethod
    def of(cls, query: QueryParams) -> MetricFilter:
        return cls(query.get("q", "").strip()[:LONGEST], query.get("category", ""), query.get("state", ""))

    def __bool__(self) -> bool:
        return bool(self.q or self.category or self.state)

    @property
    def address(self) -> str:
        values = {"q": self.q, "category": self.category, "state": self.state}
        return "/?" + urlencode({key: value for key, value in values.items() if value}) if self else "/"

    def matches_name(self, config: Config, metric: str) -> bool:
        """Return whether a metric has the category, and every word in its name or description."""
        if self.category and metric.partition(".")[0] != self.category:
            return False
        text = f"{metric} {config.metrics[metric].description}".casefold()
        return all(word in text for word in self.q.casefold().split())

    def matches_state(self, health: MetricHealth) -> bool:
        """Return whether a metric is in the state. No metric is in an unknown state."""
        return not self.state or (self.state in STATE_FILTERS and bool(STATE_FILTERS[self.state].matches(health)))
