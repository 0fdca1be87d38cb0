"""Say in words how far a reading can be trusted, and what it leaves out. Pure: method and details in, texts out.

The texts can contain names from outside, so every output must escape them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dims_worker.probes.base import IN_PROGRESS, Reading

CHANGED = "changed_while_measured"
"""The detail of an approximate reading."""
ABSENT = "absent"
"""The detail of a reading whose value is that of `absent:`: why there is nothing to measure."""
APPROXIMATE = "approximate: the source changed while DIMS measured it"
_LEFT_OUT = {
    "vanished": ("file that vanished meanwhile", "files that vanished meanwhile"),
    "symbolic_links": ("symbolic link", "symbolic links"),
    "not_checked_out": ("file that is not checked out", "files that are not checked out"),
    "lfs_pointers": ("Git LFS pointer, counted by its own size", "Git LFS pointers, counted by their own sizes"),
    "ignored_matches": ("matching file that git ignores", "matching files that git ignores"),
}
"""The details that are a number of things that a reading leaves out, singular and plural."""


def reading_doubts(method: str | None, details: Mapping[str, Any] | None) -> list[str]:
    """Return why a value may not be the whole truth. Every output shows these beside the value.

    A value that is null or 0 because its folder does not exist says so.
    """
    details = details or {}
    doubts = [APPROXIMATE] if method == "approximate" or details.get(CHANGED) else []
    if operation := details.get(IN_PROGRESS):
        doubts.append(f"measured while {operation}")
    if absent := details.get(ABSENT):
        doubts.append(f"absent: {absent}")
    return doubts


def inherited_doubts(inputs: Mapping[str, Reading]) -> dict[str, Any]:
    """Return the details that a derived reading has because its inputs have them. An absent input is named."""
    details: dict[str, Any] = {}
    for name, reading in inputs.items():
        if reading.method == "approximate" or reading.details.get(CHANGED):
            details[CHANGED] = True
        if operation := reading.details.get(IN_PROGRESS):
            details[IN_PROGRESS] = operation
        if absent := reading.details.get(ABSENT):
            details[ABSENT] = "; ".join(filter(None, [details.get(ABSENT), f"{name}: {absent}"]))
    return details


def left_out(details: Mapping[str, Any] | None) -> list[str]:
    """Return what a reading leaves out: `12 symbolic links`. Lists of names are gaps, which have their own place."""
    details = details or {}
    texts = []
    for name, (singular, plural) in _LEFT_OUT.items():
        count = details.get(name)
        if isinstance(count, int) and not isinstance(count, bool) and count:
            texts.append(f"{count:,} {singular if count == 1 else plural}")
    if isinstance(not_counted := details.get("not_counted"), str):
        texts.append(not_counted)
    return texts
