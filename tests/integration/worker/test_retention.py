"""Retention, once a day: take a snapshot, and delete old rows except those that are kept for ever."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from psycopg2 import errors
from sqlalchemy import Engine, text
from sqlalchemy.exc import DBAPIError

from dims_worker.analysis.comparison import compare_metrics, parse_moment
from dims_worker.config import load_config
from dims_worker.store import retention, snapshots
from dims_worker.store.engine import transaction
from dims_worker.worker.retention import run_retention
from tests.conftest import REPO
from tests.fixtures.long_history import fill
from tests.integration.helpers import Flow, Threads, outcome
from tests.integration.store.test_roles import Login, login  # noqa: F401 - a fixture

CONFIG = load_config(REPO / "config" / "dims.yaml", {}, REPO)
NOW = datetime.now(UTC)
WITHOUT_ACCEPTED_READING = """
    SELECT count(*) FROM dims_metrics m WHERE baseline_as_of IS NOT NULL AND NOT EXISTS (
        SELECT FROM dims_metrics_history h WHERE h.metric = m.metric AND h.outcome IN ('accepted', 'approved'))
"""


def run_sql(engine: Engine, statement: str, **values: Any) -> Any:
    with engine.begin() as connection:
        result = connection.execute(text(statement), values)
        return result.scalar() if result.returns_rows else result.rowcount


def retain(engine: Engine, *, days: int = 365, batches: int = 10_000, batch: int = 2_000) -> int:
    config = replace(CONFIG, settings=CONFIG.settings.model_copy(update={"history_days": days}))
    return run_retention(engine, config, batch=batch, batches=batches)


def test_old_rows_are_deleted_and_rows_that_people_need_stay(engine: Engine) -> None:
    fill(engine, CONFIG, until=NOW, days=400, log=400)
    old = "as_of < now() - interval '30 days'"
    readings, requests = (
        run_sql(engine, f"SELECT count(*) FROM dims_{table}") for table in ("metrics_history", "approval_requests")
    )
    young = run_sql(engine, f"SELECT count(*) FROM dims_metrics_history WHERE NOT {old}")
    decided = run_sql(engine, f"SELECT count(*) FROM dims_approval_requests WHERE {old}")
    assert decided > 5
    query = f"""SELECT count(*) FROM dims_metrics_history h WHERE {old} AND EXISTS (SELECT FROM dims_approval_requests r
        WHERE r.metric = h.metric AND h.as_of IN (r.as_of, r.baseline_as_of))"""
    referenced = run_sql(engine, query)
    new_events = "SELECT count(*) FROM dims_event_log WHERE received_at > now() - interval '29 days'"
    events = run_sql(engine, new_events)
    assert retain(engine, days=30, batch=1000) > readings - young - 3 * decided
    assert run_sql(engine, f"SELECT count(*) FROM dims_metrics_history WHERE NOT {old}") == young
    assert run_sql(engine, "SELECT count(*) FROM dims_approval_requests") == requests
    left = run_sql(engine, f"SELECT count(*) FROM dims_metrics_history WHERE {old}")
    assert decided < left == run_sql(engine, query) == referenced
    assert run_sql(engine, "SELECT count(*) FROM dims_event_log WHERE received_at < now() - interval '31 days'") == 0
    assert run_sql(engine, new_events) == events > 80
    orphans = "SELECT count(*) FROM dims_ingest_batches WHERE batch_id NOT IN (SELECT batch_id FROM dims_event_log)"
    assert run_sql(engine, orphans) == 0
    assert run_sql(engine, "SELECT count(*) FROM dims_ingest_batches") > 0
    lone = """SELECT count(*) FROM dims_verification_runs v WHERE started_at < now() - interval '31 days'
        AND NOT EXISTS (SELECT FROM dims_metrics_history h WHERE h.run_id = v.run_id)"""
    assert run_sql(engine, lone) == 0
    with transaction(engine) as connection:
        kept = retention.last_retention_run(connection)
    assert kept is not None
    assert kept.finished_at is not None
    assert kept.readings == readings - young - left
    assert kept.events > 0
    assert kept.runs > 0


def test_the_last_and_the_accepted_reading_of_an_inactive_metric_stay(engine: Engine) -> None:
    fill(engine, CONFIG, until=NOW - timedelta(days=500), days=40)
    accepted = run_sql(engine, "SELECT count(*) FROM dims_metrics WHERE baseline_as_of IS NOT NULL")
    # A metric with a changed definition has no baseline, and its newest reading failed
    run_sql(engine, "UPDATE dims_metrics SET baseline_as_of = NULL, as_of = NULL WHERE error IS NOT NULL")
    has = "SELECT count(DISTINCT metric) FROM dims_metrics_history WHERE outcome IN ('accepted', 'approved')"
    had = run_sql(engine, has)
    assert retain(engine) > 0
    assert run_sql(engine, WITHOUT_ACCEPTED_READING) == 0
    assert run_sql(engine, has) == had
    newest = """SELECT count(DISTINCT metric) FROM dims_metrics_history h JOIN dims_metrics m USING (metric, as_of)"""
    gone = run_sql(engine, "SELECT count(*) FROM dims_metrics WHERE as_of IS NULL")
    assert run_sql(engine, newest) == accepted - gone
    assert run_sql(engine, "SELECT count(DISTINCT metric) FROM dims_metrics_history WHERE outcome = 'failed'") > 0
    assert retain(engine) == 0


def test_an_event_that_still_waits_for_a_reading_stays(engine: Engine) -> None:
    fill(engine, CONFIG, until=NOW - timedelta(days=500), days=40, log=40)
    retain(engine)
    waiting = "SELECT count(*) FROM dims_metrics WHERE requested_gen > measured_gen"
    assert run_sql(engine, waiting) > 0
    assert run_sql(engine, "SELECT array_agg(DISTINCT batch_id) FROM dims_event_log") == [40]


def test_the_newest_result_of_a_workflow_stays(engine: Engine) -> None:
    for days in (500, 450, 400):
        run_sql(
            engine,
            "INSERT INTO dims_verification_runs (trigger, source, status, started_at, result) VALUES "
            "('event', 'workflow.audit', 'ok', now() - make_interval(days => :days), '{}')",
            days=days,
        )
    retain(engine)
    assert run_sql(engine, "SELECT array_agg(now()::date - started_at::date) FROM dims_verification_runs") == [400]


def test_a_run_with_a_notification_stays(engine: Engine) -> None:
    for trigger in ("notified", "silent"):
        run_sql(
            engine,
            "INSERT INTO dims_verification_runs (trigger, source, status, started_at) VALUES "
            "(:trigger, 'lake', 'ok', now() - interval '400 days')",
            trigger=trigger,
        )
    run_sql(
        engine,
        "INSERT INTO dims_notifications (channel, metric, state, facts, run_id) "
        "SELECT 'mail', 'm.c', 'failed', '{}', run_id FROM dims_verification_runs WHERE trigger = 'notified'",
    )
    retain(engine)
    assert run_sql(engine, "SELECT array_agg(trigger) FROM dims_verification_runs") == ["notified"]


def test_retention_deletes_in_batches_and_the_next_sweep_continues(engine: Engine) -> None:
    fill(engine, CONFIG, until=NOW, days=60)
    assert retain(engine, days=30, batch=100, batches=3) == 300
    with transaction(engine) as connection:
        kept = retention.last_retention_run(connection)
    assert kept is not None
    assert (kept.readings, kept.finished_at) == (300, None)
    assert retain(engine, days=30, batch=100, batches=3) == 300


def test_concurrent_workers_begin_a_day_once(engine: Engine, beside: Threads) -> None:
    fill(engine, CONFIG, until=NOW, days=10)
    assert [outcome(call) for call in [beside(retain, engine) for _ in range(4)]] == [0] * 4
    assert run_sql(engine, "SELECT count(*) FROM dims_snapshots WHERE daily") == 1
    assert run_sql(engine, "SELECT count(*) FROM dims_retention_runs") == 1
    with transaction(engine) as connection:
        (snapshot,) = snapshots.list_snapshots(connection)
        assert snapshot.name == f"{retention.today(connection):%Y-%m-%d}"
    assert snapshot.metrics == run_sql(engine, "SELECT count(*) FROM dims_metrics WHERE as_of IS NOT NULL")


def test_one_worker_at_a_time_runs_retention_and_others_do_not_wait(engine: Engine) -> None:
    fill(engine, CONFIG, until=NOW, days=60)
    with transaction(engine) as connection:
        assert retention.try_retention_lock(connection)
        assert retain(engine, days=30) == 0
    assert retain(engine, days=30) > 0


def test_no_run_waits_for_retention(flow: Flow) -> None:
    for value in (100, 101, 102):
        flow.serve(c=value, a=1)
    run_sql(flow.engine, "UPDATE dims_metrics_history SET as_of = as_of - interval '400 days' WHERE value = '100'")
    run_sql(flow.engine, "UPDATE dims_verification_runs SET started_at = now() - interval '400 days' WHERE run_id = 1")
    with transaction(flow.engine) as connection:
        day = retention.today(connection)
        retention.begin_day(connection, day)
        assert retention.delete_old_rows(connection, "readings", day, timedelta(days=365), 100) == 1
        assert flow.serve(c=103, a=2)["m.c"].outcome == "accepted"  # the deletion is not committed, and blocks nothing
    assert run_sql(flow.engine, "SELECT count(*) FROM dims_metrics_history WHERE metric = 'm.c'") == 3


def test_old_daily_snapshots_are_deleted_and_named_ones_stay(engine: Engine) -> None:
    for name, daily, days in (("a", True, 91), ("b", True, 89), ("c", False, 900)):
        run_sql(
            engine,
            "INSERT INTO dims_snapshots (name, daily, taken_at) VALUES "
            "(:name, :daily, now() - make_interval(days => :days))",
            name=name,
            daily=daily,
            days=days,
        )
    retain(engine)
    with transaction(engine) as connection:
        assert [snapshot.name for snapshot in snapshots.list_snapshots(connection)][:2] == ["c", "b"]


def test_dims_app_runs_retention_and_can_delete_nothing_else(engine: Engine, login: Login) -> None:  # noqa: F811
    fill(engine, CONFIG, until=NOW, days=60, log=60)
    app, reader = login("dims_app"), login("dims_reader")
    assert retain(app, days=30) > 0
    young = run_sql(engine, "SELECT count(*) FROM dims_metrics_history WHERE as_of > now() - interval '7 days'")
    run_sql(app, "SELECT dims_prune_readings(now() + interval '1 day', 100000)")
    assert (
        run_sql(engine, "SELECT count(*) FROM dims_metrics_history WHERE as_of > now() - interval '7 days'")
        == young
        > 0
    )
    assert run_sql(engine, WITHOUT_ACCEPTED_READING) == 0
    with transaction(app) as connection:
        assert snapshots.take_snapshot(connection, "mine", daily=False)
        assert snapshots.delete_snapshot(connection, "mine")
    with transaction(reader) as connection:  # a reader may compare
        since, until = parse_moment(connection, "20d"), parse_moment(connection, "now")
        assert compare_metrics(connection, CONFIG, since, until)
        assert retention.last_retention_run(connection)
        assert [snapshot.daily for snapshot in snapshots.list_snapshots(connection)] == [True]
    refused = (
        "DELETE FROM dims_metrics_history",
        "DELETE FROM dims_retention_runs",
        "DELETE FROM dims_snapshot_values",
        "UPDATE dims_snapshot_values SET value = '1'",
        "UPDATE dims_snapshots SET name = 'x'",
    )
    calls = (
        "SELECT dims_prune_readings(now(), 1)",
        "SELECT dims_prune_events(now(), 1)",
        "SELECT dims_prune_runs(now(), 1)",
        "DELETE FROM dims_snapshots",
    )
    for user, statements in ((app, refused), (reader, (*refused, *calls))):
        for statement in statements:
            with pytest.raises(DBAPIError) as raised:
                run_sql(user, statement)
            assert isinstance(raised.value.orig, errors.InsufficientPrivilege), statement
