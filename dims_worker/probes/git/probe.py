"""What a git repository holds: commits, tracked files, branches, bytes. One stream a set of commits."""

from __future__ import annotations

import os
import re
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time

from dims_worker.config import GitMetric, GitSource
from dims_worker.errors import MeasureError
from dims_worker.probes import glob
from dims_worker.probes.base import (
    Change,
    Deadline,
    PathsChanged,
    Probe,
    Reading,
    ScanContext,
    ScanResult,
    exact_reading,
    instant_text,
    missing_reading,
    missing_readings,
    printable_path,
    size_in_unit,
)
from dims_worker.probes.files import paths
from dims_worker.probes.git.command import Git, GitFailed, last_line

_ALL = "--branches"
_UNBORN = "does not have any commits yet"
_UNKNOWN = "bad revision"
_BROKEN = "broken ref"
_FACTS = ("--is-shallow-repository", "--is-inside-work-tree")
_OFTEN = 1024
"""Records between two looks at the clock."""


class GitProbe(Probe[GitSource, GitMetric]):
    """Measures repositories. Dates are the committer's, in UTC; a tracked file is one of the index, below
    the source's folder."""

    judges = PathsChanged

    def scan(
        self, source: GitSource, metrics: Mapping[str, GitMetric], around: ScanContext, deadline: Deadline
    ) -> ScanResult:
        """See `Probe.scan`. Raises MeasureError where there is no folder, no repository, or no git."""
        deadline.check()
        folder = str(around.path_of(source.path))
        if not os.path.lexists(folder):
            return ScanResult(missing_readings(metrics, f"{printable_path(folder)} does not exist"))
        if not os.path.isdir(folder):  # noqa: PTH112 - one that may not be looked into raises elsewhere
            raise MeasureError(f"{printable_path(folder)} is no folder")
        git = Git(folder, deadline)
        shallow, inside = (answer == "true" for answer in git.text("rev-parse", *_FACTS).split())
        readings: dict[str, Reading] = {}
        for revisions, group in _by_revisions(metrics).items():
            readings |= _commits(git, revisions, group, shallow)
        readings |= _tracked(git, _of("tracked_files", metrics), inside)
        readings |= _branches(git, _of("branches", metrics))
        readings |= _size(git, _of("size", metrics))
        return ScanResult(tuple(readings[name] for name in metrics))

    def touched(self, source: GitSource, metric: GitMetric, change: Change, around: ScanContext) -> str | None:
        """See `Probe.touched`. Only a change of history counts: a file that is saved makes no commit."""
        if not isinstance(change, PathsChanged) or not change.history:
            return None
        folder, home = paths.resolve_places(around, source.path)
        if metric.measure == "tracked_files":
            return paths.why_affected(folder, home, change, metric.paths)
        return "the history changed" if paths.related(folder, change) else None


def _of(measure: str, metrics: Mapping[str, GitMetric]) -> dict[str, GitMetric]:
    return {name: metric for name, metric in metrics.items() if metric.measure == measure}


def _by_revisions(metrics: Mapping[str, GitMetric]) -> dict[str, dict[str, GitMetric]]:
    """The metrics of commits by the commits that they look at: `--branches`, a branch, or "" for HEAD."""
    groups: dict[str, dict[str, GitMetric]] = defaultdict(dict)
    for name, metric in metrics.items():
        if metric.measure in ("commits", "newest_age"):
            groups[_ALL if metric.all_branches else metric.branch or ""][name] = metric
    return groups


def _commits(git: Git, revisions: str, metrics: Mapping[str, GitMetric], shallow: bool) -> dict[str, Reading]:
    """A reading for each metric over one set of commits."""
    if shallow:  # a count would be of what was fetched, and look like one of all
        reason = f"{printable_path(git.folder)} is a shallow clone: its history is cut off (git fetch --unshallow)"
        return _all_failed(metrics, reason)
    try:
        found = _find(git, revisions, metrics)
    except GitFailed as error:
        if not revisions and _UNBORN in error.said:
            return {name: _reading(git, name, metric, CommitMatches()) for name, metric in metrics.items()}
        if _UNKNOWN in error.said:
            reason = f"{printable_path(git.folder)} has no branch {revisions!r}"
            return {name: missing_reading(name, metric, reason) for name, metric in metrics.items()}
        return _all_failed(metrics, str(error))
    return {name: _reading(git, name, metric, found[name]) for name, metric in metrics.items()}


def _reading(git: Git, name: str, metric: GitMetric, found: CommitMatches) -> Reading:
    if metric.measure == "commits":
        return exact_reading(name, metric, found.count)
    if found.newest is None:
        return missing_reading(name, metric, f"{printable_path(git.folder)} has no commit that matches")
    try:
        return exact_reading(name, metric, instant_text(datetime.fromtimestamp(found.newest, UTC)))
    except (ValueError, OverflowError):
        return Reading.failed(name, metric.shown_unit, "the newest commit was made in a year that no calendar has")


def _all_failed(metrics: Mapping[str, GitMetric], reason: str) -> dict[str, Reading]:
    return {name: Reading.failed(name, metric.shown_unit, reason) for name, metric in metrics.items()}


# --- commits -----------------------------------------------------------------------------------------


@dataclass(slots=True)
class CommitMatches:
    """The commits that a metric looks for: their number, and the second (UTC) of the newest."""

    count: int = 0
    newest: int | None = None

    def add(self, seconds: int) -> None:
        self.count += 1
        if self.newest is None or seconds > self.newest:
            self.newest = seconds


@dataclass(slots=True)
class ScannedCommit:
    """What a commit is tested for. `paths` are what it changed, from the source's folder, where anyone asks: a
    merge changed only what it took from none of its parents."""

    seconds: int
    author: str
    subject: str
    paths: list[str] = field(default_factory=list)


Test = Callable[[ScannedCommit], bool]


def _find(git: Git, revisions: str, metrics: Mapping[str, GitMetric]) -> dict[str, CommitMatches]:
    """What each metric looks for. A branch of this repository stands before one of a remote."""
    if not revisions or revisions == _ALL:
        return _found(git, metrics, *filter(None, [revisions]))
    try:
        return _found(git, metrics, f"refs/heads/{revisions}")
    except GitFailed as error:
        if _UNKNOWN not in error.said:
            raise
        return _found(git, metrics, f"refs/remotes/{revisions}")


def _found(git: Git, metrics: Mapping[str, GitMetric], *revisions: str) -> dict[str, CommitMatches]:
    tests = {name: _test(metric) for name, metric in metrics.items()}
    filtered = [(name, test) for name, test in tests.items() if test]
    found = {name: CommitMatches() for name in metrics}
    every = CommitMatches()
    for number, commit in enumerate(_log(git, revisions, any(_asks_paths(metric) for metric in metrics.values()))):
        if number % _OFTEN == 0:
            git.deadline.check()
        every.add(commit.seconds)
        for name, test in filtered:
            if test(commit):
                found[name].add(commit.seconds)
    return {name: found[name] if test else every for name, test in tests.items()}


def _log(git: Git, revisions: Sequence[str], names: bool) -> Iterator[ScannedCommit]:
    """The commits of one stream. No `--` without a revision: git then says *no commits yet*."""
    plain = ("-z", "--format=%ct%n%an <%ae>%n%s", "--encoding=UTF-8", "--no-show-signature", "--no-color")
    # -c: a merge has the paths that differ from all of its parents; the user's settings of diffs do not count
    changed = ("--raw", "-c", "--root", "--no-relative", "--no-renames", "--ignore-submodules=none", "--abbrev=4")
    asked = (*plain, *(changed if names else ("--no-patch",)), *revisions, *(["--"] if revisions else []))
    above = _above(git) if names else ""
    records = git.records("log", *asked)
    commit: ScannedCommit | None = None
    for record in records:
        record = record.removeprefix(b"\n")  # noqa: PLW2901
        if record.startswith(b":"):  # modes and hashes; the path follows
            path = os.fsdecode(next(records))
            if commit is not None and path.startswith(above):
                commit.paths.append(path[len(above) :])
        elif record:
            if commit is not None:
                yield commit
            seconds, author, subject = record.decode(errors="replace").split("\n", 2)
            commit = ScannedCommit(int(seconds), author, subject)
    if commit is not None:
        yield commit


def _above(git: Git) -> str:
    """The source's folder from the repository's top, with a last `/`; git's own `--relative` knows no merges."""
    return os.fsdecode(b"".join(git.records("rev-parse", "--show-prefix")).removesuffix(b"\n"))


def _asks_paths(metric: GitMetric) -> bool:
    return not any(set(glob.parts(pattern)) == {"**"} for pattern in metric.paths)


def _test(metric: GitMetric) -> Test | None:
    """The test of a commit; None where every commit counts."""
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
    if _asks_paths(metric):
        matches = glob.matcher(metric.paths)
        tests.append(lambda commit: any(map(matches, commit.paths)))
    return (lambda commit: all(test(commit) for test in tests)) if tests else None


def _midnight(day: date) -> float:
    return datetime.combine(day, time(), UTC).timestamp()


# --- files, branches, size ---------------------------------------------------------------------------


def _tracked(git: Git, metrics: Mapping[str, GitMetric], inside: bool) -> dict[str, Reading]:
    """How many paths of the index each metric's patterns match; one with conflicts counts once."""
    if not metrics:
        return {}
    if not inside:  # git would list nothing
        reason = f"{printable_path(git.folder)} is not in a work tree (a bare repository?), so it tracks no files"
        return _all_failed(metrics, reason)
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
        return _all_failed(metrics, str(error))
    return {name: exact_reading(name, metric, counts[name]) for name, metric in metrics.items()}


def _branches(git: Git, metrics: Mapping[str, GitMetric]) -> dict[str, Reading]:
    """The number of local branches."""
    if not metrics:
        return {}
    try:
        branches = git.text("for-each-ref", "--format=%(refname)", "refs/heads").splitlines()
    except GitFailed as error:
        return _all_failed(metrics, str(error))
    if _BROKEN in git.warnings:  # git leaves it out and goes on
        return _all_failed(metrics, f"{printable_path(git.folder)} has a broken branch: {last_line(git.warnings)}")
    return {name: exact_reading(name, metric, len(branches)) for name, metric in metrics.items()}


def _size(git: Git, metrics: Mapping[str, GitMetric]) -> dict[str, Reading]:
    """What the objects take on disk: loose ones, packs, and garbage. Git tells it in KiB."""
    if not metrics:
        return {}
    try:
        told = dict(line.split(": ", 1) for line in git.text("count-objects", "-v").splitlines() if ": " in line)
    except GitFailed as error:
        return _all_failed(metrics, str(error))
    size = 1024 * sum(int(told[part]) for part in ("size", "size-pack", "size-garbage"))
    return {name: exact_reading(name, metric, size_in_unit(metric, size)) for name, metric in metrics.items()}
