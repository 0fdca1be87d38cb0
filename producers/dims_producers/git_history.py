"""Read commits from git. One git process reads many of them, because one process per commit would be slow."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime

_TIMEOUT = 10.0
_MARK = b"//"
"""Begins a commit in git's output. No path of a commit can have this name."""

_FIELDS = ("%H", "%P", "%ct", "%an", "%s")
_DIFF = (
    *("diff-tree", "--stdin", "--root", "--always", "-m", "-r", "-z", "--no-renames", "--name-only"),
    *("--encoding=UTF-8", f"--format={'%x00'.join(('//', *_FIELDS))}"),
)

# Git sets variables for its hooks that would point another git process to the wrong repository or index. Only these
# stay: they say how to run git.
_ENVIRONMENT = frozenset({"GIT_CONFIG_GLOBAL", "GIT_CONFIG_SYSTEM", "GIT_CONFIG_NOSYSTEM", "GIT_EXEC_PATH"})


@dataclass(frozen=True, slots=True)
class HistoryCommit:
    """A commit: its date (None if that is not valid), its author, its subject, and the paths that it changed."""

    sha: str
    committed: datetime | None
    author: str
    subject: str
    paths: frozenset[str]


@dataclass(frozen=True, slots=True)
class GitRepository:
    """A repository: the top folder of its worktree, and the GIT_DIR that git gave to the hook (else "")."""

    root: str
    git_dir: str = ""

    def head(self) -> str:
        """Return the commit that HEAD names, or "" if there is none."""
        return (self._git("rev-parse", "--verify", "-q", "HEAD") or b"").decode().strip()

    def commits(self, wanted: Iterable[tuple[str, str]]) -> dict[tuple[str, str], HistoryCommit]:
        """Return the commits of pairs (SHA, BEFORE), with the paths in which the two differ. A rename has two paths.

        An empty BEFORE means the first parent. A commit without a parent has all its paths. The result lacks pairs
        that git does not know any more, or cannot read in time. A BEFORE that is gone may also remove other pairs.
        """
        # After a pair with BEFORE, git takes BEFORE for the parent of SHA. So pairs without it come first.
        pairs = sorted(set(wanted), key=lambda pair: (bool(pair[1]), pair))
        if not pairs:
            return {}
        lines = "".join(f"{' '.join(pair).strip()}\n" for pair in pairs)
        raw = self._git(*_DIFF, stdin=lines.encode(), timeout=_TIMEOUT + len(pairs) / 10) or b""
        commits: dict[tuple[str, str], HistoryCommit] = {}
        for parents, commit in _parsed(raw):
            for key in ((commit.sha, ""), (commit.sha, parents)):
                commits.setdefault(key, commit)  # a merge comes once for each parent: the first one counts
        return {pair: commits[pair] for pair in pairs if pair in commits}

    def staged(self, sha: str) -> frozenset[str]:
        """Return the paths in which the index differs from a commit."""
        raw = self._git("diff-index", "--cached", "-z", "--no-renames", "--name-only", sha, "--") or b""
        return frozenset(os.fsdecode(name) for name in raw.split(b"\0") if name)

    def _git(self, *args: str, stdin: bytes = b"", timeout: float = _TIMEOUT) -> bytes | None:
        """Run git and return its output, even if it fails. None if a signal ends it or it takes too long."""
        env = {k: v for k, v in os.environ.items() if not k.startswith("GIT_") or k in _ENVIRONMENT}
        env |= {"GIT_OPTIONAL_LOCKS": "0", "GIT_NO_LAZY_FETCH": "1", "GIT_TERMINAL_PROMPT": "0", "LC_ALL": "C"}
        if self.git_dir:
            env |= {"GIT_DIR": self.git_dir, "GIT_WORK_TREE": self.root}
        try:
            done = subprocess.run(
                ["git", "-C", self.root, "-c", "log.showSignature=false", *args],
                env=env,
                input=stdin,
                capture_output=True,
                timeout=timeout,
                check=False,
            )
        except (OSError, subprocess.TimeoutExpired, ValueError):
            return None
        return done.stdout if done.returncode >= 0 else None


def _parsed(raw: bytes) -> Iterator[tuple[str, HistoryCommit]]:
    """Yield the commits in git's output, each with the parents that git compared it with."""
    fields = raw.split(b"\0")
    at = 0
    while fields[at] == _MARK:
        sha, parents, seconds, author, subject = (text.decode(errors="replace") for text in fields[at + 1 : at + 6])
        first = at = at + 1 + len(_FIELDS)
        while fields[at] not in (_MARK, b""):
            at += 1
        names = fields[first:at]
        names[:1] = [name.removeprefix(b"\n") for name in names[:1]]  # git separates them from the fields before
        yield parents, HistoryCommit(sha, _time(seconds), author, subject, frozenset(map(os.fsdecode, names)))


def _time(seconds: str) -> datetime | None:
    try:
        return datetime.fromtimestamp(int(seconds), UTC)
    except (ValueError, OverflowError, OSError):
        return None
