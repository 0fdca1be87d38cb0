"""file-inventory: describe each script, SQL file, document, build and configuration file of the project."""

from __future__ import annotations

import contextlib
import gc
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from datetime import timedelta
from typing import Any

from dims_worker.config import FilesSource
from dims_worker.formatting import format_bytes, pluralize
from dims_worker.probes.base import printable_path
from dims_worker.workflows.base import Workflow, WorkflowContext
from dims_worker.workflows.file_inventory import report
from dims_worker.workflows.file_inventory.entry import OTHER, inventory_entry, read_file
from dims_worker.workflows.file_inventory.kinds import CATEGORIES, LEFT_OUT
from dims_worker.workflows.file_inventory.python_source import Modules
from dims_worker.workflows.file_inventory.tree import MAX_NAMES, TreePaths, last_commits, paths_below
from dims_worker.workflows.measure_metrics import measure_metrics

_CHECK_EVERY = 200


def run(context: WorkflowContext) -> dict[str, Any]:
    """Return `files` (see `inventory_entry`), `totals`, `categories` and `kinds` (with files, lines and bytes),
    `others` (the number of files of other kinds), `dates` (why dates are not from git), `not_looked_into` (folders
    that could not be read), `stale_after`, and whether the source was `reached`."""
    declared = context.config.workflows.file_inventory
    assert declared is not None
    inventory = context.reach(declared.source, lambda: _inventory(context)) or _NOTHING
    measure_metrics(context, declared.metrics)
    totals = inventory["totals"]
    summary = [
        ("files", f"{totals['files']:,}"),
        ("lines", f"{totals['lines']:,}"),
        ("size", format_bytes(totals["bytes"])),
    ]
    return {
        **inventory,
        "summary": summary if inventory["reached"] else [],
        "stale_after": f"{declared.stale_after / timedelta(days=1):g} days",
        "attention": _attention(inventory),
    }


WORKFLOW = Workflow(run, report.markdown)


_EMPTY = {"files": 0, "lines": 0, "bytes": 0}
_NOTHING: dict[str, Any] = {
    "reached": False,
    "files": [],
    "totals": _EMPTY,
    "categories": {},
    "kinds": {},
    "others": 0,
    "dates": None,
    "not_looked_into": [],
    "left_out": {},
}


def _inventory(context: WorkflowContext) -> dict[str, Any]:
    """Walk the tree once, read each file once, and read the history once."""
    declared = context.config.workflows.file_inventory
    assert declared is not None
    source = context.config.sources[declared.source]
    assert isinstance(source, FilesSource)
    root = str(context.config.path_of(source.path).resolve())
    exclude = (*declared.exclude, *LEFT_OUT)
    home = str(context.config.home.resolve())
    use_git = source.ignore is not None
    tree = paths_below(root, home, exclude, context.deadline, use_git=use_git, source_exclude=source.exclude)
    modules = Modules(path for path in tree.paths if path.endswith((".py", ".pyi", ".ipynb")))
    dates, reason = last_commits(root, tree.paths, tree.repositories, context.deadline)
    with _without_garbage_collection():
        entries = list(_entries(context, root, tree.paths, modules, dates))
    files = [entry for entry in entries if entry]
    return {
        "reached": True,
        "files": sorted(files, key=_sort_key),
        **_totals(files),
        "others": len(entries) - len(files),
        "dates": reason,
        "not_looked_into": sorted(map(printable_path, tree.problems)),
        "left_out": _left_out(tree, source.exclude),
    }


def _left_out(tree: TreePaths, source_exclude: tuple[str, ...]) -> dict[str, Any]:
    """Return what the inventory leaves out, besides files of other kinds."""
    return {
        "patterns": [asdict(each) | {"names": list(each.names)} for each in tree.left_out],
        "source_exclude": list(source_exclude),
        "ignored_by_git": {"paths": tree.ignored[0], "names": list(tree.ignored[1])},
        "symbolic_links": tree.links,
        "not_checked_out": tree.not_checked_out,
        "submodules_not_initialized": sorted(map(printable_path, tree.uninitialized)),
    }


def _entries(
    context: WorkflowContext, root: str, paths: list[str], modules: Modules, dates: Mapping[str, str]
) -> Iterator[dict[str, Any]]:
    """Yield the entry of each file, and {} for files of other kinds."""
    for number, path in enumerate(sorted(paths)):
        if number % _CHECK_EVERY == 0:
            context.deadline.check()
            context.progress(f"file-inventory: {number:,} of {len(paths):,} files read")
        file = read_file(root, path, context.deadline)
        if file is not None:
            yield {} if file is OTHER else inventory_entry(file, modules, dates.get(path))


@contextlib.contextmanager
def _without_garbage_collection() -> Iterator[None]:
    """Disable the garbage collector, which costs 10 % of the time. Syntax trees have no cycles."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def _sort_key(file: Mapping[str, Any]) -> tuple[int, str, str]:
    """Sort files by category, folder and name."""
    folder, _, name = file["path"].rpartition("/")
    return list(CATEGORIES).index(file["category"]), folder, name


def _totals(files: list[dict[str, Any]]) -> dict[str, Any]:
    def of(group: list[dict[str, Any]]) -> dict[str, int]:
        return {
            "files": len(group),
            "lines": sum(file["lines"] or 0 for file in group),
            "bytes": sum(file["bytes"] for file in group),
        }

    def by(key: str) -> dict[str, dict[str, int]]:
        counted = Counter(file[key] for file in files)
        return {name: of([file for file in files if file[key] == name]) for name in sorted(counted)}

    categories = by("category")
    ordered = {name: categories[name] for name in CATEGORIES if name in categories}
    return {"totals": of(files), "categories": ordered, "kinds": by("kind")}


def _attention(inventory: Mapping[str, Any]) -> list[str]:
    """Return what needs attention, a sentence each."""
    files = inventory["files"]
    unread = [file["path"] for file in files if file["lines"] is None and not file["pointer"]]
    pointers = [file["path"] for file in files if file["pointer"]]
    broken = [
        file["path"] for file in files if any(note.startswith(("syntax", "cannot be p")) for note in file["notes"])
    ]
    sentences = [f"{problem}: its files are not included." for problem in inventory["not_looked_into"]]
    if unread:
        sentences.append(f"{pluralize(len(unread), 'file')} cannot be read: {_first(unread)}.")
    if pointers:
        what = "is a pointer" if len(pointers) == 1 else "are pointers"
        sentences.append(
            f"{pluralize(len(pointers), 'file')} {what}, so the lines are unknown: {_first(pointers)}. "
            "Run git lfs pull, or git annex get."
        )
    if broken:
        sentences.append(f"{pluralize(len(broken), 'Python file')} cannot be parsed: {_first(broken)}.")
    return sentences


def _first(paths: list[str]) -> str:
    more = f" and {len(paths) - MAX_NAMES:,} more" if len(paths) > MAX_NAMES else ""
    return ", ".join(paths[:MAX_NAMES]) + more
