"""Test the configuration in config/ on a real data set: every figure of its README that a metric covers."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, text

from tests.conftest import REPO, Lake, Project

REAL = REPO.parent / "shared" / "nba_lake_2013"
FOLDERS = ("espn_schedules", "espn_box_scores", "espn_play_by_play", "espn_team_stats")
BUCKET = "nba-lake-2013"
NEVER_PLAYED = ("0021201214", "0041200217", "0041200226", "0041200315", "0041200316", "0041200317")
OFF_DAYS = (  # from the README
    *("2013-04-08", "2013-04-18", "2013-04-19", "2013-05-09", "2013-05-23", "2013-06-04", "2013-06-05", "2013-06-07"),
    *("2013-06-08", "2013-06-10", "2013-06-12", "2013-06-14", "2013-06-15", "2013-06-17", "2013-06-19"),
)
_GAPS = ("box score content", "play-by-play")

pytestmark = pytest.mark.skipif(not REAL.is_dir(), reason=f"the real data set is not at {REAL}")


def _games() -> list[dict[str, str]]:
    with (REAL / "tables" / "games.csv").open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def _ids(folder: str) -> set[str]:
    return {path.stem for path in (REAL / folder).iterdir()}


def _with_players() -> set[str]:
    files = (REAL / "espn_box_scores").iterdir()
    return {path.stem for path in files if '"player":' in path.read_text(encoding="utf-8")}


def _fill(warehouse: Engine) -> None:
    """Create the tables of the data set. Ids are numbers where the files have numbers."""
    games = _games()
    columns = list(games[0])
    with warehouse.begin() as connection:
        kinds = [f"{column} {'date' if column == 'game_date' else 'text'}" for column in columns]
        connection.execute(text(f"CREATE TABLE games ({', '.join(kinds)})"))
        values = ", ".join(f":{column}" for column in columns)
        connection.execute(text(f"INSERT INTO games VALUES ({values})"), games)
        connection.execute(text("CREATE TABLE box_score_players (game_id text)"))
        boxes = [{"id": game} for game in sorted(_with_players())]
        connection.execute(text("INSERT INTO box_score_players VALUES (:id)"), boxes)
        connection.execute(text("CREATE TABLE hoopr_play_by_play (game_id bigint)"))
        plays = [{"id": int(game)} for game in sorted(_ids("espn_play_by_play"))]
        connection.execute(text("INSERT INTO hoopr_play_by_play VALUES (:id)"), plays)


@pytest.fixture
def real(project: Project, lake: Lake, warehouse: Engine) -> Project:
    """Return a project whose bucket, warehouse and local copy contain the data set."""
    _fill(warehouse)
    files = [path for folder in FOLDERS for path in sorted((REAL / folder).iterdir())]
    lake.put(BUCKET, {path.relative_to(REAL).as_posix(): path.read_bytes() for path in files})
    shutil.copytree(REPO / "config", project.folder / "config")
    project.env |= {
        **lake.env,
        "NBA_BUCKET": BUCKET,
        "NBA_DATABASE_URL": warehouse.url.render_as_string(hide_password=False),
        "NBA_LOCAL_LAKE": str(REAL),
    }
    return project


def _verify(project: Project, engine: Engine, *patterns: str) -> tuple[int, dict[str, Any], dict[str, Any]]:
    """Run `dims verify`. Return its exit code, values and details."""
    done = project.dims("verify", "--json", *(word for pattern in patterns for word in ("-m", pattern)))
    values = {item["metric"]: item["value"] for item in json.loads(done.stdout)["metrics"]}
    with engine.connect() as connection:
        rows = connection.execute(text("SELECT metric, details FROM dims_metrics_history WHERE details IS NOT NULL"))
        return done.returncode, values, {row.metric: row.details for row in rows}


def test_the_metrics_equal_the_figures_of_the_readme(real: Project, engine: Engine, lake: Lake) -> None:
    code, values, details = _verify(real, engine, "espn_data.*", "data_gaps.*", "sync_status.*", "s3_storage.*")
    assert code == 0
    sizes = {"espn_schedules": 558677, "espn_box_scores": 3785055, "espn_play_by_play": 6360841}
    sizes["espn_team_stats"] = 514558
    total = sum(sizes.values())
    assert values == {
        "s3_storage.total_objects": 82 + 273 + 85 + 273,
        "s3_storage.total_size_gb": total / 10**9,
        "s3_storage.hoopr_files": 0,
        "data_gaps.missing_games_count": 75,
        "data_gaps.games_without_pbp": 257,
        "sync_status.local_s3_sync_status": "synced",
        "espn_data.pbp_file_count": 85,
        "espn_data.boxscore_file_count": 273,
        "espn_data.schedule_file_count": 82,
        "espn_data.team_stats_file_count": 273,
        "espn_data.last_update_hours": pytest.approx(0, abs=0.5),
        "espn_data.oldest_data_days": pytest.approx(0, abs=0.1),
        "espn_data.total_size_gb": total / 10**9,
        "espn_data.avg_file_size_kb": pytest.approx(6360841 / 85 / 1000, rel=1e-12),
        "espn_data.small_files_count": 0,
        "espn_data.completeness_pct": pytest.approx(100 * 85 / 342, rel=1e-12),
        "espn_data.gap_days_count": 15,
    }
    assert len(lake.lists) == 1

    games = {game["game_id"] for game in _games()}
    no_box = games - _with_players()
    assert set(NEVER_PLAYED) < no_box
    assert details["data_gaps.missing_games_count"]["rows"] == sorted(no_box)
    assert details["data_gaps.games_without_pbp"]["rows"] == sorted(games - _ids("espn_play_by_play"))
    assert details["espn_data.gap_days_count"]["missing"] == list(OFF_DAYS)
    assert details["espn_data.gap_days_count"]["unreadable"] == 0
    assert details["espn_data.completeness_pct"]["missing"] == 257


@pytest.mark.parametrize(
    ("folder", "count", "size"),
    [
        ("espn_schedules", 82, 558677),
        ("espn_box_scores", 273, 3785055),
        ("espn_play_by_play", 85, 6360841),
        ("espn_team_stats", 273, 514558),
    ],
)
def test_counts_and_bytes_of_each_prefix(real: Project, engine: Engine, folder: str, count: int, size: int) -> None:
    selection = f"source: lake, prefix: {folder}/"
    (real.folder / "config" / "more.yaml").write_text(
        "metrics:\n  more:\n"
        f"    files: {{{selection}, measure: count}}\n    bytes: {{{selection}, measure: bytes}}\n"
        f"    tiny: {{{selection}, measure: count, smaller_than: 1KiB}}\n"
    )
    file = real.folder / "config" / "dims.yaml"
    file.write_text(file.read_text().replace("include: [metrics.yaml]", "include: [metrics.yaml, more.yaml]"))
    code, values, _ = _verify(real, engine, "more.*")
    assert (code, values) == (0, {"more.files": count, "more.bytes": size, "more.tiny": 0})


def test_missing_files_in_the_local_copy_are_counted(real: Project, engine: Engine, tmp_path: Path) -> None:
    for folder in FOLDERS:
        shutil.copytree(REAL / folder, tmp_path / "copy" / folder)
    lost = sorted((tmp_path / "copy" / "espn_play_by_play").iterdir())[:50]
    for path in lost:
        path.unlink()
    real.env["NBA_LOCAL_LAKE"] = str(tmp_path / "copy")
    code, values, details = _verify(real, engine, "sync_status.*")
    assert (code, values) == (0, {"sync_status.local_s3_sync_status": "minor_drift"})
    sync = details["sync_status.local_s3_sync_status"]
    assert (sync["only_local"], sync["only_s3"], sync["different"], sync["union"]) == (0, 50, 0, 713)
    assert sync["sync_drift_pct"] == pytest.approx(100 * 50 / 713)


def test_the_workflows_name_the_gaps_and_count_the_seasons(real: Project, tmp_path: Path) -> None:
    done = real.dims("workflow", "gap-analysis", "--json", check=True)
    games = json.loads(done.stdout)["games"]
    ids = {game["game_id"] for game in _games()}
    lacking = {gap: {game["id"] for game in games["missing"] if gap in game["lacks"]} for gap in _GAPS}
    assert lacking["box score content"] == ids - _with_players()
    assert lacking["play-by-play"] == ids - _ids("espn_play_by_play")
    assert [len(lacking[gap]) for gap in _GAPS] == [75, 257]

    real.env["NBA_ARCHIVES"] = str(tmp_path)
    real.env["NBA_TEMP"] = str(tmp_path)
    done = real.dims("workflow", "local-inventory", "--json", check=True)
    folders = {folder["name"]: folder for folder in json.loads(done.stdout)["folders"]}
    assert {name: folders[name]["files"] for name in FOLDERS} == {name: len(_ids(name)) for name in FOLDERS}
    for name, count in {"espn_play_by_play": 85, "espn_box_scores": 273, "espn_team_stats": 273}.items():
        assert [(season["season"], season["games"]) for season in folders[name]["seasons"]] == [("2012-13", count)]
    schedule = folders["espn_schedules"]
    assert (schedule["first"], schedule["last"]) == ("2013-03-16", "2013-06-20")

    done = real.dims("workflow", "sync-status", "--json", check=True)
    assert json.loads(done.stdout)["synced"] is True
