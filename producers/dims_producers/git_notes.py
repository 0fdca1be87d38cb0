"""Turn the notes of the git hooks into events: read each note, and ask git what changed.

A shell writes a note with one `printf` (see `git_hook.sh`). The last line shows that it is complete:

    dims-git 2
    hook post-commit, post-merge, post-rewrite, post-checkout or reference-transaction
    sha 40 or 64 hex digits, or nothing: HEAD
    before the commit that HEAD was, in the same form (nothing after a commit: its parent)
    ref refs/heads/NAME, or nothing: detached
    dir GIT_DIR as git gave it to the hook, or nothing
    root the top of the worktree
    end

A note of `reference-transaction` only says that refs changed, or the state of an operation such as a rebase. A worktree
has one file for it, `refs-PATH.git`, and a note that says more replaces its text by `covered`.

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
from pathlib import Path

from dims_producers.git_history import GitRepository, HistoryCommit
from dims_producers.path_list import bounded_paths
from dims_producers.producer_name import producer_name
from dims_producers.repository_paths import find_repository
from dims_producers.spool_file import SpoolFile
from dims_worker.errors import EventError
from dims_worker.events import (
    GIT_CHECKOUT,
    GIT_COMMIT,
    GIT_MERGE,
    GIT_REFS_CHANGED,
    GIT_REWRITE,
    YEARS,
    Event,
)

REFS_HOOK = "reference-transaction"

TYPES = {
    "post-commit": GIT_COMMIT,
    "post-merge": GIT_MERGE,
    "post-rewrite": GIT_REWRITE,
    "post-checkout": GIT_CHECKOUT,
    "post-applypatch": GIT_REFS_CHANGED,
    REFS_HOOK: GIT_REFS_CHANGED,
}
"""The hooks, and the type of event that each one sends."""

SHARED = "refs-"
"""Begins the name of the note that all ref changes of one worktree share."""

COVERED = b"covered\n"
"""The text of such a note after another note has said more."""

SETTLE = 1.0
"""Seconds that such a note waits for a note that says more, and for the end of the operation."""

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
        known = before if hook != "post-commit" and _SHA.fullmatch(before) and before.strip("0") else None
        return cls(hook, match["sha"], known, match["ref"], GitRepository(match["root"], match["dir"]), written)


def read_notes(files: Sequence[SpoolFile]) -> list[Event | EventError | None]:
    """Return the event of each note. None means that it is being written, EventError that it is not valid."""
    notes = [_read(file) for file in files]
    events = iter(events_of([note for note in notes if isinstance(note, GitNote)]))
    return [next(events) if isinstance(note, GitNote) else note for note in notes]


def claim_shared(folder: int, name: str, hold: float) -> str | None:
    """Rename a shared note, so that it can be read. Return the new name, or None if there is nothing to read.

    A hook that finds its note under the old name may rely on it: DIMS reads the note later. `folder` is a descriptor,
    and `hold` how old the note must be, in seconds. A note that is covered is removed. Raises OSError.
    """
    status = os.stat(name, dir_fd=folder, follow_symlinks=False)
    covered = status.st_size == len(COVERED)
    if not covered and 0 <= time.time_ns() - status.st_mtime_ns < hold * 1e9:
        return None
    claimed = f"claimed-{name.removeprefix(SHARED).removesuffix('.git')}-{status.st_mtime_ns}.git"
    os.rename(name, claimed, src_dir_fd=folder, dst_dir_fd=folder)
    if covered and _content(folder, claimed) == COVERED:
        os.unlink(claimed, dir_fd=folder)
        return None
    return claimed


def is_covered(entry: os.DirEntry[str]) -> bool:
    """Return whether a file of a spool is a shared note about which another note has said more."""
    if not entry.name.startswith(SHARED):
        return False
    try:
        return entry.stat(follow_symlinks=False).st_size == len(COVERED)
    except FileNotFoundError:  # another process has claimed it since it was listed
        return True


def _content(folder: int, name: str) -> bytes:
    with os.fdopen(os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=folder), "rb") as file:
        return file.read(len(COVERED) + 1)


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
    notes = [
        note if note.sha or note.hook == REFS_HOOK else replace(note, sha=note.repository.head()) for note in notes
    ]
    wanted: dict[GitRepository, list[tuple[str, str]]] = defaultdict(list)
    for note in notes:
        if note.sha and not note.squashed:
            wanted[note.repository].append(note.compared)
    commits = {repository: repository.commits(pairs) for repository, pairs in wanted.items()}
    return [_event(note, commits.get(note.repository, {}).get(note.compared)) for note in notes]


def refs_event(root: str, id: str, now: datetime) -> Event:
    """Return the event for changed refs of the repository at `root`. Raises EventError if `root` is not UTF-8.

    It names no file: DIMS compares the state of all files with the one that it measured last.
    """
    data = {"root": root, **_other_worktrees(root), "paths": HISTORY_ALONE}
    return Event.new(GIT_REFS_CHANGED, producer_name("git", root), id=id, now=now, data=data)


def _event(note: GitNote, commit: HistoryCommit | None) -> Event | EventError:
    if note.hook == REFS_HOOK:
        happened = datetime.fromtimestamp(note.written / 1e9, UTC)
        try:
            return refs_event(os.path.realpath(note.repository.root), f"refs-{note.written}", happened)
        except EventError as error:
            return error
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
        **_other_worktrees(root),
        "paths": _paths(note, commit),
    }
    try:
        return Event.new(TYPES[note.hook], producer_name("git", root), id=id, now=happened, subject=branch, data=data)
    except EventError as error:
        return error


def _other_worktrees(root: str) -> dict[str, list[str]]:
    """Return the key with the other worktrees of a repository, which have the same branches, or nothing."""
    found = find_repository(Path(root))
    tops = {os.path.realpath(top) for top in found.worktrees()} - {root} if found else set()
    named = bounded_paths(tops)
    return {"worktrees": named} if named else {}


def _paths(note: GitNote, commit: HistoryCommit | None) -> list[str]:
    if note.squashed:  # the changes are in the index. If they are committed by now, the list is empty: unknown
        return bounded_paths(note.repository.staged(note.sha))
    if commit is None or (note.before is None and note.hook != "post-commit"):
        return []
    return bounded_paths(commit.paths) if commit.paths else HISTORY_ALONE


def _clean(text: str) -> str:
    """Return `text` as an envelope allows it: short, and without NUL and incomplete characters."""
    return text[:_TEXT].replace("\0", "").encode(errors="replace").decode()
