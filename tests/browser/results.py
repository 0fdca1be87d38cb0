"""Made-up results of three workflows: one with many findings, one without, and one that reached no source."""

from __future__ import annotations

from typing import Any

from dims_worker.workflows.gap_analysis.report import summary

_SEASONS = (
    *(("2012-13", 1230, 0, 14), ("2013-14", 1230, 3, 31), ("2014-15", 1230, 0, 2), ("2015-16", 1230, 1, 0)),
    *(("2016-17", 1230, 0, 0), ("2017-18", 1230, 4, 9)),
)
_MISSING = (
    *(("0021200046", "2012-11-05", "2012-13"), ("0021201048", "2013-03-27", "2012-13")),
    *(("0021300512", "2014-01-08", "2013-14"), ("0021300777", "2014-02-12", "2013-14")),
    *(("0021700031", "2017-10-21", "2017-18"), ("0021700944", "2018-03-02", "2017-18")),
)


def _season(name: str, games: int, no_box: int, no_plays: int) -> dict[str, Any]:
    year = int(name[:4])
    return {
        "season": name,
        "games": games,
        "not_played": 0,
        "without_box_score": no_box,
        "without_play_by_play": no_plays,
        "missing_pct": 100 * no_box / games,
        "coverage_pct": 100 - 100 * no_plays / games,
        "first": f"{year}-10-29",
        "last": f"{year + 1}-04-16",
    }


def _gaps() -> dict[str, Any]:
    seasons = [_season(*each) for each in _SEASONS]
    whole = _season("2012-13", *(sum(each[n] for each in _SEASONS) for n in (1, 2, 3)))
    parts: dict[str, Any] = {
        "games": {
            "seasons": seasons,
            "all": {**whole, "last": "2018-04-11"},
            "undated": [],
            "missing": [
                {"id": id, "date": day, "season": season, "lacks": ["play-by-play"], "played": True}
                for id, day, season in _MISSING
            ],
        },
        "targets": [
            {"target": "play-by-play coverage", "is": "over", "aim_pct": 95, "value_pct": 99.2, "met": True},
            {"target": "games without box score", "is": "under", "aim_pct": 0.1, "value_pct": 0.11, "met": False},
        ],
        "plan": [
            {
                "priority": 1,
                "title": "Fetch play-by-play",
                "reason": "The games are in the schedule, and were played.",
                "seasons": [{"season": "2012-13", "games": 2}, {"season": "2013-14", "games": 2}],
                "games": [each[0] for each in _MISSING],
            }
        ],
        "missing_ids": {"path": "missing_game_ids.txt", "ids": 6, "error": None},
        "lake_and_database": [],
        "date_gaps": [
            {"of": "games", "first": "2013-12-02", "last": "2013-12-09", "days": 8, "when": "within the season"}
        ],
        "lake": [
            {
                "feed": "espn",
                "kind": kind,
                "prefix": f"espn_{kind}/",
                "objects": objects,
                "bytes": objects * 81_250,
                "empty": 0,
                "games": objects,
                "first": "2012-10-30",
                "last": "2018-04-11",
                "unreadable": 0,
                "seasons": [],
                "unreadable_names": [],
            }
            for kind, objects in (("play_by_play", 7324), ("box_scores", 7372), ("schedules", 1096))
        ],
    }
    attention = ["8 of 7,380 games have no box score content", "56 of 7,380 games have no play-by-play"]
    return {**parts, "summary": summary(parts), "attention": attention}


def _result(workflow: str, unreached: dict[str, str], **parts: Any) -> dict[str, Any]:
    head = {"workflow": workflow, "generated_at": "2026-11-25T09:00:00+00:00", "quick": False}
    return {**head, "unreached": unreached, **parts}


RESULTS = (
    _result("gap-analysis", {}, **_gaps()),
    _result("sync-status", {}, summary=[["pairs in sync", "4 of 4"], ["files compared", "28,114"]]),
    _result("aws-inventory", {"aws": "no credentials were found: see AWS_PROFILE"}),
)
