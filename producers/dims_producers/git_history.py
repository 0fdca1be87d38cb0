"""What git knows of commits. Many are asked about at once: a process for each of a thousand takes its time."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime

_TIMEOUT = 10.0
_MARK = b"//"
"""Begins a commit in what git prints. No path of a commit can be called so."""

_FIELDS = ("%H", "%P", "%ct", "%an", "%s")
_ASK = (
    *("diff-tree", "--stdin", "--root", "--always", "-m", "-r", "-z", "--no-renames", "--name-only"),
    *("--encoding=UTF-8", f"--format={'%x00'.join(('//', *_FIELDS))}"),
)

# Git tells its hooks where they are by variables that would mislead a git which is asked about another
# place, or later. These few say how to run git at all.
_KEPT = frozenset({"GIT_CONFIG_GLOBAL", "GIT_CONFIG_SYSTEM", "GIT_CONFIG_NOSYSTEM", "GIT_EXEC_PATH"})


@dataclass(frozen=True, slots=True)
class HistoryCommit:
    """A commit: when it was committed (None where its date is none), by whom, its subject, what it changed."""

    sha: str
    committed: datetime | None
    author: str
    subject: str
    paths: frozenset[str]


@dataclass(frozen=True, slots=True)
class GitRepository:
    """A repository by the top of its worktree, and by its GIT_DIR where a hook was told one (else "")."""

    root: str
    git_dir: str = ""

    def head(self) -> str:
        """The commit that HEAD is now; "" where there is none."""
        return (self._git("rev-parse", "--verify", "-q", "HEAD") or b"").decode().strip()

    def commits(self, asked: Iterable[tuple[str, str]]) -> dict[tuple[str, str], HistoryCommit]:
        """The commits of pairs (SHA, BEFORE), with the paths in which the two differ, both names of a rename.

        Without a BEFORE that is the first parent; of a commit without one all paths. What git does not know
        (any more), or cannot tell in time, is left out: a BEFORE that has vanished may take others with it.
        """
        # From a pair on, git takes BEFORE for the parent of SHA: so those that ask for the real one come first.
        pairs = sorted(set(asked), key=lambda pair: (bool(pair[1]), pair))
        if not pairs:
            return {}
        lines = "".join(f"{' '.join(pair).strip()}\n" for pair in pairs)
        raw = self._git(*_ASK, told=lines.encode(), timeout=_TIMEOUT + len(pairs) / 10) or b""
        found: dict[tuple[str, str], HistoryCommit] = {}
        for parents, commit in _parsed(raw):
            for key in ((commit.sha, ""), (commit.sha, parents)):
                found.setdefault(key, commit)  # a merge comes once for each parent: the first one counts
        return {pair: found[pair] for pair in pairs if pair in found}

    def staged(self, sha: str) -> frozenset[str]:
        """The paths in which the index differs from a commit."""
        raw = self._git("diff-index", "--cached", "-z", "--no-renames", "--name-only", sha, "--") or b""
        return frozenset(os.fsdecode(name) for name in raw.split(b"\0") if name)

    def _git(self, *args: str, told: bytes = b"", timeout: float = _TIMEOUT) -> bytes | None:
        """What git prints, as far as it came; None where it was ended or takes too long."""
        env = {k: v for k, v in os.environ.items() if not k.startswith("GIT_") or k in _KEPT}
        env |= {"GIT_OPTIONAL_LOCKS": "0", "GIT_NO_LAZY_FETCH": "1", "GIT_TERMINAL_PROMPT": "0", "LC_ALL": "C"}
        if self.git_dir:
            env |= {"GIT_DIR": self.git_dir, "GIT_WORK_TREE": self.root}
        try:
            done = subprocess.run(
                ["git", "-C", self.root, "-c", "log.showSignature=false", *args],
                env=env,
                input=told,
                capture_output=True,
                timeout=timeout,
                check=False,
            )
        except (OSError, subprocess.TimeoutExpired, ValueError):
            return None
        return done.stdout if done.returncode >= 0 else None


def _parsed(raw: bytes) -> Iterator[tuple[str, HistoryCommit]]:
    """The commits that git printed, each with the parents that git compared it with."""
    fields = raw.split(b"\0")
    at = 0
    while fields[at] == _MARK:
        sha, parents, seconds, author, subject = (one.decode(errors="replace") for one in fields[at + 1 : at + 6])
        first = at = at + 1 + len(_FIELDS)
        while fields[at] not in (_MARK, b""):
            at += 1
        names = fields[first:at]
        names[:1] = [name.removeprefix(b"\n") for name in names[:1]]  # git parts them from what stands before
        yield parents, HistoryCommit(sha, _time(seconds), author, subject, frozenset(map(os.fsdecode, names)))


def _time(seconds: str) -> datetime | None:
    try:
        return datetime.fromtimestamp(int(seconds), UTC)
    except (ValueError, OverflowError, OSError):
        return None
