"""SqlProbe on a real PostgreSQL: one snapshot, read only, stopped in time, clear errors without passwords."""

from __future__ import annotations

import os
import signal
import threading
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import psutil
import pytest
from pydantic import SecretStr
from sqlalchemy import Engine, make_url, text

from dims_worker.config import SqlMetric, SqlSource
from dims_worker.errors import MeasureError
from dims_worker.probes.base import Deadline, Reading, ScanContext, readings_by_name
from dims_worker.probes.sql.probe import SqlProbe
from dims_worker.probes.sql.snapshot import open_snapshot, query_rows

CONTEXT = ScanContext(Path("/project"), Path("/project/.dims"))
GAMES = """
CREATE TABLE games (id bigint PRIMARY KEY, name text, played timestamptz, day date, price numeric(10, 2));
INSERT INTO games
SELECT n, 'game ' || n, timestamptz '2013-10-29 20:00:00-05' + n * interval '1 hour',
       date '2013-10-29' + n::int, n / 4.0
FROM generate_series(1, 5000) AS n;
CREATE FUNCTION sneak() RETURNS int LANGUAGE sql AS 'DELETE FROM games RETURNING 1';
"""


def metric(query: str, **more: Any) -> SqlMetric:
    return SqlMetric(source="db", query=query, **more)


def source(url: str) -> SqlSource:
    return SqlSource(type="sql", url=SecretStr(url))


def within(seconds: float = 30) -> Deadline:
    return Deadline.after(timedelta(seconds=seconds))


def scan(url: str, seconds: float = 30, **metrics: SqlMetric) -> dict[str, Reading]:
    return readings_by_name(SqlProbe().scan(source(url), metrics, CONTEXT, within(seconds)).readings)


@pytest.fixture
def games(engine: Engine, database_url: str) -> str:
    """The URL of a database with 5,000 games, as users write it."""
    with engine.begin() as connection:
        connection.exec_driver_sql(GAMES)
    return database_url.replace("postgresql+psycopg2://", "postgresql://")


def execute(engine: Engine, query: str, **parameters: Any) -> list[Any]:
    with engine.begin() as connection:
        result = connection.execute(text(query), parameters)
        return list(result.scalars()) if result.returns_rows else []


def test_values_and_their_types(games: str) -> None:
    readings = scan(
        games,
        count=metric("SELECT count(*) FROM games"),
        sum=metric("SELECT sum(id) FROM games"),
        part=metric("SELECT price FROM games WHERE id = 3"),
        truth=metric("SELECT count(*) > 1 FROM games"),
        day=metric("SELECT max(day) AS last, 1 AS one FROM games", column="last"),
        time=metric("SELECT played FROM games ORDER BY id LIMIT 1"),
        like=metric("SELECT count(*) FROM games WHERE name LIKE '%9' AND name::text <> ':x %s'"),
        size=metric("SELECT pg_database_size(current_database()) / 1e9", unit="GB"),
        age=metric("SELECT max(played) FROM games", measure="age"),
        none=metric("SELECT max(id) FROM games WHERE id < 0", absent=None),
        zone=metric("SHOW TimeZone"),
    )
    assert {name: reading.error for name, reading in readings.items() if reading.error} == {}
    values = {name: reading.value for name, reading in readings.items()}
    size = values.pop("size")
    assert type(size) is Decimal and size > 0.001  # with the zeros that PostgreSQL writes
    assert values == {
        "count": 5000,
        "sum": 12502500,
        "part": 0.75,
        "truth": True,
        "day": "2027-07-08",
        "like": 500,
        "time": "2013-10-30T02:00:00+00:00",
        "age": "2014-05-26T09:00:00+00:00",
        "none": None,
        "zone": "UTC",
    }
    assert type(values["sum"]) is int


def test_values_that_are_not_measurements_fail(games: str) -> None:
    readings = scan(
        games,
        bytes=metric("SELECT 'a'::bytea"),
        span=metric("SELECT interval '1 month'", unit="days"),
        nan=metric("SELECT 'NaN'::numeric"),
        huge=metric("SELECT 10::numeric ^ 400"),
        json=metric("SELECT '{}'::jsonb"),
        late=metric("SELECT timestamptz '12000-01-01'"),
        good=metric("SELECT 1"),
    )
    assert readings.pop("good").value == 1
    assert {reading.method for reading in readings.values()} == {"failed"}
    assert "out of range" in str(readings["late"].error)


def test_missing_games_are_named(games: str) -> None:
    rows = "SELECT id, name FROM games WHERE id % 2 = 0 ORDER BY id"
    reading = scan(games, gaps=metric("SELECT count(*) FROM games WHERE id % 2 = 0", rows=rows, names=3))["gaps"]
    assert (reading.value, reading.details) == (2500, {"rows": ["2", "4", "6"], "rows_total": 2500})


def test_a_query_that_fails_does_not_affect_the_others(games: str) -> None:
    readings = scan(
        games,
        before=metric("SELECT count(*) FROM games"),
        table=metric("SELECT count(*) FROM teams"),
        syntax=metric("SELECT FROM WHERE"),
        zero=metric("SELECT 1 / (id - id) FROM games"),
        rows=metric("SELECT 1", rows="SELECT name FROM teams"),
        after=metric("SELECT count(*) + 1 FROM games", rows="SELECT 1"),
    )
    assert (readings["before"].value, readings["after"].value) == (5000, 5001)
    assert str(readings["table"].error).startswith('the query failed: relation "teams" does not exist')
    assert "syntax error" in str(readings["syntax"].error) and "division by zero" in str(readings["zero"].error)
    assert str(readings["rows"].error).startswith('`rows`: the query failed: relation "teams"')


def test_all_queries_see_the_same_data(games: str, engine: Engine) -> None:
    with open_snapshot(source(games), CONTEXT, within()) as snapshot:
        assert snapshot.first("SELECT count(*) FROM games").rows == ((5000,),)
        execute(engine, "DELETE FROM games WHERE id > 10")
        assert snapshot.first("SELECT count(*) FROM games").rows == ((5000,),)
        with pytest.raises(MeasureError):
            snapshot("SELECT 1 / 0")
        answer = snapshot("SELECT id, name FROM games ORDER BY id DESC", keep=1)
        assert (answer.columns, answer.rows, answer.total) == (("id", "name"), ((5000, "game 5000"),), 5000)
    rows = query_rows(source(games), "SELECT id, name FROM games ORDER BY id", CONTEXT, within()).rows
    assert [row[0] for row in rows] == [*range(1, 11)]
    assert query_rows(source(games), "SELECT id FROM games", CONTEXT, within(), keep=0).total == 10


@pytest.mark.parametrize(
    "query",
    [
        "DELETE FROM games",
        "SELECT 1; DELETE FROM games",
        "COMMIT",
        "SET TRANSACTION READ WRITE",
        "WITH gone AS (DELETE FROM games RETURNING id) SELECT count(*) FROM gone",
        "SELECT sneak()",
        "SELECT count(*) FROM games WHERE id IN (SELECT id FROM games FOR UPDATE)",
        "SELECT set_config('transaction_read_only', 'off', false)",
        "EXPLAIN ANALYZE DELETE FROM games",
    ],
)
def test_nothing_is_written(query: str, games: str, engine: Engine) -> None:
    readings = scan(games, write=metric(query), then=metric("SELECT sneak()"), good=metric("SELECT 7"))
    assert (readings["write"].method, readings["then"].method, readings["good"].value) == ("failed", "failed", 7)
    assert execute(engine, "SELECT count(*) FROM games") == [5000]


def test_settings_of_a_query_are_undone(games: str) -> None:
    readings = scan(
        games,
        set=metric("SELECT set_config('statement_timeout', '1', false)"),
        timeout=metric("SELECT setting::int > 1000 FROM pg_settings WHERE name = 'statement_timeout'"),
        slow=metric("SELECT pg_sleep(0.1)::text"),
    )
    assert (readings["timeout"].value, readings["slow"].value) == (True, "")


def test_a_slow_query_is_stopped_at_the_server(games: str, engine: Engine) -> None:
    begun = time.monotonic()
    readings = scan(
        games, 3, first=metric("SELECT 1"), slow=metric("SELECT pg_sleep(60)::text"), last=metric("SELECT 2")
    )
    assert time.monotonic() - begun < 30  # the query alone takes a minute
    assert (readings["first"].value, readings["last"].value) == (1, 2)
    assert "timeout" in str(readings["slow"].error)
    assert _sessions(engine) == []


def test_a_stream_without_end_is_stopped(games: str) -> None:
    with pytest.raises(MeasureError, match="timeout of 1 s"):
        query_rows(source(games), "SELECT generate_series(1, 1e12)", CONTEXT, within(1), keep=3)


def test_a_stream_is_not_kept_in_memory(games: str) -> None:
    before = psutil.Process().memory_info().rss
    peak = [before]
    done = threading.Event()

    def watch() -> None:
        while not done.wait(0.01):
            peak[0] = max(peak[0], psutil.Process().memory_info().rss)

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        rows = "SELECT repeat('x', 1000) || n FROM generate_series(1, 100000) AS n"
        reading = scan(games, m=metric("SELECT 1", rows=rows, names=1))["m"]
    finally:
        done.set()
        thread.join()
    assert reading.details["rows_total"] == 100_000
    assert peak[0] - before < 40e6  # of 100 MB


def _sessions(engine: Engine) -> list[int]:
    query = "SELECT pid FROM pg_stat_activity WHERE application_name = 'dims' AND datname = current_database()"
    end = time.monotonic() + 5
    while (results := execute(engine, query)) and time.monotonic() < end:
        time.sleep(0.05)
    return results


@contextmanager
def _once_asked(engine: Engine, query: str) -> Iterator[list[int]]:
    """Run a query on the sleeping session, from a thread, and return its pid."""
    pids: list[int] = []

    def run() -> None:
        end = time.monotonic() + 10
        while not pids and time.monotonic() < end:
            pids.extend(
                execute(
                    engine,
                    "SELECT pid FROM pg_stat_activity WHERE query LIKE '%pg_sleep(60)%' AND state = 'active' "
                    "AND pid <> pg_backend_pid() AND datname = current_database()",
                )
            )
            time.sleep(0.05)
        for pid in pids:
            if query:
                execute(engine, query, pid=pid)
            else:
                os.kill(pid, signal.SIGSTOP)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield pids
    finally:
        thread.join()


def test_a_server_that_hangs_does_not_block_the_scan(games: str, engine: Engine) -> None:
    begun = time.monotonic()
    with _once_asked(engine, "") as pids:
        try:
            readings = scan(games, 1.5, a=metric("SELECT pg_sleep(60)::text"), b=metric("SELECT 1 AS b"))
        finally:
            for pid in pids:
                os.kill(pid, signal.SIGCONT)
    assert len(pids) == 1
    assert time.monotonic() - begun < 30  # the query alone takes a minute
    assert readings["a"].error == readings["b"].error == "the scan took longer than its timeout of 1.5 s"


def test_a_terminated_session_fails_all_its_queries(games: str, engine: Engine) -> None:
    with _once_asked(engine, "SELECT pg_terminate_backend(:pid)"):
        readings = scan(games, first=metric("SELECT 1"), a=metric("SELECT pg_sleep(60)::text"), b=metric("SELECT 2"))
    assert readings["first"].value == 1
    assert readings["a"].error == readings["b"].error
    assert "lost the connection to the database " in str(readings["a"].error)


def test_a_query_cancelled_by_an_administrator_fails_alone(games: str, engine: Engine) -> None:
    with _once_asked(engine, "SELECT pg_cancel_backend(:pid)"):
        readings = scan(games, a=metric("SELECT pg_sleep(60)::text"), b=metric("SELECT 2"))
    assert " cancelled the query: " in str(readings["a"].error) and readings["b"].value == 2


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"password": "s3cret"}, "password authentication failed"),
        ({"username": "stranger", "password": "s3cret"}, "authentication failed"),
        ({"database": "gone"}, 'cannot connect to the database gone at .*: .*"gone" does not exist'),
        ({"port": 9}, "cannot connect to .*:9: .*refused"),
        ({"host": "no-such-host.invalid"}, "could not translate host name|cannot connect to"),
    ],
)
def test_an_unreachable_database_fails(change: dict[str, Any], text: str, games: str) -> None:
    real = make_url(games)
    with pytest.raises(MeasureError, match=text) as raised:
        scan(real.set(**change).render_as_string(hide_password=False), a=metric("SELECT 1"))
    text = "".join(traceback.format_exception(raised.value))
    assert "s3cret" not in text and str(real.password) not in text


def test_no_session_is_left_behind(games: str, engine: Engine) -> None:
    scan(games, a=metric("SELECT 1"), b=metric("SELECT nonsense"))
    assert _sessions(engine) == []


def test_a_role_without_the_right_to_read_fails(games: str, engine: Engine) -> None:
    for statement in (
        "CREATE ROLE reader LOGIN PASSWORD 'p@ss:w/rd'",
        "GRANT SELECT (id) ON games TO reader",
    ):
        execute(engine, statement)
    url = make_url(games).set(username="reader", password="p@ss:w/rd").render_as_string(hide_password=False)
    try:
        readings = scan(url, ids=metric("SELECT count(id) FROM games"), names=metric("SELECT max(name) FROM games"))
    finally:
        execute(engine, "DROP OWNED BY reader")
        execute(engine, "DROP ROLE reader")
    assert readings["ids"].value == 5000
    assert readings["names"].error == "the query failed: permission denied for table games"
