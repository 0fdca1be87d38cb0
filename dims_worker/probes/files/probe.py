"""Measure a tree of files: files, lines, bytes, entries, ages. One pass over the tree serves all its metrics."""

from __future__ import annotations

import time
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

from dims_producers.repository_paths import find_repository
from dims_worker.config import FilesMetric, FilesSource
from dims_worker.probes import changed_paths
from dims_worker.probes.base import (
    IN_PROGRESS,
    Change,
    Deadline,
    PathsChanged,
    Probe,
    Reading,
    ScanContext,
    ScanResult,
    Value,
    exact_reading,
    missing_reading,
    missing_readings,
    printable_path,
    size_in_unit,
)
from dims_worker.probes.files.details import details_of, ignored_by_git, ignored_matches
from dims_worker.probes.files.git_listing import list_with_git
from dims_worker.probes.files.named_paths import NamedPaths, NotCounted
from dims_worker.probes.files.selection import Selection
from dims_worker.probes.files.tree import COARSE, YOUNG, Tree, check_root
from dims_worker.probes.git.repository import operation_in_progress

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_CONTENT_MEASURES = ("lines", "entries")
"""The measures that read the content of files."""
_MAX_REASONS = 3
"""The number of reasons that an error lists."""
_MAX_TURN = 1.0
"""The seconds of a walk after which `states` does not walk again."""
_MAX_WAIT = 1.5 * (YOUNG + COARSE) / 1e9
"""The seconds that `states` waits at most until files and folders are old enough."""
_CHANGING = "changing"
"""The state of a pass during which files or folders changed. It equals no other."""

_Patterns = tuple[tuple[str, ...], tuple[str, ...]]
"""The patterns of a metric, and what they exclude."""


@dataclass(frozen=True, slots=True)
class _Pass:
    """The result of a pass over a tree: a selection for each combination of patterns."""

    root: str
    use_git: bool
    selections: Mapping[_Patterns, Selection]
    not_counted: Mapping[_Patterns, NotCounted]

    def states(self, metrics: Mapping[str, FilesMetric]) -> dict[str, str | None]:
        """Return the state of each metric, or None if its files or folders changed too recently."""
        states = {
            key: None
            if selection.young_until
            else selection.state((*self.not_counted[key].absent, *self.not_counted[key].wrong))
            for key, selection in self.selections.items()
        }
        return {name: states[_key(metric)] for name, metric in metrics.items()}


class FilesProbe(Probe[FilesSource, FilesMetric]):
    """Measures trees of regular files, without `.git` and the data directory. Links are not followed."""

    change_types = PathsChanged
    follows_state = True
    scan_returns_states = True

    def scan(
        self, source: FilesSource, metrics: Mapping[str, FilesMetric], context: ScanContext, deadline: Deadline
    ) -> ScanResult:
        """See `Probe.scan`. Raises MeasureError if the folder is missing and no metric sets `absent:`, if it is not
        a folder, or if it is in no repository and `ignore: gitignore` needs one."""
        try:
            passed = _pass(source, metrics, context, deadline, reads=True)
        except (FileNotFoundError, NotADirectoryError):
            missing = _no_tree(source, context)
            return ScanResult(missing_readings(metrics, missing), states=dict.fromkeys(metrics, missing))
        details = _in_progress(context.path_of(source.path)) if source.ignore else {}
        readings = tuple(
            replace(reading, details={**reading.details, **details}) if details and not reading.error else reading
            for reading in (_reading(name, metric, passed, deadline) for name, metric in metrics.items())
        )
        states = {name: state or _CHANGING for name, state in passed.states(metrics).items()}
        return ScanResult(readings, states=states)

    def states(
        self, source: FilesSource, metrics: Mapping[str, FilesMetric], context: ScanContext, deadline: Deadline
    ) -> Mapping[str, str | None]:
        """See `Probe.states`. A state is a digest of the paths, sizes, times and inodes of the files that match.

        If files or folders have just changed, this waits until they are old enough, mostly for 0.1 s, and walks once
        more.
        """
        begun = time.monotonic()
        states, young_until = self._states(source, metrics, context, deadline)
        wait = (young_until - time.time_ns()) / 1e9
        if young_until and wait < _MAX_WAIT and time.monotonic() - begun < _MAX_TURN:
            time.sleep(min(max(wait, 0), deadline.left))
            states, _ = self._states(source, metrics, context, deadline)
        return states

    def _states(
        self, source: FilesSource, metrics: Mapping[str, FilesMetric], context: ScanContext, deadline: Deadline
    ) -> tuple[Mapping[str, str | None], int]:
        """Return the states, and until when some files or folders are too young, or 0."""
        try:
            passed = _pass(source, metrics, context, deadline, reads=False)
        except (FileNotFoundError, NotADirectoryError):
            return dict.fromkeys(metrics, _no_tree(source, context)), 0
        return passed.states(metrics), max((each.young_until for each in passed.selections.values()), default=0)

    def touched(self, source: FilesSource, metric: FilesMetric, change: Change, context: ScanContext) -> str | None:
        """See `Probe.touched`. Only paths are compared, so a file that git ignores may touch a metric."""
        if not isinstance(change, PathsChanged):
            return None
        folder, home = changed_paths.resolve_folders(context, source.path)
        if source.ignore and (reason := changed_paths.changed_gitignore(folder, home, change)):
            return reason
        return changed_paths.why_affected(folder, home, change, metric.paths, source.exclude + metric.exclude)

    def is_related(self, source: FilesSource, change: Change, context: ScanContext) -> bool:
        """See `Probe.is_related`."""
        folder, _ = changed_paths.resolve_folders(context, source.path)
        return isinstance(change, PathsChanged) and changed_paths.is_related(folder, change)

    def steps_to_compare(self, source: FilesSource, metric: FilesMetric, change: Change) -> int:
        """See `Probe.steps_to_compare`."""
        return changed_paths.steps_to_compare(change, (*metric.paths, *source.exclude, *metric.exclude))

    def touch_key(self, metric: FilesMetric) -> Hashable:
        return _key(metric)


def _no_tree(source: FilesSource, context: ScanContext) -> str:
    return f"{printable_path(str(context.path_of(source.path)))} does not exist"


def _key(metric: FilesMetric) -> _Patterns:
    return metric.paths, metric.exclude


def _pass(
    source: FilesSource, metrics: Mapping[str, FilesMetric], context: ScanContext, deadline: Deadline, *, reads: bool
) -> _Pass:
    """Fill a selection for each combination of patterns. Raises FileNotFoundError or NotADirectoryError if there is no
    tree, and MeasureError if it cannot be read as a whole."""
    deadline.check()
    root, home = str(context.path_of(source.path)), str(context.home.resolve())
    check_root(root, home)
    selections = _selections(metrics)
    tree = Tree(root, home, source.exclude, deadline, reads)
    every = list(selections.values())
    list_with_git(tree, every) if source.ignore else tree.walk(every)
    use_git = source.ignore is not None
    names = NamedPaths(root, use_git, deadline)
    return _Pass(
        root, use_git, selections, {key: names.not_counted(selection) for key, selection in selections.items()}
    )


def _selections(metrics: Mapping[str, FilesMetric]) -> dict[_Patterns, Selection]:
    """Return one selection for all metrics with the same patterns."""
    selections: dict[_Patterns, Selection] = {}
    for metric in metrics.values():
        selection = selections.setdefault(_key(metric), Selection(metric.paths, metric.exclude))
        selection.reads |= metric.measure == "lines"
        selection.sizes |= metric.measure == "bytes"
        if metric.measure == "entries":
            selection.entry.add(metric.entry)
    return selections


def _in_progress(folder: Path) -> dict[str, str]:
    """Return the detail of an operation that git has not ended in the repository around a folder.

    The files that git tracks may be those of another commit meanwhile.
    """
    found = find_repository(folder)
    words = operation_in_progress(found.git_dir) if found else None
    return {IN_PROGRESS: words} if words else {}


def _reading(name: str, metric: FilesMetric, passed: _Pass, deadline: Deadline) -> Reading:
    """Return the reading of a metric from its selection.

    No matching file is a true 0. A file or folder that the patterns name and that does not exist is missing.
    One that exists and was not counted is an error.
    """
    selection, absent = passed.selections[_key(metric)], passed.not_counted[_key(metric)].absent
    problems = [*selection.problems, *_problems_of_content(metric, selection), *passed.not_counted[_key(metric)].wrong]
    if problems:
        return Reading.failed(name, metric.shown_unit, _join_reasons(problems))
    if absent and not (metric.absent == 0 and selection.count):  # with `absent: 0` the other files are the total
        return missing_reading(name, metric, _join_reasons(absent))
    if metric.is_age and not selection.count:
        return missing_reading(name, metric, f"no file matches {', '.join(metric.paths)}")
    details = details_of(selection, sizes=metric.measure == "bytes")
    if absent:
        details["absent"] = _join_reasons(absent)
    if ignored := ignored_by_git(passed.root, selection, deadline):
        details["ignored_by_git"] = ignored
    if passed.use_git and not selection.count and (matches := ignored_matches(passed.root, selection, deadline)):
        details["ignored_matches"] = matches
    try:
        return exact_reading(name, metric, _value(metric, selection), details)
    except OverflowError:
        return Reading.failed(name, metric.shown_unit, "the modification time of a file is outside the years 1 to 9999")


def _problems_of_content(metric: FilesMetric, selection: Selection) -> list[str]:
    if metric.measure in _CONTENT_MEASURES:
        return selection.unread
    return selection.unsized if metric.measure == "bytes" else []


def _value(metric: FilesMetric, selection: Selection) -> Value:
    match metric.measure:
        case "count":
            return selection.count
        case "lines":
            return selection.lines
        case "entries":
            return selection.entries[metric.entry]
        case "bytes":
            return size_in_unit(metric, selection.bytes)
        case "newest_age":
            return _instant(selection.newest)
        case "oldest_age":
            return _instant(selection.oldest)


def _instant(nanoseconds: int | None) -> str:
    return (_EPOCH + timedelta(microseconds=(nanoseconds or 0) // 1000)).isoformat()


def _join_reasons(reasons: Sequence[str]) -> str:
    more = f" and {len(reasons) - _MAX_REASONS} more" if len(reasons) > _MAX_REASONS else ""
    return "; ".join(reasons[:_MAX_REASONS]) + more
