"""local-inventory: local data folders by season, compared with the lake and the database."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from dims_worker.config import Metric, S3Metric, SqlMetric
from dims_worker.config.workflows import LocalInventoryConfig
from dims_worker.errors import MeasureError
from dims_worker.formatting import format_bytes
from dims_worker.numbers import is_number, value_text
from dims_worker.probes.base import Reading, printable_path
from dims_worker.workflows.base import Workflow, WorkflowContext
from dims_worker.workflows.local_inventory import report
from dims_worker.workflows.local_inventory.folder import FolderHolding, folder_document, walk
from dims_worker.workflows.measure_metrics import start_measuring
from dims_worker.workflows.seasons import season_of

_LOCAL = ("files", "git", "command")
"""The types of sources on this machine. A quick run scans only these."""


def run(context: WorkflowContext) -> dict[str, Any]:
    """Return `folders` (see `folder_document`), each with `lake` (`prefix`, `objects`, `bytes`) and `database`
    (`rows`) if they are configured and the run is not quick. A number that could not be read is None, and
    `unreached` has the reason. A missing folder has `files` None, and is `folder NAME` in `unreached`."""
    declared = context.config.workflows.local_inventory
    assert declared is not None
    wait_for_readings = _start_measuring(context, declared)  # scan processes read the network meanwhile
    folders = [_folder(context, name, declared) for name in sorted(declared.folders)]
    readings = wait_for_readings()
    if not context.quick:
        _add_lake_and_database(context, declared, folders, readings)
    reached = [folder for folder in folders if folder["files"] is not None]
    return {
        "folders": folders,
        "large": declared.large,
        "few_games": declared.few_games,
        "summary": [
            ("folders", f"{len(reached)} of {len(folders)}"),
            ("files", f"{sum(folder['files'] for folder in reached):,}"),
            ("size", format_bytes(sum(folder["bytes"] for folder in reached))),
        ],
        "attention": [text for folder in folders for text in _attention(folder, context, declared)],
    }


WORKFLOW = Workflow(run, report.markdown)


def _folder(context: WorkflowContext, name: str, declared: LocalInventoryConfig) -> dict[str, Any]:
    """Return the JSON form of a folder. If it is missing, record that, and return it without numbers."""
    folder = declared.folders[name]
    root = str(context.config.path_of(folder.path).resolve())
    home = str(context.config.home.resolve())
    context.progress(f"local-inventory: reading {name}")

    def scan() -> FolderHolding:
        if not folder.path:
            raise MeasureError("its path is empty: set `path`, or the environment variable that it names")
        return walk(root, home, folder, declared.large, context.deadline)

    holding = context.reach(f"folder {name}", scan)
    if holding is None:
        return {"name": name, "path": printable_path(root), "files": None, "bytes": None, "seasons": [], "large": []}
    return folder_document(name, root, holding, declared)


def _start_measuring(context: WorkflowContext, declared: LocalInventoryConfig) -> Callable[[], dict[str, Reading]]:
    """Start to measure the configured metrics, and the lake and the database of each folder in the same passes."""
    if context.quick:
        return start_measuring(context, declared.metrics, kinds=_LOCAL)
    beside: dict[str, dict[str, Metric]] = {}
    for name, folder in declared.folders.items():
        if declared.lake and folder.prefix is not None:
            prefix = (folder.prefix,)
            own = beside.setdefault(declared.lake, {})
            own[f"{name}/objects"] = S3Metric(source=declared.lake, measure="count", prefix=prefix)
            own[f"{name}/bytes"] = S3Metric(source=declared.lake, measure="bytes", prefix=prefix)
        if declared.warehouse and folder.query is not None:
            own = beside.setdefault(declared.warehouse, {})
            own[f"{name}/rows"] = SqlMetric(source=declared.warehouse, query=folder.query)
    return start_measuring(context, declared.metrics, beside)


def _add_lake_and_database(
    context: WorkflowContext,
    declared: LocalInventoryConfig,
    folders: list[dict[str, Any]],
    readings: Mapping[str, Reading],
) -> None:
    """Add the numbers of the lake and the database to each folder."""
    for folder in folders:
        name = folder["name"]
        configured = declared.folders[name]
        if declared.lake and configured.prefix is not None:
            objects = _number(context, declared.lake, readings[f"{name}/objects"])
            size = _number(context, declared.lake, readings[f"{name}/bytes"])
            folder["lake"] = {"prefix": configured.prefix, "objects": objects, "bytes": size}
        if declared.warehouse and configured.query is not None:
            folder["database"] = {"rows": _number(context, declared.warehouse, readings[f"{name}/rows"])}


def _number(context: WorkflowContext, source: str, reading: Reading) -> int | None:
    """Return a count. If it failed or is not a number, record the reason and return None."""
    if reading.error is not None:
        context.mark_unreached(source, reading.error)
        return None
    if not is_number(reading.value) or reading.value != int(reading.value):
        folder = reading.metric.rpartition("/")[0]
        context.mark_unreached(
            source, f"the query of {folder} returned {value_text(reading.value)}, which is not a count"
        )
        return None
    return int(reading.value)


def _attention(folder: Mapping[str, Any], context: WorkflowContext, declared: LocalInventoryConfig) -> Iterator[str]:
    name = folder["name"]
    if folder["files"] is None:
        return
    if not folder["files"]:
        yield f"{name}: the folder is empty."
    for problem in folder["not_looked_into"]:
        yield f"{name}: {problem}: its files are not included."
    current = season_of(context.now.date())
    for season in folder["seasons"]:
        if season["few"]:
            so_far = " so far" if season["season"] == current else ""
            yield (
                f"{name}: season {season['season']} has {season['games']:,} game{'s' if season['games'] > 1 else ''}, "
                f"under {declared.few_games:,}{so_far}."
            )
    yield from _lake_difference(folder)


def _lake_difference(folder: Mapping[str, Any]) -> Iterator[str]:
    """Return how the folder differs from the lake."""
    lake = folder.get("lake")
    if lake is None or lake["objects"] is None:
        return
    if lake["objects"] != folder["files"]:
        yield f"{folder['name']}: {folder['files']:,} local files, {lake['objects']:,} objects in the lake."
    elif lake["bytes"] is not None and lake["bytes"] != folder["bytes"]:
        yield (
            f"{folder['name']}: {folder['bytes']:,} local bytes, {lake['bytes']:,} in the lake, "
            f"with the same number of files. Run sync-status to see which ones differ."
        )
