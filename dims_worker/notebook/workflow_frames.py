"""The newest results of the workflows as rows. A source that was not reached has no rows, not zeros."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from sqlalchemy import Connection

from dims_worker import workflows
from dims_worker.config import WORKFLOW_NAMES
from dims_worker.config.runtime import WORKFLOW
from dims_worker.store.runs import last_result

Results = Mapping[str, Mapping[str, Any]]
Rows = list[dict[str, Any]]

OVERVIEW = ("workflow", "generated_at", "status", "figures", "to_do")
GAPS = ("season", "games", "not_played", "without_box_score", "without_play_by_play", "missing_pct", "coverage_pct")
SIDES = ("folder", "local_files", "lake_objects", "only_local", "only_lake", "different", "same", "drift_pct")
COSTS = ("part", "amount", "unit", "price_usd", "month_usd")
COMPLETENESS = ("what", "complete_pct")
COUNTS = {*GAPS[1:5], *SIDES[1:7]}
"""The columns of integers."""


def newest_results(connection: Connection) -> dict[str, Mapping[str, Any]]:
    """Return the newest result of each workflow, from its own runs and from the sections of audits."""
    newest: dict[str, Mapping[str, Any]] = {}
    for name in WORKFLOW_NAMES:
        last = last_result(connection, f"{WORKFLOW}{name}")
        for result in (last[1], *last[1].get("sections", ())) if last else ():
            known = newest.get(result["workflow"])
            if known is None or known["generated_at"] < result["generated_at"]:
                newest[result["workflow"]] = result
    return {name: newest[name] for name in WORKFLOW_NAMES if name in newest}


def overview_frame(results: Results) -> Rows:
    return [
        {
            "workflow": name,
            "generated_at": result["generated_at"],
            "status": workflows.result_status(result),
            "figures": ", ".join(f"{what}: {value}" for what, value in workflows.result_summary(result)),
            "to_do": "; ".join(map(str, result.get("attention", ()))),
        }
        for name, result in results.items()
    ]


def gaps_frame(results: Results) -> Rows:
    """Return the games of each season, the oldest first, and how many have missing data."""
    games = results.get("gap-analysis", {}).get("games")
    return [{name: season[name] for name in GAPS} for season in games["seasons"]] if games else []


def sync_frame(results: Results) -> Rows:
    """Return each folder beside the lake: compared by file in sync-status, else by count in local-inventory."""
    rows: Rows = [
        {
            "folder": pair["folder"],
            "only_local": pair["only_local"],
            "only_lake": pair["only_s3"],
            "different": pair["different"],
            "same": pair["same"],
            "drift_pct": pair["sync_drift_pct"],
            "local_files": pair["only_local"] + pair["different"] + pair["same"],
            "lake_objects": pair["only_s3"] + pair["different"] + pair["same"],
        }
        for pair in results.get("sync-status", {}).get("pairs") or ()
    ]
    compared = {row["folder"] for row in rows}
    for folder in results.get("local-inventory", {}).get("folders") or ():
        lake = folder.get("lake") or {}
        if folder["name"] not in compared and folder["files"] is not None:
            rows.append({"folder": folder["name"], "local_files": folder["files"], "lake_objects": lake.get("objects")})
    return rows


def costs_frame(results: Results) -> Rows:
    """Return the lines of the cost estimate. A line without a price in the configuration has no cost."""
    cost = results.get("aws-inventory", {}).get("cost")
    return [
        {
            "part": line["what"],
            "amount": float(line["amount"]),
            "unit": line["unit"],
            "price_usd": line["price"],
            "month_usd": line["usd"],
        }
        for line in (cost or {"lines": ()})["lines"]
    ]


def completeness_frame(results: Results, measured: Iterable[tuple[str, float]]) -> Rows:
    rows: Rows = [{"what": metric, "complete_pct": float(share)} for metric, share in measured]
    for season in gaps_frame(results):
        for what, share in (("play-by-play", season["coverage_pct"]), ("box scores", season["missing_pct"])):
            if share is not None:
                complete = share if what == "play-by-play" else 100 - share
                rows.append({"what": f"{season['season']} {what}", "complete_pct": complete})
    return rows
