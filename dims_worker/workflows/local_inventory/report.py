"""The report of local-inventory: warnings, folders with lake and database, then each folder by season."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from dims_worker.formatting import format_bytes, format_percent, pluralize
from dims_worker.workflows.markdown import attention_section, code_span, escape_markdown, markdown_table
from dims_worker.workflows.seasons import UNKNOWN

_MORE_HEADS = ("not played", "no content", "foreign", "")
_EXPLANATION = (
    "`games` are the ids of the games table that have a file with content, `expected` all its games, and `missing` the "
    "others, of which some may be `not played`. gap-analysis compares the same games with the rows of the warehouse "
    "and the objects of the lake. There, an object with content is one that is large enough: DIMS does not read it."
)
Document = Mapping[str, Any]
NOT_REACHED = "*not reached*"


def markdown(result: Document) -> str:
    """Return the report of a result."""
    lines = attention_section(result["attention"])
    if not result["folders"]:
        return "\n".join([*lines, "No folder is configured.", ""])
    lines += _overview(result)
    if result.get("games_table") and any(
        season["expected"] is not None for folder in result["folders"] for season in folder["seasons"]
    ):
        lines += [_EXPLANATION, ""]
    for folder in result["folders"]:
        lines += _folder(folder, result)
    return "\n".join(lines)


def _overview(result: Document) -> list[str]:
    """Return the table of folders with lake and database. A quick run reads only the folders."""
    heads = ["folder", "files", "size"]
    if not result["quick"]:
        heads += ["objects in the lake", "size in the lake", "files minus objects", "rows in the database"]
    numbers = "The table compares numbers. sync-status compares each file with its object."
    title = "Folders" if result["quick"] else "Folders, lake and database"
    quick = ["This was a quick run, which does not read the lake and the database.", ""] if result["quick"] else []
    rows = [_row(folder, result["quick"]) for folder in result["folders"]]
    notes = quick if result["quick"] else [numbers, ""]
    return [f"## {title}", "", *notes, *markdown_table(heads, rows, range(1, len(heads))), ""]


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
        heads = ("season", "files", "size", "first", "last", "games", "expected", "missing", "complete", *_MORE_HEADS)
        rows = [_season(season, result["few_games"]) for season in folder["seasons"]]
        lines += [*markdown_table(heads, rows, (1, 2, 5, 6, 7, 8, 9, 10, 11)), ""]
        lines += _types(folder) + _missing(folder)
    if folder["large"]:
        files = [[code_span(file["path"]), format_bytes(file["bytes"])] for file in folder["large"]]
        lines += [
            f"Files over {format_bytes(result['large'])}:",
            "",
            *markdown_table(("file", "size"), files, (1,)),
            "",
        ]
    return lines


def _types(folder: Document) -> list[str]:
    """Return the table of games by type, if a type is known."""
    rows = [
        [
            *(escape_markdown(season["season"]), escape_markdown(own["type"]), own["games"]),
            *(own.get("expected"), own.get("missing"), _share(own.get("completeness_pct"))),
        ]
        for season in folder["seasons"]
        for own in season.get("types", ())  # results of DIMS before 0.3 have no types
    ]
    if all(own["type"] == UNKNOWN for season in folder["seasons"] for own in season.get("types", ())):
        return []
    return [*markdown_table(("season", "type", "games", "expected", "missing", "complete"), rows, (2, 3, 4, 5)), ""]


def _missing(folder: Document) -> list[str]:
    lines = []
    for season in folder["seasons"]:
        if names := season.get("missing_ids"):
            rest = season["missing"] - len(names)
            more = f" and {rest:,} more" if rest else ""
            shown = ", ".join(map(code_span, names))
            lines += [f"Missing in {escape_markdown(season['season'])}: {shown}{more}", ""]
    return lines


def _description(folder: Document) -> str:
    if folder["files"] is None:
        return f"{NOT_REACHED}."
    dates = f", from {folder['first']} to {folder['last']} by their names" if folder["first"] else ""
    games = f", {pluralize(folder['games'], 'game')} with content" if folder["games"] is not None else ""
    return f"{pluralize(folder['files'], 'file')}, {format_bytes(folder['bytes'])}{games}{dates}."


def _notes(folder: Document) -> list[str]:
    """Return what the figures leave out."""
    notes = []
    if folder["first"] and folder["undated"]:
        notes.append(f"{pluralize(folder['undated'], 'file')} without a date in the name.")
    if folder["files"] and not folder["seasons"]:
        notes.append("The names have no season: set `season` in the configuration to a pattern that finds it.")
    if folder["games"] is not None and folder.get("not_compared"):
        notes.append(f"Missing games are unknown: {escape_markdown(folder['not_compared'])}.")
    if folder.get("unrecognized"):
        names = _names(folder["unrecognized_names"], folder["unrecognized"])
        notes.append(f"Neither an id nor a date in the name, so in no season: {names}.")
    if folder.get("without_content"):
        files = [f"{code_span(each['path'])} ({each['reason']})" for each in folder["without_content"]]
        rest = folder["empty"] - len(files)
        notes.append(
            f"Without content, so not counted as games: {', '.join(files)}{f' and {rest:,} more' * (rest > 0)}."
        )
    if folder.get("foreign"):
        names = _names(folder["foreign_ids"], folder["foreign"])
        notes.append(f"Not in the games table, so not counted as games: {names}.")
    if folder["vanished"]:
        notes.append(f"{pluralize(folder['vanished'], 'file')} vanished during the run, and DIMS did not count them.")
    return notes


def _names(names: Sequence[str], total: int) -> str:
    more = f" and {total - len(names):,} more" if total > len(names) else ""
    return f"{', '.join(map(code_span, names))}{more}"


def _share(value: float | None) -> str:
    return "" if value is None else format_percent(value, 100)


def _season(season: Document, few: int) -> list[object]:
    return [
        escape_markdown(season["season"]),
        *(season["files"], format_bytes(season["bytes"]), season["first"], season["last"]),
        *(season["games"], season["expected"], season["missing"], _share(season["completeness_pct"])),
        *(season.get("not_played"), season.get("empty"), season.get("foreign")),
        f"**under {few:,} games**" if season["few"] else "",
    ]
