"""The report of local-inventory: warnings, folders with lake and database, then each folder by season."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dims_worker.formatting import format_bytes, format_percent
from dims_worker.workflows.markdown import attention_section, code_span, escape_markdown, markdown_table

Document = Mapping[str, Any]
NOT_REACHED = "*not reached*"


def markdown(result: Document) -> str:
    """Return the report of a result."""
    lines = attention_section(result["attention"])
    if not result["folders"]:
        return "\n".join([*lines, "No folder is configured.", ""])
    lines += _overview(result)
    for folder in result["folders"]:
        lines += _folder(folder, result)
    return "\n".join(lines)


def _overview(result: Document) -> list[str]:
    """Return the table of folders with lake and database. A quick run reads only the folders."""
    heads = ["folder", "files", "size"]
    if not result["quick"]:
        heads += ["objects in the lake", "size in the lake", "files minus objects", "rows in the database"]
    title = "Folders" if result["quick"] else "Folders, lake and database"
    quick = ["This was a quick run, which does not read the lake and the database.", ""] if result["quick"] else []
    rows = [_row(folder, result["quick"]) for folder in result["folders"]]
    return [f"## {title}", "", *quick, *markdown_table(heads, rows, range(1, len(heads))), ""]


def _row(folder: Document, quick: bool) -> list[object]:
    row: list[object] = [escape_markdown(folder["name"]), _number(folder["files"]), _size(folder["bytes"])]
    if quick:
        return row
    lake, database = folder.get("lake"), folder.get("database")
    if lake is None:
        row += ["-", "-", "-"]
    else:
        known = folder["files"] is not None and lake["objects"] is not None
        difference = f"{folder['files'] - lake['objects']:+,}" if known else ""
        row += [_number(lake["objects"]), _size(lake["bytes"]), "0" if difference == "+0" else difference]
    return [*row, "-" if database is None else _number(database["rows"])]


def _number(value: int | None) -> object:
    return NOT_REACHED if value is None else value


def _size(value: int | None) -> str:
    return NOT_REACHED if value is None else format_bytes(value)


def _folder(folder: Document, result: Document) -> list[str]:
    lines = [f"## {escape_markdown(folder['name'])}", "", f"{code_span(folder['path'])}: {_description(folder)}", ""]
    if folder["files"] is None:
        return lines
    lines += [line for note in _notes(folder) for line in (note, "")]
    if folder["seasons"]:
        heads = ("season", "files", "size", "first", "last", "games", "expected", "missing", "complete", "")
        rows = [_season(season, result["few_games"]) for season in folder["seasons"]]
        lines += [*markdown_table(heads, rows, (1, 2, 5, 6, 7, 8)), ""]
    if folder["large"]:
        files = [[code_span(file["path"]), format_bytes(file["bytes"])] for file in folder["large"]]
        lines += [
            f"Files over {format_bytes(result['large'])}:",
            "",
            *markdown_table(("file", "size"), files, (1,)),
            "",
        ]
    return lines


def _description(folder: Document) -> str:
    if folder["files"] is None:
        return f"{NOT_REACHED}."
    dates = f", from {folder['first']} to {folder['last']} by their names" if folder["first"] else ""
    games = f", {folder['games']:,} games" if folder["games"] else ""
    return f"{folder['files']:,} files, {format_bytes(folder['bytes'])}{games}{dates}."


def _notes(folder: Document) -> list[str]:
    """Return what the figures leave out."""
    notes = []
    if folder["first"] and folder["undated"]:
        notes.append(f"{folder['undated']:,} files have no date in their names.")
    if folder["files"] and not folder["seasons"]:
        notes.append("The names have no season: set `season` in the configuration to a pattern that finds it.")
    if folder["vanished"]:
        notes.append(f"{folder['vanished']:,} files vanished during the run and are not counted.")
    return notes


def _season(season: Document, few: int) -> list[object]:
    complete = season["completeness_pct"]
    return [
        escape_markdown(season["season"]),
        *(season["files"], format_bytes(season["bytes"]), season["first"], season["last"]),
        *(season["games"], season["expected"], season["missing"]),
        "" if complete is None else format_percent(complete, 100),
        f"**under {few:,} games**" if season["few"] else "",
    ]
