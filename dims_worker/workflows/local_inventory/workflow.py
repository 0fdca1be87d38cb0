"""local-inventory: local data folders by season, compared with the lake and the database."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any

from dims_worker.config import Metric, S3Metric, SqlMetric, SqlSource
from dims_worker.config.workflows import LocalInventoryConfig
from dims_worker.errors import MeasureError
from dims_worker.formatting import format_bytes, pluralize
from dims_worker.numbers import is_number, value_text
from dims_worker.probes.base import Reading, printable_path
from dims_worker.probes.sql.snapshot import open_snapshot
from dims_worker.workflows.base import Workflow, WorkflowContext
from dims_worker.workflows.games_table import GamesTable, table_attention, table_document
from dims_worker.workflows.local_inventory import report
from dims_worker.workflows.local_inventory.folder import FolderHolding, KnownGames, folder_document, walk
from dims_worker.workflows.measure_metrics import start_measuring
from dims_worker.workflows.warehouse_games import games_of_local_inventory

_LOCAL = ("files", "git", "command")
"""The types of sources on this machine. A quick run scans only these."""


def run(context: WorkflowContext) -> dict[str, Any]:
    """Return `folders` (see `folder_document`), each with `lake` (`prefix`, `objects`, `bytes`) and `database`
    (`rows`) if they are configured and the run is not quick. A number that could not be read is None, and
    `unreached` has the reason. A missing folder has `files` None, and is `folder NAME` in `unreached`."""
    declared = context.config.workflows.local_inventory
    assert declared is not None
    wait_for_readings = _start_measuring(context, declared)  # scan processes read the network meanwhile
    table, known = _known_games(context, declared)
    folders = [_folder(context, name, declared, known) for name in sorted(declared.folders)]
    readings = wait_for_readings()
    if not context.quick:
        _add_lake_and_database(context, declared, folders, readings)
    reached = [folder for folder in folders if folder["files"] is not None]
    document = table_document(table) if table else None
    return {
        "folders": folders,
        "games_table": document,
        "large": declared.large,
        "few_games": declared.few_games,
        "summary": [
            ("folders", f"{len(reached)} of {len(folders)}"),
            ("files", f"{sum(folder['files'] for folder in reached):,}"),
            ("size", format_bytes(sum(folder["bytes"] for folder in reached))),
        ],
        "attention": [
            *(table_attention(document) if document else ()),
            *dict.fromkeys(text for folder in folders for text in _other_numbers(folder)),
            *(text for folder in folders for text in _attention(folder, known, declared)),
        ],
    }


WORKFLOW = Workflow(run, report.markdown)


def _known_games(context: WorkflowContext, declared: LocalInventoryConfig) -> tuple[GamesTable | None, KnownGames]:
    """Read the games table, and return what is known about games. A quick run does not read it."""
    where = games_of_local_inventory(declared, context.config.workflows)
    today = context.now.astimezone(where.zone).date()
    unknown = KnownGames(None, None, where.calendar, today)
    if where.warehouse is None:
        reason = "no games table is configured: set `warehouse` and `games` of local_inventory"
        return None, replace(unknown, unknown_because=reason)
    if context.quick:
        return None, replace(unknown, unknown_because="a quick run does not read the games table")
    source = context.config.sources[where.warehouse]
    assert isinstance(source, SqlSource)
    context.progress(f"local-inventory: reading the games of {where.warehouse}")

    def read() -> GamesTable:
        with open_snapshot(source, context.scan_context, context.deadline) as snapshot:
            return where.read(snapshot, context)

    if where.is_default:
        try:
            table: GamesTable | None = read()
        except MeasureError as error:
            why = str(error).partition("\n")[0]
            reason = f"no games table is configured (set `games` of local_inventory), and by default {why}"
            return None, replace(unknown, unknown_because=reason)
    else:
        table = context.reach(where.warehouse, read)
    if table is None:
        return None, replace(unknown, unknown_because="the games table was not reached")
    return table, KnownGames.of(table, today)


def _folder(context: WorkflowContext, name: str, declared: LocalInventoryConfig, known: KnownGames) -> dict[str, Any]:
    """Return the JSON form of a folder. If it is missing, record that, and return it without numbers."""
    folder = declared.folders[name]
    root = str(context.config.path_of(folder.path).resolve())
    home = str(context.config.home.resolve())
    context.progress(f"local-inventory: reading {name}")

    def scan() -> FolderHolding:
        if not folder.path:
            raise MeasureError("its path is empty: set `path`, or the environment variable that it names")
        return walk(root, home, folder, declared.large, context.deadline, known)

    holding = context.reach(f"folder {name}", scan)
    if holding is None:
        return {"name": name, "path": printable_path(root), "files": None, "bytes": None, "seasons": [], "large": []}
    return folder_document(name, root, holding, declared, known)


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


def _attention(folder: Mapping[str, Any], known: KnownGames, declared: LocalInventoryConfig) -> Iterator[str]:
    name = folder["name"]
    if folder["files"] is None:
        return
    if not folder["files"]:
        yield f"{name}: the folder is empty."
    for problem in folder["not_looked_into"]:
        yield f"{name}: {problem}: its files are not included."
    if folder["empty"]:
        first = folder["without_content"][0]
        files = pluralize(folder["empty"], "file")
        yield f"{name}: {files} without content, such as {first['path']} ({first['reason']}), count as missing."
    current = known.calendar.season_of(known.today)
    for season in folder["seasons"]:
        so_far = " so far" if season["season"] == current else ""
        if season["missing"]:
            yield f"{name}: season {season['season']}: {_missing(season)}."
        if season["few"]:
            games = pluralize(season["games"], "game")
            yield f"{name}: season {season['season']} has {games}, under {declared.few_games:,}{so_far}."
    if folder["foreign"]:
        some = ", ".join(folder["foreign_ids"][:3])
        yield f"{name}: {pluralize(folder['foreign'], 'id')} not in the games table, such as {some}."
    yield from _lake_difference(folder)


def _missing(season: Mapping[str, Any]) -> str:
    """Return how many games of a season are missing, and which."""
    some = ", ".join(season["missing_ids"][:3])
    unplayed = f" ({season['not_played']:,} of them not played)" if season["not_played"] else ""
    return f"{season['missing']:,} of {season['expected']:,} games are missing{unplayed}, such as {some}"


def _other_numbers(folder: Mapping[str, Any]) -> Iterator[str]:
    """Return the seasons whose number of regular-season games is not the declared one."""
    for season in folder["seasons"]:
        actual, declared = season["regular_games"], season["declared_games"]
        if None not in (actual, declared) and actual != declared:
            where = "by their ids" if season["expected"] is None else "in the games table"
            yield (
                f"season {season['season']} has {actual:,} regular-season games {where}, "
                f"`expected_games` says {declared:,}."
            )


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
