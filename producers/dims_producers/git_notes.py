"""Notes of the git hooks become events: what a hook left is read, and git is asked what has changed.

A note is what a shell can write with one `printf` (see `git_hook.sh`); the last line says that it is whole:

    dims-git 2
    hook post-commit, post-merge or post-rewrite
    sha 40 or 64 hex digits, or nothing: HEAD
    before the commit that HEAD was, likewise; nothing after a commit: its parent
    ref refs/heads/NAME, or nothing: detached
    dir GIT_DIR as git gave it to the hook, or nothing
    root the top of the worktree
    end

`dims-git 1`, of a hook that was installed before there were three, knows commits alone: it has neither `hook` nor
`before`.
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
"""The hooks, and the type of the event that each of them tells."""

HISTORY_ALONE = [".git"]
"""The paths of an event that changed no file: an empty list would say that nobody knows which."""

TORN_AFTER = 10.0
"""Seconds after which a note without its last line is no longer taken for one that is being written."""

_END = b"\nend\n"
_FORMAT = re.compile(
    rf"dims-git (?:1|2\nhook (?P<hook>{'|'.join(TYPES)}))\nsha (?P<sha>[0-9a-f]{{40}}|[0-9a-f]{{64}}|)\n"
    r"(?:before (?P<before>[^\n]*)\n)?ref (?P<ref>[^\n]*)\ndir (?P<dir>.*?)\nroot (?P<root>/.*)\nend\n",
    re.DOTALL,  # a folder's name may hold a line break
)
_SHA = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
_TEXT = 1000  # characters of a subject line or an author that travel


@dataclass(frozen=True, slots=True)
class GitNote:
    """What a hook knew: see above. `before` is None where git's files did not say it; `written` as in `Kept`."""

    hook: str
    sha: str
    before: str | None
    ref: str
    repository: GitRepository
    written: int

    @property
    def compared(self) -> tuple[str, str]:
        """The commit, and the one to compare it with where that is not its parent."""
        return self.sha, self.before or ""

    @property
    def squashed(self) -> bool:
        """Whether a merge left HEAD where it was, and only brought the files."""
        return self.hook == "post-merge" and self.before == self.sha

    @classmethod
    def parse(cls, raw: bytes, written: int) -> GitNote:
        """The note of a whole file. Raises EventError where it is none."""
        match = _FORMAT.fullmatch(os.fsdecode(raw))
        if match is None:
            raise EventError(f"not a note of the git hook: {raw[:80]!r}")
        hook, before = match["hook"] or "post-commit", match["before"] or ""
        known = before if hook != "post-commit" and _SHA.fullmatch(before) else None
        return cls(hook, match["sha"], known, match["ref"], GitRepository(match["root"], match["dir"]), written)


def read_notes(files: Sequence[SpoolFile]) -> list[Event | EventError | None]:
    """The event of each note; None while it is being written; EventError where it never will be one."""
    read = [_read(file) for file in files]
    notes = iter(events_of([note for note in read if isinstance(note, GitNote)]))
    return [next(notes) if isinstance(one, GitNote) else one for one in read]


def _read(file: SpoolFile) -> GitNote | EventError | None:
    if not file.raw.endswith(_END):
        young = abs(time.time_ns() - file.written) < TORN_AFTER * 1e9
        return None if young else EventError("the note is torn: its last line is missing")
    try:
        return GitNote.parse(file.raw, file.written)
    except EventError as error:
        return error


def events_of(notes: Sequence[GitNote]) -> list[Event | EventError]:
    """The event of each note; EventError where not even the commit is known.

    Its id is the commit's, with the moment where it is a merge or a rewrite: the same may happen twice. Where
    git cannot say what changed (the commit or the worktree has vanished, git hangs) the paths are `[]`,
    unknown: that concerns more than it need, and loses nothing.
    """
    notes = [note if note.sha else replace(note, sha=note.repository.head()) for note in notes]
    asked: dict[GitRepository, list[tuple[str, str]]] = defaultdict(list)
    for note in notes:
        if note.sha and not note.squashed:
            asked[note.repository].append(note.compared)
    known = {repository: repository.commits(pairs) for repository, pairs in asked.items()}
    return [_event(note, known.get(note.repository, {}).get(note.compared)) for note in notes]


def _event(note: GitNote, commit: HistoryCommit | None) -> Event | EventError:
    if not note.sha:
        return EventError(f"{note.repository.root!r} has no commit that could be named")
    root = os.path.realpath(note.repository.root)
    branch = _clean(note.ref.removeprefix("refs/heads/")) or None
    told = None if note.squashed else commit  # what is squashed has no commit yet
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
        "subject": _clean(told.subject) if told else None,
        "author": _clean(told.author) if told else None,
        "paths": _paths(note, commit),
    }
    try:
        return Event.new(TYPES[note.hook], producer_name("git", root), id=id, now=happened, subject=branch, data=data)
    except EventError as error:
        return error


def _paths(note: GitNote, commit: HistoryCommit | None) -> list[str]:
    if note.squashed:  # it lies in the index, or has been committed since: an index that equals HEAD says nothing
        return bounded_paths(note.repository.staged(note.sha))
    if commit is None or (note.before is None and note.hook != "post-commit"):
        return []
    return bounded_paths(commit.paths) if commit.paths else HISTORY_ALONE


def _clean(text: str) -> str:
    """`text` as an envelope takes it: short, no NUL, no half characters."""
    return text[:_TEXT].replace("\0", "").encode(errors="replace").decode()
