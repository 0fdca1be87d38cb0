"""What only the terminal says, beside `wording`: colours, what the sweep forgot; and the words it shares."""

from __future__ import annotations

from dims_worker.sentences.events import DONE, event_kind, event_words
from dims_worker.store.housekeeping import Kept
from dims_worker.wording import NOTHING, ago, clean, clock_text, count, drift_text, number, value_text

__all__ = [
    "DONE", "NOTHING", "STYLES", "ago", "clean", "clock_text", "count", "drift_text", "event_kind", "event_words",
    "kept_text", "number", "value_text",
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
