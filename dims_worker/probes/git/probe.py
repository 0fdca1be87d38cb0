"""Measure a git repository: commits, tracked files, branches, bytes. Each set of commits is read once."""

from __future__ import annotations

import os
import re
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime, time
from pathlib import Path
from typing import ClassVar

from dims_worker.config import GitMetric, GitSource
from dims_worker.errors import MeasureError
from dims_worker.probes import changed_paths, glob
from dims_worker.probes.base import (
    IN_PROGRESS,
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
from dims_worker.probes.git.repository import RepositoryFacts
from dims_worker.probes.git.state import BROKEN_REF, RepositoryState

_ALL = "--branches"
_UNBORN = "does not have any commits yet"
_UNKNOWN = "bad revision"
_UNREADABLE = re.compile(r"^error:|unable to open|Permission denied", re.MULTILINE)
_CHECK_EVERY = 1024
"""The number of records between two checks of the deadline."""


class GitProbe(Probe[GitSource, GitMetric]):
    """Measures repositories. Dates are those of the committer, in UTC. Tracked files are those in the index, below
    the folder of the source."""

    change_types = PathsChanged
    follows_state: ClassVar[bool] = True

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
        facts = RepositoryFacts.of(git)
        readings: dict[str, Reading] = {}
        for revisions, group in _by_revisions(metrics).items():
            read = _commits(git, revisions, group, facts)
            readings |= read if revisions else _while_in_progress(read, facts)
        tracked = _measured(metrics, "tracked_files", lambda group: _tracked(git, group, facts))
        readings |= _while_in_progress(tracked, facts)
        readings |= _measured(metrics, "branches", lambda group: _branches(git, group))
        readings |= _measured(metrics, "size", lambda group: _size(git, group))
        return ScanResult(tuple(readings[name] for name in metrics))

    def states(
        self, source: GitSource, metrics: Mapping[str, GitMetric], context: ScanContext, deadline: Deadline
    ) -> Mapping[str, str]:
        """See `Probe.states`. A metric that cannot be measured has no state."""
        folder = str(context.path_of(source.path))
        if not os.path.isdir(folder):  # noqa: PTH112 - see `scan`
            return {}
        git = Git(folder, deadline)
        try:
            state = RepositoryState(git, RepositoryFacts.of(git), metrics.values())
        except MeasureError:
            return {}  # the scan reports the reason
        return {name: known for name, metric in metrics.items() if (known := state.of(metric)) is not None}

    def touched(self, source: GitSource, metric: GitMetric, change: Change, context: ScanContext) -> str | None:
        """See `Probe.touched`. Only a change of the history counts: saving a file makes no commit."""
        if not isinstance(change, PathsChanged) or not change.history:
            return None
        folder, home = changed_paths.resolve_folders(context, source.path)
        if metric.measure == "tracked_files":
            return changed_paths.why_affected(folder, home, change, metric.paths)
        if changed_paths.is_related(folder, change):
            return "the history changed"
        shared = metric.all_branches or metric.branch or metric.measure in ("branches", "size")
        return "the history changed in another worktree" if shared and _in_worktree(folder, change) else None

    def is_related(self, source: GitSource, change: Change, context: ScanContext) -> bool:
        """See `Probe.is_related`. All worktrees of a repository have the same branches."""
        folder, _ = changed_paths.resolve_folders(context, source.path)
        if not isinstance(change, PathsChanged):
            return False
        return changed_paths.is_related(folder, change) or _in_worktree(folder, change)

    def steps_to_compare(self, source: GitSource, metric: GitMetric, change: Change) -> int:
        """See `Probe.steps_to_compare`."""
        return changed_paths.steps_to_compare(change, metric.paths) if metric.measure == "tracked_files" else 0


def _in_worktree(folder: str, change: PathsChanged) -> bool:
    """Return whether the folder is in another worktree of the repository that changed."""
    return any(f"{folder}/".startswith(f"{top.rstrip('/')}/") for top in change.worktrees)


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


def _while_in_progress(readings: Mapping[str, Reading], facts: RepositoryFacts) -> dict[str, Reading]:
    """Add the operation that git has not ended to the readings of HEAD and the index: it may still change both."""
    words = facts.in_progress
    if words is None:
        return dict(readings)
    return {
        name: reading if reading.error else replace(reading, details={**reading.details, IN_PROGRESS: words})
        for name, reading in readings.items()
    }


def _commits(git: Git, revisions: str, metrics: Mapping[str, GitMetric], facts: RepositoryFacts) -> dict[str, Reading]:
    """Return a reading for each metric over one set of commits."""
    if facts.shallow:  # a count would include only the fetched commits
        reason = (
            f"{printable_path(git.folder)} is a shallow clone, so its history is incomplete. Run git fetch --unshallow"
        )
        return _all_failed(metrics, reason)
    try:
        matches = _find_commits(git, revisions, metrics, facts.prefix)
    except GitError as error:
        return _without_commits(git, revisions, metrics, facts, error)
    return {name: _reading(git, name, metric, matches[name]) for name, metric in metrics.items()}


def _without_commits(
    git: Git, revisions: str, metrics: Mapping[str, GitMetric], facts: RepositoryFacts, error: GitError
) -> dict[str, Reading]:
    """Return the readings of commits that git cannot list: there are none yet, the branch is missing, or git failed."""
    if not revisions and _UNBORN in error.output:
        if problem := _lost_branch(git, facts):
            return _all_failed(metrics, problem)
        return {name: _reading(git, name, metric, CommitMatches()) for name, metric in metrics.items()}
    if _UNKNOWN in error.output:
        reason = f"{printable_path(git.folder)} has no branch {revisions!r}"
        return {name: missing_reading(name, metric, reason) for name, metric in metrics.items()}
    return _all_failed(metrics, str(error))


def _lost_branch(git: Git, facts: RepositoryFacts) -> str | None:
    """Return why a HEAD without a commit does not mean that there are none, or None.

    A repository that was just created has no branch, and its HEAD has no history.
    """
    others = git.text("for-each-ref", "--count=1", "--format=%(refname:short)", "refs/heads")
    log = Path(facts.git_dir, "logs", "HEAD")
    if not others and not (log.is_file() and log.stat().st_size):
        return None
    branch = git.text("symbolic-ref", "--short", "-q", "HEAD")
    return (
        f"HEAD of {printable_path(git.folder)} names the branch {branch!r}, which has no commit, but the repository "
        "has had some. Was the branch renamed or deleted? Run git checkout with a branch that exists"
        f"{f', such as {others}' if others else ''}"
    )


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


def _find_commits(git: Git, revisions: str, metrics: Mapping[str, GitMetric], prefix: str) -> dict[str, CommitMatches]:
    """Return what each metric counts. A local branch takes precedence over one of a remote."""
    if not revisions or revisions == _ALL:
        return _match_commits(git, metrics, prefix, *filter(None, [revisions]))
    try:
        return _match_commits(git, metrics, prefix, f"refs/heads/{revisions}")
    except GitError as error:
        if _UNKNOWN not in error.output:
            raise
        return _match_commits(git, metrics, prefix, f"refs/remotes/{revisions}")


def _match_commits(
    git: Git, metrics: Mapping[str, GitMetric], prefix: str, *revisions: str
) -> dict[str, CommitMatches]:
    tests = {name: _test(metric) for name, metric in metrics.items()}
    filtered = [(name, test) for name, test in tests.items() if test]
    matches = {name: CommitMatches() for name in metrics}
    every = CommitMatches()
    top = prefix if any(_needs_paths(metric) for metric in metrics.values()) else None
    for number, commit in enumerate(_log(git, revisions, top)):
        if number % _CHECK_EVERY == 0:
            git.deadline.check()
        every.add(commit.seconds)
        for name, test in filtered:
            if test(commit):
                matches[name].add(commit.seconds)
    if BROKEN_REF in git.warnings:  # git leaves its commits out and continues
        raise GitError(f"{printable_path(git.folder)} has a broken branch: {last_line(git.warnings)}", git.warnings)
    return {name: matches[name] if test else every for name, test in tests.items()}


def _log(git: Git, revisions: Sequence[str], top: str | None) -> Iterator[ScannedCommit]:
    """Yield the commits, with their changed paths unless `top` is None. `.mailmap` maps the authors.

    `top` is the folder from the top of the repository, because `--relative` does not handle merges. Without a revision
    there is no `--`, so that git reports *no commits yet*.
    """
    plain = ("-z", "--format=%ct%n%aN <%aE>%n%s", "--encoding=UTF-8", "--no-show-signature", "--no-color")
    # -c: a merge lists the paths that differ from all of its parents. The user's diff settings are ignored
    changed = ("--raw", "-c", "--root", "--no-relative", "--no-renames", "--ignore-submodules=none", "--abbrev=4")
    arguments = (*plain, *(("--no-patch",) if top is None else changed), *revisions, *(["--"] if revisions else []))
    records = git.records("log", *arguments)
    commit: ScannedCommit | None = None
    for record in records:
        record = record.removeprefix(b"\n")  # noqa: PLW2901
        if record.startswith(b":"):  # modes and hashes, and then the path
            path = os.fsdecode(next(records))
            if commit is not None and path.startswith(top or ""):
                commit.paths.append(path[len(top or "") :])
        elif record:
            if commit is not None:
                yield commit
            seconds, author, subject = record.decode(errors="replace").split("\n", 2)
            commit = ScannedCommit(int(seconds), author, subject)
    if commit is not None:
        yield commit


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


def _tracked(git: Git, metrics: Mapping[str, GitMetric], facts: RepositoryFacts) -> dict[str, Reading]:
    """Count the paths in the index that each metric matches. A path with conflicts counts once."""
    if not facts.inside:  # git would list nothing
        reason = f"{printable_path(git.folder)} is not in a work tree (a bare repository?), so it has no tracked files"
        return _all_failed(metrics, reason)
    if not facts.index.exists() and (problem := _missing_index(git, facts)):
        return _all_failed(metrics, problem)
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


def _missing_index(git: Git, facts: RepositoryFacts) -> str | None:
    """Return why a missing index does not mean that no file is tracked, or None: a new repository has none yet."""
    place = printable_path(git.folder)
    if facts.index.with_name("index.lock").exists():
        return f"git is writing the first index of {place}. If no git runs, remove {facts.index}.lock"
    try:
        files = git.text("ls-tree", "--full-tree", "-z", "--name-only", "HEAD")
    except GitError:
        return _lost_branch(git, facts)
    if not files:
        return None
    return f"{place} has no index, so git does not know which files are tracked. To create it from HEAD: git reset"


def _branches(git: Git, metrics: Mapping[str, GitMetric]) -> dict[str, Reading]:
    """Count the local branches."""
    branches = git.text("for-each-ref", "--format=%(refname)", "refs/heads").splitlines()
    if BROKEN_REF in git.warnings:  # git omits it and continues
        return _all_failed(metrics, f"{printable_path(git.folder)} has a broken branch: {last_line(git.warnings)}")
    return {name: exact_reading(name, metric, len(branches)) for name, metric in metrics.items()}


def _size(git: Git, metrics: Mapping[str, GitMetric]) -> dict[str, Reading]:
    """Return the disk space of the objects: loose ones, packs, and garbage. Git reports KiB.

    The details name the stores of other repositories from which this one borrows objects. They do not count.
    """
    lines = [line.split(": ", 1) for line in git.text("count-objects", "-v").splitlines() if ": " in line]
    if _UNREADABLE.search(git.warnings):  # git leaves the folder out and continues
        return _all_failed(metrics, f"{printable_path(git.folder)} cannot be read: {last_line(git.warnings)}")
    sizes = dict(lines)
    size = 1024 * sum(int(sizes[part]) for part in ("size", "size-pack", "size-garbage"))
    borrowed = [path for key, path in lines if key == "alternate"]
    details = {"not_counted": borrowed} if borrowed else {}
    return {name: exact_reading(name, metric, size_in_unit(metric, size), details) for name, metric in metrics.items()}
