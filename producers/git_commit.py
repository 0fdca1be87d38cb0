"""A commit as an event: reads the note that the hook left, and asks git what the commit changed.

A note is what a shell can write with one `printf` (see `git_hook`); the last line says that it is whole:

    dims-git 1
    sha 40 or 64 hex digits, or nothing: HEAD
    ref refs/heads/NAME, or nothing: detached
    dir GIT_DIR as git gave it to the hook, or nothing
    root the top of the worktree
    end
"""

from __future__ import annotations

import os
import re
import subprocess
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from dims_worker.errors import EventError
from dims_worker.events import GIT_COMMIT, YEARS, Event
from producers.name import producer_name
from producers.paths import bounded

TORN_AFTER = 10.0
"""Seconds after which a note without its last line is no longer taken for one that is being written."""

_END = b"\nend\n"
_FORMAT = re.compile(
    r"dims-git 1\nsha (?P<sha>[0-9a-f]{40}|[0-9a-f]{64}|)\nref (?P<ref>[^\n]*)\n"
    r"dir (?P<dir>.*?)\nroot (?P<root>/.*)\nend\n",
    re.DOTALL,  # a folder's name may hold a line break
)
_TIMEOUT = 10.0
_TEXT = 1000  # characters of a subject line or an author that travel
_REFLOG = 100  # entries of HEAD's log among which a commit's predecessor is looked for

# Git tells its hooks where they are by variables that would mislead a git which is asked about another
# place, or later. These few say how to run git at all.
_KEPT = frozenset({"GIT_CONFIG_GLOBAL", "GIT_CONFIG_SYSTEM", "GIT_CONFIG_NOSYSTEM", "GIT_EXEC_PATH"})


@dataclass(frozen=True, slots=True)
class Note:
    """What the hook knew: the commit, the ref HEAD stood on, GIT_DIR, the worktree's top, and when."""

    sha: str
    ref: str
    git_dir: str
    root: str
    written: datetime

    @classmethod
    def parse(cls, raw: bytes, written: datetime) -> Note:
        """The note of a whole file. Raises EventError where it is none."""
        match = _FORMAT.fullmatch(os.fsdecode(raw))
        if match is None:
            raise EventError(f"not a note of the git hook: {raw[:80]!r}")
        return cls(match["sha"], match["ref"], match["dir"], match["root"], written)


def read_note(path: Path) -> Event | None:
    """The event of a note's file; None while it is being written. EventError: it never will be."""
    raw, written = path.read_bytes(), path.stat().st_mtime
    if not raw.endswith(_END):
        if abs(time.time() - written) < TORN_AFTER:
            return None
        raise EventError("the note is torn: its last line is missing")
    return event_of(Note.parse(raw, datetime.fromtimestamp(written, UTC)))


def event_of(note: Note) -> Event:
    """The event `dims.git.commit` of a note: id is the commit, time the committer's, paths what it changed.

    Where git cannot say (the commit or the worktree has vanished, git hangs) the paths are `[]`, unknown:
    that concerns more than it need, and loses nothing. Raises EventError where not even the commit is known.
    """
    facts = _facts(note)
    sha = facts.sha if facts else note.sha
    if not sha:
        raise EventError(f"{note.root!r} has no commit that could be named")
    root = os.path.realpath(note.root)
    branch = _clean(note.ref.removeprefix("refs/heads/")) or None
    written = facts.committed if facts and facts.committed.year in YEARS else note.written
    return Event.new(
        GIT_COMMIT,
        producer_name("git", root),
        id=sha,
        now=written,
        subject=branch,
        data={
            "root": root,
            "commit": sha,
            "branch": branch,
            "subject": facts.subject if facts else None,
            "author": facts.author if facts else None,
            "paths": _paths(note, facts) if facts else [],
        },
    )


@dataclass(frozen=True, slots=True)
class _Facts:
    sha: str
    parents: tuple[str, ...]
    committed: datetime
    author: str
    subject: str


def _facts(note: Note) -> _Facts | None:
    """What git knows of the commit; None where it does not (any more)."""
    raw = _git(
        note,
        "log",
        "-1",
        "--encoding=UTF-8",
        "--format=%H%x00%P%x00%ct%x00%an%x00%B",
        note.sha or "HEAD",
        "--",
    )
    if raw is None or raw.count(b"\0") < 4:
        return None
    sha, parents, seconds, author, message = raw.decode(errors="replace").split("\0", 4)
    try:
        committed = datetime.fromtimestamp(int(seconds), UTC)
    except (ValueError, OverflowError, OSError):
        committed = note.written
    subject = message.lstrip("\n").partition("\n")[0]
    return _Facts(sha, tuple(parents.split()), committed, _clean(author), _clean(subject))


def _paths(note: Note, facts: _Facts) -> list[str]:
    """The paths that the commit changed, against its first parent and against what HEAD was before it.

    The second differs where a commit was amended: a file it no longer holds has changed as well.
    """
    parent = facts.parents[0] if facts.parents else None
    changed = _diff(note, parent, facts.sha)
    if changed is None:
        return []
    before = _before(note, facts.sha)
    if before and before != parent:
        changed |= _diff(note, before, facts.sha) or set()  # git may have thrown it away
    return bounded(changed)


def _diff(note: Note, old: str | None, new: str) -> set[str] | None:
    """The paths in which two commits differ, both names of a rename; all of `new` without an `old`."""
    trees = (old, new) if old else ("--root", new)
    raw = _git(note, "diff-tree", "-r", "-z", "--no-renames", "--name-only", "--no-commit-id", *trees, "--")
    return None if raw is None else {os.fsdecode(name) for name in raw.split(b"\0") if name}


def _before(note: Note, sha: str) -> str | None:
    """What HEAD was when the commit was made, by HEAD's own log; None where that does not say."""
    raw = _git(note, "log", "-g", f"-n{_REFLOG}", "--format=%H", "HEAD", "--") or b""
    before = None
    for entry in reversed(raw.decode().split()):  # oldest first: HEAD may have come back to it later
        if entry == sha:
            return before
        before = entry
    return None


def _git(note: Note, *args: str) -> bytes | None:
    """What git prints, asked in the note's worktree; None where it fails or takes too long."""
    env = {k: v for k, v in os.environ.items() if not k.startswith("GIT_") or k in _KEPT}
    env |= {"GIT_OPTIONAL_LOCKS": "0", "GIT_NO_LAZY_FETCH": "1", "GIT_TERMINAL_PROMPT": "0", "LC_ALL": "C"}
    if note.git_dir:
        env |= {"GIT_DIR": note.git_dir, "GIT_WORK_TREE": note.root}
    try:
        done = subprocess.run(
            ["git", "-C", note.root, "-c", "log.showSignature=false", *args],
            env=env,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=_TIMEOUT,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired, ValueError):
        return None
    return done.stdout if done.returncode == 0 else None


def _clean(text: str) -> str:
    """`text` as an envelope takes it: short, no NUL, no half characters."""
    return text[:_TEXT].replace("\0", "").encode(errors="replace").decode()
