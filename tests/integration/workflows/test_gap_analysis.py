"""gap-analysis on the real lake and its tables: every figure of its README, the missing games by name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
from sqlalchemy import Engine, text

from dims_worker import workflows
from tests.conftest import Lake, Project
from tests.integration.workflows.helpers import (
    BUCKET,
    CONFIG,
    make_real_tables,
    make_tables,
    real_games,
    real_lake,
    with_play_by_play,
    with_players,
)


@pytest.fixture
def basketball(project: Project, lake: Lake, engine: Engine, monkeypatch: pytest.MonkeyPatch) -> Project:
    """A project with the real season in its lake and warehouse."""
    lake.put(BUCKET, real_lake())
    make_real_tables(engine)
    project.env |= {**lake.env, "NBA_DATABASE_URL": project.env["DIMS_DATABASE_URL"]}
    for name, value in lake.env.items():
        monkeypatch.setenv(name, value)
    project.write({"dims.yaml": CONFIG})
    return project


def result_of(project: Project) -> Mapping[str, Any]:
    return workflows.run_workflow(project.config, "gap-analysis").result


def test_every_game_of_the_real_season(basketball: Project, lake: Lake) -> None:
    outcome = workflows.run_workflow(basketball.config, "gap-analysis")
    result = outcome.result
    assert result["unreached"] == {}
    assert outcome.scanned.api_calls == len(lake.lists) == 1  # 713 objects
    counts = result["games"]["all"]
    assert counts == {
        "games": 342,
        "not_played": 6,
        "without_box_score": 75,
        "without_play_by_play": 257,
        "missing_pct": 100 * 75 / 342,
        "coverage_pct": 100 * 85 / 342,
        "first": "2013-03-16",
        "last": "2013-06-20",
    }
    assert result["games"]["seasons"] == [{"season": "2012-13", **counts}]
    games = {game["game_id"]: game for game in real_games()}
    missing = {game["id"]: game for game in result["games"]["missing"]}
    assert len(missing) == 257
    no_box = games.keys() - with_players()
    no_play_by_play = games.keys() - with_play_by_play()
    assert {name for name, game in missing.items() if "box score content" in game["lacks"]} == no_box
    assert {name for name, game in missing.items() if "play-by-play" in game["lacks"]} == no_play_by_play
    assert (len(no_box), len(no_play_by_play)) == (75, 257)
    assert all(game["date"] == games[name]["game_date"] for name, game in missing.items())
    never = {"0021201214", "0041200217", "0041200226", "0041200315", "0041200316", "0041200317"}
    assert {name for name, game in missing.items() if not game["played"]} == never


def test_feeds_dates_targets_and_plan(basketball: Project) -> None:
    result = result_of(basketball)
    feeds = {feed["kind"]: feed for feed in result["lake"]}
    assert {kind: (feed["objects"], feed["bytes"]) for kind, feed in feeds.items()} == {
        "pbp": (85, 6360841),
        "boxscore": (273, 3785055),
        "schedule": (82, 558677),
        "team_stats": (273, 514558),
    }
    assert {kind: feed["games"] for kind, feed in feeds.items()} == {
        "pbp": 85,
        "boxscore": 273,
        "schedule": 0,
        "team_stats": 273,
    }
    assert (feeds["schedule"]["days"], feeds["schedule"]["first"]) == (82, "2013-03-16")
    assert all(feed["seasons"][0]["season"] == "2012-13" and len(feed["seasons"]) == 1 for feed in feeds.values())
    assert sum(feed["unreadable"] + feed["empty"] for feed in feeds.values()) == 0
    assert result["date_gaps"] == []  # the 15 days without a game never make more than two in a row
    assert [target["met"] for target in result["targets"]] == [False, False]
    plan = [(step["priority"], len(step["games"])) for step in result["plan"]]
    assert plan == [(1, 0), (2, 251), (3, 0), (4, 6)]
    pairs = {pair["lake"]: pair for pair in result["lake_and_database"]}
    assert (
        pairs["espn pbp"]["both"] == 85 and pairs["espn pbp"]["only_lake"] == pairs["espn pbp"]["only_database"] == []
    )
    assert (pairs["espn boxscore"]["both"], len(pairs["espn boxscore"]["only_lake"])) == (267, 6)
    assert len(pairs["espn team_stats"]["only_database"]) == 69


def test_the_ids_are_written_once(basketball: Project) -> None:
    result_of(basketball)
    file = basketball.folder / "missing_game_ids.txt"
    ids = file.read_text().splitlines()
    assert ids == sorted({game["game_id"] for game in real_games()} - with_play_by_play())
    inode = file.stat().st_ino
    result_of(basketball)
    assert file.stat().st_ino == inode


def test_the_report_names_every_game(basketball: Project) -> None:
    text = workflows.render_report(result_of(basketball))
    assert text.startswith("# gap-analysis\n\nGenerated: 2")
    for game in {game["game_id"] for game in real_games()} - with_play_by_play():
        assert f"| `{game}` | 2013-" in text
    assert "| `0041200226` | 2013-05-17 | box score content and play-by-play | not played |" in text
    assert "| **all** | 342 | 6 | 75 | 257 | 21.9 % | 24.9 % | 2013-03-16 | 2013-06-20 |" in text


@pytest.mark.parametrize("bad", ["postgresql://stranger:secret@127.0.0.1:1/nba", "", "no url"])
def test_a_missing_warehouse_is_reported(basketball: Project, bad: str) -> None:
    basketball.env["NBA_DATABASE_URL"] = bad
    outcome = workflows.run_workflow(basketball.config, "gap-analysis")
    assert set(outcome.unreached) == {"warehouse"}
    result = outcome.result
    assert (result["games"], result["targets"], result["plan"], result["missing_ids"]) == (None, None, None, None)
    assert sum(feed["objects"] for feed in result["lake"]) == 713  # the lake is reported anyway
    (own,) = outcome.scanned.readings
    assert own.method == "failed" and "warehouse" in str(own.error) and "secret" not in str(own.error)
    text = workflows.render_report(result)
    assert "**warehouse** was not reached" in text and "Every game has" not in text
    assert not (basketball.folder / "missing_game_ids.txt").exists()


def test_a_missing_lake_is_reported(basketball: Project) -> None:
    basketball.write({"dims.yaml": CONFIG.replace("bucket: nba-lake", "bucket: gone")})
    outcome = workflows.run_workflow(basketball.config, "gap-analysis")
    assert set(outcome.unreached) == {"lake"}
    assert "S3 bucket gone at AWS: the bucket does not exist" in outcome.unreached["lake"]
    assert outcome.result["lake"] is None and outcome.result["games"]["all"]["without_play_by_play"] == 257


def test_a_missing_table_is_an_error_and_not_a_gap(basketball: Project, engine: Engine) -> None:
    with engine.begin() as connection:
        connection.execute(text("DROP TABLE hoopr_play_by_play"))
    outcome = workflows.run_workflow(basketball.config, "gap-analysis")
    assert "`play_by_play`" in outcome.unreached["warehouse"] and outcome.result["games"] is None


def test_only_the_prefixes_of_feeds_are_listed(
    project: Project, lake: Lake, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The listing skips keys between the prefixes of the feeds."""
    lake.put(BUCKET, {f"a/{n:05}": b"" for n in range(1500)} | {f"m/{n:05}": b"" for n in range(1500)})
    lake.put(BUCKET, {f"espn_play_by_play/{n:010}.csv": b"x" for n in range(1, 1202)})
    lake.put(BUCKET, {"espn_schedules/171031017.json": b"x", "espn_schedules/20130316.json": b"x"})
    make_tables(engine, [("0000000001", "2013-03-16", 3)], ["1"], [1])
    project.env |= {**lake.env, "NBA_DATABASE_URL": project.env["DIMS_DATABASE_URL"]}
    for name, value in lake.env.items():
        monkeypatch.setenv(name, value)
    project.write({"dims.yaml": CONFIG})
    result = result_of(project)
    assert len(lake.lists) == 2  # listing all 4,203 objects would take five calls
    feeds = {feed["kind"]: feed for feed in result["lake"]}
    assert feeds["pbp"]["objects"] == feeds["pbp"]["games"] == 1201
    assert feeds["pbp"]["seasons"] == [
        {"season": "2012-13", "objects": 1, "games": 1},
        {"season": "unknown", "objects": 1200, "games": 1200},
    ]
    assert (feeds["schedule"]["unreadable"], feeds["schedule"]["unreadable_names"]) == (
        1,
        ["espn_schedules/171031017.json"],
    )
    (pair,) = [pair for pair in result["lake_and_database"] if pair["lake"] == "espn pbp"]
    assert (pair["both"], len(pair["only_lake"]), pair["only_database"]) == (1, 1200, [])
