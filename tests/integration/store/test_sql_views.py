"""The SQL views and functions: what they return, and that they stay fast as the history grows."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import UTC
from decimal import Decimal
from typing import Any

import pytest
from sqlalchemy import Engine, text

from dims_worker.approvals.decisions import BaselineInput, decide_request, set_baselines
from dims_worker.domain.approvers import Decider
from tests.integration.helpers import Down, Flow

ADA = Decider("ada", "option")
TREND = "SELECT value_number, change, outcome, status, error FROM dims_metric_trend('m', 'c', 30)"


def all_of(flow: Flow, query: str) -> list[dict[str, Any]]:
    return [dict(row._mapping) for row in flow.rows(query)]


def latest(flow: Flow, metric: str) -> dict[str, Any]:
    (row,) = all_of(flow, f"SELECT * FROM dims_metrics_latest WHERE metric = '{metric}'")
    return row


# --- what they return --------------------------------------------------------------------------------------


def test_latest_has_each_metric_once_with_its_number_and_its_text(flow: Flow) -> None:
    flow.serve(c=172_726, a="text")
    flow.serve(b=0.25)
    flow.serve(e=True)
    one, word, part, truth, never = (latest(flow, f"m.{name}") for name in ("c", "a", "b", "e", "ratio"))
    assert (one["category"], one["name"], one["source"], one["unit"]) == ("m", "c", "one", "files")
    assert (one["value"], one["value_number"], one["value_text"]) == (172_726, Decimal(172_726), None)
    assert (one["baseline"], one["baseline_number"], one["status"], one["due"]) == (172_726, 172_726, "new", False)
    assert 0 <= one["age"].total_seconds() < 600
    assert (word["value"], word["value_number"], word["value_text"]) == ("text", None, "text")
    assert (part["value_number"], truth["value_number"], truth["value_text"]) == (Decimal("0.25"), None, "true")
    assert (never["value"], never["value_number"], never["value_text"], never["age"]) == (None, None, None, None)
    assert never["error"] is not None  # a text is not a number
    assert flow.scalar("SELECT count(*) FROM dims_metrics_latest") == len(flow.config.metrics)


def test_latest_shows_the_state_of_each_metric(flow: Flow) -> None:
    flow.serve(c=100)
    flow.serve(c=150)
    flow.serve(c=Down("the bucket is away"))
    row = latest(flow, "m.c")
    assert (row["value"], row["baseline"], row["status"]) == (150, 100, "extreme")
    assert (row["due"], row["failures"], row["error"]) == (True, 1, "the bucket is away")
    assert row["request"] == flow.open("m.c").id  # type: ignore[union-attr]


def test_pending_approvals_are_exactly_the_open_requests(flow: Flow) -> None:
    flow.serve(c=172_726)
    assert all_of(flow, "SELECT * FROM dims_pending_approvals") == []
    flow.serve(c=205_000)
    (row,) = all_of(flow, "SELECT * FROM dims_pending_approvals")
    request = flow.open("m.c")
    assert request is not None
    assert (row["request"], row["version"], row["metric"], row["category"], row["name"]) == (
        request.id,
        1,
        "m.c",
        "m",
        "c",
    )
    assert (row["baseline_number"], row["value_number"], row["change"]) == (172_726, 205_000, 32_274)
    assert row["drift_pct"] == pytest.approx(18.685, abs=0.001)
    assert (row["severity"], row["unit"], row["events"], row["run_id"]) == ("high", "files", 1, request.run_id)
    assert row["waiting"].total_seconds() >= 0
    decide_request(flow.engine, flow.config, "m.c", "rejected", version=1, person=ADA, note=None)
    assert all_of(flow, "SELECT * FROM dims_pending_approvals") == []


def test_recent_drift_shows_the_drifts_and_their_outcomes(flow: Flow) -> None:
    for value in (100, 100, 104, 150, Down("away")):
        flow.serve(c=value)
    flow.look(a=1)
    query = "SELECT value_number, baseline_number, change, status, outcome FROM dims_recent_drift ORDER BY as_of"
    assert [tuple(row) for row in flow.rows(query)] == [
        (104, 100, 4, "minor", "accepted"),
        (150, 104, 46, "extreme", "held"),
    ]
    flow.do("UPDATE dims_metrics_history SET as_of = as_of - interval '8 days' WHERE value = '104'")
    assert flow.scalar("SELECT array_agg(value) FROM dims_recent_drift") == [150]


def test_the_trend_marks_what_was_held_rejected_and_failed(flow: Flow) -> None:
    for value in (100, 150):
        flow.serve(c=value)
    decide_request(flow.engine, flow.config, "m.c", "rejected", version=1, person=ADA, note=None)
    flow.serve(c=151)
    flow.serve(c=Down("away"))
    flow.serve(c=300)
    decide_request(flow.engine, flow.config, "m.c", "approved", version=1, person=ADA, note=None)
    flow.serve(c=500)
    flow.look(c=500)
    claim = flow.claimed("m.c")
    flow.do("UPDATE dims_sources SET lease_epoch = lease_epoch + 1")
    flow.record(claim, {"m.c": 1})  # its lease was lost, so it changes nothing
    assert [tuple(row) for row in flow.rows(TREND)] == [
        (100, None, "accepted", "new", None),
        (150, 50, "rejected", "extreme", None),
        (151, 1, "rejected", "extreme", None),
        (None, None, "failed", "failed", "away"),
        (300, None, "approved", "extreme", None),
        (500, 200, "held", "extreme", None),
        (500, 0, "looked", "extreme", None),
    ]
    (stats,) = all_of(flow, "SELECT * FROM dims_metric_stats('m', 'c', 30)")
    counts = ("n", "accepted", "approved", "held", "rejected", "looked", "failed")
    assert [stats[name] for name in counts] == [6, 1, 1, 1, 2, 1, 1]
    assert (stats["last_accepted"], stats["last_accepted_as_of"]) == (300, flow.state("m.c").baseline_as_of)


def test_the_old_names_give_what_the_new_ones_give(flow: Flow) -> None:
    for value in (100, 150, Down("away")):
        flow.serve(c=value)
    decide_request(flow.engine, flow.config, "m.c", "approved", version=1, person=ADA, note="a new season")
    flow.serve(c=300, a="text")
    for view in ("dims_metrics_latest", "dims_pending_approvals", "dims_recent_drift"):
        rows = all_of(flow, f"SELECT * FROM {view}")
        assert rows
        for row in rows:
            old = row["metric_category"], row["metric_name"], row["numeric_value"]
            assert old == (row["category"], row["name"], row["value_number"])
    log = "SELECT metric_category, metric_name, old_value, new_value, status, reviewed_by, review_notes, auto_applied"
    assert [tuple(row) for row in flow.rows(f"{log} FROM dims_approval_log ORDER BY id")] == [
        ("m", "c", "100", "150", "approved", "ada", "a new season", True),
        ("m", "c", "150", "300", "pending", None, None, False),
    ]
    trend = "SELECT numeric_value, value, verification_method, outcome FROM dims_get_metric_trend('m', 'c', 30)"
    assert [tuple(row) for row in flow.rows(trend)] == [  # no row for the failure: it has no value
        (100, "100", "exact", "accepted"),
        (150, "150", "exact", "approved"),
        (300, "300", "exact", "held"),
    ]
    named = "SELECT date FROM dims_get_metric_trend(p_category => 'm', p_metric => 'c', p_days => 7)"
    assert flow.rows(named)[0].date == flow.state("m.c").as_of.astimezone(UTC).date()
    assert flow.rows("SELECT * FROM dims_get_metric_trend('m', 'missing')") == []


def test_the_stats_are_those_of_the_numbers(flow: Flow) -> None:
    for value in (2, 4, 4, 4, 5, 5, 7, 9):
        flow.serve(a=value)
    (row,) = all_of(flow, "SELECT * FROM dims_metric_stats('m', 'a', 30)")
    assert [row[name] for name in ("n", "first", "last", "min", "max", "mean")] == [8, 2, 9, 2, 9, 5]
    assert float(row["stddev"]) == pytest.approx((32 / 7) ** 0.5)
    assert row["first_as_of"] < row["last_as_of"] == flow.state("m.a").as_of


def test_days_bound_both_and_a_baseline_by_hand_is_the_last_accepted(flow: Flow) -> None:
    flow.serve(c=10)
    flow.serve(c=11)
    flow.do("UPDATE dims_metrics_history SET as_of = as_of - interval '2 days' WHERE value = '10'")
    for days, values in ((1, [11]), (0.5, [11]), (3, [10, 11]), (1e12, [10, 11]), (0, []), (-5, [])):
        found = flow.rows(f"SELECT value FROM dims_metric_trend('m', 'c', {days})")
        assert [row.value for row in found] == values
        assert flow.scalar(f"SELECT n FROM dims_metric_stats('m', 'c', {days})") == len(values)
    set_baselines(flow.engine, flow.config, [BaselineInput("m.c", 12)], ADA)
    assert flow.scalar("SELECT last_accepted FROM dims_metric_stats('m', 'c')") == 12


def test_texts_and_missing_metrics_have_no_numbers(flow: Flow) -> None:
    flow.serve(a="synced")
    flow.serve(a="major_drift")
    query = "SELECT n, first, mean, stddev, accepted, last_accepted FROM dims_metric_stats('m', '{}')"
    assert tuple(flow.rows(query.format("a"))[0]) == (2, None, None, None, 2, None)
    assert tuple(flow.rows(query.format("missing"))[0]) == (0, None, None, None, 0, None)
    trend = flow.rows("SELECT value_text, change FROM dims_metric_trend('m', 'a', 1)")
    assert [tuple(row) for row in trend] == [("synced", None), ("major_drift", None)]
    assert flow.rows("SELECT * FROM dims_metric_trend('m', 'missing')") == []


def test_the_callers_search_path_and_tables_of_the_same_name_change_nothing(flow: Flow) -> None:
    flow.serve(c=1)
    with flow.engine.connect() as connection:
        connection.execute(text("CREATE TEMP TABLE dims_metrics_history (metric text)"))
        connection.execute(text("SET search_path = pg_temp"))
        found = connection.execute(text("SELECT value FROM public.dims_metric_trend('m', 'c')")).fetchall()
    assert [row.value for row in found] == [1]


def test_each_view_and_function_has_a_comment_and_the_callers_rights(flow: Flow) -> None:
    views = flow.rows(
        "SELECT relname, obj_description(oid) AS comment FROM pg_class WHERE relkind = 'v' AND relname LIKE 'dims%'"
    )
    functions = flow.rows(
        "SELECT proname, obj_description(oid) AS comment, prosecdef, provolatile FROM pg_proc "
        "WHERE proname LIKE 'dims\\_%metric\\_%'"
    )
    assert (len(views), len(functions)) == (4, 3)
    assert all(row.comment for row in (*views, *functions))
    assert {(row.prosecdef, row.provolatile) for row in functions} == {(False, "s")}


# --- how they read the tables -----------------------------------------------------------------------------------

METRICS, READINGS = 60, 30_000


@pytest.fixture
def grown(flow: Flow) -> Flow:
    """A history of some thousand rows over a year and sixty metrics, with current statistics."""
    flow.do("INSERT INTO dims_verification_runs (trigger, status, started_at) VALUES ('event', 'ok', now())")
    many = f"FROM generate_series(1, {METRICS}) n"
    flow.do(f"INSERT INTO dims_metrics (metric, definition) SELECT 'many.' || n, '' {many}")
    flow.do(
        "INSERT INTO dims_metrics_history (run_id, metric, value, unit, method, as_of, status, outcome, drift_pct) "
        f"SELECT 1, 'many.' || n % {METRICS} + 1, to_jsonb(n), 'x', 'exact', now() - n * interval '17 minutes', "
        f"CASE n % 3 WHEN 0 THEN 'ok' ELSE 'minor' END, 'accepted', 1 FROM generate_series(1, {READINGS}) n"
    )
    with flow.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text("VACUUM ANALYZE"))
    return flow


def scans(engine: Engine, query: str) -> list[tuple[str, str]]:
    """Return (kind of scan, relation) for each scan in the plan of a query."""

    def walk(node: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
        if "Relation Name" in node:
            yield node["Node Type"], node["Relation Name"]
        for part in node.get("Plans", ()):
            yield from walk(part)

    with engine.connect() as connection:
        plan = connection.execute(text(f"EXPLAIN (FORMAT JSON) {query}")).scalar_one()
    return list(walk(plan[0]["Plan"]))


HISTORY = "dims_metrics_history"


@pytest.mark.parametrize(
    "query",
    [
        "SELECT * FROM dims_metric_trend('many', '7', 30)",
        "SELECT * FROM dims_metric_trend('many', '7')",
        "SELECT * FROM dims_metric_stats('many', '7', 30)",
        "SELECT * FROM dims_recent_drift",
        "SELECT * FROM dims_recent_drift WHERE metric = 'many.7'",
        "SELECT l.metric, s.mean FROM dims_metrics_latest l, dims_metric_stats(l.category, l.name, 90) s",
    ],
)
def test_no_view_scans_the_whole_history(grown: Flow, query: str) -> None:
    found = [kind for kind, relation in scans(grown.engine, query) if relation == HISTORY]
    assert found, "the plan does not show how the history is read"
    assert all(kind in ("Index Scan", "Bitmap Heap Scan", "Index Only Scan") for kind in found), found


def test_recent_drift_goes_by_metric_even_where_most_of_the_history_is_recent(grown: Flow) -> None:
    grown.do("UPDATE dims_metrics_history SET as_of = now() - id * interval '15 seconds'")
    with grown.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text("VACUUM ANALYZE"))
    found = [kind for kind, relation in scans(grown.engine, "SELECT * FROM dims_recent_drift") if relation == HISTORY]
    assert found
    assert "Seq Scan" not in found


def test_latest_does_not_read_the_history(grown: Flow) -> None:
    for view in ("dims_metrics_latest", "dims_pending_approvals"):
        relations = {relation for _, relation in scans(grown.engine, f"SELECT * FROM {view}")}
        assert relations <= {"dims_metrics", "dims_approval_requests"}


def test_a_forbidden_plan_is_noticed(grown: Flow) -> None:
    assert scans(grown.engine, f"SELECT count(value) FROM {HISTORY}") == [("Seq Scan", HISTORY)]


def test_the_views_return_the_same_as_a_scan(grown: Flow) -> None:
    days = "h.as_of > now() - interval '{} days'"
    counted = f"SELECT count(*) FROM {HISTORY} h WHERE {days}"
    assert grown.scalar("SELECT count(*) FROM dims_recent_drift") == grown.scalar(
        f"{counted} AND status = 'minor'".format(7)
    )
    expected = grown.scalar(f"{counted} AND metric = 'many.7'".format(30))
    assert grown.scalar("SELECT count(*) FROM dims_metric_trend('many', '7', 30)") == expected > 10
