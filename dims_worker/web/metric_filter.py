"""Which metrics the first page is asked for: words, a category, a state. All of it stands in the page's address."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from urllib.parse import urlencode

from starlette.datastructures import QueryParams

from dims_worker.analysis.health import HEALTH_STATES, MetricHealth
from dims_worker.config import Config

LONGEST = 200
"""So many characters are searched for."""


@dataclass(frozen=True, slots=True)
class StateFilter:
    """Metrics that are alike in how they stand: what they are called, their colour, and which they are."""

    title: str
    style: str
    true: Callable[[MetricHealth], object]


STATE_FILTERS: Mapping[str, StateFilter] = {
    "waiting": StateFilter("waiting", "warn", HEALTH_STATES["waiting"]),
    "failed": StateFilter("failed", "lost", HEALTH_STATES["failed"]),
    "limit": StateFilter("beyond limits", "bad", HEALTH_STATES["beyond limits"]),
    "stale": StateFilter("stale", "warn", HEALTH_STATES["stale"]),
    "drifted": StateFilter("drifted", "bad", HEALTH_STATES["drifted"]),
    "unmeasured": StateFilter("unmeasured", "quiet", HEALTH_STATES["unmeasured"]),
    "due": StateFilter("due", "quiet", HEALTH_STATES["due"]),
    "well": StateFilter("well", "ok", lambda one: one.well),
}
"""By the word that the address has for them (`?state=failed`)."""


@dataclass(frozen=True, slots=True)
class MetricFilter:
    """What is asked for; an empty text asks for nothing."""

    q: str = ""
    category: str = ""
    state: str = ""

    @classmethod
    def of(cls, asked: QueryParams) -> MetricFilter:
        return cls(asked.get("q", "").strip()[:LONGEST], asked.get("category", ""), asked.get("state", ""))

    def __bool__(self) -> bool:
        return bool(self.q or self.category or self.state)

    @property
    def address(self) -> str:
        """The page with this filter."""
        said = {"q": self.q, "category": self.category, "state": self.state}
        return "/?" + urlencode({key: value for key, value in said.items() if value}) if self else "/"

    def names(self, config: Config, metric: str) -> bool:
        """Whether a metric is of the category, and its name and description have every word."""
        if self.category and metric.partition(".")[0] != self.category:
            return False
        said = f"{metric} {config.metrics[metric].description}".casefold()
        return all(word in said for word in self.q.casefold().split())

    def states(self, one: MetricHealth) -> bool:
        """Whether a metric stands so. A state that there is none of is nobody's."""
        return not self.state or (self.state in STATE_FILTERS and bool(STATE_FILTERS[self.state].true(one)))
