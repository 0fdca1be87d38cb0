"""The real lake, its tables, and a configuration of workflows for them."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, text

REAL = Path(__file__).parents[4] / "shared" / "nba_lake_2013"
FEEDS = ("espn_schedules", "espn_box_scores", "espn_play_by_play", "espn_team_stats")
BUCKET = "nba-lake"

CONFIG = """
sources:
  lake: {type: s3, bucket: nba-lake}
  warehouse: {type: sql, url: "${NBA_DATABASE_URL:-}"}
  account: {type: aws}
metrics:
  s3_storage:
    total_objects: {source: lake, measure: count}
  sync_status:
    local_s3: {source: lake, measure: sync_status, local: local, pairs: [{folder: bbref, prefix: bbref/}]}
rules:
  scraper_complete: {on: dims.scraper.complete, workflows: [gap-analysis, sync-status]}
prices:
  s3_gib_month: 0.023
  rds_gib_month: 0.10
  rds_class: {db.t3.micro: 14.60, db.t3.small: 29.20}
workflows:
  gap_analysis:
    warehouse: warehouse
    lake: lake
    report: reports/gaps.md
    games: SELECT game_id, game_date, game_status = 3 AS played FROM games
    feeds:
      espn:
        prefixes: {pbp: espn_play_by_play/, boxscore: espn_box_scores/,
                   schedule: espn_schedules/, team_stats: espn_team_stats/}
  aws_inventory: {lake: lake, aws: account, instance: nba-sim-db, warehouse: warehouse, report: reports/aws.md}
  sync_status: {metric: sync_status.local_s3, report: reports/sync.md}
  audit: {report: reports/audit.md}
"""


def real_place() -> Path:
    """Return the folder of the real lake. Skip the test if it does not exist."""
    if not REAL.is_dir():
        pytest.skip(f"the real lake is not at {REAL}")
    return REAL


def real_lake() -> dict[str, bytes]:
    """Return the objects of the real lake by key."""
    place = real_place()
    return {f"{feed}/{file.name}": file.read_bytes() for feed in FEEDS for file in sorted((place / feed).iterdir())}


def real_games() -> list[dict[str, str]]:
    with (real_place() / "tables" / "games.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def with_players() -> set[str]:
    """Return the games whose box score names a player, read independently of the product code."""

    def has(value: Any) -> bool:
        if isinstance(value, Mapping):
            return any((key == "player" and bool(each)) or has(each) for key, each in value.items())
        return isinstance(value, list) and any(map(has, value))

    files = (real_place() / "espn_box_scores").iterdir()
    return {file.stem for file in files if has(json.loads(file.read_text(encoding="utf-8")))}


def with_play_by_play() -> set[str]:
    return {file.stem for file in (real_place() / "espn_play_by_play").iterdir()}


def make_tables(
    engine: Engine, games: Iterable[tuple[Any, Any, Any]], box_scores: Iterable[Any], play_by_play: Iterable[Any]
) -> None:
    """Create the three tables. A game is (id, date, status). Ids in the other tables have no leading zeros."""
    with engine.begin() as connection:
        connection.execute(text("CREATE TABLE games (game_id text, game_date date, game_status int)"))
        connection.execute(text("CREATE TABLE box_score_players (game_id text, player text)"))
        connection.execute(text("CREATE TABLE hoopr_play_by_play (game_id bigint, event int)"))
        rows = [dict(zip(("id", "day", "status"), game, strict=True)) for game in games]
        connection.execute(text("INSERT INTO games VALUES (:id, :day, :status)"), rows)
        for table, ids in (("box_score_players", box_scores), ("hoopr_play_by_play", play_by_play)):
            actual = [{"id": name} for name in ids for _ in range(2)]
            if actual:
                connection.execute(text(f"INSERT INTO {table} VALUES (:id, '1')"), actual)


def make_real_tables(engine: Engine) -> None:
    games = [(game["game_id"], game["game_date"], int(game["game_status"])) for game in real_games()]
    make_tables(engine, games, with_players(), map(int, with_play_by_play()))
