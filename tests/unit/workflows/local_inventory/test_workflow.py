"""local-inventory on sample folders: dates, seasons, games, large files, missing folders, short seasons."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import pytest

from dims_worker.config import load_config
from dims_worker.config.workflows import LocalFolder
from dims_worker.formatting import format_bytes
from dims_worker.workflows import WorkflowOutcome, render_report, run_workflow, write_report
from dims_worker.workflows.markdown import code_span, escape_markdown, escape_prose, markdown_table
from dims_worker.workflows.seasons import date_in, season_named, season_of

Inventory = Callable[..., WorkflowOutcome]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    folder = tmp_path / "data"
    folder.mkdir()
    return folder


@pytest.fixture
def inventory(data: Path, tmp_path: Path) -> Inventory:
    def make(folders: str = "pbp: {path: data}", more: str = "", quick: bool = False) -> WorkflowOutcome:
        (tmp_path / "dims.yaml").write_text(
            "sources: {here: {type: files, path: data}}\n"
            "metrics: {local: {files: {source: here, measure: count}}}\n"
            f"workflows: {{local_inventory: {{folders: {{{folders}}}{more}}}}}\n"
            "rules: {}\n"
        )
        return run_workflow(
            load_config(None, {"DIMS_HOME": str(tmp_path / "home")}, tmp_path), "local-inventory", quick=quick
        )

    return make


def fill(folder: Path, *names: str, content: bytes = b"12") -> None:
    for name in names:
        path = Path(f"{folder}/{name}")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


def only(outcome: WorkflowOutcome) -> dict[str, Any]:
    (folder,) = outcome.result["folders"]
    return dict(folder)


def test_files_bytes_dates(data: Path, inventory: Inventory) -> None:
    fill(data, "20130316.json", "sub/20130620.json", "171031017.json", "20131301.json", "x.txt")
    folder = only(inventory())
    assert (folder["files"], folder["bytes"], folder["first"], folder["last"]) == (5, 10, "2013-03-16", "2013-06-20")
    assert folder["undated"] == 3
    assert [(season["season"], season["files"]) for season in folder["seasons"]] == [("2012-13", 2)]


def test_games_are_distinct_ids_and_days_are_not_games(data: Path, inventory: Inventory) -> None:
    fill(data, "0021201082_20130316.json", "0021201082_20130316.csv", "0021201083_20130317.json", "20130318.json")
    folder = only(inventory(more=", expected_games: {default: 8}, few_games: 3"))
    (season,) = folder["seasons"]
    assert (season["files"], season["games"], season["declared_games"]) == (4, 2, 8)
    assert (season["expected"], season["missing"], season["completeness_pct"]) == (None, None, None)
    assert season["few"]


def test_misnamed_files_create_no_day_and_no_season(data: Path, inventory: Inventory) -> None:
    fill(data, "20130316_0021201082.json", "20130317_0021201083.json")
    fill(data, "20190101_backup.json", "20139999_x.json", "20991231.json", "notes.txt")
    folder = only(inventory())
    assert (folder["first"], folder["last"]) == ("2013-03-16", "2013-03-17")
    assert [(season["season"], season["files"]) for season in folder["seasons"]] == [("2012-13", 2)]
    assert folder["unrecognized"] == 4
    assert folder["unrecognized_names"] == ["20139999_x.json", "20190101_backup.json", "20991231.json", "notes.txt"]


def test_a_result_of_an_earlier_version_is_rendered(data: Path, inventory: Inventory) -> None:
    fill(data, "20130316_0021201082.json")
    result = json.loads(json.dumps(inventory().result))
    new = {"empty", "unrecognized", "unrecognized_names", "without_content", "foreign", "foreign_ids", "not_compared"}
    new |= {"not_played", "missing_ids", "types", "regular_games", "declared_games"}
    (folder,) = result["folders"]
    for document in (folder, *folder["seasons"]):
        for key in new & document.keys():
            del document[key]
    del result["games_table"]
    assert "| 2012-13 | 1 |" in render_report(result)


def test_files_of_days_have_no_completeness(data: Path, inventory: Inventory) -> None:
    fill(data, "20130318.json")
    outcome = inventory()
    (season,) = only(outcome)["seasons"]
    assert (season["games"], season["missing"], season["completeness_pct"], season["few"]) == (None, None, None, False)
    assert outcome.result["attention"] == []


def test_seasons_in_the_path_and_no_percentage_of_a_guess(data: Path, inventory: Inventory) -> None:
    fill(data, *(f"2019-20/{400_000_000 + n}.json" for n in range(120)), "2020_2021/400278394.json")
    outcome = inventory("pbp: {path: data, season: '(\\d{4}[-_]\\d{2,4})/'}")
    seasons = {season["season"]: season for season in only(outcome)["seasons"]}
    assert (seasons["2019-20"]["games"], seasons["2019-20"]["expected"], seasons["2019-20"]["few"]) == (
        120,
        None,
        False,
    )
    assert (seasons["2020-21"]["games"], seasons["2020-21"]["completeness_pct"]) == (1, None)
    assert "Missing games are unknown: no games table is configured" in render_report(outcome.result)
    assert outcome.result["attention"] == ["pbp: season 2020-21 has 1 game, under 100."]
    assert "**under 100 games**" in render_report(outcome.result)


def test_a_season_in_an_id(data: Path, inventory: Inventory) -> None:
    fill(data, "0021201082.json", "0029901082.json")
    outcome = inventory("pbp: {path: data, season: '(?:^|/)00\\d(\\d\\d)'}")
    assert [season["season"] for season in only(outcome)["seasons"]] == ["1999-00", "2012-13"]


def test_a_season_in_the_path_of_the_folder(data: Path, inventory: Inventory) -> None:
    fill(data, "2012-13/400278394.json")
    outcome = inventory("pbp: {path: data/2012-13, season: '(\\d{4}-\\d\\d)'}")
    assert [season["season"] for season in only(outcome)["seasons"]] == ["2012-13"]


def test_ids_of_other_forms(data: Path, inventory: Inventory) -> None:
    fill(data, "201210300BOS.html", "201210300MIA.html", "play_by_play_2013.parquet")
    assert only(inventory())["games"] == 2
    assert only(inventory("pbp: {path: data, id: null}"))["games"] is None


def test_large_files_are_named(data: Path, inventory: Inventory) -> None:
    fill(data, "b.bin", "a.bin", content=b"1234")
    fill(data, "small.bin", content=b"123")
    outcome = inventory(more=", large: 3")
    assert only(outcome)["large"] == [{"path": "a.bin", "bytes": 4}, {"path": "b.bin", "bytes": 4}]
    assert "Files over 3 B" in render_report(outcome.result)


def test_a_missing_folder_is_named_and_not_0(data: Path, inventory: Inventory) -> None:
    fill(data, "20130316.json")
    outcome = inventory("gone: {path: nowhere}, none: {path: ''}, pbp: {path: data}")
    assert set(outcome.unreached) == {"folder gone", "folder none"}
    assert "does not exist" in outcome.unreached["folder gone"]
    assert "variable" in outcome.unreached["folder none"]
    assert [folder["files"] for folder in outcome.result["folders"]] == [None, None, 1]
    assert outcome.scanned.readings[0].method == "failed"
    text = render_report(outcome.result)
    assert "**folder gone** was not reached" in text
    assert "| gone | *not reached* | *not reached* |" in text
    assert "0 files" not in text


def test_an_empty_folder_is_0_and_reported(inventory: Inventory) -> None:
    outcome = inventory()
    assert only(outcome)["files"] == 0
    assert outcome.result["attention"] == ["pbp: the folder is empty."]


def test_a_quick_run_reads_neither_lake_nor_database(data: Path, inventory: Inventory) -> None:
    fill(data, "20130316.json")
    outcome = inventory("pbp: {path: data}", more=", metrics: ['local.*']", quick=True)
    assert "a quick run, which does not read the lake and the database" in render_report(outcome.result)
    assert {reading.metric: reading.value for reading in outcome.scanned.readings} == {
        "workflow.local-inventory": "ok",
        "local.files": 1,
    }


def test_links_pipes_and_odd_names(data: Path, inventory: Inventory) -> None:
    fill(data, "a|b`\n20130316.json", "\udcff.json", "🏀.json", content=b"1234")
    (data / "link").symlink_to("🏀.json")
    (data / "loop").symlink_to(".")
    os.mkfifo(data / "pipe")
    outcome = inventory("'p|q\\n`<b>': {path: data}".replace("'", '"'), more=", large: 1")
    folder = only(outcome)
    assert folder["files"] == 3
    text = render_report(outcome.result)
    text.encode()
    json.dumps(outcome.result, ensure_ascii=False).encode()
    rows = [line for line in text.splitlines() if line.startswith("|")]
    widths = {len(re.findall(r"(?<!\\)\|", row)) for row in rows if "a\\|b" in row or "🏀" in row or "xff" in row}
    assert widths == {3}
    assert len(rows) == 3 + 3 + 5


def test_an_unchanged_report_is_not_rewritten(data: Path, tmp_path: Path, inventory: Inventory) -> None:
    fill(data, "20130316.json")
    for name in ("report.md", "report.json"):
        path = tmp_path / name
        assert write_report(path, inventory().result)
        before = path.read_bytes()
        assert not write_report(path, {**inventory().result, "generated_at": "2999-01-01T00:00:00+00:00"})
        assert path.read_bytes() == before
    fill(data, "20130317.json")
    assert write_report(tmp_path / "report.md", inventory().result)


# --- seasons and tables ------------------------------------------------------------------------------


def test_seasons() -> None:
    assert season_of(date(2012, 7, 1)) == season_of(date(2013, 6, 30)) == "2012-13"
    assert season_of(date(1999, 10, 1)) == "1999-00"
    for name in ("2012-13", "2012_13", "2012-2013", "201213", "2012", "12"):
        assert season_named(name) == "2012-13", name
    assert season_named("46") == "1946-47"
    assert season_named("2012-15") == "2012-15"
    assert season_named("playoffs") == "playoffs"


def test_dates() -> None:
    pattern = re.compile(LocalFolder(path="x").date)
    assert date_in(pattern, "a_20130316.json") == date(2013, 3, 16)
    assert date_in(pattern, "20131301_20130316") == date(2013, 3, 16)
    assert date_in(pattern, "171031017") is None
    assert date_in(pattern, "41200101") is None
    assert date_in(re.compile(r"(\d{4})-(\d\d)-(\d\d)"), "2013-03-16.csv") == date(2013, 3, 16)


def test_a_pattern_needs_a_group() -> None:
    with pytest.raises(ValueError, match="need a group"):
        LocalFolder(path="x", date=r"\d{8}")


def test_tables() -> None:
    rows: list[list[object]] = [[code_span("a|b"), 1230], [escape_markdown("a|*b*\n<i>"), None], ["x\\", 1.5]]
    assert markdown_table(("name", "n"), rows, (1,)) == [
        "| name | n |",
        "| --- | ---: |",
        "| `a\\|b` | 1,230 |",
        "| a\\|\\*b\\*\\\\n\\<i\\> |  |",
        "| x\\\\ | 1.5 |",
    ]


def test_escaping() -> None:
    assert code_span("a`b") == "`` a`b ``"
    assert code_span("a\n\x1b\udcff") == "`a\\n\\x1b\\udcff`"
    assert escape_markdown("1. first") == "1\\. first"
    assert escape_markdown("- x") == "\\- x"
    assert escape_markdown("snake_case & R&D &amp;") == "snake_case & R&D \\&amp;"
    assert escape_prose("Runs `a_b*` and ``c`` of <x>") == "Runs `a_b*` and `c` of \\<x\\>"
    assert [format_bytes(n) for n in (0, 999, 1000, 999_999, 10**9, 5 * 10**12)] == [
        *("0 B", "999 B", "1.0 kB", "1.0 MB", "1.0 GB", "5.0 TB"),
    ]
