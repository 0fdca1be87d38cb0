"""Describe an event in a few words, and what DIMS did with a reading."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import unquote

from dims_producers.git_notes import HISTORY_ALONE
from dims_worker.events import GIT_REFS_CHANGED, Event
from dims_worker.formatting import escape_control, pluralize
from dims_worker.store.events import LoggedEvent

GIT = "dims.git."
DONE = {
    "accepted": "accepted",
    "held": "held: waits for approval",
    "looked": "checked, baseline kept",
    "superseded": "superseded by a newer reading",
    "provisional": "provisional: an input is still due",
    "failed": "failed, baseline kept",
    "approved": "approved",
    "rejected": "rejected, baseline kept",
}
"""Each outcome of a reading as text."""


def format_event(event: LoggedEvent) -> str:
    """Return what an event reports: `commit 3f2a9c1 on main “Fix the loader”, 2 paths`."""
    data: Mapping[str, Any] = event.data or {}
    kind, subject = event.type or "", escape_control(event.subject or "")
    if event.outcome == "rejected":
        return f"a rejected event ({escape_control(event.reason)})"
    if kind == GIT_REFS_CHANGED:
        return f"refs changed in {escape_control(data.get('root', '?'))}"
    if kind.startswith(GIT):
        branch = f" on {subject}" if subject else ""
        title = f" “{escape_control(data.get('subject', ''))}”" if data.get("subject") else ""
        commit = escape_control(data.get("commit", event.event_id))[:7]
        return f"{format_event_kind(event)} {commit}{branch}{title}, {_paths(data)}"
    if kind.startswith("com.amazonaws.s3."):
        return f"{format_event_kind(event)} of s3://{escape_control(data.get('bucket', '?'))}/{subject}"
    if kind == "dims.files.changed":
        return f"{_paths(data)} changed in {escape_control(data.get('root', '?'))}"
    about = f" about {subject}" if subject else ""
    return f"{escape_control(kind)}{about} from {escape_control(unquote(event.producer or '?'))}"


def format_event_kind(event: LoggedEvent) -> str:
    """Return the kind of an event in one word: `upload`, `commit`, `merge`, `event`."""
    kind = event.type or ""
    if kind == GIT_REFS_CHANGED:
        return "change"
    if kind.startswith("com.amazonaws.s3."):
        return {"ObjectCreated": "upload", "ObjectRemoved": "removal"}.get(kind.split(".")[3].split(":")[0], "change")
    return escape_control(kind.removeprefix(GIT)) if kind.startswith(GIT) else "event"


def _paths(data: Mapping[str, Any]) -> str:
    paths = data.get("paths")
    if paths == HISTORY_ALONE:
        return "no paths"
    return pluralize(len(paths), "path") if isinstance(paths, list) and paths else "unknown paths"


def event_from_log(event: LoggedEvent) -> Event:
    """Return a logged event, which must not be a rejected one, as an event to plan again."""
    assert event.event_id and event.producer and event.type and event.event_time
    return Event(event.event_id, event.producer, event.type, event.event_time, event.subject, event.data or {})
