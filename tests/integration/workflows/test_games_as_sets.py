"""Random games tables and lakes: both workflows count what plain set arithmetic over the same inputs counts."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import date, timedelta
from decimal import Decimal
from typing import Any

import pytest
from sqlalchemy import Engine, text

from dims_worker import workflows
from dims_worker.config import load_config
from tests.conftest import REPO, Lake, Project

CONFIG = """
sources:
  lake: {type: s3, bucket: BUCKET}
  warehouse: {type: sql, url: "${NBA_DATABASE_URL:-}"}
metrics:
  espn: {complete: {source: lake, measure: completeness, prefix: pbp/, id: '_(\\d+)', min_size: 8,
                    expected: {source: warehouse, query: SELECT game_id FROM games}}}
workflows:
  gap_analysis:
    metrics: "espn.*"
    warehouse: warehouse
    lake: lake
    missing_ids: null
    games: SELECT game_id, game_date, status AS played FROM games
    feeds: {espn: {min_size: 8, prefixes: {pbp: pbp/, schedule: schedule/}}}
  local_inventory:
    warehouse: warehouse
    folders:
      pbp: {path: pbp, id: '_(\\d+)', date: '^(\\d{8})_', min_size: 8}
rules: {}
"""
BOUNDS = {
    2018: (date(2018, 10, 16), date(2019, 6, 13)),
    2019: (date(2019, 10, 22), date(2020, 10, 11)),
    2020: (date(2020, 12, 22), date(2021, 7, 20)),
    2021: (date(2021, 10, 19), date(2022, 6, 16)),
}
TYPES = {1: "preseason", 2: "regular", 4: "playoffs", 5: "play-in"}
FORMS: dict[str, Any] = {
    "text": str,
    "bigint": int,
    "numeric(12,2)": Decimal,
    "double precision": float,
    "char(20)": lambda name: f" {name}.0",
}
WHOLE, CUT = b'{"plays": [1, 2]}', b'{"plays": [1, 2'


@dataclass
class World:
    """Random games and files, and what is true: the ids of each season and type, and those with a whole file."""

    games: list[tuple[str, date, str]] = field(default_factory=list)
    """Rows: id, day, status."""
    truth: dict[tuple[str, str], set[str]] = field(default_factory=dict)
    files: dict[str, bytes] = field(default_factory=dict)
    whole: set[str] = field(default_factory=set)
    sized: set[str] = field(default_factory=set)
    """The ids of files that are large enough: also those that are truncated."""


def make(chance: random.Random, *, nba: bool) -> World:
    world = World()
    for year, (first, last) in BOUNDS.items():
        for number in range(chance.randint(20, 60)):
            kind = chance.choice([1, 2, 2, 2, 4, 5])
            name = f"00{kind}{year % 100}{number:05}" if nba else f"401{year % 100}{kind}{number:03}"
            day = first + timedelta(chance.randrange((last - first).days + 1))
            if chance.random() < 0.1:
                world.games.append((name, max(first, day - timedelta(20)), "Postponed"))
            world.games.append((name, day, chance.choice(["Final", "Final/OT", "Final", "Cancelled"])))
            season = f"{year}-{(year + 1) % 100:02}"
            world.truth.setdefault((season, TYPES[kind] if nba else "unknown"), set()).add(name)
            _add_files(world, chance, name, day)
    for number in range(chance.randint(0, 30)):  # another league has games on the same days
        _add_files(world, chance, f"1022100{number:03}", date(2021, 12, 1), missing=0)
    for name in ("readme.txt", "20191301_x.json", "_notes.json", "29990101_x.json", "20300230_.json"):
        world.files[name] = WHOLE
    chance.shuffle(world.games)
    return world


def _add_files(world: World, chance: random.Random, name: str, day: date, missing: float = 0.2) -> None:
    if chance.random() < missing:
        return
    content = chance.choice([WHOLE, WHOLE, WHOLE, WHOLE, CUT, b"", b"null"])
    for suffix in chance.choice([("json",), ("json",), ("json", "copy.json")]):
        world.files[f"{day:%Y%m%d}_{name}.{suffix}"] = content
    if content == WHOLE:
        world.whole.add(name)
    if len(content) >= 8:
        world.sized.add(name)


def expect(world: World, ids: set[str], by: int) -> dict[str, tuple[int, int, int]]:
    """Return games, expected and missing of each season (by 0) or type (by 1): plain set arithmetic."""
    groups: dict[str, set[str]] = {}
    for key, games in world.truth.items():
        groups.setdefault(key[0] if by == 0 else " ".join(key), set()).update(games)
    return {name: (len(games & ids), len(games), len(games - ids)) for name, games in groups.items()}


def counted(seasons: list[dict[str, Any]]) -> Iterator[tuple[str, tuple[int, int, int]]]:
    for season in seasons:
        yield season["season"], (season["games"], season["expected"], season["missing"])
        for own in season["types"]:
            yield f"{season['season']} {own['type']}", (own["games"], own["expected"], own["missing"])


@pytest.mark.parametrize("seed", range(len(FORMS)))
def test_games_per_season_and_type_equal_set_arithmetic(
    seed: int, project: Project, lake: Lake, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    chance, form = random.Random(seed), list(FORMS)[seed % len(FORMS)]
    world = make(chance, nba=seed % 2 == 0)
    with engine.begin() as connection:
        connection.execute(text(f"CREATE TABLE games (game_id {form}, game_date date, status text)"))
        for table in ("box_score_players", "hoopr_play_by_play"):
            connection.execute(text(f"CREATE TABLE {table} (game_id {form})"))
        rows = [{"id": FORMS[form](name), "day": day, "status": status} for name, day, status in world.games]
        rows += [{"id": None, "day": date(2020, 1, 1), "status": "Final"}] * 2
        connection.execute(text("INSERT INTO games VALUES (:id, :day, :status)"), rows)
        loaded = {name for ids in world.truth.values() for name in ids if chance.random() < 0.7}
        plays = [{"id": FORMS[form](name)} for name in sorted(loaded)]
        connection.execute(text("INSERT INTO hoopr_play_by_play VALUES (:id)"), plays)
    lake.put(f"lake-{seed}", {f"pbp/{name}": content for name, content in world.files.items()})
    (project.folder / "pbp").mkdir()
    for name, content in world.files.items():
        (project.folder / "pbp" / name).write_bytes(content)
    for name, value in lake.env.items():
        monkeypatch.setenv(name, value)
    project.env |= {**lake.env, "NBA_DATABASE_URL": project.env["DIMS_DATABASE_URL"]}
    project.write({"dims.yaml": CONFIG.replace("BUCKET", f"lake-{seed}")})

    local = workflows.run_workflow(project.config, "local-inventory").result
    outcome = workflows.run_workflow(project.config, "gap-analysis")
    gaps = outcome.result
    assert (local["unreached"], gaps["unreached"]) == ({}, {})
    (folder,) = local["folders"]
    everyone = set().union(*world.truth.values())
    by_season, by_type = expect(world, world.whole, 0), expect(world, world.whole, 1)
    assert dict(counted(folder["seasons"])) == by_season | by_type
    assert folder["foreign"] == len(world.whole - everyone)
    assert folder["games"] == len(world.whole)
    assert (folder["unrecognized"], "20191301_x.json" in folder["unrecognized_names"]) == (5, True)

    assert {season["season"]: season["games"] for season in gaps["games"]["seasons"]} == {
        season: games for season, (_, games, _) in by_season.items()
    }
    assert {f"{own['season']} {own['type']}": own["games"] for own in gaps["games"]["types"]} == {
        name: games for name, (_, games, _) in by_type.items()
    }
    in_lake = expect(world, world.sized, 0) | expect(world, world.sized, 1)
    assert dict(counted(gaps["feed_games"])) == in_lake
    assert gaps["games"]["all"]["games"] == len(everyone)
    (complete,) = [reading for reading in outcome.scanned.readings if reading.metric == "espn.complete"]
    assert complete.value == pytest.approx(100 * len(everyone & world.sized) / len(everyone))
    assert complete.details["values_without_id"] == {"NULL": 2}
    assert gaps["games_table"]["rows_without_id"] == local["games_table"]["rows_without_id"] == 2
    assert [gap for gap in gaps["date_gaps"] if gap["of"] == "espn pbp" and not gap["game_days"]] == []
    lacking = gaps["games"]["all"]["without_box_score"], gaps["games"]["all"]["without_play_by_play"]
    assert lacking == (len(everyone), len(everyone - loaded))
    shipped = load_config(REPO / "config" / "dims.yaml", {}, REPO).metrics
    for name, count in zip(("missing_games_count", "games_without_pbp"), lacking, strict=True):
        metric = shipped[f"data_gaps.{name}"].model_dump()
        with engine.connect() as connection:
            assert connection.exec_driver_sql(metric["query"]).scalar_one() == count
            assert len(connection.exec_driver_sql(metric["rows"]).all()) == count
    not_played = {name for name, _, status in world.games if status == "Cancelled"}
    assert gaps["games"]["all"]["not_played"] == len(not_played)
