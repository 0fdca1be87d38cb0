"""A made data project with every trap that we know of, and the truth of each metric of the first user.

The generator draws from one seed, so that a world can be made again. What is true of it is counted here, by
plain loops over what was made; nothing of `dims_worker` is asked.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from typing import Any

GB, GIB = 10**9, 2**30
ODD_NAMES = ("with space.json", "plus+plus.json", "per%cent%20.json", "emoji 🏀.json", "ünï&<xml>.json", "a//b.json")
ML = (
    *("fetch_upcoming_games", "fetch_recent_player_data", "prepare_upcoming_game_features"),
    *("predict_upcoming_games", "train_model_for_predictions", "demo_predictions"),
)
PLUS_MINUS = ("plus_minus_calculator", "populate_plus_minus_tables", "demo_plus_minus_population")
PRICES = {"s3_gib_month": 0.023, "rds_gib_month": 0.10, "db.t3.micro": 14.60, "db.t3.small": 29.20}
DAYS = 283
"""How long ago the oldest things of a world were made."""


@dataclass(frozen=True)
class Object:
    """An object of the lake."""

    body: bytes
    modified: datetime

    @property
    def size(self) -> int:
        return len(self.body)


@dataclass(frozen=True)
class Game:
    id: str
    day: date
    home: str
    visitor: str

    @property
    def number(self) -> str:
        """The id as a column of integers has it."""
        return self.id.lstrip("0")

    @property
    def bref(self) -> str:
        """The id at Basketball Reference."""
        spelled = {"PHX": "PHO", "BKN": "BRK", "CHA": "CHO"}
        return f"{self.day:%Y%m%d}0{spelled.get(self.home, self.home)}"


@dataclass(frozen=True)
class Commit:
    """A commit of one new file. Its body is no part of its subject."""

    branch: str
    subject: str
    at: datetime
    body: str = ""


@dataclass
class World:
    """What was made. Paths and keys map to content; `truth` holds each metric's value by its full name.

    Sizes are in the metric's unit, ages are instants, and what nobody can know before it is measured
    (`rds_database_size_gb`) has no truth here.
    """

    now: datetime
    objects: dict[str, Object] = field(default_factory=dict)
    tree: dict[str, bytes] = field(default_factory=dict)
    commits: list[Commit] = field(default_factory=list)
    local_lake: dict[str, bytes] = field(default_factory=dict)
    archives: dict[str, bytes] = field(default_factory=dict)
    temp: dict[str, bytes] = field(default_factory=dict)
    espn: dict[str, bytes] = field(default_factory=dict)
    games: list[Game] = field(default_factory=list)
    with_box_score: set[str] = field(default_factory=set)
    with_pbp: set[str] = field(default_factory=set)
    instance_class: str = "db.t3.small"
    allocated_gib: int = 37
    truth: dict[str, Any] = field(default_factory=dict)
    different: dict[str, tuple[str, ...]] = field(default_factory=dict)
    """Of the local copy: keys `only_local`, `only_s3`, `different`."""

    @property
    def begin(self) -> datetime:
        return self.now.replace(microsecond=0) - timedelta(days=DAYS)

    @property
    def inventory_at(self) -> datetime:
        """When FILE_INVENTORY.md was written: three days ago."""
        return self.begin + timedelta(days=DAYS - 3, seconds=1)

    @property
    def ddl(self) -> list[str]:
        return [
            "CREATE TABLE games (game_id text PRIMARY KEY, game_date date, home text, visitor text)",
            "CREATE TABLE box_score_players (game_id text, player_id bigint, points int)",
            "CREATE TABLE hoopr_play_by_play (game_id bigint, event int, text text)",
        ]

    @property
    def rows(self) -> dict[str, list[tuple[Any, ...]]]:
        return {
            "games": [(game.id, game.day, game.home, game.visitor) for game in self.games],
            "box_score_players": [(game, player, 2) for game in sorted(self.with_box_score) for player in range(3)],
            # As in the real files: here the id is a number, without its leading zeros
            "hoopr_play_by_play": [(int(game), event, "%s :x") for game in sorted(self.with_pbp) for event in range(2)],
        }


def make(now: datetime, seed: int = 2013, *, objects: int = 1205) -> World:
    """A world as it is `now`, with so many ESPN play-by-play objects."""
    chance = random.Random(seed)
    world = World(now)
    _make_games(world, chance)
    _make_lake(world, chance, objects)
    _make_local_lake(world, chance)
    _make_tree(world, chance)
    for folder, files in ((world.archives, 5), (world.temp, 3), (world.espn, 40)):
        for number in range(files):
            folder[f"{'deep/' * (number % 3)}file {number}+%🏀.bin"] = _bytes(chance, 0, 9000)
    _tell_the_truth(world)
    return world


def _bytes(chance: random.Random, low: int, high: int) -> bytes:
    return bytes([chance.randrange(32, 127)]) * chance.randint(low, high)


def _text(chance: random.Random, lines: int) -> bytes:
    """So many newline bytes; now and then a last line without one, or bytes that are no UTF-8."""
    body = b"".join(b"x" * chance.randint(0, 60) + chance.choice((b"\n", b"\r\n")) for _ in range(lines))
    return body + chance.choice((b"", b"no end", b"\xff\xfe"))


# --- what is made ------------------------------------------------------------------------------------


def _make_games(world: World, chance: random.Random) -> None:
    teams = ("BOS", "IND", "PHX", "BKN", "CHA", "SAS", "MIA")
    day = date(2019, 10, 20)
    for number in range(400):
        if number % 5 == 0:
            day += timedelta(days=chance.choice((1, 1, 1, 2, 4)))
        home = teams[number % 5]
        world.games.append(Game(f"00{21900001 + number}", day, home, chance.choice(teams[5:])))
    for game in world.games:
        if chance.random() < 0.8:
            world.with_box_score.add(game.id)
        if chance.random() < 0.6:
            world.with_pbp.add(game.id)


def _make_lake(world: World, chance: random.Random, objects: int) -> None:
    def put(key: str, body: bytes) -> None:
        seconds = chance.randrange(250 * 86400)
        world.objects[key] = Object(body, world.begin + timedelta(days=1, seconds=seconds))

    def odd(prefix: str) -> None:
        for name in ODD_NAMES:
            put(f"{prefix}{name}", _bytes(chance, 0, 3000))
        put(f"{prefix}empty", b"")

    # ESPN: games with content, games with an empty object, games that the database does not know
    for game in world.games[:300]:
        put(f"espn_play_by_play/{game.id}.json", b"" if chance.random() < 0.1 else _bytes(chance, 1, 4000))
    put(f"espn_play_by_play/{world.games[0].id}_again.json", b"the same game again")
    for number in range(objects - 301 - 7):
        put(f"espn_play_by_play/4{number:08}.json", _bytes(chance, 0, 3000))
    odd("espn_play_by_play/")
    for game in world.games:
        put(f"espn_box_scores/{game.id}.json", _bytes(chance, 0, 900))
    odd("espn_box_scores/")
    for game in world.games[::7]:
        put(f"espn_team_stats/{game.id}.json", _bytes(chance, 0, 500))
    for game in world.games:  # a file a day of games: the days between are gaps
        put(f"espn_schedules/{game.day:%Y%m%d}.json", b'{"games": []}')
    for name in ("171031017.json", "readme.json", "20191399.json", "2020-01-05.json"):  # no days
        put(f"espn_schedules/{name}", b"{}")

    for game in world.games[50:200]:
        put(f"hoopr_parquet/play_by_play/pbp_{game.number}.parquet", _bytes(chance, 0, 20_000))
    put("hoopr_parquet/play_by_play/pbp_401999999.parquet", _bytes(chance, 11_000, 12_000))
    put("hoopr_parquet/schedules/2020.parquet", b"of no metric but the parquet files and the totals")
    for number in range(33):
        put(f"hoopr_phase1/{number}.csv", _bytes(chance, 0, 700))
    for february in (1, 2, 5, 28):
        put(f"hoopr_schedules/nba_202002{february:02}.csv", b"x")
    put("hoopr_schedules/nba_20200303_20200304.csv", b"the first of two days")
    odd("hoopr_team_stats/")

    for game in world.games[100:260:2]:
        put(f"basketball_reference/pbp/{game.bref}.html", _bytes(chance, 0, 2500))
    for game in world.games[100:200]:
        put(f"basketball_reference/box_scores/{game.bref}.html", _bytes(chance, 0, 2500))
    for day in (date(2019, 12, 30), date(2020, 1, 2)):
        put(f"basketball_reference/schedules/{day:%Y%m%d}.html", b"s" * 1024)
    put("basketball_reference/team_stats/BOS.html", b"s" * 1023)

    # A neighbour of a prefix, and the newest object of all in the middle of its prefix
    put("espn_play_by_play_old/0021900001.json", b"of no feed")
    put("zz/last.bin", _bytes(chance, 5000, 6000))
    for key, when in {
        f"espn_play_by_play/{world.games[20].id}.json": world.begin + timedelta(days=282, hours=5, seconds=7),
        f"espn_play_by_play/{world.games[90].id}.json": world.begin + timedelta(hours=1),
        f"hoopr_parquet/play_by_play/pbp_{world.games[60].number}.parquet": world.begin + timedelta(days=281),
        "basketball_reference/schedules/20191230.html": world.begin + timedelta(days=282),
    }.items():
        world.objects[key] = Object(world.objects[key].body, when)


SYNCED = ("espn_play_by_play", "espn_box_scores", "espn_schedules", "espn_team_stats")


def _make_local_lake(world: World, chance: random.Random) -> None:
    """The local copy: equal in number, and yet different. No file system holds a key with `//`."""
    keys = [key for key in world.objects if key.split("/")[0] in SYNCED]
    doubled = [key for key in keys if "//" in key]
    keys = sorted(set(keys) - set(doubled))
    for key in keys:
        world.local_lake[key] = world.objects[key].body
    chosen = chance.sample([key for key in keys if world.objects[key].size], 150)
    only_s3, longer, swapped = chosen[:60], chosen[60:90], chosen[90:]
    for key in only_s3:
        del world.local_lake[key]
    for number in range(60):
        world.local_lake[f"espn_box_scores/new {number}+%🏀.json"] = b"new"
    for key in longer:
        world.local_lake[key] += b"!"
    for key in swapped:  # as many bytes, and others
        world.local_lake[key] = world.local_lake[key][:-1] + b"\0"
    world.different = {
        "only_local": tuple(sorted(set(world.local_lake) - set(world.objects))),
        "only_s3": tuple(sorted([*only_s3, *doubled])),
        "different": tuple(sorted([*longer, *swapped])),
    }


def _make_tree(world: World, chance: random.Random) -> None:
    def put(path: str, lines: int | None = None) -> None:
        world.tree[path] = _text(chance, chance.randint(0, 90) if lines is None else lines)

    for name in (*ML, "test_models", "deep/feature_test"):
        put(f"scripts/ml/{name}.py")
    put("scripts/ml/daily_predictions.sh")
    put("scripts/ml/notes.txt")
    for name in (*PLUS_MINUS, "other", "deep/er/another"):
        put(f"scripts/pbp_to_boxscore/{name}.py")
    for path in ("tables.sql", "deep/views.sql", "deep/er/🏀 ü.sql", "not_sql.txt"):
        put(f"sql/plus_minus/{path}")
    put("sql/master_schema.sql")
    put("sql/phase9_box_score_snapshots.sql")
    for path in (
        *("index.md", "PLUS_MINUS.md", "deep/MY_PLUS_MINUS_notes.md", "plus_minus.md", "picture.png"),
        *("a + b %20.md", "claude_workflows/README.md"),
    ):
        put(f"docs/{path}")
    for number in range(17):
        put(f"docs/claude_workflows/workflow_descriptions/{'sub/' * (number % 2)}{number:02}_flow.md")
    for path in ("test_a.py", "tests/test_b.py", "tests/b_test.py", "tests/test_notes.md", "contest.py", "latest.py"):
        put(path)
    put("empty.py", 0)
    # What git ignores does not count
    world.tree[".gitignore"] = b"build/\n*.log\n/secret.py\n"
    for path in ("build/x.py", "secret.py", "docs/noise.log", "docs/build/x.md"):
        put(path)
    world.tree["FILE_INVENTORY.md"] = (
        "# file-inventory\n\nGenerated: 2025-10-28\n\n- **repo** was not reached: no git\n\n## Python (6)\n\n"
        + "".join(f"- `scripts/ml/{name}.py` Says why (Python, 12 lines, 1 kB)\n  * defines `f`\n" for name in ML)
        + "\n## SQL (1)\n\n- `sql/🏀 x.sql` (SQL, lines unknown)\n  * **note:** - `no/entry.py`\n"
    ).encode()
    first = datetime(2025, 10, 1, tzinfo=UTC)
    world.commits = [
        Commit("main", "rec_1 a second before", first - timedelta(seconds=1)),
        Commit("main", "rec_2 at midnight", first),
        Commit("main", "Implement REC_3", first + timedelta(days=2)),
        Commit("main", "plain", first + timedelta(days=3), "rec_4 stands in the body"),
        Commit("side/branch", "Rec_5 on a branch that was never merged", first + timedelta(days=4)),
        Commit("main", "record 6 has no underscore", first + timedelta(days=5)),
        Commit("main", "ünï rec_7 🏀", first + timedelta(days=6)),
    ]


# --- what is true ------------------------------------------------------------------------------------


def _tell_the_truth(world: World) -> None:
    world.truth = {**_true_lake(world), **_true_tree(world), **_true_rest(world)}


def _true_lake(world: World) -> dict[str, Any]:
    all_bytes = sum(each.size for each in world.objects.values())
    truth: dict[str, Any] = {
        "s3_storage.total_objects": len(world.objects),
        "s3_storage.total_size_gb": all_bytes / GB,
        "s3_storage.hoopr_files": len(_under(world, "hoopr_parquet/")),
        "aws_inventory.monthly_cost_estimate_usd": all_bytes / GIB * PRICES["s3_gib_month"]
        + PRICES[world.instance_class]
        + world.allocated_gib * PRICES["rds_gib_month"],
    }
    numbers = {game.number for game in world.games}
    espn = ("espn_play_by_play/", "espn_box_scores/", "espn_schedules/", "espn_team_stats/")
    found = {re.match(r"\d*", name)[0].lstrip("0") for name in _with_content(world, espn[0])}  # type: ignore[index]
    truth |= _true_feed(world, "espn_data", espn, "boxscore_file_count", espn[0], 1024, ("avg_file_size_kb", 1000))
    truth["espn_data.completeness_pct"] = 100 * len(found & numbers) / len(numbers)

    hoopr = ("hoopr_parquet/play_by_play/", "hoopr_phase1/", "hoopr_schedules/", "hoopr_team_stats/")
    found = {name.removesuffix(".parquet").split("_")[1] for name in _with_content(world, hoopr[0])}
    truth |= _true_feed(
        world, "hoopr_data", hoopr, "phase1_file_count", hoopr[0], 10 * 1024, ("avg_file_size_mb", 10**6)
    )
    truth["hoopr_data.completeness_pct"] = 100 * len(found & numbers) / len(numbers)

    root = "basketball_reference/"
    bref = (f"{root}pbp/", f"{root}box_scores/", f"{root}schedules/", f"{root}team_stats/")
    found = {name.split(".")[0] for name in _with_content(world, bref[0])}
    ids = {game.bref for game in world.games}
    truth |= _true_feed(
        world, "basketball_reference_data", bref, "boxscore_file_count", root, 1024, ("avg_file_size_kb", 1000)
    )
    truth["basketball_reference_data.completeness_pct"] = 100 * len(found & ids) / len(ids)
    return truth


def _under(world: World, *prefixes: str) -> dict[str, Object]:
    return {key: each for key, each in world.objects.items() if any(key[: len(p)] == p for p in prefixes)}


def _with_content(world: World, prefix: str) -> list[str]:
    return [key.split("/")[-1] for key, each in _under(world, prefix).items() if each.size > 0]


def _true_feed(
    world: World,
    feed: str,
    prefixes: tuple[str, str, str, str],
    second: str,
    fresh: str,
    small: int,
    mean: tuple[str, int],
) -> dict[str, Any]:
    counts = [len(_under(world, prefix)) for prefix in prefixes]
    times = [each.modified for each in _under(world, fresh).values()]
    plays = [each.size for each in _under(world, prefixes[0]).values()]
    facts = {
        "pbp_file_count": counts[0],
        second: counts[1],
        "schedule_file_count": counts[2],
        "team_stats_file_count": counts[3],
        "last_update_hours": max(times),
        "oldest_data_days": min(times),
        "total_size_gb": sum(each.size for each in _under(world, *prefixes).values()) / GB,
        mean[0]: sum(plays) / len(plays) / mean[1],
        "small_files_count": sum(1 for each in _under(world, fresh).values() if each.size < small),
        "gap_days_count": len(missing_days(_under(world, prefixes[2]))),
    }
    return {f"{feed}.{name}": value for name, value in facts.items()}


def missing_days(keys: Iterable[str]) -> list[date]:
    """The days between the first and the last that have no key; what has no eight digits of a day is no day."""
    days = set()
    for key in keys:
        digits = [run for run in re.split(r"\D+", key.split("/")[-1]) if len(run) == 8]
        try:
            days.add(datetime.strptime(digits[0], "%Y%m%d").replace(tzinfo=UTC).date())
        except (IndexError, ValueError):
            continue
    missing, day = [], min(days)
    while day < max(days):
        if day not in days:
            missing.append(day)
        day += timedelta(days=1)
    return missing


def _true_tree(world: World) -> dict[str, Any]:
    ignored = {"build/x.py", "secret.py", "docs/noise.log", "docs/build/x.md"}
    files = {path: body for path, body in world.tree.items() if path not in ignored}

    def lines(*paths: str) -> int:
        return sum(files[path].count(b"\n") for path in paths)

    def named(start: str, end: str, within: str = "") -> list[str]:
        return [path for path in files if path.startswith(start) and path.endswith(end) and within in path]

    ml = {f"prediction_system.{name}_lines": lines(f"scripts/ml/{name}.py") for name in ML}
    ml["prediction_system.daily_predictions_sh_lines"] = lines("scripts/ml/daily_predictions.sh")
    plus = {
        "plus_minus_system.python_lines": lines(*(f"scripts/pbp_to_boxscore/{name}.py" for name in PLUS_MINUS)),
        "plus_minus_system.sql_lines": lines(*named("sql/plus_minus/", ".sql")),
        "plus_minus_system.docs_lines": lines(*named("docs/", ".md", "PLUS_MINUS")),
    }
    last = [path.split("/")[-1] for path in named("", ".py")]
    return {
        **ml,
        "prediction_system.total_lines": sum(ml.values()),
        **plus,
        "plus_minus_system.total_lines": sum(plus.values()),
        "code_base.python_files": len(last),
        "code_base.ml_scripts": len(named("scripts/ml/", ".py")),
        "code_base.phase_2_scripts": len(named("scripts/pbp_to_boxscore/", ".py")),
        "code_base.test_files": sum(1 for name in last if name.startswith("test_") or name.endswith("_test.py")),
        "documentation.markdown_files": len(named("docs/", ".md")),
        "documentation.total_size_mb": sum(len(files[path]) for path in named("docs/", "")) / 10**6,
        "workflows.total": len(named("docs/claude_workflows/workflow_descriptions/", ".md")),
        "sql_schemas.total_lines": lines("sql/master_schema.sql", "sql/phase9_box_score_snapshots.sql"),
        "file_inventory.total_files_documented": len(ML) + 1,
        "file_inventory.last_inventory_age_days": world.inventory_at,
        "git.book_recommendation_commits": 4,  # 2, 3, 5, 7
    }


def _true_rest(world: World) -> dict[str, Any]:
    def size(files: Mapping[str, bytes]) -> float:
        return sum(len(body) for body in files.values()) / GB

    synced = {key for key in world.objects if key.split("/")[0] in SYNCED}
    pct = 100 * sum(map(len, world.different.values())) / len(synced | set(world.local_lake))
    words = ((5, "synced"), (15, "minor_drift"), (30, "moderate_drift"), (101, "major_drift"))
    return {
        "local_data.espn_size_gb": size(world.espn),
        "local_data.archives_size_gb": size(world.archives),
        "local_data.temp_data_size_gb": size(world.temp),
        "aws_inventory.rds_allocated_storage_gb": world.allocated_gib,
        "data_gaps.missing_games_count": len(world.games) - len(world.with_box_score),
        "data_gaps.games_without_pbp": len(world.games) - len(world.with_pbp),
        "sync_status.local_s3_sync_status": next(word for bound, word in words if pct < bound),
    }
