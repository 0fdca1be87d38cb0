"""The workbook, opened with another library, has the values of the database."""

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
from dims_worker.reports.spreadsheet import cell_text
from dims_worker.store.engine import transaction

YEAR = timedelta(days=400)
SHEETS = [
    "overview",
    "latest",
    "incidents",
    "changes",
    "history",
    "drift",
    "runs",
    "approvals",
    "events",
    "days",
    "trends",
]


@pytest.fixture(scope="module")
def book(filled: Engine, year: Config, tmp_path_factory: pytest.TempPathFactory) -> Any:
    path = tmp_path_factory.mktemp("excel") / "inventory.xlsx"
    with transaction(filled) as connection:
        excel.write_workbook(connection, gather_report(connection, year, YEAR), path)
    return openpyxl.load_workbook(path)


def rows(book: Any, name: str) -> list[dict[str, Any]]:
    head, *others = book[name].iter_rows(values_only=True)
    return [dict(zip(head, row, strict=True)) for row in others]


def query_rows(engine: Engine, query: str) -> list[dict[str, Any]]:
    with engine.connect() as connection:
        return [dict(row) for row in connection.execute(text(query)).mappings()]


def without_zone(value: Any) -> Any:
    """Return a database value as a cell has it: times without their zone (UTC)."""
    if isinstance(value, datetime):
        return value.astimezone(UTC).replace(tzinfo=None)
    return value


def is_equal(cell_value: Any, value: Any) -> bool:
    if isinstance(value, datetime):
        return isinstance(cell_value, datetime) and abs(cell_value - without_zone(value)) < timedelta(milliseconds=2)
    if isinstance(value, bool | int | str) or value is None:
        return bool(cell_value == value and type(cell_value) is type(value))
    return bool(cell_value == pytest.approx(value))


def test_each_workflow_has_a_sheet_with_its_figures_as_numbers(book: Any, year: Config) -> None:
    assert book.sheetnames[len(SHEETS) :] == list(year.configured_workflows)
    assert len(year.configured_workflows) == 6  # five, and the audit
    for n, name in enumerate(year.configured_workflows):
        cells = {row[0]: row[1] for row in book[name].iter_rows(values_only=True)}
        assert (cells["games.all.games"], cells["games.all.coverage_pct"]) == (1230 + n, 97.5)
        assert cells["games"] == n  # of the summary
        assert cells["0021"] == 2013
        assert book[name].freeze_panes and book[name].auto_filter.ref


def test_every_sheet_has_rows_a_frozen_header_and_a_filter(book: Any) -> None:
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
        cells = [day.value for day in days[column][1:]]
        assert sum(isinstance(value, int | float) for value in cells) > 300
    assert all(isinstance(day.value, datetime) for day in days["A"][1:])


COMPARED = "coalesce(evidence -> 'compared_with', baseline) AS compared_with"

INCIDENTS = (
    "SELECT *, id AS incident, anchor AS before, low AS expected_low, high AS expected_high, "
    "NULL AS owner FROM dims_incidents"
)
CHANGES = (
    "SELECT h.*, h.baseline AS before, h.value AS after, NULL AS band_widths, "
    "q.id AS request, q.decided_at, i.id AS incident "
    "FROM dims_metrics_history h LEFT JOIN dims_approval_requests q USING (metric, run_id) "
    "LEFT JOIN dims_incidents i USING (metric, run_id) "
    "WHERE h.status = 'major' AND h.outcome IN ('accepted', 'approved')"
)


@pytest.mark.parametrize(
    ("sheet", "query", "key"),
    [
        ("history", "SELECT * FROM dims_metrics_history", ("metric", "run_id")),
        ("runs", "SELECT * FROM dims_verification_runs", ("run_id",)),
        ("approvals", f"SELECT *, {COMPARED} FROM dims_approval_requests", ("id",)),
        ("events", "SELECT * FROM dims_event_log", ("seq",)),
        ("drift", "SELECT * FROM dims_metrics_history WHERE status = 'major'", ("metric", "run_id")),
        ("incidents", INCIDENTS, ("incident",)),
        ("changes", CHANGES, ("metric", "run_id")),
    ],
)
def test_a_sheet_has_the_rows_of_the_database(
    book: Any, filled: Engine, year: Config, sheet: str, query: str, key: tuple[str, ...]
) -> None:
    there = {tuple(row[name] for name in key): row for row in rows(book, sheet)}
    known = {tuple(row[name] for name in key): row for row in query_rows(filled, query)}
    assert there.keys() == known.keys()
    for place, row in there.items():
        is_age = row.get("metric") in year.metrics and year.metrics[row["metric"]].is_age
        for name, value in row.items():
            if name in ("seconds", "label", "what", "accepted") or (sheet == "incidents" and name == "drift_pct"):
                continue  # in words, or computed
            right = known[place][name]
            if is_age and name in ("value", "baseline") and right is not None:
                right = datetime.fromisoformat(right)
            assert is_equal(value, right if not isinstance(right, dict | list) else cell_text(right)), (place, name)


def test_the_latest_values_have_the_types_of_the_database(book: Any, filled: Engine, year: Config) -> None:
    known = {row["metric"]: row for row in query_rows(filled, "SELECT * FROM dims_metrics")}
    there = {row["metric"]: row for row in rows(book, "latest")}
    assert list(there) == [name for name, metric in year.metrics.items() if metric.enabled]
    kinds = set()
    for name, row in there.items():
        kinds.add(type(row["value"]))
        if not year.metrics[name].is_age:
            assert is_equal(row["value"], known[name]["value"]), name
            assert is_equal(row["baseline"], known[name]["baseline"]), name
        assert is_equal(row["as_of"], known[name]["as_of"])
    assert kinds == {int, float, str}


def test_no_cell_is_a_formula_or_a_link(book: Any) -> None:
    cells = [cell for sheet in book for row in sheet.iter_rows() for cell in row]
    assert not [cell for cell in cells if cell.data_type == "f" or cell.hyperlink]
    assert any(str(cell.value).startswith("=HYPERLINK") for row in book["events"].iter_rows() for cell in row)


def test_values_that_no_cell_can_hold_become_texts() -> None:
    assert cell_text("x" * 40_000).endswith("… (40,000 characters)") and len(cell_text("x" * 40_000)) <= 32_767
    assert cell_text({"a": [1]}) == '{"a": [1]}'
    assert cell_text(10**20) == "100000000000000000000"
    assert cell_text("a\x00b") == "a\\x00b"


def written(engine: Engine, year: Config, folder: Path) -> Any:
    with transaction(engine) as connection:
        excel.write_workbook(connection, gather_report(connection, year, YEAR), folder / "cut.xlsx")
    return openpyxl.load_workbook(folder / "cut.xlsx")


def ends(book: Any) -> dict[str, tuple[int, str]]:
    """Return for each sheet the number of rows under its header and the first cell of the last row."""
    return {sheet.title: (sheet.max_row - 1, str(sheet.cell(sheet.max_row, 1).value)) for sheet in book}


def test_a_sheet_says_which_rows_are_left_out(
    filled: Engine, year: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    metrics = sum(metric.enabled for metric in year.metrics.values())
    monkeypatch.setattr(excel, "MAX_ROWS", 5)
    monkeypatch.setattr(excel, "MAX_READINGS", metrics * 3)
    cut = ends(written(filled, year, tmp_path))
    for name in ("drift", "runs", "approvals", "events"):
        assert cut[name] == (5 + 1, "This sheet has only the newest 5 rows"), name
    assert cut["incidents"] == (6 + 5 + 1, "This sheet has only the newest 5 incidents that ended")  # 6 are not closed
    assert cut["changes"] == (5 + 1, "This sheet has only the largest 5 changes")
    assert cut["history"][0] == metrics * 3 + 1
    assert cut["history"][1].startswith("This sheet has only the newest 3 readings of: s3_storage.total_objects, ")


def test_a_sheet_with_all_rows_does_not_say_that_rows_are_left_out(
    filled: Engine, year: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (requests,) = query_rows(filled, "SELECT count(*) AS n FROM dims_approval_requests")
    readings = "SELECT count(*) AS n FROM dims_metrics_history GROUP BY metric ORDER BY n DESC LIMIT 1"
    (most,) = query_rows(filled, readings)
    metrics = sum(metric.enabled for metric in year.metrics.values())
    monkeypatch.setattr(excel, "MAX_ROWS", requests["n"])
    monkeypatch.setattr(excel, "MAX_READINGS", most["n"] * metrics)
    whole = ends(written(filled, year, tmp_path))
    assert whole["approvals"][0] == requests["n"]
    assert not whole["history"][1].startswith("This sheet has only")


def test_rows_beyond_the_limit_of_excel_are_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spreadsheet, "MAX_ROWS", 5)
    with spreadsheet.new_workbook(tmp_path / "small.xlsx") as made:
        assert made.sheet("numbers").table(("n",), ([n] for n in range(9))) == 9
    cells = [row[0] for row in openpyxl.load_workbook(tmp_path / "small.xlsx")["numbers"].iter_rows(values_only=True)]
    assert cells == ["n", 0, 1, 2, "6 more rows did not fit on the sheet. Use --since with a later day."]
