"""Every query on the history uses an index, as its plan shows."""

from __future__ import annotations

import ast
import json
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import Connection, Engine, create_engine, event, text

from dims_worker.config import load_config
from dims_worker.notebook import queries
from dims_worker.store import (
    baselines,
    change_events,
    events,
    expectations,
    history,
    leases,
    point_in_time,
    rejected_events,
    runs,
    snapshots,
)
from tests.conftest import REPO, servers, template  # noqa: F401 - fixtures
from tests.fixtures.long_history import fill

CONFIG = load_config(REPO / "config" / "dims.yaml", {}, REPO)
NAMES = [name for name, metric in CONFIG.metrics.items() if metric.enabled]
ONE = "s3_storage.total_objects"
NOW = datetime.now(UTC)
DAY = timedelta(days=1)
LONG, FEW, RUNS = "dims_metrics_history", "dims_event_log", "dims_verification_runs"
Ask = Callable[[Connection], Any]


@pytest.fixture(scope="module")
def filled(request: pytest.FixtureRequest) -> Iterator[Engine]:
    """A database with 100,000 readings and 10,000 events, so that the planner prefers an index to a sequential scan."""
    url = str(request.getfixturevalue("servers").database_url).rpartition("/")[0]
    admin = create_engine(f"{url}/postgres", isolation_level="AUTOCOMMIT")
    with admin.connect() as connection:
        connection.execute(text(f"CREATE DATABASE plans TEMPLATE {request.getfixturevalue('template')}"))
    engine = create_engine(f"{url}/plans")
    fill(engine, CONFIG, until=NOW, days=800, per_day=2, log=1600)
    yield engine
    engine.dispose()
    with admin.connect() as connection:
        connection.execute(text("DROP DATABASE plans WITH (FORCE)"))
    admin.dispose()


def _event(connection: Connection) -> events.LoggedEvent:
    return events.find_events(connection, "event-1500-0")[0]


def _span() -> change_events.EventSpan:
    return change_events.EventSpan([ONE], NOW - DAY, NOW)


def sql(query: str, **values: Any) -> Ask:
    return lambda connection: connection.execute(text(query), values)


HISTORY: dict[str, Ask] = {
    "history.metric_trend": lambda c: history.metric_trend(c, ONE, 90 * DAY),
    "history.daily_readings": lambda c: history.daily_readings(c, NAMES, 90),
    "history.sampled_readings": lambda c: history.sampled_readings(
        c, ONE, NOW - 30 * DAY, DAY / 6, ["accepted", "looked"]
    ),
    "history.daily_lines": lambda c: history.daily_lines(c, NAMES, 30),
    "history.readings_beyond_band": lambda c: history.readings_beyond_band(c, ONE, NOW - 30 * DAY, 10, ["high"]),
    "expectations.teaching_values": lambda c: expectations.teaching_values(c, NAMES, NOW.date(), 30),
    "runs.readings_of": lambda c: runs.readings_of(c, [5, 17]),
    "runs.set_reading_outcome": lambda c: runs.set_reading_outcome(c, ONE, NOW, "approved"),
    "runs.history_of": lambda c: runs.history_of(c, ONE, 90 * DAY),
    "runs.reading_at": lambda c: runs.reading_at(c, ONE, NOW),
    "runs.newest_readings": lambda c: runs.newest_readings(c, ONE, 50),
    "runs.newest_reading": lambda c: runs.newest_reading(c, ONE),
    "point_in_time.values_at": lambda c: point_in_time.values_at(c, NAMES, NOW - 30 * DAY),
    "point_in_time.notable_readings": lambda c: point_in_time.notable_readings(c, NAMES, NOW - 30 * DAY, 10),
    "point_in_time.recent_drifts": lambda c: point_in_time.recent_drifts(c, NAMES, NOW - 30 * DAY, 10),
    "point_in_time.readings_since": lambda c: list(point_in_time.readings_since(c, NAMES, NOW - 30 * DAY, 10)),
    "snapshots.values_at": lambda c: snapshots.values_at(c, NOW - 30 * DAY),
    "events.served_metrics": lambda c: events.served_metrics(c, _event(c)),
    "events.events_served_by": lambda c: events.events_served_by(c, 5000, 30),
    "leases.serving_runs": lambda c: leases.serving_runs(c, {ONE: 1600, NAMES[0]: 1599}),
    "baselines.last_accepted": lambda c: baselines.last_accepted(c, ONE, NOW),
    "baselines.accepted_since": lambda c: baselines.accepted_since(c, ONE, 5, NOW),
    "queries.HISTORY": sql(queries.HISTORY, metrics=NAMES, days=1.0),
    "dims_metric_trend": sql("SELECT * FROM dims_metric_trend('s3_storage', 'total_objects', 90)"),
    "dims_metric_stats": sql("SELECT * FROM dims_metric_stats('s3_storage', 'total_objects', 90)"),
    "dims_recent_drift": sql("SELECT * FROM dims_recent_drift"),
}
EVENTS: dict[str, Ask] = {
    "list_events": lambda c: events.list_events(c, limit=20),
    "list_events of a type": lambda c: events.list_events(
        c, limit=50, type="x", outcome="planned", before=9000, after=8000
    ),
    "list_events of an outcome": lambda c: events.list_events(c, limit=50, outcome="unmatched"),
    "event_at": lambda c: events.event_at(c, 5000),
    "served_by": lambda c: events.events_served_by(c, 5000, 30),
    "count_rejected": rejected_events.count_rejected,
    "batches_after": lambda c: events.batches_after(c, 1590),
    "events_of_batches": lambda c: events.events_of_batches(c, [1500]),
    "find_events": lambda c: events.find_events(c, "event-15"),
    "event_by_id": lambda c: events.event_by_id(c, "event-1500-0"),
    "last_event": events.last_event,
    "last_batch": events.last_batch,
    "events_between": lambda c: events.events_between(c, [ONE], NOW - DAY, NOW, 5),
    "waiting_requests": lambda c: events.waiting_requests(c, ONE),
    "events_since": lambda c: point_in_time.events_since(c, NOW - DAY),
    "queries.EVENTS": sql(queries.EVENTS, days=1.0),
    "queries.FLOW": sql(queries.FLOW, days=1.0),
}
ASKED: dict[str, Ask] = {
    "queries.RUNS": sql(queries.RUNS, days=1.0),
    "list_runs": lambda c: runs.list_runs(c, limit=50, before=900),
    "list_runs of a source": lambda c: runs.list_runs(c, limit=50, source="x", status="ok", before=900, after=200),
}
BOUNDED = (
    "history.metric_trend",
    "history.daily_readings",
    "history.sampled_readings",
    "history.daily_lines",
    "history.readings_beyond_band",
    "expectations.teaching_values",
    "runs.history_of",
    "point_in_time.values_at",
    "snapshots.values_at",
    "queries.HISTORY",
    "dims_metric_trend",
    "dims_metric_stats",
    "dims_recent_drift",
)
"""The index bounds these by time, so that they do not read the whole history of a metric."""


def plans(engine: Engine, ask: Ask, table: str) -> list[dict[str, Any]]:
    """Return the plan nodes that read the table, for every statement that `ask` sends."""
    sent: list[tuple[str, Any]] = []

    def note(_: Any, __: Any, statement: str, parameters: Any, *___: Any) -> None:
        sent.append((statement, parameters))

    with engine.connect() as connection:
        event.listen(connection, "before_cursor_execute", note)
        ask(connection)
        event.remove(connection, "before_cursor_execute", note)
        cursor = connection.connection.cursor()
        found: list[dict[str, Any]] = []
        for statement, parameters in sent:
            cursor.execute(f"EXPLAIN (FORMAT JSON) {statement}", parameters or None)
            plan = cursor.fetchone()
            assert plan is not None
            found += _nodes((plan[0] if isinstance(plan[0], list) else json.loads(plan[0]))[0]["Plan"])
        connection.rollback()
    return [node for node in found if node.get("Relation Name") == table]


def _nodes(plan: dict[str, Any]) -> list[dict[str, Any]]:
    return [plan, *(node for part in plan.get("Plans", []) for node in _nodes(part))]


@pytest.mark.parametrize("name", HISTORY)
def test_no_query_scans_the_whole_history(filled: Engine, name: str) -> None:
    nodes = plans(filled, HISTORY[name], LONG)
    assert nodes
    assert "Seq Scan" not in {node["Node Type"] for node in nodes}
    if name in BOUNDED:
        assert all("as_of" in node.get("Index Cond", node.get("Recheck Cond", "")) for node in nodes)


@pytest.mark.parametrize("name", EVENTS)
def test_no_query_scans_all_events(filled: Engine, name: str) -> None:
    nodes = plans(filled, EVENTS[name], FEW)
    assert nodes or name in ("last_event", "last_batch")
    assert "Seq Scan" not in {node["Node Type"] for node in nodes}


@pytest.mark.parametrize("name", ASKED)
def test_runs_are_found_by_index(filled: Engine, name: str) -> None:
    nodes = plans(filled, ASKED[name], RUNS)
    assert nodes
    assert "Seq Scan" not in {node["Node Type"] for node in nodes}


def _asking(source: str) -> set[str]:
    """Return the functions and constants of a file that name the history, directly or through private ones."""
    tree = ast.parse(source)
    made: dict[str, ast.AST] = {ast.unparse(one.targets[0]): one for one in tree.body if isinstance(one, ast.Assign)}
    made |= {one.name: one for one in ast.walk(tree) if isinstance(one, ast.FunctionDef)}
    uses = {name: {one.id for one in ast.walk(node) if isinstance(one, ast.Name)} for name, node in made.items()}
    found = {name for name, node in made.items() if f"FROM {LONG}" in ast.unparse(node).replace('"', "")}
    for _ in made:
        found |= {name for name, used in uses.items() if any(one.startswith("_") for one in used & found)}
    return {name for name in found if not name.startswith("_")}


def test_the_list_of_queries_on_the_history_is_complete() -> None:
    paths = sorted((REPO / "dims_worker").rglob("*.py"))
    asking = {f"{path.stem}.{name}" for path in paths for name in _asking(path.read_text())}
    assert asking <= HISTORY.keys()
    assert "queries.HISTORY" in asking
    assert len(asking) > 8


def test_a_query_without_an_index_is_noticed(filled: Engine) -> None:
    nodes = plans(filled, sql(f"SELECT count(*) FROM {LONG} WHERE unit = 'files'"), LONG)
    assert {node["Node Type"] for node in nodes} & {"Seq Scan"}


def test_retention_uses_indexes(filled: Engine) -> None:
    def scans(connection: Connection) -> dict[str, int]:
        connection.execute(text("SELECT pg_stat_force_next_flush()"))
        connection.commit()
        found = connection.execute(text("SELECT relname, seq_scan FROM pg_stat_user_tables WHERE relname LIKE 'dims%'"))
        counted = {row.relname: row.seq_scan for row in found}
        connection.commit()
        return counted

    with filled.connect() as connection:
        before = scans(connection)
        for kind in ("readings", "events", "runs"):
            connection.execute(text(f"SELECT dims_prune_{kind}(now() - interval '790 days', 500)"))
        connection.rollback()
        after = scans(connection)
    assert {name for name in (LONG, FEW, "dims_verification_runs") if after[name] > before[name]} == set()
