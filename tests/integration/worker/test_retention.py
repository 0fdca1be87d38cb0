"""What is done once a day: a snapshot, and forgetting what is old, of which some is kept for ever."""

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
KEPT = """
    SELECT count(*) FROM dims_metrics m WHERE baseline_as_of IS NOT NULL AND NOT EXISTS (
        SELECT FROM dims_metrics_history h WHERE h.metric = m.metric AND h.outcome IN ('accepted', 'approved'))
"""


def ask(engine: Engine, statement: str, **values: Any) -> Any:
    with engine.begin() as connection:
        found = connection.execute(text(statement), values)
        return found.scalar() if found.returns_rows else found.rowcount


def house(engine: Engine, *, days: int = 365, batches: int = 10_000, batch: int = 2_000) -> int:
    config = replace(CONFIG, settings=CONFIG.settings.model_copy(update={"history_days": days}))
    return run_retention(engine, config, batch=batch, batches=batches)


def test_what_is_old_goes_and_what_people_need_stays(engine: Engine) -> None:
    fill(engine, CONFIG, until=NOW, days=400, log=400)
    old = "as_of < now() - interval '30 days'"
    readings, requests = (ask(engine, f"SELECT count(*) FROM dims_{one}")
                          for one in ("metrics_history", "approval_requests"))  # fmt: skip
    young = ask(engine, f"SELECT count(*) FROM dims_metrics_history WHERE NOT {old}")
    decided = ask(engine, f"SELECT count(*) FROM dims_approval_requests WHERE {old}")
    assert decided > 5
    about = f"""SELECT count(*) FROM dims_metrics_history h WHERE {old} AND EXISTS (SELECT FROM dims_approval_requests r
        WHERE r.metric = h.metric AND h.as_of IN (r.as_of, r.baseline_as_of))"""
    spoken_of = ask(engine, about)
    new_events = "SELECT count(*) FROM dims_event_log WHERE received_at > now() - interval '29 days'"
    events = ask(engine, new_events)
    assert house(engine, days=30, batch=1000) > readings - young - 3 * decided
    assert ask(engine, f"SELECT count(*) FROM dims_metrics_history WHERE NOT {old}") == young
    assert ask(engine, "SELECT count(*) FROM dims_approval_requests") == requests
    left = ask(engine, f"SELECT count(*) FROM dims_metrics_history WHERE {old}")
    assert decided < left == ask(engine, about) == spoken_of
    assert ask(engine, "SELECT count(*) FROM dims_event_log WHERE received_at < now() - interval '31 days'") == 0
    assert ask(engine, new_events) == events > 80
    orphans = "SELECT count(*) FROM dims_ingest_batches WHERE batch_id NOT IN (SELECT batch_id FROM dims_event_log)"
    assert ask(engine, orphans) == 0
    assert ask(engine, "SELECT count(*) FROM dims_ingest_batches") > 0
    lone = """SELECT count(*) FROM dims_verification_runs v WHERE started_at < now() - interval '31 days'
        AND NOT EXISTS (SELECT FROM dims_metrics_history h WHERE h.run_id = v.run_id)"""
    assert ask(engine, lone) == 0
    with transaction(engine) as connection:
        kept = retention.last_retention_run(connection)
    assert kept is not None
    assert kept.finished_at is not None
    assert kept.readings == readings - young - left
    assert kept.events > 0
    assert kept.runs > 0


def test_of_a_metric_long_silent_the_last_and_the_accepted_reading_stay(engine: Engine) -> None:
    fill(engine, CONFIG, until=NOW - timedelta(days=500), days=40)
    accepted = ask(engine, "SELECT count(*) FROM dims_metrics WHERE baseline_as_of IS NOT NULL")
    # One that measures something else now has no baseline, and its newest reading failed
    ask(engine, "UPDATE dims_metrics SET baseline_as_of = NULL, as_of = NULL WHERE error IS NOT NULL")
    has = "SELECT count(DISTINCT metric) FROM dims_metrics_history WHERE outcome IN ('accepted', 'approved')"
    had = ask(engine, has)
    assert house(engine) > 0
    assert ask(engine, KEPT) == 0
    assert ask(engine, has) == had
    newest = """SELECT count(DISTINCT metric) FROM dims_metrics_history h JOIN dims_metrics m USING (metric, as_of)"""
    gone = ask(engine, "SELECT count(*) FROM dims_metrics WHERE as_of IS NULL")
    assert ask(engine, newest) == accepted - gone
    assert ask(engine, "SELECT count(DISTINCT metric) FROM dims_metrics_history WHERE outcome = 'failed'") > 0
    assert house(engine) == 0


def test_an_event_that_still_waits_for_a_reading_stays(engine: Engine) -> None:
    fill(engine, CONFIG, until=NOW - timedelta(days=500), days=40, log=40)
    house(engine)
    waiting = "SELECT count(*) FROM dims_metrics WHERE requested_gen > measured_gen"
    assert ask(engine, waiting) > 0
    assert ask(engine, "SELECT array_agg(DISTINCT batch_id) FROM dims_event_log") == [40]


def test_the_newest_result_of_a_workflow_stays(engine: Engine) -> None:
    for days in (500, 450, 400):
        ask(engine, "INSERT INTO dims_verification_runs (trigger, source, status, started_at, result) VALUES "
            "('event', 'workflow.audit', 'ok', now() - make_interval(days => :days), '{}')", days=days)  # fmt: skip
    house(engine)
    assert ask(engine, "SELECT array_agg(now()::date - started_at::date) FROM dims_verification_runs") == [400]


def test_a_run_of_which_people_were_told_stays(engine: Engine) -> None:
    for trigger in ("told", "untold"):
        ask(engine, "INSERT INTO dims_verification_runs (trigger, source, status, started_at) VALUES "
            "(:trigger, 'lake', 'ok', now() - interval '400 days')", trigger=trigger)  # fmt: skip
    ask(engine, "INSERT INTO dims_notifications (channel, metric, state, facts, run_id) "
        "SELECT 'mail', 'm.c', 'failed', '{}', run_id FROM dims_verification_runs WHERE trigger = 'told'")  # fmt: skip
    house(engine)
    assert ask(engine, "SELECT array_agg(trigger) FROM dims_verification_runs") == ["told"]


def test_it_goes_in_lots_and_the_next_sweep_goes_on(engine: Engine) -> None:
    fill(engine, CONFIG, until=NOW, days=60)
    assert house(engine, days=30, batch=100, batches=3) == 300
    with transaction(engine) as connection:
        kept = retention.last_retention_run(connection)
    assert kept is not None
    assert (kept.readings, kept.finished_at) == (300, None)
    assert house(engine, days=30, batch=100, batches=3) == 300


def test_a_day_is_begun_once_whoever_comes(engine: Engine, beside: Threads) -> None:
    fill(engine, CONFIG, until=NOW, days=10)
    assert [outcome(one) for one in [beside(house, engine) for _ in range(4)]] == [0] * 4
    assert ask(engine, "SELECT count(*) FROM dims_snapshots WHERE daily") == 1
    assert ask(engine, "SELECT count(*) FROM dims_retention_runs") == 1
    with transaction(engine) as connection:
        (one,) = snapshots.list_snapshots(connection)
        assert one.name == f"{retention.today(connection):%Y-%m-%d}"
    assert one.metrics == ask(engine, "SELECT count(*) FROM dims_metrics WHERE as_of IS NOT NULL")


def test_who_keeps_house_is_alone_and_nobody_waits_for_it(engine: Engine) -> None:
    fill(engine, CONFIG, until=NOW, days=60)
    with transaction(engine) as connection:
        assert retention.try_retention_lock(connection)
        assert house(engine, days=30) == 0
    assert house(engine, days=30) > 0


def test_nobody_who_records_waits_for_it(flow: Flow) -> None:
    for value in (100, 101, 102):
        flow.serve(c=value, a=1)
    ask(flow.engine, "UPDATE dims_metrics_history SET as_of = as_of - interval '400 days' WHERE value = '100'")
    ask(flow.engine, "UPDATE dims_verification_runs SET started_at = now() - interval '400 days' WHERE run_id = 1")
    with transaction(flow.engine) as connection:
        day = retention.today(connection)
        retention.begin_day(connection, day)
        assert retention.delete_old_rows(connection, "readings", day, timedelta(days=365), 100) == 1
        assert flow.serve(c=103, a=2)["m.c"].outcome == "accepted"  # not yet committed, and yet it is not in the way
    assert ask(flow.engine, "SELECT count(*) FROM dims_metrics_history WHERE metric = 'm.c'") == 3


def test_old_daily_snapshots_go_and_named_ones_stay(engine: Engine) -> None:
    for name, daily, days in (("a", True, 91), ("b", True, 89), ("c", False, 900)):
        ask(engine, "INSERT INTO dims_snapshots (name, daily, taken_at) VALUES "
            "(:name, :daily, now() - make_interval(days => :days))", name=name, daily=daily, days=days)  # fmt: skip
    house(engine)
    with transaction(engine) as connection:
        assert [one.name for one in snapshots.list_snapshots(connection)][:2] == ["c", "b"]


def test_dims_app_keeps_house_and_can_take_away_nothing_else(engine: Engine, login: Login) -> None:  # noqa: F811
    fill(engine, CONFIG, until=NOW, days=60, log=60)
    app, reader = login("dims_app"), login("dims_reader")
    assert house(app, days=30) > 0
    young = ask(engine, "SELECT count(*) FROM dims_metrics_history WHERE as_of > now() - interval '7 days'")
    ask(app, "SELECT dims_prune_readings(now() + interval '1 day', 100000)")
    assert ask(engine, "SELECT count(*) FROM dims_metrics_history WHERE as_of > now() - interval '7 days'") == young > 0
    assert ask(engine, KEPT) == 0
    with transaction(app) as connection:
        assert snapshots.take_snapshot(connection, "mine", daily=False)
        assert snapshots.delete_snapshot(connection, "mine")
    with transaction(reader) as connection:  # who only reads may compare
        since, until = parse_moment(connection, "20d"), parse_moment(connection, "now")
        assert compare_metrics(connection, CONFIG, since, until)
        assert retention.last_retention_run(connection)
        assert [one.daily for one in snapshots.list_snapshots(connection)] == [True]
    refused = ("DELETE FROM dims_metrics_history", "DELETE FROM dims_retention_runs", "DELETE FROM dims_snapshot_values",
               "UPDATE dims_snapshot_values SET value = '1'", "UPDATE dims_snapshots SET name = 'x'")  # fmt: skip
    calls = ("SELECT dims_prune_readings(now(), 1)", "SELECT dims_prune_events(now(), 1)",
             "SELECT dims_prune_runs(now(), 1)", "DELETE FROM dims_snapshots")  # fmt: skip
    for who, statements in ((app, refused), (reader, (*refused, *calls))):
        for statement in statements:
            with pytest.raises(DBAPIError) as raised:
                ask(who, statement)
            assert isinstance(raised.value.orig, errors.InsufficientPrivilege), statement
