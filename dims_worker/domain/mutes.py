"""Compute which metrics are muted, until when and why. Pure.

A mute covers a pattern of names: those of metrics, of workflows (`workflow.audit`) and of rules that should report
(`rule:nightly`). `source:NAME` covers what is measured from a source, and what is derived from that alone or partly.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from fnmatch import fnmatchcase

from dims_worker.config import Config, MaintenanceWindow
from dims_worker.config.runtime import WORKFLOW
from dims_worker.domain.maintenance import open_windows
from dims_worker.errors import NotFound, UsageError
from dims_worker.store.mutes import MuteRow

SOURCE, RULE = "source:", "rule:"


@dataclass(frozen=True, slots=True)
class Mute:
    """Why DIMS sends nothing about a metric, and until when.

    `number` is that of a mute that a person began, `window` the name of a maintenance window. The other one is None.
    """

    until: datetime
    reason: str
    by: str | None = None
    number: int | None = None
    window: str | None = None

    @property
    def origin(self) -> str:
        """What mutes: `mute 3 by ada`, or `maintenance window nightly`."""
        return f"maintenance window {self.window}" if self.window else f"mute {self.number} by {self.by}"


def notified_names(config: Config) -> tuple[str, ...]:
    """Return every name that DIMS can send messages about: metrics, workflows, and rules."""
    workflows = (f"{WORKFLOW}{name}" for name in config.configured_workflows)
    return (*config.metrics, *workflows, *(f"{RULE}{name}" for name in config.rules))


def names_covered(config: Config, patterns: Iterable[str]) -> frozenset[str]:
    """Return the names that any of the patterns of mutes covers."""
    covered: set[str] = set()
    for pattern in dict.fromkeys(patterns):
        if pattern.startswith(SOURCE):
            covered |= _measured_from(config, pattern.removeprefix(SOURCE))
        else:
            covered |= {name for name in notified_names(config) if fnmatchcase(name, pattern)}
    return frozenset(covered)


def names_in_window(config: Config, window: MaintenanceWindow) -> frozenset[str]:
    """Return the names that a maintenance window covers: all, if it names nothing."""
    if window.covers_everything:
        return frozenset(notified_names(config))
    categories = (f"{category}.*" for category in window.categories)
    return names_covered(config, [*window.metrics, *categories, *(f"{SOURCE}{source}" for source in window.sources)])


def mutes_at(config: Config, rows: Iterable[MuteRow], now: datetime) -> Mapping[str, Mute]:
    """Return the mute of each muted name at `now`: the one that lasts longest. `rows`: what people muted."""
    muted: dict[str, Mute] = {}
    active = [row for row in rows if row.is_active(now)]
    found = [
        (Mute(row.until, row.reason, row.muted_by, row.id), names_covered(config, [row.pattern])) for row in active
    ]
    for name, end in open_windows(config.maintenance, now).items():
        window = config.maintenance[name]
        found.append((Mute(end, window.description or "planned", window=name), names_in_window(config, window)))
    for mute, names in found:
        for metric in names:
            if metric not in muted or muted[metric].until < mute.until:
                muted[metric] = mute
    return muted


def pattern_of_target(config: Config, target: str) -> str:
    """Return the pattern that a person means by a metric, a pattern, a category or a source.

    Raises:
        NotFound: there is nothing of that name.
        UsageError: a category and a source have that name.
    """
    categories = {name.partition(".")[0] for name in config.metrics}
    if target in categories and target in config.sources:
        raise UsageError(f"{target} is a category and a source. Write '{target}.*' or {SOURCE}{target}.")
    pattern = f"{target}.*" if target in categories else f"{SOURCE}{target}" if target in config.sources else target
    source = pattern.removeprefix(SOURCE)
    exists = source in config.sources if source != pattern else bool(names_covered(config, [pattern]))
    if not exists:
        names = [*notified_names(config), *sorted(categories), *config.sources]
        close = difflib.get_close_matches(source, names, n=1)
        fix = f"Did you mean {close[0]}?" if close else "List the metrics with `dims metrics`."
        kind = "metric, category or source" if re.fullmatch(r"[^*?\[]*", target) else "metric that matches the pattern"
        raise NotFound(f"there is no {kind} {target}. {fix}")
    return pattern


def _measured_from(config: Config, source: str) -> set[str]:
    """Return the metrics that read a source, the workflow of that name, and what is derived from them."""
    names = {
        *config.metrics_by_source.get(source, ()),
        *(config.readers_of([source]) if source in config.sources else ()),
    }
    return {*names, *config.dependents(names)}
