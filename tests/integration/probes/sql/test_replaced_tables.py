"""SqlProbe while others empty, rewrite or exchange the tables that it reads. It never returns a part of a table."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest
from pydantic import SecretStr
from sqlalchemy import Engine, text

from dims_worker.config import SqlMetric, SqlSource
from dims_worker.errors import MeasureError
from dims_worker.probes.base import Deadline, ScanContext, readings_by_name
from dims_worker.probes.sql.probe import SqlProbe
from dims_worker.probes.sql.snapshot import SnapshotQuery, TablesReplaced, open_snapshot

CONTEXT = ScanContext(Path("/project"), Path("/project/.dims"))
TABLES = """
CREATE TABLE games (id int PRIMARY KEY, day date);
INSERT INTO games SELECT n FROM generate_series(1, 500) AS n;
CREATE TABLE games_new (LIKE games);
CREATE TABLE other (id int);
CREATE VIEW playoffs AS SELECT * FROM games;
CREATE MATERIALIZED VIEW totals AS SELECT * FROM games;
CREATE FUNCTION counted() RETURNS bigint LANGUAGE plpgsql AS 'BEGIN RETURN (SELECT count(*) FROM games); END';
CREATE TABLE parts (id int) PARTITION BY RANGE (id);
CREATE TABLE parts_1 PARTITION OF parts FOR VALUES FROM (0) TO (1000);
CREATE TABLE parts_1_new (id int);
INSERT INTO parts SELECT n FROM generate_series(1, 500) AS n;
CREATE TABLE elders (id int);
CREATE TABLE heir () INHERITS (elders);
INSERT INTO heir SELECT n FROM generate_series(1, 500) AS n;
"""
RELOAD = "INSERT INTO games SELECT n FROM generate_series(1, 600) AS n"


_REPLACED = (
    (f"BEGIN; TRUNCATE games; {RELOAD}; COMMIT", "SELECT count(*) FROM games"),
    (f"BEGIN; TRUNCATE games; {RELOAD}; COMMIT", "SELECT count(*) FROM playoffs"),
    (f"BEGIN; TRUNCATE games; {RELOAD}; COMMIT", "SELECT counted()"),
    (f"BEGIN; TRUNCATE games; {RELOAD}; COMMIT", "SELECT count(*) FROM other WHERE id IN (SELECT id FROM games)"),
    ("BEGIN; SAVEPOINT a; TRUNCATE games; RELEASE a; COMMIT", "SELECT count(*) FROM games"),
    ("TRUNCATE games", "SELECT count(*) FROM games"),
    ("ALTER TABLE other ALTER id TYPE bigint", "SELECT count(*) FROM other"),
    ("VACUUM FULL games", "SELECT count(*) FROM games"),
    ("CLUSTER games USING games_pkey", "SELECT count(*) FROM games"),
    (
        "BEGIN; ALTER TABLE games RENAME TO games_old; ALTER TABLE games_new RENAME TO games; COMMIT",
        "SELECT count(*) FROM games",
    ),
    (
        "BEGIN; DROP TABLE games CASCADE; CREATE TABLE games AS SELECT generate_series(1, 600) AS id; COMMIT",
        "SELECT count(*) FROM games",
    ),
    ("INSERT INTO games_new SELECT 1; CREATE OR REPLACE VIEW playoffs AS SELECT * FROM games_new", "TABLE playoffs"),
    ("REFRESH MATERIALIZED VIEW totals", "SELECT count(*) FROM totals"),
    ("TRUNCATE parts_1", "SELECT count(*) FROM parts"),
    ("ALTER TABLE parts DETACH PARTITION parts_1", "SELECT count(*) FROM parts"),
    (
        "BEGIN; ALTER TABLE parts DETACH PARTITION parts_1; INSERT INTO parts_1_new TABLE parts_1; "
        "ALTER TABLE parts ATTACH PARTITION parts_1_new FOR VALUES FROM (0) TO (1000); COMMIT",
        "SELECT count(*) FROM parts",
    ),
    ("ALTER TABLE heir NO INHERIT elders", "SELECT count(*) FROM elders"),
    (
        "CREATE SCHEMA IF NOT EXISTS live; CREATE TABLE live.games (id int)",  # which was created after the snapshot
        "SELECT count(*) FROM live.games",
    ),
)
_NOT_REPLACED = (
    "INSERT INTO games SELECT n FROM generate_series(501, 600) AS n",
    "DELETE FROM games",
    "BEGIN; DELETE FROM games; INSERT INTO games SELECT n FROM generate_series(1, 600) AS n; COMMIT",
    "BEGIN; TRUNCATE games; ROLLBACK",
    "BEGIN; ALTER TABLE games RENAME TO gone; ROLLBACK",
    "ANALYZE games; VACUUM games",
    "CREATE INDEX ON games (day)",
    "REINDEX TABLE games",
    "TRUNCATE other",
    "DROP TABLE other",
    "CREATE TABLE later (id int)",
)


@pytest.fixture
def url(engine: Engine, database_url: str) -> str:
    """The URL of a database with tables of 500 rows."""
    execute(engine, f"BEGIN; {TABLES}; COMMIT")
    return database_url


def source(url: str) -> SqlSource:
    return SqlSource(type="sql", url=SecretStr(url))


def within(seconds: float = 30) -> Deadline:
    return Deadline.after(timedelta(seconds=seconds))


def metric(query: str) -> SqlMetric:
    return SqlMetric(source="db", query=query)


def execute(engine: Engine, statements: str, schema: str = "public") -> None:
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        raw = connection.connection.cursor()
        raw.execute(f"SET search_path = {schema}")
        for statement in filter(str.strip, _outside_quotes(statements)):
            raw.execute(statement)
        raw.execute("RESET search_path")


def _outside_quotes(statements: str) -> list[str]:
    """Split at each `;` that is not in a function."""
    parts = statements.split("'")
    parts[::2] = [part.replace(";", "\0") for part in parts[::2]]
    return "'".join(parts).split("\0")


def count(snapshot: SnapshotQuery, query: str) -> object:
    return snapshot.first(query).rows[0][0]


def test_a_table_that_was_replaced_fails_the_query(engine: Engine, database_url: str) -> None:
    for number, (change, query) in enumerate(_REPLACED):
        schema = f"case_{number}"
        execute(engine, f"CREATE SCHEMA {schema}; {TABLES}", schema)
        path = f"{database_url}?options=-csearch_path%3D{schema}"
        with open_snapshot(source(path), CONTEXT, within()) as snapshot:
            assert count(snapshot, "SELECT count(*) FROM games") == 500
            execute(engine, change, schema)
            for run in (snapshot.first, snapshot, lambda each: snapshot.names(each, 5)):
                with pytest.raises(TablesReplaced, match=r"changed while DIMS measured.*Measure again"):
                    assert run(query) is change  # which names the change if nothing is raised
            assert count(snapshot, "SELECT 7") == 7


def test_an_exchange_of_schemas_is_noticed(url: str, engine: Engine) -> None:
    execute(engine, "CREATE SCHEMA live; CREATE TABLE live.games (id int)")
    execute(engine, "CREATE SCHEMA new; CREATE TABLE new.games (id int)")
    with open_snapshot(source(url), CONTEXT, within()) as snapshot:
        assert count(snapshot, "SELECT count(*) FROM live.games") == 0
        execute(engine, "INSERT INTO new.games VALUES (1)")
        execute(engine, "BEGIN; ALTER SCHEMA live RENAME TO old; ALTER SCHEMA new RENAME TO live; COMMIT")
        with pytest.raises(TablesReplaced, match=r"live\.games changed"):
            snapshot.first("SELECT count(*) FROM live.games")


def test_other_changes_leave_the_value_of_the_snapshot(url: str, engine: Engine) -> None:
    with open_snapshot(source(url), CONTEXT, within()) as snapshot:
        assert count(snapshot, "SELECT 1") == 1
        for change in _NOT_REPLACED:
            execute(engine, change)
            assert count(snapshot, "SELECT count(*) FROM games") == 500, change
            assert count(snapshot, "SELECT count(*) FROM games WHERE id BETWEEN 1 AND 500") == 500, change


def test_a_change_before_the_pass_does_not_count(url: str, engine: Engine) -> None:
    execute(
        engine, f"TRUNCATE games; {RELOAD}; ALTER TABLE parts DETACH PARTITION parts_1; BEGIN; TRUNCATE other; ROLLBACK"
    )
    with open_snapshot(source(url), CONTEXT, within()) as snapshot:
        for query, value in (("games", 600), ("parts", 0), ("other", 0), ("playoffs", 600)):
            assert count(snapshot, f"SELECT count(*) FROM {query}") == value


def test_a_query_keeps_no_lock_after_it(url: str, engine: Engine) -> None:
    with open_snapshot(source(url), CONTEXT, within()) as snapshot:
        assert count(snapshot, "SELECT count(*) FROM games") == 500
        execute(engine, f"SET lock_timeout = '1s'; TRUNCATE games; {RELOAD}")


def _when_waiting(engine: Engine, act: Callable[[], None]) -> threading.Thread:
    """Run `act` in a thread, once a query of DIMS waits for a lock."""
    waits = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'dims' AND wait_event_type = 'Lock'"

    def run() -> None:
        end = time.monotonic() + 20
        while time.monotonic() < end:
            with engine.connect() as connection:
                if connection.execute(text(f"{waits} AND datname = current_database()")).scalar_one():
                    break
            time.sleep(0.02)
        act()

    thread = threading.Thread(target=run)
    thread.start()
    return thread


def test_a_pass_measures_again_after_a_reload(url: str, engine: Engine) -> None:
    """A slow query comes first. While it runs, another session empties and reloads a table, in one transaction."""
    metrics = {
        "slow": metric("SELECT count(*) FROM pg_advisory_lock_shared(42)"),
        "box": metric("SELECT count(*) FROM games"),
        "missing": metric("SELECT count(*) FROM other WHERE id NOT IN (SELECT id FROM games)"),
    }
    with engine.connect() as holder:
        holder.exec_driver_sql("SELECT pg_advisory_lock(42)")

        def reload() -> None:
            execute(engine, f"BEGIN; TRUNCATE games; {RELOAD}; COMMIT")
            holder.exec_driver_sql("SELECT pg_advisory_unlock(42)")

        thread = _when_waiting(engine, reload)
        readings = readings_by_name(SqlProbe().scan(source(url), metrics, CONTEXT, within(60)).readings)
        thread.join()
    assert {name: (reading.value, reading.error) for name, reading in readings.items()} == {
        "slow": (1, None),
        "box": (600, None),
        "missing": (0, None),
    }


def test_a_query_that_waits_for_a_reload_is_measured_again(url: str, engine: Engine) -> None:
    """The snapshot is older than the reload, and the query waits until the reload is committed."""
    with engine.connect() as loader:
        begun = loader.begin()
        loader.exec_driver_sql("TRUNCATE games")
        loader.exec_driver_sql(RELOAD)
        thread = _when_waiting(engine, begun.commit)
        metrics = {"box": metric("SELECT count(*) FROM games")}
        readings = readings_by_name(SqlProbe().scan(source(url), metrics, CONTEXT, within(60)).readings)
        thread.join()
    assert (readings["box"].value, readings["box"].error) == (600, None)


def test_a_query_that_waits_too_long_for_a_lock_names_it(url: str, engine: Engine) -> None:
    metrics = {"box": metric("SELECT count(*) FROM games"), "last": metric("SELECT 2")}
    with engine.connect() as loader, loader.begin():
        loader.exec_driver_sql("TRUNCATE games")
        readings = readings_by_name(SqlProbe().scan(source(url), metrics, CONTEXT, within(4)).readings)
    assert readings["last"].value == 2
    assert "another session has locked" in str(readings["box"].error)


def test_a_table_that_is_replaced_all_the_time_fails(url: str, engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    real = SnapshotQuery.first

    def first(self: SnapshotQuery, query: str, limit: Deadline | None = None) -> object:
        execute(engine, f"BEGIN; TRUNCATE games; {RELOAD}; COMMIT")
        return real(self, query, limit)

    monkeypatch.setattr(SnapshotQuery, "first", first)
    metrics = {"box": metric("SELECT count(*) FROM games"), "last": metric("SELECT 2")}
    readings = readings_by_name(SqlProbe().scan(source(url), metrics, CONTEXT, within()).readings)
    assert readings["last"].value == 2
    assert str(readings["box"].error).startswith("games changed while DIMS measured")
    assert issubclass(TablesReplaced, MeasureError)
