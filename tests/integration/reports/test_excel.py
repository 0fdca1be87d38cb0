"""The workbook, opened again by another library: sheet by sheet what the database holds."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import openpyxl
import pytest
from sqlalchemy import Engine, text

from dims_worker.config import Config
from dims_worker.reports import excel, spreadsheet
from dims_worker.reports.inventory import gather_report
from dims_worker.reports.spreadsheet import as_text
from dims_worker.store.engine import transaction

YEAR = timedelta(days=400)
SHEETS = ["overview", "latest", "history", "drift", "runs", "approvals", "events", "days", "trends"]


@pytest.fixture(scope="module")
def book(filled: Engine, year: Config, tmp_path_factory: pytest.TempPathFactory) -> Any:
    path = tmp_path_factory.mktemp("excel") / "inventory.xlsx"
    with transaction(filled) as connection:
        excel.write_workbook(connection, gather_report(connection, year, YEAR), path)
    return openpyxl.load_workbook(path)


def rows(book: Any, name: str) -> list[dict[str, Any]]:
    head, *others = book[name].iter_rows(values_only=True)
    return [dict(zip(head, row, strict=True)) for row in others]


def asked(engine: Engine, query: str) -> list[dict[str, Any]]:
    with engine.connect() as connection:
        return [dict(row) for row in connection.execute(text(query)).mappings()]


def cell(value: Any) -> Any:
    """What a cell gives back for a value of the database: times to the millisecond, without their zone (UTC)."""
    if isinstance(value, datetime):
        return value.astimezone(UTC).replace(tzinfo=None)
    return value


def alike(there: Any, value: Any) -> bool:
    if isinstance(value, datetime):
        return isinstance(there, datetime) and abs(there - cell(value)) < timedelta(milliseconds=2)
    if isinstance(value, bool | int | str) or value is None:
        return bool(there == value and type(there) is type(value))
    return bool(there == pytest.approx(value))


def test_each_workflow_has_a_sheet_with_its_figures_as_numbers(book: Any, year: Config) -> None:
    assert book.sheetnames[len(SHEETS) :] == list(year.configured_workflows)
    assert len(year.configured_workflows) == 6  # five, and the audit
    for n, name in enumerate(year.configured_workflows):
        cells = {row[0]: row[1] for row in book[name].iter_rows(values_only=True)}
        assert (cells["games.all.games"], cells["games.all.coverage_pct"]) == (1230 + n, 97.5)
        assert cells["games"] == n  # of the summary
        assert cells["0021"] == 2013
        assert book[name].freeze_panes and book[name].auto_filter.ref


def test_every_sheet_has_rows_a_header_that_stays_and_a_filter(book: Any) -> None:
    assert book.sheetnames[: len(SHEETS)] == SHEETS
    for name in SHEETS[:-1]:
        sheet = book[name]
        assert sheet.max_row > 10, name
        assert sheet.freeze_panes, name
        assert sheet.auto_filter.ref, name
        assert sheet.column_dimensions["A"].width >= 10, name


def test_the_trends_are_native_charts_with_data(book: Any) -> None:
    charts = book["trends"]._charts
    assert len(charts) >= 5
    days = book["days"]
    for chart in charts:
        (series,) = chart.series
        column = series.val.numRef.f.split("$")[1]
        cells = [one.value for one in days[column][1:]]
        assert sum(isinstance(value, int | float) for value in cells) > 300
    assert all(isinstance(one.value, datetime) for one in days["A"][1:])


@pytest.mark.parametrize(
    ("sheet", "query", "key"),
    [
        ("history", "SELECT * FROM dims_metrics_history", ("metric", "run_id")),
        ("runs", "SELECT * FROM dims_verification_runs", ("run_id",)),
        ("approvals", "SELECT * FROM dims_approval_requests", ("id",)),
        ("events", "SELECT * FROM dims_event_log", ("seq",)),
        ("drift", "SELECT * FROM dims_metrics_history WHERE status = 'major'", ("metric", "run_id")),
    ],
)
def test_a_sheet_is_equal_to_the_database(
    book: Any, filled: Engine, year: Config, sheet: str, query: str, key: tuple[str, ...]
) -> None:
    there = {tuple(row[name] for name in key): row for row in rows(book, sheet)}
    known = {tuple(row[name] for name in key): row for row in asked(filled, query)}
    assert there.keys() == known.keys()
    for place, row in there.items():
        is_age = row.get("metric") in year.metrics and year.metrics[row["metric"]].is_age
        for name, value in row.items():
            if name == "seconds":
                continue
            right = known[place][name]
            if is_age and name in ("value", "baseline") and right is not None:
                right = datetime.fromisoformat(right)
            assert alike(value, right if not isinstance(right, dict | list) else as_text(right)), (place, name)


def test_the_latest_values_are_the_database_s_with_their_types(book: Any, filled: Engine, year: Config) -> None:
    known = {row["metric"]: row for row in asked(filled, "SELECT * FROM dims_metrics")}
    there = {row["metric"]: row for row in rows(book, "latest")}
    assert list(there) == [name for name, metric in year.metrics.items() if metric.enabled]
    kinds = set()
    for name, row in there.items():
        kinds.add(type(row["value"]))
        if not year.metrics[name].is_age:
            assert alike(row["value"], known[name]["value"]), name
            assert alike(row["baseline"], known[name]["baseline"]), name
        assert alike(row["as_of"], known[name]["as_of"])
    assert kinds == {int, float, str}


def test_nothing_is_a_formula_or_a_link(book: Any) -> None:
    kinds = {one.data_type for sheet in book for row in sheet.iter_rows() for one in row}
    assert "f" not in kinds
    assert not [one for sheet in book for row in sheet.iter_rows() for one in row if one.hyperlink]
    assert any(str(one.value).startswith("=HYPERLINK") for row in book["events"].iter_rows() for one in row)


def test_what_no_cell_can_hold_is_told_in_words() -> None:
    assert as_text("x" * 40_000).endswith("… (40,000 characters)") and len(as_text("x" * 40_000)) <= 32_767
    assert as_text({"a": [1]}) == '{"a": [1]}'
    assert as_text(10**20) == "100000000000000000000"
    assert as_text("a\x00b") == "a\\x00b"


def written(engine: Engine, year: Config, folder: Path) -> Any:
    with transaction(engine) as connection:
        excel.write_workbook(connection, gather_report(connection, year, YEAR), folder / "cut.xlsx")
    return openpyxl.load_workbook(folder / "cut.xlsx")


def ends(book: Any) -> dict[str, tuple[int, str]]:
    """Of each sheet the rows under its header, and the first cell of the last one."""
    return {one.title: (one.max_row - 1, str(one.cell(one.max_row, 1).value)) for one in book}


def test_what_is_left_out_is_told_on_its_sheet(
    filled: Engine, year: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    metrics = sum(metric.enabled for metric in year.metrics.values())
    monkeypatch.setattr(excel, "MOST", 5)
    monkeypatch.setattr(excel, "READINGS", metrics * 3)
    cut = ends(written(filled, year, tmp_path))
    for name in ("drift", "runs", "approvals", "events"):
        assert cut[name] == (5 + 1, "Only the newest 5 are here"), name
    assert cut["history"][0] == metrics * 3 + 1
    assert cut["history"][1].startswith("Of these only the newest 3 readings are here: s3_storage.total_objects, ")


def test_what_just_fits_is_not_said_to_be_cut(
    filled: Engine, year: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (asked_for,) = asked(filled, "SELECT count(*) AS n FROM dims_approval_requests")
    readings = "SELECT count(*) AS n FROM dims_metrics_history GROUP BY metric ORDER BY n DESC LIMIT 1"
    (most,) = asked(filled, readings)
    metrics = sum(metric.enabled for metric in year.metrics.values())
    monkeypatch.setattr(excel, "MOST", asked_for["n"])
    monkeypatch.setattr(excel, "READINGS", most["n"] * metrics)
    whole = ends(written(filled, year, tmp_path))
    assert whole["approvals"][0] == asked_for["n"]
    assert not whole["history"][1].startswith("Of these only")


def test_rows_that_no_sheet_has_room_for_are_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spreadsheet, "ROWS", 5)
    with spreadsheet.new_workbook(tmp_path / "small.xlsx") as made:
        assert made.sheet("numbers").table(("n",), ([n] for n in range(9))) == 9
    cells = [row[0] for row in openpyxl.load_workbook(tmp_path / "small.xlsx")["numbers"].iter_rows(values_only=True)]
    assert cells == ["n", 0, 1, 2, "6 more rows do not fit on a sheet: --since a later day"]
