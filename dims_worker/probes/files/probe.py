"""What a tree of files holds: files, lines, bytes, entries, ages. One pass over the tree serves all its metrics."""

from __future__ import annotations

import os
import stat
from collections.abc import Hashable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from dims_worker.config import FilesMetric, FilesSource
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
    Value,
    exact_reading,
    instant_text,
    missing_reading,
    missing_readings,
    printable_path,
    size_in_unit,
)
from dims_worker.probes.files import paths
from dims_worker.probes.files.tree import Selection, Tree

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_READ = ("lines", "entries")
"""What needs the files themselves, not only their names."""
_NAMED = 3
"""How many of several troubles an error names."""


class FilesProbe(Probe[FilesSource, FilesMetric]):
    """Measures trees of regular files. `.git` and DIMS's own home are left out; links are not followed."""

    judges = PathsChanged

    def scan(
        self,
        source: FilesSource,
        metrics: Mapping[str, FilesMetric],
        around: ScanContext,
        deadline: Deadline,
    ) -> ScanResult:
        """See `Probe.scan`. Raises MeasureError where the folder is missing and no metric says `absent:`, is
        none, or lies in no repository although git is to say what counts."""
        deadline.check()
        root, home = str(around.path_of(source.path)), str(around.home.resolve())
        try:
            status = os.stat(root)  # noqa: PTH116 - a str is what the pass works with
        except (FileNotFoundError, NotADirectoryError):
            return ScanResult(missing_readings(metrics, f"{printable_path(root)} does not exist"))
        except OSError as error:
            raise MeasureError(f"{printable_path(root)}: {error.strerror}") from None
        if not stat.S_ISDIR(status.st_mode):
            raise MeasureError(f"{printable_path(root)} is no folder; a source of files names one in `path`")
        if f"{root}/".startswith(f"{home}/"):
            raise MeasureError(f"{printable_path(root)} lies in DIMS's own home, which is never measured")
        selections = _selections(metrics)
        tree = Tree(root, home, source.exclude, deadline)
        everyone = list(selections.values())
        tree.listed_by_git(everyone) if source.ignore else tree.walk(everyone)
        return ScanResult(tuple(_reading(n, m, selections[m.paths, m.exclude], root) for n, m in metrics.items()))

    def touched(self, source: FilesSource, metric: FilesMetric, change: Change, around: ScanContext) -> str | None:
        """See `Probe.touched`; by the paths alone, so that a file git ignores may concern a metric."""
        if not isinstance(change, PathsChanged):
            return None
        folder, home = paths.resolve_places(around, source.path)
        if source.ignore and (reason := paths.changed_gitignore(folder, home, change)):
            return reason
        return paths.why_affected(folder, home, change, metric.paths, source.exclude + metric.exclude)

    def reads(self, metric: FilesMetric) -> Hashable:
        return metric.paths, metric.exclude


def _selections(
    metrics: Mapping[str, FilesMetric],
) -> dict[tuple[tuple[str, ...], tuple[str, ...]], Selection]:
    """One selection for all metrics with the same patterns."""
    found: dict[tuple[tuple[str, ...], tuple[str, ...]], Selection] = {}
    for metric in metrics.values():
        selection = found.setdefault((metric.paths, metric.exclude), Selection(metric.paths, metric.exclude))
        selection.reads |= metric.measure == "lines"
        selection.stats |= metric.measure not in ("lines", "count", "entries")
        if metric.measure == "entries":
            selection.entry.add(metric.entry)
    return found


def _reading(name: str, metric: FilesMetric, found: Selection, root: str) -> Reading:
    """What a metric reads off its selection. No file is a true 0; a file or folder that the patterns spell
    out and that is not there is missing; one that is there and was not counted is a mistake."""
    absent, wrong = _lacking(found, root)
    troubles = found.troubles + (found.unread if metric.measure in _READ else []) + wrong
    if troubles:
        return Reading.failed(name, metric.shown_unit, _listed(troubles))
    if absent and not (metric.absent == 0 and found.count):  # with `absent: 0` the rest is the total
        return missing_reading(name, metric, _listed(absent))
    if metric.is_age and not found.count:
        return missing_reading(name, metric, f"no file matches {', '.join(metric.paths)}")
    details: dict[str, Any] = {"vanished": found.vanished} if found.vanished else {}
    if absent:
        details["absent"] = _listed(absent)
    try:
        return exact_reading(name, metric, _value(metric, found), details)
    except OverflowError:
        return Reading.failed(name, metric.shown_unit, "a file was changed in a year that no calendar has")


def _value(metric: FilesMetric, found: Selection) -> Value:
    match metric.measure:
        case "count":
            return found.count
        case "lines":
            return found.lines
        case "entries":
            return found.entries[metric.entry]
        case "bytes":
            return size_in_unit(metric, found.bytes)
        case "newest_age":
            return _instant(found.newest)
        case "oldest_age":
            return _instant(found.oldest)


def _instant(nanoseconds: int | None) -> str:
    return instant_text(_EPOCH + timedelta(microseconds=(nanoseconds or 0) // 1000))


def _lacking(found: Selection, root: str) -> tuple[list[str], list[str]]:
    """What the patterns spell out and the pass did not find: what is not there, and what is but did not
    count; each with why."""
    folders = {glob.folder_of(path) for path in found.paths if not glob.is_literal(path)} - {""}
    absent: list[str] = []
    wrong: list[str] = []
    for path in sorted(found.named - found.literals) + sorted(folders):
        try:
            reason = _why_not(f"{root}/{path}", path in folders)
        except (FileNotFoundError, NotADirectoryError) as error:
            absent.append(f"{printable_path(path)}: {error.strerror}")
        except OSError as error:
            wrong.append(f"{printable_path(path)}: {error.strerror}")
        else:
            if reason:
                wrong.append(f"{printable_path(path)}: {reason}")
    return absent, wrong


def _why_not(path: str, wanted_folder: bool) -> str | None:
    """Why what is at a path did not count; None for a folder that did. Raises OSError."""
    mode = os.lstat(path).st_mode
    if os.path.realpath(path) != os.path.normpath(path):
        return "is or lies in a symbolic link, which is not followed"
    if stat.S_ISDIR(mode) == wanted_folder:
        return None if wanted_folder else "is left out: ignored, excluded, or no regular file"
    return "is no folder" if wanted_folder else "is a folder; all that is in it is written with a last /**"


def _listed(reasons: list[str]) -> str:
    more = f" and {len(reasons) - _NAMED} more" if len(reasons) > _NAMED else ""
    return "; ".join(reasons[:_NAMED]) + more
