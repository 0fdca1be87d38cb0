"""local-inventory: what the local data folders hold, season by season, beside the lake and the database."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from dims_worker.config import Metric, S3Metric, SqlMetric
from dims_worker.config.workflows import LocalInventoryConfig
from dims_worker.errors import MeasureError
from dims_worker.probes.base import Reading, printable_path
from dims_worker.workflows.base import WorkflowContext
from dims_worker.workflows.local_inventory import report
from dims_worker.workflows.local_inventory.folder import FolderHolding, folder_document, walk
from dims_worker.workflows.markdown import format_bytes
from dims_worker.workflows.measure_metrics import measure_metrics
from dims_worker.workflows.seasons import season_of

_LOCAL = ("files", "git", "command")
"""Kinds of sources that are on this machine: a quick run asks no others."""


class LocalInventoryWorkflow:
    """The result: `folders` (see `local_inventory_folder.told`), each with `lake` (`prefix`, `objects`, `bytes`)
    and `database` (`rows`) where they are configured and the run is not quick. A number that could not be had is
    None, with the reason in `unreached`; so is a folder that is missing, as `folder NAME`, with `files` None."""

    def examine(self, bench: WorkflowContext) -> dict[str, Any]:
        declared = bench.config.workflows.local_inventory
        assert declared is not None
        with ThreadPoolExecutor(1, thread_name_prefix="local-inventory") as pool:
            asked = pool.submit(_ask, bench, declared)  # the network answers while the disk is read
            folders = [_folder(bench, name, declared) for name in sorted(declared.folders)]
            readings = asked.result()
        if not bench.quick:
            _set_beside(bench, declared, folders, readings)
        found = [folder for folder in folders if folder["files"] is not None]
        return {
            "folders": folders,
            "large": declared.large,
            "few_games": declared.few_games,
            "summary": [
                ("folders", f"{len(found)} of {len(folders)}"),
                ("files", f"{sum(folder['files'] for folder in found):,}"),
                ("size", format_bytes(sum(folder["bytes"] for folder in found))),
            ],
            "attention": [said for folder in folders for said in _attention(folder, bench, declared)],
        }

    def markdown(self, result: Mapping[str, Any]) -> str:
        return report.markdown(result)


def _folder(bench: WorkflowContext, name: str, declared: LocalInventoryConfig) -> dict[str, Any]:
    """What a folder holds; without numbers, and noted as not reached, where it is missing."""
    folder = declared.folders[name]
    root = str(bench.config.path_of(folder.path).resolve())
    home = str(bench.config.home.resolve())
    bench.progress(f"local-inventory: reading {name}")

    def scan() -> FolderHolding:
        if not folder.path:
            raise MeasureError("its path is empty: is the variable that it comes from set?")
        return walk(root, home, folder, declared.large, bench.deadline)

    held = bench.reach(f"folder {name}", scan)
    if held is None:
        return {"name": name, "path": printable_path(root), "files": None, "bytes": None, "seasons": [], "large": []}
    return folder_document(name, root, held, declared)


# --- lake and database -------------------------------------------------------------------------------


def _ask(bench: WorkflowContext, declared: LocalInventoryConfig) -> dict[str, Reading]:
    """The looked-at metrics, and all of lake and database in the same pass over each."""
    if bench.quick:
        return measure_metrics(bench, declared.metrics, kinds=_LOCAL)
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
    return measure_metrics(bench, declared.metrics, beside)


def _set_beside(
    bench: WorkflowContext,
    declared: LocalInventoryConfig,
    folders: list[dict[str, Any]],
    readings: Mapping[str, Reading],
) -> None:
    """Put what lake and database hold beside each folder."""
    for folder in folders:
        name = folder["name"]
        configured = declared.folders[name]
        if declared.lake and configured.prefix is not None:
            objects, held = (_number(bench, declared.lake, readings[f"{name}/{what}"]) for what in ("objects", "bytes"))
            folder["lake"] = {"prefix": configured.prefix, "objects": objects, "bytes": held}
        if declared.warehouse and configured.query is not None:
            folder["database"] = {"rows": _number(bench, declared.warehouse, readings[f"{name}/rows"])}


def _number(bench: WorkflowContext, source: str, reading: Reading) -> int | None:
    """A count that was read; None, and the reason noted, where it failed or is no number."""
    if reading.error is not None:
        bench.miss(source, reading.error)
        return None
    if isinstance(reading.value, bool) or not isinstance(reading.value, int | float):
        bench.reach(source, lambda: _no_number(reading))
        return None
    return int(reading.value)


def _no_number(reading: Reading) -> None:
    raise MeasureError(f"the query of {reading.metric.rpartition('/')[0]} gave {reading.value!r}, which is no count")


# --- what needs a person -----------------------------------------------------------------------------


def _attention(folder: Mapping[str, Any], bench: WorkflowContext, declared: LocalInventoryConfig) -> Iterator[str]:
    name = folder["name"]
    if folder["files"] is None:
        return
    if not folder["files"]:
        yield f"{name}: the folder is empty."
    for trouble in folder["not_looked_into"]:
        yield f"{name}: {trouble}: what is in it is missing here."
    running = season_of(bench.now.date())
    for season in folder["seasons"]:
        if season["few"]:
            so_far = ", so far: it is running" if season["season"] == running else ""
            yield (
                f"{name}: season {season['season']} has {season['games']:,} game{'s' if season['games'] > 1 else ''}, "
                f"under {declared.few_games:,}{so_far}."
            )
    yield from _apart(folder)


def _apart(folder: Mapping[str, Any]) -> Iterator[str]:
    """Where the folder and the lake do not hold the same."""
    lake = folder.get("lake")
    if lake is None or lake["objects"] is None:
        return
    if lake["objects"] != folder["files"]:
        yield f"{folder['name']}: {folder['files']:,} files here, {lake['objects']:,} objects in the lake."
    elif lake["bytes"] is not None and lake["bytes"] != folder["bytes"]:
        yield (
            f"{folder['name']}: {folder['bytes']:,} bytes here, {lake['bytes']:,} in the lake, "
            f"in equally many files; sync-status names those that differ."
        )


WORKFLOW = LocalInventoryWorkflow()
