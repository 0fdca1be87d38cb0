"""The present state of what each metric of a repository reads. Equal states mean equal values.

No commit and no file is read for it: only refs, the checksum of the index, and small files of git's own.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Mapping
from functools import cached_property
from pathlib import Path

from dims_worker.config import GitMetric
from dims_worker.probes.git.command import Git, GitError
from dims_worker.probes.git.repository import RepositoryFacts

BROKEN_REF = "broken ref"
"""What git prints about a ref that it leaves out."""

_MAX_CHECKSUM = 32
"""The bytes of a SHA-256 checksum. With SHA-1, the first 12 of them belong to what the checksum covers."""


class RepositoryState:
    """The state of each part of a repository, read when a metric first needs it."""

    def __init__(self, git: Git, facts: RepositoryFacts, metrics: Iterable[GitMetric]) -> None:
        self._git = git
        self._facts = facts
        self._branches = sorted({metric.branch for metric in metrics if metric.branch})

    def of(self, metric: GitMetric) -> str | None:
        """Return the state of what the metric reads, or None if it is unknown."""
        try:
            parts = self._parts(metric)
        except (GitError, OSError):
            return None  # the scan reports the reason
        return None if parts is None else _digest(self._facts.folder, metric.measure, *parts)

    def _parts(self, metric: GitMetric) -> tuple[str, ...] | None:
        match metric.measure:
            case "size":
                return (self._git.text("count-objects", "-v"),)
            case "branches":
                return tuple(ref for ref in self._refs if ref.startswith("refs/heads/"))
            case "tracked_files":
                return None if (index := self._index) is None else (index, str(self._facts.in_progress))
        commits = self._commits(metric)
        if commits is None:
            return None
        return (*commits, self._history, self._facts.prefix, *([self._mailmap] if metric.author else []))

    def _commits(self, metric: GitMetric) -> tuple[str, ...] | None:
        """Return where the history begins that the metric reads, or None if there is none."""
        if metric.all_branches:
            return tuple(f"{ref} {sha}" for ref, sha in self._refs.items() if ref.startswith("refs/heads/"))
        if metric.branch:
            places = (f"refs/heads/{metric.branch}", f"refs/remotes/{metric.branch}")
            return next(((place, self._refs[place]) for place in places if place in self._refs), None)
        return (self._head, str(self._facts.in_progress))

    @cached_property
    def _head(self) -> str:
        return self._git.text("rev-parse", "--verify", "-q", "HEAD")

    @cached_property
    def _refs(self) -> Mapping[str, str]:
        """The commit of each local branch, of each replacement, and of the remote branches that a metric names."""
        patterns = ["refs/heads", "refs/replace", *(f"refs/remotes/{branch}" for branch in self._branches)]
        raw = b"".join(self._git.records("for-each-ref", "--format=%(refname) %(objectname)", *patterns))
        if BROKEN_REF in self._git.warnings:
            raise GitError("a ref is broken", self._git.warnings)
        return dict(line.split(" ", 1) for line in os.fsdecode(raw).splitlines())

    @cached_property
    def _history(self) -> str:
        """What changes the history that git shows without a new commit: settings, grafts, replacements, a depth."""
        common = Path(self._facts.common)
        replaced = [f"{ref} {sha}" for ref, sha in self._refs.items() if ref.startswith("refs/replace/")]
        files = (_content(common / "info" / "grafts"), _content(common / "shallow"))
        return _digest(*replaced, *files, self._config)

    @cached_property
    def _config(self) -> str:
        return self._git.text("config", "--list", "-z")

    @cached_property
    def _mailmap(self) -> str:
        """What maps the names of authors: `.mailmap`, and the file and the blob that git's settings name."""
        settings = dict(line.split("\n", 1) for line in self._config.split("\0") if "\n" in line)
        top = Path(self._facts.folder.removesuffix(self._facts.prefix.rstrip("/")) if self._facts.inside else "/")
        parts = [_content(top / ".mailmap") if self._facts.inside else self._blob("HEAD:.mailmap")]
        if "mailmap.file" in settings:
            parts.append(_content(top / self._git.text("config", "--type=path", "--get", "mailmap.file")))
        if "mailmap.blob" in settings:
            parts.append(self._blob(settings["mailmap.blob"]))
        return _digest(*parts)

    def _blob(self, name: str) -> str:
        try:
            return self._git.text("rev-parse", "--verify", "-q", name)
        except GitError:
            return "no such blob"

    @property
    def _index(self) -> str | None:
        """The checksum that git keeps at the end of the index, or None if there is no index."""
        try:
            with self._facts.index.open("rb") as file:
                size = file.seek(0, os.SEEK_END)
                file.seek(max(0, size - _MAX_CHECKSUM))
                tail = file.read()
                if tail.endswith(bytes(20)):  # index.skipHash: git has not computed one
                    file.seek(0)
                    tail = hashlib.file_digest(file, "sha256").digest()
        except FileNotFoundError:
            return None
        return f"{size} {tail.hex()}"


def _content(file: Path) -> str:
    """Return a digest of a small file of git's own, or a word if it does not exist."""
    try:
        return hashlib.sha256(file.read_bytes()).hexdigest()
    except (FileNotFoundError, NotADirectoryError):
        return "missing"


def _digest(*parts: str) -> str:
    return hashlib.sha256("\0".join(parts).encode(errors="surrogateescape")).hexdigest()
