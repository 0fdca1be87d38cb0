"""local-inventory on the real lake: folders, lake and database, with one listing and one snapshot."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from sqlalchemy import Engine

from dims_worker.config import load_config
from dims_worker.workflows import WorkflowOutcome, render_report, run_workflow
from tests.conftest import Lake
from tests.integration.workflows.helpers import (
    FEEDS,
    make_real_tables,
    real_games,
    real_lake,
    real_place,
    with_play_by_play,
)

CONFIG = """
sources:
  lake: {type: s3, bucket: nba-lake}
  warehouse: {type: sql, url: "${NBA_DATABASE_URL:-}"}
metrics: {s3_storage: {total_objects: {source: lake, measure: count}}}
workflows:
  local_inventory:
    lake: lake
    warehouse: warehouse
    metrics: ["s3_storage.*"]
    folders:
      box: {path: lake/espn_box_scores, prefix: espn_box_scores/, query: SELECT 267, season: '(?:^|/)00\\d(\\d\\d)'}
      pbp: {path: lake/espn_play_by_play, prefix: espn_play_by_play/, query: "SELECT count(*) FROM pbp"}
      schedule: {path: lake/espn_schedules, prefix: espn_schedules/}
      team: {path: lake/espn_team_stats, prefix: nothing/}
rules: {}
"""


@pytest.fixture
def project(tmp_path: Path, lake: Lake, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name, value in lake.env.items():
        monkeypatch.setenv(name, value)
    lake.put("nba-lake", real_lake())
    for feed in FEEDS:
        shutil.copytree(real_place() / feed, tmp_path / "lake" / feed)
    (tmp_path / "dims.yaml").write_text(CONFIG)
    return tmp_path


def run(project: Path, database_url: str, *, quick: bool = False) -> WorkflowOutcome:
    env = {"NBA_DATABASE_URL": database_url, "DIMS_HOME": str(project / "home")}
    return run_workflow(load_config(None, env, project), "local-inventory", quick=quick)


def test_folder_lake_and_database(project: Path, lake: Lake, database_url: str, engine: Engine) -> None:
    with engine.begin() as connection:
        connection.exec_driver_sql("CREATE TABLE pbp AS SELECT generate_series(1, 38597)")
    outcome = run(project, database_url)
    assert outcome.unreached == {}
    folders = {folder["name"]: folder for folder in outcome.result["folders"]}
    box, pbp, schedule, team = (folders[name] for name in ("box", "pbp", "schedule", "team"))
    assert (box["files"], box["bytes"], box["games"]) == (273, 3785055, 273)
    assert box["lake"] == {"prefix": "espn_box_scores/", "objects": 273, "bytes": 3785055}
    assert box["database"] == {"rows": 267}
    (season,) = box["seasons"]
    assert (season["season"], season["games"], season["missing"]) == ("2012-13", 273, None)
    assert box["not_compared"].startswith("no games table is configured (set `games` of local_inventory)")
    assert 'relation "games" does not exist' in box["not_compared"]
    assert (pbp["files"], pbp["bytes"], pbp["database"]["rows"]) == (85, 6360841, 38597)
    assert (schedule["first"], schedule["last"], schedule["games"]) == ("2013-03-16", "2013-06-20", None)
    assert "database" not in schedule
    assert team["lake"] == {"prefix": "nothing/", "objects": 0, "bytes": 0}
    assert outcome.result["attention"] == [
        "pbp: season 2012-13 has 85 games, under 100.",  # by its ids, which are those of the NBA
        "team: 273 local files, 0 objects in the lake.",
    ]
    assert [(r.metric, r.value) for r in outcome.scanned.readings[1:]] == [("s3_storage.total_objects", 713)]
    assert outcome.scanned.api_calls == len(lake.lists) == 1  # 713 objects, four folders and a metric: one LIST
    text = render_report(outcome.result)
    assert "| pbp | 85 | 6.4 MB | 85 | 6.4 MB | 0 | 38,597 |" in text
    assert "| schedule | 82 | 558.7 kB | 82 | 558.7 kB | 0 | - |" in text


def test_the_games_of_the_real_season_that_have_no_file(project: Path, database_url: str, engine: Engine) -> None:
    make_real_tables(engine)
    with engine.begin() as connection:
        connection.exec_driver_sql("CREATE TABLE pbp AS SELECT generate_series(1, 38597)")
    query = "SELECT game_id, game_date, game_status AS played FROM games"
    (project / "dims.yaml").write_text(CONFIG.replace("    folders:", f"    games: {query}\n    folders:"))
    (project / "lake" / "espn_box_scores" / "0021201048.json").write_bytes(b'{"cut": ')
    outcome = run(project, database_url)
    assert outcome.unreached == {}
    folders = {folder["name"]: folder for folder in outcome.result["folders"]}
    games = {game["game_id"]: game for game in real_games()}
    for name, ids in {
        "box": {path.stem for path in (real_place() / "espn_box_scores").iterdir()} - {"0021201048"},
        "pbp": with_play_by_play(),
    }.items():
        (season,) = folders[name]["seasons"]
        missing = games.keys() - ids
        assert (season["season"], season["games"], season["expected"]) == ("2012-13", len(ids), 342)
        assert (season["missing"], season["missing_ids"]) == (len(missing), sorted(missing)[:20])
        assert season["not_played"] == sum(games[each]["game_status"] != "3" for each in missing)
        assert {own["type"]: own["missing"] for own in season["types"]} == {
            "regular": sum(each.startswith("002") for each in missing),
            "playoffs": sum(each.startswith("004") for each in missing),
        }
    assert folders["box"]["without_content"] == [{"path": "0021201048.json", "reason": "truncated"}]
    assert folders["schedule"]["not_compared"] == "no file has the id of a game in its name"


def test_an_unreached_source_is_never_0(project: Path, lake: Lake, database_url: str) -> None:
    (project / "dims.yaml").write_text(CONFIG.replace("bucket: nba-lake", "bucket: gone"))
    outcome = run(project, database_url)  # there is no table pbp, and no bucket
    assert set(outcome.unreached) == {"lake", "warehouse"}
    assert "pbp" in outcome.unreached["warehouse"]
    folders = {folder["name"]: folder for folder in outcome.result["folders"]}
    assert folders["box"]["lake"] == {"prefix": "espn_box_scores/", "objects": None, "bytes": None}
    assert folders["box"]["database"] == {"rows": 267}  # the other query of the snapshot succeeds
    assert folders["pbp"]["database"] == {"rows": None}
    text = render_report(outcome.result)
    assert "| pbp | 85 | 6.4 MB | *not reached* | *not reached* |  | *not reached* |" in text
    assert [reading.method for reading in outcome.scanned.readings] == ["failed", "failed"]


def test_a_quick_run_makes_no_call(project: Path, lake: Lake) -> None:
    outcome = run(project, "postgresql://stranger@127.0.0.1:1/none", quick=True)
    assert (outcome.unreached, outcome.scanned.api_calls, lake.lists) == ({}, 0, [])
    assert {folder["name"]: folder["files"] for folder in outcome.result["folders"]} == {
        "box": 273,
        "pbp": 85,
        "schedule": 82,
        "team": 273,
    }
