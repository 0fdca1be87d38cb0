"""Which repository a source reads, and what must be true before a number of it is right."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from dims_worker.errors import MeasureError
from dims_worker.probes.base import printable_path
from dims_worker.probes.git.command import Git

_FACTS = (
    *("--is-shallow-repository", "--is-inside-work-tree"),
    *("--absolute-git-dir", "--git-common-dir", "--show-prefix"),
)

_OPERATIONS = (
    # A rebase comes first: it also leaves the files of a cherry-pick or a merge
    ("rebase-merge", "a rebase is in progress"),
    ("rebase-apply/applying", "git am is in progress"),
    ("rebase-apply", "a rebase is in progress"),
    ("MERGE_HEAD", "a merge is in progress"),
    ("CHERRY_PICK_HEAD", "a cherry-pick is in progress"),
    ("REVERT_HEAD", "a revert is in progress"),
    ("sequencer", "a cherry-pick or a revert is in progress"),
    ("BISECT_LOG", "a bisect is in progress"),
)
"""What git keeps in its directory during an operation of several steps, and what to say about it."""


@dataclass(frozen=True, slots=True)
class RepositoryFacts:
    """What git says about the repository of a folder. The paths are absolute.

    `git_dir` belongs to one worktree, and `common` to all of them. `prefix` is the path of the folder from the top of
    the worktree, with a trailing `/`. `inside` is False in a bare repository.
    """

    folder: str
    git_dir: str
    common: str
    prefix: str
    shallow: bool
    inside: bool

    @classmethod
    def of(cls, git: Git) -> RepositoryFacts:
        """Query git. Raises MeasureError if the folder is in no repository, or git would read another one."""
        raw = b"\0".join(git.records("rev-parse", *_FACTS))
        lines = os.fsdecode(raw.removesuffix(b"\n")).split("\n")
        if len(lines) != len(_FACTS):
            raise MeasureError(f"the path {printable_path(git.folder)!r} contains a line break. Use another one")
        shallow, inside, git_dir, common, prefix = lines
        folder = os.path.realpath(git.folder)
        shared = os.path.normpath(os.path.join(folder, common))  # noqa: PTH118 - a path of git may be no UTF-8
        facts = cls(folder, git_dir, shared, prefix, shallow == "true", inside == "true")
        facts._refuse_another_repository()
        if prefix:
            facts._refuse_an_empty_submodule(git)
        return facts

    @property
    def in_progress(self) -> str | None:
        """The operation that git has begun in this worktree and not ended, in words, or None."""
        return operation_in_progress(Path(self.git_dir))

    @property
    def index(self) -> Path:
        return Path(self.git_dir, "index")

    def _refuse_another_repository(self) -> None:
        """Raise MeasureError if the nearest repository is broken: git then silently reads the one around it."""
        if not self.inside:
            return
        top = self.folder[: -len(self.prefix)] if self.prefix else self.folder
        nearest = next(
            (up for up in (Path(self.folder), *Path(self.folder).parents) if _looks_like_repository(up)), None
        )
        # With core.worktree, the top of the worktree is another folder than the one with `.git`
        if nearest is not None and nearest.is_relative_to(top) and nearest != Path(top):
            raise MeasureError(
                f"{printable_path(str(nearest))} looks like a git repository, but git cannot read it and would read "
                f"{printable_path(top)} instead. See what is wrong: git --git-dir="
                f"{printable_path(_git_dir_of(nearest))} status. Or remove what is left of it"
            )

    def _refuse_an_empty_submodule(self, git: Git) -> None:
        """Raise MeasureError in the folder of a submodule that is not checked out: git reads the outer repository."""
        path = self.prefix.rstrip("/")
        entry = git.text("ls-files", "-s", "-z", "--full-name", "--", f":(top,literal){path}")
        if entry.startswith("160000 "):
            raise MeasureError(
                f"{printable_path(self.folder)} is a submodule that is not checked out. Run git submodule update --init"
            )


def operation_in_progress(git_dir: Path) -> str | None:
    """Return what git has begun in a worktree and not ended, in words, or None. `git_dir` is that of the worktree."""
    return next((words for name, words in _OPERATIONS if os.path.lexists(git_dir / name)), None)


def _looks_like_repository(folder: Path) -> bool:
    return os.path.lexists(folder / ".git") or _git_dir_of(folder) == str(folder)


def _git_dir_of(folder: Path) -> str:
    """Return `.git` in the folder, or the folder itself if it has the parts of a bare repository."""
    parts: Sequence[str] = ("objects", "refs", "hooks")
    bare = not os.path.lexists(folder / ".git") and all((folder / part).is_dir() for part in parts)
    return str(folder) if bare else str(folder / ".git")
