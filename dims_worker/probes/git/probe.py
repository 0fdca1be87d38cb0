"""Measure a git repository: commits, tracked files, branches, bytes. Each set of commits is read once."""

from __future__ import annotations

import os
import re
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time

from dims_worker.config import GitMetric, GitSource
from dims_worker.errors import MeasureError
from dims_worker.probes import changed_paths, glob
from dims_worker.probes.base import (
    Change,
    Deadline,
    PathsChanged,
    Probe,
    Reading,
    ScanContext,
    ScanResult,
    exact_reading,
    missing_reading,
    missing_readings,
    printable_path,
    size_in_unit,
)
from dims_worker.probes.git.command import Git, GitError, last_line

_ALL = "--branches"
_UNBORN = "does not have any commits yet"
_UNKNOWN = "bad revision"
_BROKEN = "broken ref"
_FACTS = ("--is-shallow-repository", "--is-inside-work-tree")
_CHECK_EVERY = 1024
"""The number of records between two checks of the deadline."""


class GitProbe(Probe[GitSource, GitMetric]):
    """Measures repositories. Dates are those of the committer, in UTC. Tracked files are those in the index, below
    the folder of the source."""

    change_types = PathsChanged

    def scan(
        self, source: GitSource, metrics: Mapping[str, GitMetric], context: ScanContext, deadline: Deadline
    ) -> ScanResult:
        """See `Probe.scan`. Raises MeasureError if the folder, the repository or git is missing."""
        deadline.check()
        folder = str(context.path_of(source.path))
        if not os.path.lexists(folder):
            return ScanResult(missing_readings(metrics, f"{printable_path(folder)} does not exist"))
        if not os.path.isdir(folder):  # noqa: PTH112 - without permission, git reports the reason
            raise MeasureError(f"{printable_path(folder)} is not a folder: check `path` of the source")
        git = Git(folder, deadline)
        shallow, inside = (answer == "true" for answer in git.text("rev-parse", *_FACTS).split())
        readings: dict[str, Reading] = {}
        for revisions, group in _by_revisions(metrics).items():
            readings |= _commits(git, revisions, group, shallow)
        readings |= _measured(metrics, "tracked_files", lambda group: _tracked(git, group, inside))
        readings |= _measured(metrics, "branches", lambda group: _branches(git, group))
        readings |= _measured(metrics, "size", lambda group: _size(git, group))
        return ScanResult(tuple(readings[name] for name in metrics))

    def touched(self, source: GitSource, metric: GitMetric, change: Change, context: ScanContext) -> str | None:
        """See `Probe.touched`. Only a change of the history counts: saving a file makes no commit."""
        if not isinstance(change, PathsChanged) or not change.history:
            return None
        folder, home = changed_paths.resolve_folders(context, source.path)
        if metric.measure == "tracked_files":
            return changed_paths.why_affected(folder, home, change, metric.paths)
        return "the history changed" if changed_paths.is_related(folder, change) else None

    def is_related(self, source: GitSource, change: Change, context: ScanContext) -> bool:
        """See `Probe.is_related`."""
        folder, _ = changed_paths.resolve_folders(context, source.path)
        return isinstance(change, PathsChanged) and changed_paths.is_related(folder, change)

    def steps_to_compare(self, source: GitSource, metric: GitMetric, change: Change) -> int:
        """See `Probe.steps_to_compare`."""
        return changed_paths.steps_to_compare(change, metric.paths) if metric.measure == "tracked_files" else 0


def _measured(
    metrics: Mapping[str, GitMetric], measure: str, read: Callable[[dict[str, GitMetric]], dict[str, Reading]]
) -> dict[str, Reading]:
    """Return the readings of the metrics with this measure. If git fails, they all fail."""
    group = {name: metric for name, metric in metrics.items() if metric.measure == measure}
    try:
        return read(group) if group else {}
    except GitError as error:
        return _all_failed(group, str(error))


def _by_revisions(metrics: Mapping[str, GitMetric]) -> dict[str, dict[str, GitMetric]]:
    """Group the metrics of commits by what they read: `--branches`, a branch, or "" for HEAD."""
    groups: dict[str, dict[str, GitMetric]] = defaultdict(dict)
    for name, metric in metrics.items():
        if metric.measure in ("commits", "newest_age"):
            groups[_ALL if metric.all_branches else metric.branch or ""][name] = metric
    return groups


def _commits(git: Git, revisions: str, metrics: Mapping[str, GitMetric], shallow: bool) -> dict[str, Reading]:
    """Return a reading for each metric over one set of commits."""
    if shallow:  # a count would include only the fetched commits
        reason = (
            f"{printable_path(git.folder)} is a shallow clone, so its history is incomplete. Run git fetch --unshallow"
        )
        return _all_failed(metrics, reason)
    try:
        matches = _find_commits(git, revisions, metrics)
    except GitError as error:
        if not revisions and _UNBORN in error.output:
            return {name: _reading(git, name, metric, CommitMatches()) for name, metric in metrics.items()}
        if _UNKNOWN in error.output:
            reason = f"{printable_path(git.folder)} has no branch {revisions!r}"
            return {name: missing_reading(name, metric, reason) for name, metric in metrics.items()}
        return _all_failed(metrics, str(error))
    return {name: _reading(git, name, metric, matches[name]) for name, metric in metrics.items()}


def _reading(git: Git, name: str, metric: GitMetric, matches: CommitMatches) -> Reading:
    if metric.measure == "commits":
        return exact_reading(name, metric, matches.count)
    if matches.newest is None:
        return missing_reading(name, metric, f"{printable_path(git.folder)} has no commit that matches")
    try:
        return exact_reading(name, metric, datetime.fromtimestamp(matches.newest, UTC).isoformat())
    except (ValueError, OverflowError):
        return Reading.failed(name, metric.shown_unit, "the date of the newest commit is outside the years 1 to 9999")


def _all_failed(metrics: Mapping[str, GitMetric], reason: str) -> dict[str, Reading]:
    return {name: Reading.failed(name, metric.shown_unit, reason) for name, metric in metrics.items()}


@dataclass(slots=True)
class CommitMatches:
    """The commits that a metric counts: their number, and the time of the newest in seconds since 1970."""

    count: int = 0
    newest: int | None = None

    def add(self, seconds: int) -> None:
        self.count += 1
        if self.newest is None or seconds > self.newest:
            self.newest = seconds


@dataclass(slots=True)
class ScannedCommit:
    """The fields that a metric can filter by. `paths` are the changed paths from the folder of the source, read
    only if a metric needs them. A merge changed the paths that differ from all of its parents."""

    seconds: int
    author: str
    subject: str
    paths: list[str] = field(default_factory=list)


Test = Callable[[ScannedCommit], bool]


def _find_commits(git: Git, revisions: str, metrics: Mapping[str, GitMetric]) -> dict[str, CommitMatches]:
    """Return what each metric counts. A local branch takes precedence over one of a remote."""
    if not revisions or revisions == _ALL:
        return _match_commits(git, metrics, *filter(None, [revisions]))
    try:
        return _match_commits(git, metrics, f"refs/heads/{revisions}")
    except GitError as error:
        if _UNKNOWN not in error.output:
            raise
        return _match_commits(git, metrics, f"refs/remotes/{revisions}")


def _match_commits(git: Git, metrics: Mapping[str, GitMetric], *revisions: str) -> dict[str, CommitMatches]:
    tests = {name: _test(metric) for name, metric in metrics.items()}
    filtered = [(name, test) for name, test in tests.items() if test]
    matches = {name: CommitMatches() for name in metrics}
    every = CommitMatches()
    for number, commit in enumerate(_log(git, revisions, any(_needs_paths(metric) for metric in metrics.values()))):
        if number % _CHECK_EVERY == 0:
            git.deadline.check()
        every.add(commit.seconds)
        for name, test in filtered:
            if test(commit):
                matches[name].add(commit.seconds)
    return {name: matches[name] if test else every for name, test in tests.items()}


def _log(git: Git, revisions: Sequence[str], names: bool) -> Iterator[ScannedCommit]:
    """Yield the commits. Without a revision there is no `--`, so that git reports *no commits yet*."""
    plain = ("-z", "--format=%ct%n%an <%ae>%n%s", "--encoding=UTF-8", "--no-show-signature", "--no-color")
    # -c: a merge lists the paths that differ from all of its parents. The user's diff settings are ignored
    changed = ("--raw", "-c", "--root", "--no-relative", "--no-renames", "--ignore-submodules=none", "--abbrev=4")
    arguments = (*plain, *(changed if names else ("--no-patch",)), *revisions, *(["--"] if revisions else []))
    top = _path_from_top(git) if names else ""
    records = git.records("log", *arguments)
    commit: ScannedCommit | None = None
    for record in records:
        record = record.removeprefix(b"\n")  # noqa: PLW2901
        if record.startswith(b":"):  # modes and hashes, and then the path
            path = os.fsdecode(next(records))
            if commit is not None and path.startswith(top):
                commit.paths.append(path[len(top) :])
        elif record:
            if commit is not None:
                yield commit
            seconds, author, subject = record.decode(errors="replace").split("\n", 2)
            commit = ScannedCommit(int(seconds), author, subject)
    if commit is not None:
        yield commit


def _path_from_top(git: Git) -> str:
    """Return the folder from the top of the repository, with a trailing `/`. `--relative` does not handle merges."""
    return os.fsdecode(b"".join(git.records("rev-parse", "--show-prefix")).removesuffix(b"\n"))


def _needs_paths(metric: GitMetric) -> bool:
    return not any(set(glob.parts(pattern)) == {"**"} for pattern in metric.paths)


def _test(metric: GitMetric) -> Test | None:
    """Return the test of a commit, or None if every commit counts."""
    case = re.IGNORECASE if metric.ignore_case else 0
    tests: list[Test] = []
    if metric.since or metric.until:
        first = _midnight(metric.since) if metric.since else float("-inf")
        end = _midnight(metric.until) if metric.until else float("inf")
        tests.append(lambda commit: first <= commit.seconds < end)
    if metric.message:
        subject = re.compile(metric.message, case).search
        tests.append(lambda commit: subject(commit.subject) is not None)
    if metric.author:
        author = re.compile(metric.author, case).search
        tests.append(lambda commit: author(commit.author) is not None)
    if _needs_paths(metric):
        matches = glob.matcher(metric.paths)
        tests.append(lambda commit: any(map(matches, commit.paths)))
    return (lambda commit: all(test(commit) for test in tests)) if tests else None


def _midnight(day: date) -> float:
    return datetime.combine(day, time(), UTC).timestamp()


def _tracked(git: Git, metrics: Mapping[str, GitMetric], inside: bool) -> dict[str, Reading]:
    """Count the paths in the index that each metric matches. A path with conflicts counts once."""
    if not inside:  # git would list nothing
        reason = f"{printable_path(git.folder)} is not in a work tree (a bare repository?), so it has no tracked files"
        return _all_failed(metrics, reason)
    tests = {name: glob.matcher(metric.paths) for name, metric in metrics.items()}
    counts = dict.fromkeys(metrics, 0)
    previous = b""
    for number, raw in enumerate(git.records("ls-files", "-z", "--cached")):
        if number % _CHECK_EVERY == 0:
            git.deadline.check()
        if raw == previous:  # the index is sorted: the stages of a conflict are adjacent
            continue
        previous = raw
        path = os.fsdecode(raw)
        for name, test in tests.items():
            counts[name] += test(path)
    return {name: exact_reading(name, metric, counts[name]) for name, metric in metrics.items()}


def _branches(git: Git, metrics: Mapping[str, GitMetric]) -> dict[str, Reading]:
    """Count the local branches."""
    branches = git.text("for-each-ref", "--format=%(refname)", "refs/heads").splitlines()
    if _BROKEN in git.warnings:  # git omits it and continues
        return _all_failed(metrics, f"{printable_path(git.folder)} has a broken branch: {last_line(git.warnings)}")
    return {name: exact_reading(name, metric, len(branches)) for name, metric in metrics.items()}


def _size(git: Git, metrics: Mapping[str, GitMetric]) -> dict[str, Reading]:
    """Return the disk space of the objects: loose ones, packs, and garbage. Git reports KiB."""
    sizes = dict(line.split(": ", 1) for line in git.text("count-objects", "-v").splitlines() if ": " in line)
    size = 1024 * sum(int(sizes[part]) for part in ("size", "size-pack", "size-garbage"))
    return {name: exact_reading(name, metric, size_in_unit(metric, size)) for name, metric in metrics.items()}
