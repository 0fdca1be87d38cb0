"""file-inventory: what the project's scripts, SQL, documents, build and configuration files are, one by one."""

from __future__ import annotations

import contextlib
import gc
from collections import Counter
from collections.abc import Iterator, Mapping
from datetime import timedelta
from typing import Any

from dims_worker.config import FilesSource
from dims_worker.probes.base import printable_path
from dims_worker.workflows.base import WorkflowContext
from dims_worker.workflows.file_inventory import report
from dims_worker.workflows.file_inventory.entry import OTHER, inventory_entry, read_file
from dims_worker.workflows.file_inventory.kinds import CATEGORIES, LEFT_OUT
from dims_worker.workflows.file_inventory.python_source import Modules
from dims_worker.workflows.file_inventory.tree import last_commits, paths_below
from dims_worker.workflows.markdown import format_bytes
from dims_worker.workflows.measure_metrics import measure_metrics

_OFTEN = 200
_NAMED = 5
"""So many of the files with the same trouble are named in a sentence."""


class FileInventoryWorkflow:
    """The result: `files` (see `file_inventory_reading.entry`), `totals`, `categories` and `kinds` (files, lines,
    bytes each), `others` (files of no such kind: counted, not told), `dates` (why they are not git's),
    `not_looked_into` (folders, with why), `stale_after`, and whether the tree was `reached`."""

    def examine(self, bench: WorkflowContext) -> dict[str, Any]:
        declared = bench.config.workflows.file_inventory
        assert declared is not None
        found = bench.reach(declared.source, lambda: _inventory(bench)) or _NOTHING
        measure_metrics(bench, declared.metrics)
        totals = found["totals"]
        summary = [
            ("files", f"{totals['files']:,}"),
            ("lines", f"{totals['lines']:,}"),
            ("size", format_bytes(totals["bytes"])),
        ]
        return {
            **found,
            "summary": summary if found["reached"] else [],
            "stale_after": f"{declared.stale_after / timedelta(days=1):g} days",
            "attention": _attention(found),
        }

    def markdown(self, result: Mapping[str, Any]) -> str:
        return report.markdown(result)


_EMPTY = {"files": 0, "lines": 0, "bytes": 0}
_NOTHING: dict[str, Any] = {
    **{"reached": False, "files": [], "totals": _EMPTY, "categories": {}, "kinds": {}},
    **{"others": 0, "dates": None, "not_looked_into": []},
}


def _inventory(bench: WorkflowContext) -> dict[str, Any]:
    """One walk over the tree, one reading of each file, one pass over the history."""
    declared = bench.config.workflows.file_inventory
    assert declared is not None
    source = bench.config.sources[declared.source]
    assert isinstance(source, FilesSource)
    root = str(bench.config.path_of(source.path).resolve())
    exclude = (*source.exclude, *declared.exclude, *LEFT_OUT)
    home = str(bench.config.home.resolve())
    tree = paths_below(root, home, exclude, bench.deadline, ask_git=source.ignore is not None)
    modules = Modules(path for path in tree.paths if path.endswith((".py", ".pyi", ".ipynb")))
    dates, reason = last_commits(root, tree.paths, bench.deadline)
    with _uncollected():
        told = list(_entries(bench, root, tree.paths, modules, dates))
    files = [each for each in told if each]
    return {
        "reached": True,
        "files": sorted(files, key=_place),
        **_totals(files),
        "others": len(told) - len(files),
        "dates": reason,
        "not_looked_into": sorted(map(printable_path, tree.troubles)),
    }


def _entries(
    bench: WorkflowContext, root: str, paths: list[str], modules: Modules, dates: Mapping[str, str]
) -> Iterator[dict[str, Any]]:
    """What is told of each file; nothing of those of other kinds."""
    for number, path in enumerate(sorted(paths)):
        if number % _OFTEN == 0:
            bench.deadline.check()
            bench.progress(f"file-inventory: {number:,} of {len(paths):,} files read")
        file = read_file(root, path, bench.deadline)
        if file is not None:
            yield {} if file is OTHER else inventory_entry(file, modules, dates.get(path))


@contextlib.contextmanager
def _uncollected() -> Iterator[None]:
    """Without the collector of cycles, which syntax trees have none of: it costs a tenth of the time."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def _place(file: Mapping[str, Any]) -> tuple[int, str, str]:
    """Where a file stands: by category, folder and name."""
    folder, _, name = file["path"].rpartition("/")
    return list(CATEGORIES).index(file["category"]), folder, name


def _totals(files: list[dict[str, Any]]) -> dict[str, Any]:
    def of(some: list[dict[str, Any]]) -> dict[str, int]:
        return {
            "files": len(some),
            "lines": sum(file["lines"] or 0 for file in some),
            "bytes": sum(file["bytes"] for file in some),
        }

    def by(key: str) -> dict[str, dict[str, int]]:
        counted = Counter(file[key] for file in files)
        return {name: of([file for file in files if file[key] == name]) for name in sorted(counted)}

    categories = by("category")
    ordered = {name: categories[name] for name in CATEGORIES if name in categories}
    return {"totals": of(files), "categories": ordered, "kinds": by("kind")}


def _attention(found: Mapping[str, Any]) -> list[str]:
    """What a person should know, in sentences."""
    files = found["files"]
    unread = [file["path"] for file in files if file["lines"] is None]
    broken = [
        file["path"] for file in files if any(note.startswith(("syntax", "cannot be p")) for note in file["notes"])
    ]
    told = [f"{trouble}: what is in it is missing here." for trouble in found["not_looked_into"]]
    if unread:
        told.append(f"{_files(unread)} cannot be read: {_some(unread)}.")
    if broken:
        told.append(f"{_files(broken)} of Python cannot be parsed: {_some(broken)}.")
    return told


def _files(paths: list[str]) -> str:
    return f"{len(paths):,} file{'s' if len(paths) != 1 else ''}"


def _some(paths: list[str]) -> str:
    more = f" and {len(paths) - _NAMED:,} more" if len(paths) > _NAMED else ""
    return ", ".join(paths[:_NAMED]) + more


WORKFLOW = FileInventoryWorkflow()
