"""The report of gap-analysis. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from dims_worker.formatting import format_percent, pluralize
from dims_worker.workflows.markdown import attention_section, code_span, escape_markdown, markdown_table
from dims_worker.workflows.seasons import UNKNOWN

_COUNTS = ("games", "not played", "no box score", "no play-by-play", "missing", "coverage", "first", "last")
_GAMES_EXPLANATION = (
    "This table counts the games of the games table, and what they lack in the warehouse: `coverage` is the share with "
    "rows of play-by-play. Objects of the lake are in the section about feeds, and local files in local-inventory."
)
_MOST_CONTRADICTIONS = 100
_FEEDS_EXPLANATION = (
    "Games of the games table that have an object with content. DIMS goes by the size of an object and does not read "
    "it. local-inventory reads the local files, so it may count fewer."
)
_CONVENTIONS = {
    "first year": "the first year of a season",
    "last year": "the last year of a season, as ESPN does",
    "both years": "both years of a season",
}
_NOT_MEASURED = "This part was not measured: its source is not configured or was not reached."


def summary(parts: Mapping[str, Any]) -> list[list[str]]:
    """Return the main figures as pairs of label and value."""
    lines = []
    if parts["games"]:
        counts = parts["games"]["all"]
        lines += [
            ["games", f"{counts['games']:,}"],
            ["without box score content", f"{counts['without_box_score']:,} ({format_share(counts['missing_pct'])})"],
            ["without play-by-play", f"{counts['without_play_by_play']:,}"],
            ["play-by-play coverage", format_share(counts["coverage_pct"])],
        ]
    if parts["lake"] is not None:
        lines.append(["objects of the feeds", f"{sum(holding['objects'] for holding in parts['lake']):,}"])
    if parts["games"] or parts["lake"] is not None:  # otherwise nothing was read, and 0 would be false
        lines.append(["gaps between dates", f"{len(parts['date_gaps']):,}"])
    targets = parts["targets"] or []
    if targets:
        lines.append(["targets met", f"{sum(target['met'] is True for target in targets)} of {len(targets)}"])
    return lines


def format_share(value: float | None) -> str:
    """Format a share in %. It is 0.0 only for none and 100.0 only for all."""
    return "-" if value is None else format_percent(value, 100)


def target_value(target: Mapping[str, Any]) -> str:
    """Format the value of a target. It is never rounded to the target that it is over or under."""
    aim, value = target["aim_pct"], target["value_pct"]
    return "-" if value is None else format_percent(value, aim, math.nextafter(aim, math.inf))


def markdown(result: Mapping[str, Any]) -> str:
    """Return the parts after the head: games, targets, plan, missing games, dates, feeds, lake and database."""
    parts = (
        *(("Games", _games), ("Targets", _targets), ("Plan", _plan), ("Missing games", _missing)),
        *(("Gaps between dates", _dates), ("Feeds of the lake", _feeds), ("Lake and database", _lake_and_database)),
    )
    lines = attention_section(result["attention"])
    for title, render in parts:
        lines += [f"## {title}", "", *render(result), ""]
    return "\n".join(lines)


def _games(result: Mapping[str, Any]) -> list[str]:
    games = result["games"]
    if games is None:
        return [_NOT_MEASURED]
    rows = [[escape_markdown(season["season"]), *_counts(season)] for season in games["seasons"]]
    rows.append(["**all**", *_counts(games["all"])])
    lines = markdown_table(["season", *_COUNTS], rows, range(1, 7))
    by_type = games.get("types", ())  # results of DIMS before 0.3 have no types
    if any(each["type"] != UNKNOWN for each in by_type):
        types = [[escape_markdown(each["season"]), escape_markdown(each["type"]), *_counts(each)] for each in by_type]
        lines += ["", *markdown_table(["season", "type", *_COUNTS], types, range(2, 8))]
    if games["undated"]:
        lines += ["", f"Without a date: {_names(games['undated'])}"]
    return [_GAMES_EXPLANATION, "", *lines, *_rows(result.get("games_table"))]


def _rows(table: Mapping[str, Any] | None) -> list[str]:
    """Return what the rows of the games table are like, where it matters."""
    lines: list[str] = []
    if table is None:
        return lines
    if table["season_column"] in _CONVENTIONS:
        lines += ["", f"The column `season` names {_CONVENTIONS[table['season_column']]}."]
    if table["rows_without_id"]:
        values = ", ".join(f"{code_span(value)} ({count:,})" for value, count in table["values_without_id"].items())
        lines += ["", f"Rows without an id: {table['rows_without_id']:,}, by value: {values}"]
    if table["several_rows"]:
        lines += [
            "",
            f"Several rows that differ, of which the game that was played counts: {_names(table['several_rows'])}",
        ]
    if table["played_unknown"]:
        lines += ["", f"Not known whether they were played: {_names(table['played_unknown'])}"]
    if table["contradictions"]:
        named = table["contradictions"][:_MOST_CONTRADICTIONS]
        rows = [[code_span(each["id"]), escape_markdown(each["reason"])] for each in named]
        lines += ["", *markdown_table(["game", "contradiction"], rows)]
        if rest := len(table["contradictions"]) - len(named):
            lines += ["", f"{rest:,} more are in the JSON of this result."]
    return lines


def _counts(counts: Mapping[str, Any]) -> list[object]:
    return [
        *(counts[key] for key in ("games", "not_played", "without_box_score", "without_play_by_play")),
        *(format_share(counts["missing_pct"]), format_share(counts["coverage_pct"]), counts["first"], counts["last"]),
    ]


def _targets(result: Mapping[str, Any]) -> list[str]:
    if result["targets"] is None:
        return [_NOT_MEASURED]
    status = {True: "met", False: "**not met**", None: "no games"}
    rows = [
        [t["target"], f"{t['is']} {t['aim_pct']:g} %", target_value(t), status[t["met"]]] for t in result["targets"]
    ]
    return markdown_table(["target", "aim", "value", ""], rows, (2,))


def _plan(result: Mapping[str, Any]) -> list[str]:
    if result["plan"] is None:
        return [_NOT_MEASURED]
    lines: list[str] = []
    for step in result["plan"]:
        seasons = ", ".join(f"{escape_markdown(each['season'])}: {each['games']:,}" for each in step["seasons"])
        lines += [f"### {step['priority']}. {step['title']}: {pluralize(len(step['games']), 'game')}", ""]
        lines += [f"{step['reason']}{f' By season: {seasons}.' if seasons else ''}", ""]
        lines += [_names(step["games"]), ""] if step["games"] else []
    written = result["missing_ids"]
    if written and written["error"]:
        lines.append(
            f"The ids could not be written to {code_span(written['path'])}: {escape_markdown(written['error'])}"
        )
    elif written:
        lines.append(f"All {pluralize(written['ids'], 'id')} are in {code_span(written['path'])}, one a line.")
    return lines


def _missing(result: Mapping[str, Any]) -> list[str]:
    if result["games"] is None:
        return [_NOT_MEASURED]
    missing = result["games"]["missing"]
    if not missing:
        return ["Every game has box score content and play-by-play."]
    lines: list[str] = []
    for season in sorted({game["season"] for game in missing}):
        games = [game for game in missing if game["season"] == season]
        rows = [
            [code_span(game["id"]), game["date"], " and ".join(game["lacks"]), "" if game["played"] else "not played"]
            for game in games
        ]
        lines += [f"### {escape_markdown(season)}: {pluralize(len(games), 'game')}", ""]
        lines += [*markdown_table(["game", "date", "lacks", ""], rows), ""]
    return lines


def _dates(result: Mapping[str, Any]) -> list[str]:
    if result["games"] is None and result["lake"] is None:
        return [_NOT_MEASURED]
    rows = [
        [escape_markdown(g["of"]), g["first"], g["last"], g["days"], g.get("game_days"), g["when"]]
        for g in result["date_gaps"]
    ]
    missing = [name for name in ("games", "lake") if result[name] is None]
    note = ["", f"Not included, because it was not reached: {', '.join(missing)}."] if missing else []
    if not rows:
        return ["No gap is longer than the limits.", *note]
    return [
        *markdown_table(["of", "first day missing", "last", "days", "days with games", "when"], rows, (3, 4)),
        *note,
    ]


def _feeds(result: Mapping[str, Any]) -> list[str]:
    if result["lake"] is None:
        return [_NOT_MEASURED]
    figures = ("objects", "bytes", "empty", "games", "first", "last", "unreadable")
    rows = [
        [*_feed_and_kind(each), code_span(each["prefix"]), *(each[name] for name in figures)] for each in result["lake"]
    ]
    heads = ["ids" if name == "games" else name for name in figures]  # ids of other games are among them
    lines = markdown_table(["feed", "kind", "prefix", *heads], rows, (3, 4, 5, 6, 9))
    seasons = [
        [*_feed_and_kind(each), escape_markdown(season["season"]), season["objects"], season["games"]]
        for each in result["lake"]
        for season in each["seasons"]
    ]
    lines += ["", *markdown_table(["feed", "kind", "season", "objects", "ids"], seasons, (3, 4))] if seasons else []
    lines += _feed_games(result.get("feed_games", ()))
    for each in result["lake"]:
        if each["unreadable"]:
            more = each["unreadable"] - len(each["unreadable_names"])
            rest = f" and {more:,} more" if more else ""
            lines += ["", f"Unreadable in {code_span(each['prefix'])}: {_names(each['unreadable_names'])}{rest}"]
    return lines


def _feed_games(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the table of the games that have an object with content, by season and type."""
    if not rows:
        return []
    heads = ["feed", "kind", "season", "type", "games", "expected", "missing", "not played", "complete"]
    table = []
    for row in rows:
        first = [*_feed_and_kind(row), escape_markdown(row["season"])]
        table.append([*first, "**all**", *_compared(row)])
        if len(row["types"]) > 1:
            table += [[*first, escape_markdown(own["type"]), *_compared(own)] for own in row["types"]]
    return ["", _FEEDS_EXPLANATION, "", *markdown_table(heads, table, range(4, 9))]


def _compared(counts: Mapping[str, Any]) -> list[object]:
    numbers = [counts[name] for name in ("games", "expected", "missing", "not_played")]
    return [*numbers, format_share(counts["completeness_pct"])]


def _feed_and_kind(holding: Mapping[str, Any]) -> list[object]:
    return [escape_markdown(holding["feed"]), escape_markdown(holding["kind"])]


def _lake_and_database(result: Mapping[str, Any]) -> list[str]:
    if result["games"] is None or result["lake"] is None:
        return [_NOT_MEASURED]
    rows = [
        [escape_markdown(p["lake"]), escape_markdown(p["database"]), p["both"], *_alone(p)]
        for p in result["lake_and_database"]
    ]
    lines = markdown_table(["lake", "database", "both", "only in the lake", "only in the database"], rows, (2, 3, 4))
    for pair in result["lake_and_database"]:
        for key, side in (("only_lake", "lake"), ("only_database", "database")):
            if pair[key]:
                title = f"{escape_markdown(pair['lake'])} and {escape_markdown(pair['database'])}, only in the {side}"
                lines += ["", f"{title}: {_names(pair[key])}"]
    return lines


def _alone(pair: Mapping[str, Any]) -> list[object]:
    if not pair["comparable"]:
        return ["other ids", "not compared"]
    return [len(pair["only_lake"]), len(pair["only_database"])]


def _names(names: Sequence[str]) -> str:
    return ", ".join(code_span(name) for name in names)
