"""What happens, in a few words: events, and what was done with readings."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import unquote

from dims_worker.store.events import Logged
from dims_worker.wording import clean, count
from producers.git_note import HISTORY_ALONE

GIT = "dims.git."
DONE = {
    "accepted": "accepted",
    "held": "held: waits for approval",
    "looked": "looked, baseline kept",
    "superseded": "superseded by a newer reading",
    "provisional": "provisional: an input is still due",
    "failed": "failed, baseline kept",
    "approved": "approved",
    "rejected": "rejected, baseline kept",
}


def event_words(event: Logged) -> str:
    """What an event says, in a few words: `commit 3f2a9c1 on main “Fix the loader”, 2 paths`."""
    data: Mapping[str, Any] = event.data or {}
    kind, subject = event.type or "", clean(event.subject or "")
    if event.outcome == "rejected":
        return f"a rejected event ({clean(event.reason)})"
    if kind.startswith(GIT):
        branch = f" on {subject}" if subject else ""
        said = f" “{clean(data.get('subject', ''))}”" if data.get("subject") else ""
        return f"{event_kind(event)} {clean(data.get('commit', event.event_id))[:7]}{branch}{said}, {_paths(data)}"
    if kind.startswith("com.amazonaws.s3."):
        return f"{event_kind(event)} of s3://{clean(data.get('bucket', '?'))}/{subject}"
    if kind == "dims.files.changed":
        return f"{_paths(data)} changed in {clean(data.get('root', '?'))}"
    about = f" about {subject}" if subject else ""
    return f"{clean(kind)}{about} from {clean(unquote(event.producer or '?'))}"


def event_kind(event: Logged) -> str:
    """What sort of event it is, in one word: `upload`, `commit`, `merge`."""
    kind = event.type or ""
    if kind.startswith("com.amazonaws.s3."):
        return {"ObjectCreated": "upload", "ObjectRemoved": "removal"}.get(kind.split(".")[3].split(":")[0], "change")
    return clean(kind.removeprefix(GIT)) if kind.startswith(GIT) else "event"


def _paths(data: Mapping[str, Any]) -> str:
    paths = data.get("paths")
    if paths == HISTORY_ALONE:
        return "no paths"
    return count(len(paths), "path") if isinstance(paths, list) and paths else "unknown paths"
