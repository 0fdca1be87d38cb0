"""What only the terminal says, beside `wording`: colours, and how far housekeeping is."""

from __future__ import annotations

from dims_worker.store.housekeeping import Kept
from dims_worker.wording import NOTHING, ago, clean, clock_text, count, drift_text, number, past, took, value_text

__all__ = [
    "NOTHING", "STYLES", "ago", "clean", "clock_text", "count", "drift_text", "kept_text", "number", "past", "took",
    "value_text",
]  # fmt: skip
STYLES = {
    **{"new": "cyan", "ok": "green", "minor": "green", "moderate": "yellow", "major": "red"},
    **{"extreme": "bold red", "failed": "bold magenta"},
}


def kept_text(kept: Kept | None) -> str:
    """When the work of a day was last done, and how much was forgotten."""
    if kept is None:
        return "not yet; a worker's first sweep of a day begins it"
    done = "done" if kept.finished_at else "under way"
    gone = f"{count(kept.readings, 'reading')}, {count(kept.events, 'event')} and {count(kept.runs, 'run')}"
    return f"{done} for {kept.day}, {gone} forgotten"
