"""The rights of the roles: dims_app does the work but deletes no history, dims_reader only reads."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from psycopg2 import errors
from sqlalchemy import Engine, create_engine, make_url, text
from sqlalchemy.exc import DBAPIError, IntegrityError

from dims_worker import local
from dims_worker.approvals.decisions import BaselineInput, decide_request, set_baselines
from dims_worker.config import load_config
from dims_worker.domain.approvers import Decider
from dims_worker.events import SCHEDULE_TICK
from dims_worker.store import schedules
from dims_worker.store.approval_requests import expire_requests
from dims_worker.store.engine import transaction
from dims_worker.store.migrations import head_revision, migrate
from dims_worker.store.rejected_events import mark_replayed
from tests.conftest import Project, Worker, wait_for
from tests.integration.helpers import CONFIG, Down, Flow, Threads, event, outcome

ADA = Decider("ada", "option")
SCHEDULED = CONFIG + "  daily: {schedule: '0 9 * * *'}\n"
Login = Callable[[str], Engine]


def do(engine: Engine, statement: str) -> Any:
    with engine.begin() as connection:
        found = connection.execute(text(statement))
        return found.fetchall() if found.returns_rows else None


@pytest.fixture
def login(engine: Engine) -> Iterator[Login]:
    """Yield an engine whose login is a new member of one of the roles."""
    made: list[tuple[str, Engine]] = []

    def log_in(group: str) -> Engine:
        name = f"{engine.url.database}_{group}"
        do(engine, f"CREATE ROLE {name} LOGIN PASSWORD 'secret' IN ROLE {group}")
        made.append((name, create_engine(engine.url.set(username=name, password="secret"))))
        return made[-1][1]

    yield log_in
    for name, theirs in made:
        theirs.dispose()
        do(engine, f"DROP ROLE {name}")


@pytest.fixture
def app(login: Login) -> Engine:
    return login("dims_app")


@pytest.fixture
def reader(login: Login) -> Engine:
    return login("dims_reader")


def refused(engine: Engine, statement: str) -> bool:
    """Return whether the database refuses the statement because a privilege is missing."""
    with pytest.raises(DBAPIError) as raised:
        do(engine, statement)
    assert isinstance(raised.value.orig, errors.InsufficientPrivilege), f"{statement}: {raised.value.orig}"
    return True


def named(engine: Engine, kinds: str) -> list[str]:
    query = f"SELECT relname FROM pg_class WHERE relkind IN ({kinds}) AND relname LIKE 'dims\\_%' ORDER BY 1"
    return [row.relname for row in do(engine, query)]


# --- dims_app -------------------------------------------------------------------------------------------


def test_everything_a_worker_does_works_as_dims_app(app: Engine, tmp_path: Path) -> None:
    (tmp_path / "dims.yaml").write_text(SCHEDULED)
    flow = Flow(app, load_config(None, {}, tmp_path))
    flow.serve(c=100, a=1)
    flow.serve(b=2, e=3)
    assert flow.state("m.ratio").value == 1  # derived of derived
    assert flow.serve(c=150)["m.c"].outcome == "held"
    request = flow.open("m.c")
    assert request is not None
    decide_request(app, flow.config, "m.c", "approved", version=request.version, person=ADA, note="a new season")
    assert flow.serve(c=300)["m.c"].outcome == "held"
    decide_request(app, flow.config, "m.c", "rejected", version=1, person=ADA, note=None)
    assert flow.serve(c=300)["m.c"].outcome == "rejected"
    assert flow.serve(c=Down("away"))["m.c"].outcome == "failed"
    assert flow.look(c=Down("away"))["m.c"].outcome == "failed"
    set_baselines(app, flow.config, [BaselineInput("m.c", 7)], ADA)
    with transaction(app) as connection:
        expire_requests(connection)
        mark_replayed(connection, [1])
        assert list(schedules.schedule_states(connection)) == ["daily"]
    flow.store(event(SCHEDULE_TICK, rule="daily"), event("dims.scraper.complete"))
    (tmp_path / "dims.yaml").write_text(
        CONFIG.replace("    e: {source: two, measure: count}\n", "").replace('    ratio: {derive: "m.sum / m.e"}\n', "")
    )
    flow = Flow(app, load_config(None, {}, tmp_path), first=False)  # retires a metric and deletes a schedule
    assert flow.state("m.e").retired_at is not None
    assert migrate(app) == (head_revision(), head_revision())


def test_a_real_worker_and_the_commands_work_as_dims_app(
    app: Engine, project: Project, start_worker: Callable[..., Worker]
) -> None:
    project.env["DIMS_DATABASE_URL"] = app.url.render_as_string(hide_password=False)
    project.write(
        {
            "dims.yaml": "settings: {sweep: 1s}\nsources: {p: {type: files, path: '.'}}\n"
            "metrics: {m: {docs: {source: p, measure: count, paths: '*.md', critical: true}}}\n"
            "rules: {scraped: {on: dims.scraper.complete, metrics: ['m.*']}}\n",
            "a.md": "",
            "b.md": "",
        }
    )
    assert project.dims("migrate", check=True).stdout == f"the database is at revision {head_revision()}\n"
    start_worker()
    wait_for(lambda: do(app, "SELECT 1 FROM dims_metrics WHERE baseline = '2'"))
    project.write({"c.md": ""})
    project.dims("enqueue", "scraped", check=True)
    wait_for(lambda: do(app, "SELECT 1 FROM dims_approval_requests WHERE state = 'open'"))
    project.dims("approvals", "approve", "m.docs", "--version", "1", check=True)
    project.dims("events", "replay", "1", check=True)
    wait_for(lambda: do(app, "SELECT 1 FROM dims_metrics WHERE baseline = '3' AND value = '3' AND failures = 0"))
    assert do(app, "SELECT count(*) FROM dims_approval_requests WHERE state = 'approved'")[0][0] == 1
    wait_for(lambda: do(app, "SELECT 1 FROM dims_retention_runs WHERE finished_at IS NOT NULL"))
    assert do(app, "SELECT count(*) FROM dims_snapshots WHERE daily")[0][0] == 1


HAPPENED = (
    "dims_event_log",
    "dims_ingest_batches",
    "dims_verification_runs",
    "dims_metrics_history",
    "dims_approval_requests",
    "dims_metrics",
    "dims_sources",
)


@pytest.mark.parametrize(
    "statement",
    [
        *(f"DELETE FROM {table}" for table in HAPPENED),
        *(f"TRUNCATE {table} CASCADE" for table in (*HAPPENED, "dims_schedules")),
        "UPDATE dims_metrics_history SET value = '7'",
        "UPDATE dims_metrics_history SET metric = 'm.a', outcome = 'accepted'",
        "UPDATE dims_event_log SET data = '{}'",
        "UPDATE dims_verification_runs SET failed = 0",
        "UPDATE dims_ingest_batches SET generation = 0",
        "UPDATE dims_alembic_version SET version_num = '0001'",
        "CREATE TABLE mine (x int)",
        "DROP TABLE dims_metrics_history",
        "ALTER TABLE dims_approval_requests DISABLE TRIGGER dims_protect_decisions",
        "DROP TRIGGER dims_protect_decisions ON dims_approval_requests",
        "CREATE FUNCTION mine() RETURNS int LANGUAGE sql RETURN 1",
        "CREATE OR REPLACE VIEW dims_pending_approvals AS SELECT 1 AS request",
        "SET session_replication_role = replica",
        "CREATE ROLE mine",
        "CALL dims_grant()",
    ],
)
def test_dims_app_can_delete_no_history_and_create_no_objects(app: Engine, statement: str) -> None:
    assert refused(app, statement)


@pytest.mark.parametrize("change", ["note = 'another'", "state = 'open'", "value = '7'", "decided_by = 'ben'"])
def test_dims_app_cannot_change_a_decision(app: Engine, flow: Flow, change: str) -> None:
    flow.serve(c=100)
    flow.serve(c=150)
    decide_request(app, flow.config, "m.c", "approved", version=1, person=ADA, note="a new season")
    with pytest.raises(IntegrityError, match="a decided request cannot be changed"):
        do(app, f"UPDATE dims_approval_requests SET {change}")
    assert do(app, "SELECT state, decided_by, note FROM dims_approval_requests") == [
        ("approved", "ada", "a new season")
    ]


# --- dims_reader ----------------------------------------------------------------------------------------


def test_dims_reader_reads_everything(reader: Engine, engine: Engine, flow: Flow) -> None:
    flow.serve(c=100)
    flow.serve(c=150)
    tables, views = named(engine, "'r', 'p'"), named(engine, "'v'")
    assert len(tables) >= 8
    assert views == ["dims_approval_log", "dims_metrics_latest", "dims_pending_approvals", "dims_recent_drift"]
    assert "dims_alembic_version" in tables
    for name in (*tables, *views):
        do(reader, f"SELECT * FROM {name}")
    assert do(reader, "SELECT value_number FROM dims_pending_approvals") == [(150,)]
    assert len(do(reader, "SELECT * FROM dims_metric_trend('m', 'c')")) == 2
    assert do(reader, "SELECT numeric_value FROM dims_get_metric_trend('m', 'c', 30)") == [(100,), (150,)]
    assert do(reader, "SELECT metric_category, metric_name, old_value, new_value, status FROM dims_approval_log") == [
        ("m", "c", "100", "150", "pending")
    ]
    assert do(reader, "SELECT n, held FROM dims_metric_stats('m', 'c')") == [(2, 1)]


def test_dims_reader_changes_nothing(reader: Engine, engine: Engine, flow: Flow) -> None:
    flow.serve(c=100)
    for table in named(engine, "'r', 'p'"):
        columns = do(engine, f"SELECT attname FROM pg_attribute WHERE attrelid = '{table}'::regclass AND attnum > 0")
        for (column,) in columns:
            assert refused(reader, f"UPDATE {table} SET {column} = {column}")
        assert refused(reader, f"INSERT INTO {table} DEFAULT VALUES")
        assert refused(reader, f"DELETE FROM {table}")
        assert refused(reader, f"TRUNCATE {table} CASCADE")
        assert refused(reader, f"SELECT * FROM {table} FOR UPDATE")
        assert refused(reader, f"LOCK TABLE {table} IN ACCESS EXCLUSIVE MODE")
    for sequence in named(engine, "'S'"):
        assert refused(reader, f"SELECT nextval('{sequence}')")
        assert refused(reader, f"SELECT setval('{sequence}', 1)")


@pytest.mark.parametrize(
    "statement",
    [
        "CREATE TABLE mine (x int)",
        "CREATE SCHEMA mine",
        "CREATE FUNCTION mine() RETURNS int LANGUAGE sql RETURN 1",
        "ALTER TABLE dims_metrics ADD COLUMN mine int",
        "DROP VIEW dims_recent_drift",
        "COMMENT ON TABLE dims_metrics IS 'mine'",
        "CREATE ROLE mine",
        "GRANT dims_app TO CURRENT_USER",
        "SET ROLE dims_app",
        "CALL dims_grant()",
        "DELETE FROM dims_pending_approvals",
    ],
)
def test_dims_reader_can_create_nothing_and_assume_no_role(reader: Engine, statement: str) -> None:
    assert refused(reader, statement)


# --- later, elsewhere, at once --------------------------------------------------------------------------


def test_the_roles_may_use_tables_of_later_migrations(engine: Engine, app: Engine, reader: Engine) -> None:
    do(engine, "CREATE TABLE dims_later (id bigint GENERATED BY DEFAULT AS IDENTITY, x int)")
    do(engine, "CREATE SEQUENCE dims_later_ids")
    do(app, "INSERT INTO dims_later (x) VALUES (1)")
    do(app, "UPDATE dims_later SET x = 2")
    do(app, "SELECT nextval('dims_later_ids')")
    assert do(reader, "SELECT x FROM dims_later") == [(2,)]
    assert refused(app, "DELETE FROM dims_later")
    assert refused(reader, "UPDATE dims_later SET x = 3")
    assert refused(reader, "SELECT nextval('dims_later_ids')")


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Engine]:
    """A new PostgreSQL server without the roles."""
    try:
        url = local.start(tmp_path / "home", broker=False, fast=True).database_url
        made = create_engine(str(url), isolation_level="AUTOCOMMIT")
        yield made
        made.dispose()
    finally:
        local.stop(tmp_path / "home")


def other(cluster: Engine, name: str, **login: str) -> Engine:
    with cluster.connect() as connection:
        owner = f"OWNER {login['username']}" if login else ""
        connection.execute(text(f"CREATE DATABASE {name} {owner}"))
    return create_engine(make_url(cluster.url).set(database=name, **login))


def roles(cluster: Engine) -> list[str]:
    with cluster.connect() as connection:
        found = connection.execute(text("SELECT rolname FROM pg_roles WHERE rolname LIKE 'dims\\_%' ORDER BY 1"))
        return [row.rolname for row in found]


def test_without_the_right_to_create_roles_a_migration_warns_and_continues(
    cluster: Engine, caplog: pytest.LogCaptureFixture
) -> None:
    with cluster.connect() as connection:
        connection.execute(text("CREATE ROLE plain LOGIN PASSWORD 'secret'"))
    plain = other(cluster, "managed", username="plain", password="secret")
    with caplog.at_level(logging.WARNING):
        assert migrate(plain) == (None, head_revision())
    messages = [record.message for record in caplog.records if record.name == "dims_worker.store.migrations"]
    assert [re.findall(r"CREATE ROLE (\w+)", line) for line in messages] == [["dims_app"], ["dims_reader"]]
    assert messages[0] == (
        "DIMS: plain may not create the role dims_app. Have an administrator run: "
        "CREATE ROLE dims_app; then: CALL dims_grant()"
    )
    assert roles(cluster) == []
    assert do(plain, "SELECT * FROM dims_pending_approvals") == []
    with cluster.connect() as connection:  # run what the warnings say
        for line in messages:
            connection.execute(text(re.findall(r"CREATE ROLE \w+", line)[0]))
        connection.execute(text("CREATE ROLE ada LOGIN PASSWORD 'secret' IN ROLE dims_reader"))
    do(plain, "CALL dims_grant()")
    ada = create_engine(plain.url.set(username="ada"))
    assert do(ada, "SELECT * FROM dims_metrics_latest") == []
    assert refused(ada, "INSERT INTO dims_sources VALUES ('x')")
    for engine in (plain, ada):
        engine.dispose()


@pytest.mark.parametrize("ends", ["commit", "rollback"])
def test_two_databases_can_create_the_roles_at_once(cluster: Engine, beside: Threads, ends: str) -> None:
    """The first transaction holds its new roles uncommitted, and the second waits for it."""
    here, there = other(cluster, "here"), other(cluster, "there")
    waits = "SELECT 1 FROM pg_stat_activity WHERE datname = 'there' AND wait_event_type = 'Lock'"
    with here.connect() as first:
        first.execute(text("CREATE ROLE dims_app NOLOGIN"))
        second = beside(migrate, there)
        wait_for(lambda: do(cluster, waits), timeout=10)
        getattr(first, ends)()
    assert outcome(second) == (None, head_revision())
    assert migrate(here) == (None, head_revision())
    assert roles(cluster) == ["dims_app", "dims_reader"]
    granted = "SELECT relacl::text FROM pg_class WHERE relname = 'dims_metrics'"
    (mine,), (theirs,) = do(here, granted)[0], do(there, granted)[0]
    assert mine == theirs
    assert "dims_reader=r/" in mine
    for engine in (here, there):
        engine.dispose()


def test_json_of_a_reader_is_json(reader: Engine, flow: Flow) -> None:
    """Integers stay integers in any client."""
    flow.serve(c=172_726)
    (row,) = do(reader, "SELECT row_to_json(l)::text FROM dims_metrics_latest l WHERE metric = 'm.c'")
    document = json.loads(row[0])
    assert (document["value"], document["value_number"], type(document["value"])) == (172_726, 172_726, int)
