"""Turn the notes of the git hooks into events: read each note, and ask git what changed.

A shell writes a note with one `printf` (see `git_hook.sh`). The last line shows that it is complete:

    dims-git 2
    hook post-commit, post-merge or post-rewrite
    sha 40 or 64 hex digits, or nothing: HEAD
    before the commit that HEAD was, in the same form (nothing after a commit: its parent)
    ref refs/heads/NAME, or nothing: detached
    dir GIT_DIR as git gave it to the hook, or nothing
    root the top of the worktree
    end

`dims-git 1` comes from a hook of an older DIMS, which had only post-commit. It has neither `hook` nor `before`.
"""

from __future__ import annotations

import os
import re
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from dims_producers.git_history import GitRepository, HistoryCommit
from dims_producers.path_list import bounded_paths
from dims_producers.producer_name import producer_name
from dims_producers.spool_file import SpoolFile
from dims_worker.errors import EventError
from dims_worker.events import GIT_COMMIT, GIT_MERGE, GIT_REWRITE, YEARS, Event

TYPES = {"post-commit": GIT_COMMIT, "post-merge": GIT_MERGE, "post-rewrite": GIT_REWRITE}
"""The hooks, and the type of event that each one sends."""

HISTORY_ALONE = [".git"]
"""The paths of an event that changed no file. An empty list would mean that they are unknown."""

TORN_AFTER = 10.0
"""Seconds after which DIMS no longer waits for the last line of a note."""

_END = b"\nend\n"
_FORMAT = re.compile(
    rf"dims-git (?:1|2\nhook (?P<hook>{'|'.join(TYPES)}))\nsha (?P<sha>[0-9a-f]{{40}}|[0-9a-f]{{64}}|)\n"
    r"(?:before (?P<before>[^\n]*)\n)?ref (?P<ref>[^\n]*)\ndir (?P<dir>.*?)\nroot (?P<root>/.*)\nend\n",
    re.DOTALL,  # a folder's name may hold a line break
)
_SHA = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
_TEXT = 1000  # the most characters of a subject or an author in an event


@dataclass(frozen=True, slots=True)
class GitNote:
    """The fields of a note (see above). `before` is None if it is unknown. `written` is as in `SpoolFile`."""

    hook: str
    sha: str
    before: str | None
    ref: str
    repository: GitRepository
    written: int

    @property
    def compared(self) -> tuple[str, str]:
        """The commit, and the commit to compare it with ("" means its parent)."""
        return self.sha, self.before or ""

    @property
    def squashed(self) -> bool:
        """Whether a merge only brought the files and left HEAD where it was."""
        return self.hook == "post-merge" and self.before == self.sha

    @classmethod
    def parse(cls, raw: bytes, written: int) -> GitNote:
        """Parse the note of a complete file. Raises EventError if it is not a note."""
        match = _FORMAT.fullmatch(os.fsdecode(raw))
        if match is None:
            raise EventError(f"it is not a note of the git hook: {raw[:80]!r}")
        hook, before = match["hook"] or "post-commit", match["before"] or ""
        known = before if hook != "post-commit" and _SHA.fullmatch(before) else None
        return cls(hook, match["sha"], known, match["ref"], GitRepository(match["root"], match["dir"]), written)


def read_notes(files: Sequence[SpoolFile]) -> list[Event | EventError | None]:
    """Return the event of each note. None means that it is being written, EventError that it is not valid."""
    notes = [_read(file) for file in files]
    events = iter(events_of([note for note in notes if isinstance(note, GitNote)]))
    return [next(events) if isinstance(note, GitNote) else note for note in notes]


def _read(file: SpoolFile) -> GitNote | EventError | None:
    if not file.raw.endswith(_END):
        young = abs(time.time_ns() - file.written) < TORN_AFTER * 1e9
        return None if young else EventError("the note is incomplete: its last line is missing")
    try:
        return GitNote.parse(file.raw, file.written)
    except EventError as error:
        return error


def events_of(notes: Sequence[GitNote]) -> list[Event | EventError]:
    """Return the event of each note, or EventError if not even the commit is known.

    The id of an event is the commit's. For a merge or a rewrite the time is added, because the same one may happen
    twice. If git cannot say what changed (the commit or the worktree is gone, or git hangs), the paths are `[]`:
    unknown. DIMS then measures more than it needs to, and misses nothing.
    """
    notes = [note if note.sha else replace(note, sha=note.repository.head()) for note in notes]
    wanted: dict[GitRepository, list[tuple[str, str]]] = defaultdict(list)
    for note in notes:
        if note.sha and not note.squashed:
            wanted[note.repository].append(note.compared)
    commits = {repository: repository.commits(pairs) for repository, pairs in wanted.items()}
    return [_event(note, commits.get(note.repository, {}).get(note.compared)) for note in notes]


def _event(note: GitNote, commit: HistoryCommit | None) -> Event | EventError:
    if not note.sha:
        return EventError(f"{note.repository.root!r} has no commit")
    root = os.path.realpath(note.repository.root)
    branch = _clean(note.ref.removeprefix("refs/heads/")) or None
    described = None if note.squashed else commit  # squashed changes have no commit yet
    id, happened = note.sha, datetime.fromtimestamp(note.written / 1e9, UTC)
    if note.hook != "post-commit":
        id = f"{note.sha}-{note.hook.removeprefix('post-')}-{note.written}"
    elif commit and commit.committed and commit.committed.year in YEARS:
        happened = commit.committed
    data = {
        "root": root,
        "commit": note.sha,
        **({} if note.before is None else {"before": note.before}),
        "branch": branch,
        "subject": _clean(described.subject) if described else None,
        "author": _clean(described.author) if described else None,
        "paths": _paths(note, commit),
    }
    try:
        return Event.new(TYPES[note.hook], producer_name("git", root), id=id, now=happened, subject=branch, data=data)
    except EventError as error:
        return error


def _paths(note: GitNote, commit: HistoryCommit | None) -> list[str]:
    if note.squashed:  # the changes are in the index. If they are committed by now, the list is empty: unknown
        return bounded_paths(note.repository.staged(note.sha))
    if commit is None or (note.before is None and note.hook != "post-commit"):
        return []
    return bounded_paths(commit.paths) if commit.paths else HISTORY_ALONE


def _clean(text: str) -> str:
    """Return `text` as an envelope allows it: short, and without NUL and incomplete characters."""
    return text[:_TEXT].replace("\0", "").encode(errors="replace").decode()
