"""What a git repository holds: commits by date and subject, tracked files. One stream a set of commits."""

from __future__ import annotations

import os
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, date, datetime, time

from dims_worker.config import GitMetric, GitSource
from dims_worker.errors import MeasureError
from dims_worker.probes import glob, paths
from dims_worker.probes.base import (
    Change,
    Deadline,
    PathsChanged,
    Probe,
    Reading,
    Scanned,
    Surroundings,
    all_missing,
    exact,
    missing,
    shown,
)
from dims_worker.probes.git_command import Git, GitFailed

_ALL = "--branches"
_UNBORN = "does not have any commits yet"
_UNKNOWN = "bad revision"
_OFTEN = 1024
"""Records between two looks at the clock."""


class GitProbe(Probe[GitSource, GitMetric]):
    """Measures repositories. Dates are the committer's, in UTC; a tracked file is one of the index, below
    the source's folder."""

    judges = PathsChanged

    def scan(
        self, source: GitSource, metrics: Mapping[str, GitMetric], around: Surroundings, deadline: Deadline
    ) -> Scanned:
        """See `Probe.scan`. Raises MeasureError where there is no folder, no repository, or no git."""
        deadline.check()
        folder = str(around.path_of(source.path))
        if not os.path.lexists(folder):
            return Scanned(all_missing(metrics, f"{shown(folder)} does not exist"))
        if not os.path.isdir(folder):  # noqa: PTH112 - one that may not be looked into raises elsewhere
            raise MeasureError(f"{shown(folder)} is no folder")
        git = Git(folder, deadline)
        asked = git.text("rev-parse", "--is-shallow-repository", "--is-inside-work-tree")
        shallow, inside = (answer == "true" for answer in asked.split())
        readings: dict[str, Reading] = {}
        for revisions, group in _by_revisions(metrics).items():
            readings |= _commits(git, revisions, group, shallow)
        tracked = {name: metric for name, metric in metrics.items() if metric.measure == "tracked_files"}
        readings |= _tracked(git, tracked, inside)
        return Scanned(tuple(readings[name] for name in metrics))

    def touched(self, source: GitSource, metric: GitMetric, change: Change, around: Surroundings) -> str | None:
        """See `Probe.touched`. Only a change of history counts: a file that is saved makes no commit."""
        if not isinstance(change, PathsChanged) or not change.history:
            return None
        folder, home = paths.places(around, source.path)
        if metric.measure == "tracked_files":
            return paths.why(folder, home, change, metric.paths)
        return "the history changed" if paths.related(folder, change) else None


def _by_revisions(metrics: Mapping[str, GitMetric]) -> dict[str, dict[str, GitMetric]]:
    """The metrics of commits by the commits that they look at: `--branches`, a branch, or "" for HEAD."""
    groups: dict[str, dict[str, GitMetric]] = defaultdict(dict)
    for name, metric in metrics.items():
        if metric.measure == "commits":
            groups[_ALL if metric.all_branches else metric.branch or ""][name] = metric
    return groups


def _commits(git: Git, revisions: str, metrics: Mapping[str, GitMetric], shallow: bool) -> dict[str, Reading]:
    """A reading for each metric over one set of commits."""
    if shallow:  # a count would be of what was fetched, and look like one of all
        reason = f"{shown(git.folder)} is a shallow clone: its history is cut off (git fetch --unshallow)"
        return {name: Reading.failed(name, metric.shown_unit, reason) for name, metric in metrics.items()}
    try:
        counts = _count(git, revisions, metrics)
    except GitFailed as error:
        if not revisions and _UNBORN in error.said:
            return {name: exact(name, metric, 0) for name, metric in metrics.items()}
        if _UNKNOWN in error.said:
            reason = f"{shown(git.folder)} has no branch {revisions!r}"
            return {name: missing(name, metric, reason) for name, metric in metrics.items()}
        return {name: Reading.failed(name, m.shown_unit, str(error)) for name, m in metrics.items()}
    return {name: exact(name, metric, counts[name]) for name, metric in metrics.items()}


def _count(git: Git, revisions: str, metrics: Mapping[str, GitMetric]) -> dict[str, int]:
    """How many commits each metric counts. A branch of this repository stands before one of a remote."""
    if not revisions or revisions == _ALL:
        return _counted(_log(git, *filter(None, [revisions])), metrics, git.deadline)
    try:
        return _counted(_log(git, f"refs/heads/{revisions}"), metrics, git.deadline)
    except GitFailed as error:
        if _UNKNOWN not in error.said:
            raise
        return _counted(_log(git, f"refs/remotes/{revisions}"), metrics, git.deadline)


def _log(git: Git, *revisions: str) -> Iterable[bytes]:
    """`SECONDS SUBJECT` of each commit. No `--` without a revision: git then says *no commits yet*."""
    plain = ("-z", "--format=%ct %s", "--encoding=UTF-8", "--no-show-signature", "--no-color")
    return git.records("log", *plain, *revisions, *(["--"] if revisions else []))


def _counted(commits: Iterable[bytes], metrics: Mapping[str, GitMetric], deadline: Deadline) -> dict[str, int]:
    tests = {name: _test(metric) for name, metric in metrics.items()}
    filtered = [(name, test) for name, test in tests.items() if test]
    counts = dict.fromkeys(metrics, 0)
    total = 0
    for total, commit in enumerate(commits, start=1):
        if total % _OFTEN == 0:
            deadline.check()
        if filtered:
            seconds, _, subject = commit.decode(errors="replace").partition(" ")
            for name, test in filtered:
                counts[name] += test(int(seconds), subject)
    return {name: counts[name] if test else total for name, test in tests.items()}


def _test(metric: GitMetric) -> Callable[[int, str], bool] | None:
    """The test of a commit's second (UTC) and subject; None where every commit counts."""
    if not (metric.since or metric.until or metric.message):
        return None
    first = _midnight(metric.since) if metric.since else float("-inf")
    end = _midnight(metric.until) if metric.until else float("inf")
    found = re.compile(metric.message or "", re.IGNORECASE if metric.ignore_case else 0).search
    return lambda seconds, subject: first <= seconds < end and found(subject) is not None


def _midnight(day: date) -> float:
    return datetime.combine(day, time(), UTC).timestamp()


def _tracked(git: Git, metrics: Mapping[str, GitMetric], inside: bool) -> dict[str, Reading]:
    """How many paths of the index each metric's patterns match; one with conflicts counts once."""
    if not metrics:
        return {}
    if not inside:  # git would list nothing
        reason = f"{shown(git.folder)} is not in a work tree (a bare repository?), so it tracks no files"
        return {name: Reading.failed(name, metric.shown_unit, reason) for name, metric in metrics.items()}
    tests = {name: glob.matcher(metric.paths) for name, metric in metrics.items()}
    counts = dict.fromkeys(metrics, 0)
    previous = b""
    try:
        for number, raw in enumerate(git.records("ls-files", "-z", "--cached")):
            if number % _OFTEN == 0:
                git.deadline.check()
            if raw == previous:  # the index is sorted: the stages of a conflict stand together
                continue
            previous = raw
            path = os.fsdecode(raw)
            for name, test in tests.items():
                counts[name] += test(path)
    except GitFailed as error:
        return {name: Reading.failed(name, m.shown_unit, str(error)) for name, m in metrics.items()}
    return {name: exact(name, metric, counts[name]) for name, metric in metrics.items()}
