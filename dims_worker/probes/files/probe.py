"""Measure a tree of files: files, lines, bytes, entries, ages. One pass over the tree serves all its metrics."""

from __future__ import annotations

import os
import stat
from collections.abc import Hashable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from dims_worker.config import FilesMetric, FilesSource
from dims_worker.probes import changed_paths, glob
from dims_worker.probes.base import (
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
from dims_worker.probes.files.tree import Selection, Tree, check_root

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_CONTENT_MEASURES = ("lines", "entries")
"""The measures that read the content of files."""
_MAX_REASONS = 3
"""The number of reasons that an error lists."""

_Patterns = tuple[tuple[str, ...], tuple[str, ...]]
"""The patterns of a metric, and what they exclude."""


class FilesProbe(Probe[FilesSource, FilesMetric]):
    """Measures trees of regular files, without `.git` and the data directory. Links are not followed."""

    change_types = PathsChanged

    def scan(
        self, source: FilesSource, metrics: Mapping[str, FilesMetric], context: ScanContext, deadline: Deadline
    ) -> ScanResult:
        """See `Probe.scan`. Raises MeasureError if the folder is missing and no metric sets `absent:`, if it is not
        a folder, or if it is in no repository and `ignore: gitignore` needs one."""
        deadline.check()
        root, home = str(context.path_of(source.path)), str(context.home.resolve())
        try:
            check_root(root, home)
        except (FileNotFoundError, NotADirectoryError):
            return ScanResult(missing_readings(metrics, f"{printable_path(root)} does not exist"))
        selections = _selections(metrics)
        tree = Tree(root, home, source.exclude, deadline)
        every = list(selections.values())
        tree.list_with_git(every) if source.ignore else tree.walk(every)
        return ScanResult(tuple(_reading(n, m, selections[m.paths, m.exclude], root) for n, m in metrics.items()))

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
        return metric.paths, metric.exclude


def _selections(metrics: Mapping[str, FilesMetric]) -> dict[_Patterns, Selection]:
    """Return one selection for all metrics with the same patterns."""
    selections: dict[_Patterns, Selection] = {}
    for metric in metrics.values():
        selection = selections.setdefault((metric.paths, metric.exclude), Selection(metric.paths, metric.exclude))
        selection.reads |= metric.measure == "lines"
        selection.stats |= metric.measure not in ("lines", "count", "entries")
        if metric.measure == "entries":
            selection.entry.add(metric.entry)
    return selections


def _reading(name: str, metric: FilesMetric, selection: Selection, root: str) -> Reading:
    """Return the reading of a metric from its selection.

    No matching file is a true 0. A file or folder that the patterns name and that does not exist is missing.
    One that exists and was not counted is an error.
    """
    absent, wrong = _missing_paths(selection, root)
    problems = selection.problems + (selection.unread if metric.measure in _CONTENT_MEASURES else []) + wrong
    if problems:
        return Reading.failed(name, metric.shown_unit, _join_reasons(problems))
    if absent and not (metric.absent == 0 and selection.count):  # with `absent: 0` the other files are the total
        return missing_reading(name, metric, _join_reasons(absent))
    if metric.is_age and not selection.count:
        return missing_reading(name, metric, f"no file matches {', '.join(metric.paths)}")
    details: dict[str, Any] = {"vanished": selection.vanished} if selection.vanished else {}
    if absent:
        details["absent"] = _join_reasons(absent)
    try:
        return exact_reading(name, metric, _value(metric, selection), details)
    except OverflowError:
        return Reading.failed(name, metric.shown_unit, "the modification time of a file is outside the years 1 to 9999")


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


def _missing_paths(selection: Selection, root: str) -> tuple[list[str], list[str]]:
    """Return what the patterns name and the pass did not count, each with the reason: what does not exist, and
    what exists."""
    folders = {glob.folder_of(path) for path in selection.paths if not glob.is_literal(path)} - {""}
    absent: list[str] = []
    wrong: list[str] = []
    for path in sorted(selection.named - selection.literals) + sorted(folders):
        try:
            reason = _reason_not_counted(f"{root}/{path}", path in folders)
        except (FileNotFoundError, NotADirectoryError) as error:
            absent.append(f"{printable_path(path)}: {error.strerror}")
        except OSError as error:
            wrong.append(f"{printable_path(path)}: {error.strerror}")
        else:
            if reason:
                wrong.append(f"{printable_path(path)}: {reason}")
    return absent, wrong


def _reason_not_counted(path: str, wanted_folder: bool) -> str | None:
    """Return why the file or folder at a path was not counted, or None for a folder that was. Raises OSError."""
    mode = os.lstat(path).st_mode
    if os.path.realpath(path) != os.path.normpath(path):
        return "is a symbolic link or in one, and links are not followed"
    if stat.S_ISDIR(mode) == wanted_folder:
        return None if wanted_folder else "is left out: ignored, excluded, or not a regular file"
    return "is not a folder" if wanted_folder else "is a folder: write `/**` at the end to count all files in it"


def _join_reasons(reasons: list[str]) -> str:
    more = f" and {len(reasons) - _MAX_REASONS} more" if len(reasons) > _MAX_REASONS else ""
    return "; ".join(reasons[:_MAX_REASONS]) + more
