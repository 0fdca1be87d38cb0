"""Charts and recommendations of unusual data: no rows, texts, failures, hostile names."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import openpyxl
import pandas as pd
import pytest

from dims_worker.notebook import figures, frames, queries, recommendations, workflow_frames
from dims_worker.reports import spreadsheet

NOW = datetime(2026, 11, 22, 9, tzinfo=UTC)
HOSTILE = '=HYPERLINK("http://x")<script>alert(1)</script>\x1b[31m'


def history(*readings: tuple[str, Any]) -> pd.DataFrame:
    """Return a history of (outcome, number), one per day."""
    rows = [
        {
            "metric": "m.a",
            "as_of": NOW + timedelta(days=day),
            "value": number,
            "number": number,
            "shown": outcome,
            "outcome": outcome,
            "unit": "files",
            "baseline_number": 5,
            "error": HOSTILE if number is None else None,
        }
        for day, (outcome, number) in enumerate(readings)
    ]
    return frames.frame(rows, queries.HISTORY_COLUMNS)


EMPTY = {
    figures.health_chart: recommendations.LATEST,
    figures.incidents_chart: queries.INCIDENT_COLUMNS,
    figures.changes_chart: queries.CHANGE_COLUMNS,
    figures.trend_chart: queries.HISTORY_COLUMNS,
    figures.drift_heatmap: queries.DAILY_COLUMNS,
    figures.volatility_chart: recommendations.VOLATILITY,
    figures.runs_chart: queries.RUN_COLUMNS,
    figures.durations_chart: queries.RUN_COLUMNS,
    figures.requests_chart: queries.REQUEST_COLUMNS,
    figures.deciders_chart: queries.REQUEST_COLUMNS,
    figures.events_chart: queries.FLOW_COLUMNS,
    figures.lag_chart: queries.FLOW_COLUMNS,
    figures.recommendations_chart: recommendations.ADVICE,
    figures.gaps_chart: workflow_frames.GAPS,
    figures.sync_chart: workflow_frames.SIDES,
    figures.costs_chart: workflow_frames.COSTS,
    figures.completeness_chart: workflow_frames.COMPLETENESS,
}


@pytest.mark.parametrize("chart", EMPTY, ids=lambda chart: chart.__name__)
def test_a_chart_without_data_says_so(chart: Any) -> None:
    figure = chart(frames.frame([], EMPTY[chart]))
    assert not figure.data and len(figure.layout.annotations[0].text) > 10


def test_without_data_there_are_no_recommendations() -> None:
    daily = frames.frame([], queries.DAILY_COLUMNS)
    volatile = recommendations.volatility(daily)
    assert list(volatile.columns) == list(recommendations.VOLATILITY)
    assert recommendations.recommendations(frames.frame([], recommendations.LATEST), volatile, daily).empty


def test_each_outcome_has_its_own_markers_and_a_failed_reading_is_a_gap() -> None:
    figure = figures.trend_chart(
        history(("accepted", 5), ("failed", None), ("accepted", 6), ("held", 9), ("rejected", 1))
    )
    traces = {trace.name: trace for trace in figure.data}
    assert list(traces["accepted"].y) == [5, None, 6] and traces["accepted"].connectgaps is False
    assert (list(traces["held"].y), list(traces["rejected"].y)) == ([9], [1])
    assert len(traces["failed (no value)"].x) == 1 and traces["baseline"].line.shape == "hv"
    assert traces["held"].marker.color == figures.OUTCOMES["held"] != traces["rejected"].marker.color


def test_each_state_has_a_bar_in_the_colour_of_its_flag_and_an_acknowledged_one_is_paler() -> None:
    rows = [
        {"metric": f"m.{n}", "category": "m", "state": state, "flag": flag, "well": flag == "ok"}
        for n, (state, flag) in enumerate(
            (("lost", "drifted"), ("lost, acknowledged", "drifted"), ("ok", "ok"), ("approximate", "ok"))
        )
    ]
    figure = figures.health_chart(frames.frame(rows, recommendations.LATEST))
    traces = {trace.name: trace for trace in figure.data}
    assert list(traces) == ["lost", "lost, acknowledged", "approximate", "ok"]
    assert traces["lost"].marker.color == traces["lost, acknowledged"].marker.color == figures.FLAGS_COLORS["drifted"]
    assert (traces["lost"].opacity, traces["lost, acknowledged"].opacity) == (1, 0.55)
    assert "2 of 4 metrics are well" in figure.layout.title.text


def test_an_incident_is_a_bar_from_its_start_to_its_end() -> None:
    rows = [
        {"incident": 1, "metric": "m.a", "state": "closed", "severity": "high", "label": "lost", "reason": HOSTILE},
        {"incident": 2, "metric": "m.a", "state": "acknowledged", "severity": "high", "label": "lost, acknowledged"},
        {"incident": 3, "metric": "m.b", "state": "open", "severity": "urgent", "label": "failing"},
    ]
    times = {"opened_at": NOW, "hours": 2, "resolution": None}
    figure = figures.incidents_chart(frames.frame([times | row for row in rows], queries.INCIDENT_COLUMNS))
    urgent, high = figure.data
    assert (urgent.name, list(urgent.x), list(urgent.y)) == ("urgent", [2 * 3_600_000], ["3 m.b: failing"])
    assert list(high.marker.pattern.shape) == ["", "/"]
    assert "<script>" not in str(high.customdata)
    assert "2 incidents not closed, 1 of them acknowledged" in figure.layout.title.text


def test_a_loss_points_to_the_left() -> None:
    rows = [
        {"metric": "m.a", "as_of": NOW, "number": 1, "baseline_number": 40, "drift_pct": 97.5, "accepted": "policy"},
        {"metric": "m.b", "as_of": NOW, "number": 60, "baseline_number": 40, "drift_pct": 50, "accepted": "approved"},
    ]
    figure = figures.changes_chart(frames.frame(rows, queries.CHANGE_COLUMNS))
    assert {trace.name: list(trace.x) for trace in figure.data} == {"policy": [-97.5], "approved": [50]}


def test_without_numbers_there_is_no_trend() -> None:
    assert not figures.trend_chart(history(("failed", None), ("failed", None))).data


def test_hostile_names_are_shown_as_text(tmp_path: Path) -> None:
    assert figures.escape_label(HOSTILE).count("<") == 0 and "\x1b" not in figures.escape_label(HOSTILE)
    assert len(figures.escape_label("x" * 500)) == 60
    frame = frames.frame(
        [{"metric": HOSTILE, "number": 7, "as_of": NOW, "value": [1]}], ("metric", "number", "as_of", "value")
    )
    spreadsheet.save_frames(tmp_path / "book.xlsx", {"rows": frame, "empty": frame.head(0)})
    book = openpyxl.load_workbook(tmp_path / "book.xlsx")
    row = list(book["rows"][2])
    assert [cell.data_type for cell in row] == ["s", "n", "d", "s"]
    assert row[0].value.startswith("=HYPERLINK") and row[0].hyperlink is None
    assert (row[1].value, row[2].value) == (7, NOW.replace(tzinfo=None))
    assert [cell.value for cell in book["empty"][1]] == ["metric", "number", "as_of (UTC)", "value"]


def test_an_integer_that_excel_would_round_is_a_text(tmp_path: Path) -> None:
    big = 2**60
    spreadsheet.save_frames(tmp_path / "book.xlsx", {"rows": frames.frame([{"number": big}], ("number",))})
    assert openpyxl.load_workbook(tmp_path / "book.xlsx")["rows"]["A2"].value == str(big)


def test_numbers_keep_their_type_and_missing_ones_are_not_zero() -> None:
    assert str(frames.numbers([1, None, 3]).dtype) == "Int64"
    assert frames.numbers([1, 2.5, None]).tolist()[:2] == [1.0, 2.5]
    assert frames.numbers([1, None]).isna().tolist() == [False, True]
    assert str(frames.numbers([]).dtype) == "Float64"


def test_the_formula_of_volatility() -> None:
    days = [{"metric": "m.a", "number": n, "outcome": "accepted", "drift_pct": 10} for n in (10, 20, 30)]
    days += [{"metric": "m.b", "number": n, "outcome": "accepted"} for n in (1, 2)]
    days += [{"metric": "m.zero", "number": n, "outcome": "accepted"} for n in (-1, 0, 1)]
    table = recommendations.volatility(frames.frame(days, queries.DAILY_COLUMNS)).set_index("metric")
    assert table.loc["m.a", "volatility_pct"] == pytest.approx(50)
    assert table["volatility_pct"].isna().to_dict() == {"m.a": False, "m.b": True, "m.zero": True}


@pytest.mark.parametrize(("pct", "listed"), [(15.0, False), (15.1, True)])
def test_drift_is_listed_above_its_limit(pct: float, listed: bool) -> None:
    latest = frames.frame([{"metric": "m.a", "drift_pct": pct, "state": "ok"}], recommendations.LATEST)
    daily = frames.frame([], queries.DAILY_COLUMNS)
    table = recommendations.recommendations(latest, recommendations.volatility(daily), daily)
    assert list(table["kind"]) == (["drift"] if listed else [])


def test_a_drift_whose_incident_lasts_is_listed_once_until_a_person_acknowledges_it() -> None:
    latest = frames.frame([{"metric": "m.a", "drift_pct": 20, "flag": "drifted"}], recommendations.LATEST)
    daily = frames.frame([], queries.DAILY_COLUMNS)
    volatile = recommendations.volatility(daily)

    def kinds(state: str) -> list[str]:
        rows = [{"incident": 7, "metric": "m.a", "kind": "drift", "state": state, "drift_pct": 97.5}]
        incidents = frames.frame(rows, queries.INCIDENT_COLUMNS)
        return list(recommendations.recommendations(latest, volatile, daily, incidents)["kind"])

    assert (kinds("open"), kinds("acknowledged"), kinds("closed")) == (["incident"], [], ["drift"])


def test_a_part_without_a_price_is_not_free() -> None:
    lines = [
        {"what": "S3", "amount": 2, "unit": "GiB", "price": 0.5, "usd": 1.0},
        {"what": "RDS", "amount": 1, "unit": "month", "price": None, "usd": None},
    ]
    rows = workflow_frames.costs_frame({"aws-inventory": {"cost": {"lines": lines}}})
    costs = frames.frame(rows, workflow_frames.COSTS)
    assert costs["month_usd"].isna().tolist() == [False, True]
    assert list(figures.costs_chart(costs).data[0].x) == [1.0]


def test_sources_that_were_not_reached_have_no_rows() -> None:
    results: Any = {"gap-analysis": {"games": None}, "sync-status": {"status": None}, "aws-inventory": {}}
    assert [
        part(results) for part in (workflow_frames.gaps_frame, workflow_frames.sync_frame, workflow_frames.costs_frame)
    ] == [[], [], []]
