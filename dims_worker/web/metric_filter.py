"""Filter the metrics of the overview by words, category and state. The filter is part of the page's address."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from urllib.parse import urlencode

from starlette.datastructures import QueryParams

from dims_worker.analysis.health import MetricHealth
from dims_worker.config import Config
from dims_worker.domain.health import Flag

LONGEST = 200
"""Characters of a search."""


@dataclass(frozen=True, slots=True)
class StateFilter:
    """A state to filter by. `style` is the CSS class of its colour."""

    title: str
    style: str
    matches: Callable[[MetricHealth], object]


def _by_flag(title: str, style: str, flag: Flag) -> StateFilter:
    return StateFilter(title, style, lambda metric: flag in metric.health.flags)


STATE_FILTERS: Mapping[str, StateFilter] = {
    "failing": _by_flag("failing", "lost", "failing"),
    "waiting": _by_flag("waiting", "warn", "waiting"),
    "limit": _by_flag("beyond limits", "bad", "limit"),
    "drifted": _by_flag("lost or drifted", "bad", "drifted"),
    "stale": _by_flag("stale", "warn", "stale"),
    "overdue": _by_flag("overdue", "warn", "overdue"),
    "new": _by_flag("new", "quiet", "new"),
    "due": StateFilter("due", "quiet", lambda metric: metric.state.due),
    "ok": _by_flag("ok", "ok", "ok"),
}
"""The flags of a metric's health, and `due`, by the name in the address (`?state=failing`)."""
OTHER_FILTERS: Mapping[str, StateFilter] = {
    "unmeasured": StateFilter("not measured yet", "quiet", lambda metric: not metric.measured),
    "failed": STATE_FILTERS["failing"],
    "well": StateFilter("ok or new", "ok", lambda metric: metric.well),
}
"""Filters without a tile: what links lead to, and the names in older bookmarks."""


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

    @property
    def title(self) -> str:
        """The name of the state. An unknown one is shown as it is."""
        known = self._state_filter
        return known.title if known else self.state

    @property
    def _state_filter(self) -> StateFilter | None:
        return STATE_FILTERS.get(self.state) or OTHER_FILTERS.get(self.state)

    def matches_name(self, config: Config, metric: str) -> bool:
        """Return whether a metric has the category, and every word in its name or description."""
        if self.category and metric.partition(".")[0] != self.category:
            return False
        text = f"{metric} {config.metrics[metric].description}".casefold()
        return all(word in text for word in self.q.casefold().split())

    def matches_state(self, health: MetricHealth) -> bool:
        """Return whether a metric is in the state. No metric is in an unknown state."""
        known = self._state_filter
        return not self.state or (known is not None and bool(known.matches(health)))
