"""SqlProbe on SQLite: values, types, one pass, clear errors. PostgreSQL is in the integration tests."""

from __future__ import annotations

import json
import sqlite3
import sys
import traceback
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import asdict
from datetime import date, datetime, timedelta, timezone
from decimal import Decimal
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from dims_worker.config import SqlMetric, SqlSource
from dims_worker.errors import MeasureError
from dims_worker.probes.base import Deadline, Reading, ScanContext, readings_by_name
from dims_worker.probes.sql.probe import SqlProbe, _run_in_shares
from dims_worker.probes.sql.snapshot import QueryTookTooLong, open_snapshot, query_rows
from dims_worker.probes.sql.statement import as_subquery, check_read_only
from dims_worker.probes.sql.values import instant_of, value_of

FOREVER = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n"


def metric(query: str, **more: Any) -> SqlMetric:
    return SqlMetric(source="db", query=query, **more)


def source(url: str = "sqlite:///games.db") -> SqlSource:
    return SqlSource(type="sql", url=SecretStr(url))


@pytest.fixture
def games(tmp_path: Path) -> Path:
    file = tmp_path / "games.db"
    with closing(sqlite3.connect(file)) as made:
        made.execute("CREATE TABLE games (id INTEGER, name TEXT, played TEXT, score REAL, raw BLOB)")
        made.executemany(
            "INSERT INTO games VALUES (?, ?, ?, ?, ?)",
            [(n, f"game {n}", f"2013-11-{n % 28 + 1:02} 20:00:00", n / 4, b"x") for n in range(1, 2501)],
        )
        made.commit()
    return file


Scan = Callable[..., dict[str, Reading]]


@pytest.fixture
def scan(games: Path, context: ScanContext) -> Scan:
    def run(where: SqlSource | None = None, seconds: float = 30, **metrics: SqlMetric) -> dict[str, Reading]:
        deadline = Deadline.after(timedelta(seconds=seconds))
        return readings_by_name(SqlProbe().scan(where or source(), metrics, context, deadline).readings)

    return run


def test_a_value_of_each_type(scan: Scan) -> None:
    readings = scan(
        count=metric("SELECT count(*) FROM games", unit="games"),
        mean=metric("SELECT avg(score) FROM games"),
        text=metric("SELECT name FROM games ORDER BY id LIMIT 1"),
        named=metric("SELECT id, name FROM games ORDER BY id DESC LIMIT 1", column="name"),
        percent=metric("SELECT count(*) AS c FROM games WHERE name LIKE 'game 1%' AND name <> ':id'"),
        half=metric("SELECT char(0) || ' and more'"),
    )
    assert {name: reading.value for name, reading in readings.items()} == {
        "count": 2500,
        "mean": 312.625,
        "text": "game 1",
        "named": "game 2500",
        "percent": 1111,
        "half": r"\x00 and more",
    }
    assert readings["count"].unit == "games" and type(readings["count"].value) is int
    assert all(reading.method == "exact" for reading in readings.values())


@pytest.mark.parametrize(
    ("cell", "value"),
    [
        (True, True),
        (10**17, 10**17),
        (Decimal("5.00"), Decimal("5.00")),
        (Decimal("12.50"), Decimal("12.50")),
        (Decimal("12345678901234567890.123"), Decimal("12345678901234567890.123")),
        (Decimal("1E+3"), 1000),
        (Decimal("0.25"), 0.25),
        (date(2013, 11, 1), "2013-11-01"),
        (datetime(2013, 11, 1, 2, 3), "2013-11-01T02:03:00"),  # noqa: DTZ001
    ],
)
def test_values_of_drivers_are_converted(cell: object, value: object) -> None:
    result = value_of(cell, None)
    assert (str(result), type(result)) == (str(value), type(value))


@pytest.mark.parametrize("cell", [b"x", [1], Decimal("NaN"), Decimal("1E+400"), float("inf"), Decimal("-Infinity")])
def test_values_that_are_not_measurements_fail(cell: object) -> None:
    with pytest.raises(MeasureError, match=r"not a number|not a measurement"):
        value_of(cell, None)


@pytest.mark.parametrize(
    ("unit", "value"), [("seconds", 129600), ("minutes", 2160), ("hours", 36), ("days", 1.5), ("weeks", 1.5 / 7)]
)
def test_an_interval_is_a_number_in_a_unit_of_time(unit: str, value: float) -> None:
    assert value_of(timedelta(hours=36), unit) == value


def test_an_interval_without_a_unit_of_time_fails() -> None:
    with pytest.raises(MeasureError, match="set `unit` to seconds, minutes, hours, days, weeks, or write EXTRACT"):
        value_of(timedelta(hours=36), "games")


@pytest.mark.parametrize(
    "cell",
    [
        datetime(2013, 11, 1, 20),  # noqa: DTZ001 - without a zone it is UTC
        datetime(2013, 11, 1, 15, tzinfo=timezone(timedelta(hours=-5))),
        "2013-11-01 20:00:00",
        "2013-11-01T15:00:00-05:00",
    ],
)
def test_an_age_is_an_instant_in_utc(cell: object) -> None:
    assert instant_of(cell, "UTC")[0] == "2013-11-01T20:00:00+00:00"


def test_a_time_without_a_zone_is_in_the_zone_of_the_metric() -> None:
    assert instant_of("2013-11-01 20:00:00", "Asia/Tokyo") == ("2013-11-01T11:00:00+00:00", True)
    assert instant_of("2013-11-01 20:00:00Z", "Asia/Tokyo") == ("2013-11-01T20:00:00+00:00", False)


@pytest.mark.parametrize(
    ("cell", "fix"),
    [
        ("1796015436", "to_timestamp(x)"),
        ("1796010121045", "to_timestamp(x)"),  # milliseconds, and an instant in 1796 if read as ISO 8601
        ("2026-11-29T22:00:00 EST", "CAST(x AS timestamptz)"),
        ("2026-02-30", "CAST(x AS timestamptz)"),
        ("infinity", "CAST(x AS timestamptz)"),
        (1796015436, "to_timestamp(x)"),
        (Decimal("1796015436.5"), "to_timestamp(x)"),
        (timedelta(1), "return the time that it counts from"),
        (True, "write a CAST"),
    ],
)
def test_a_value_that_is_no_time_names_the_cast(cell: object, fix: str) -> None:
    with pytest.raises(MeasureError) as raised:
        instant_of(cell, "UTC")
    assert fix in str(raised.value)


def test_an_age_from_a_day_and_from_other_values(scan: Scan) -> None:
    assert instant_of(date(2013, 11, 1), "UTC")[0] == "2013-11-01T00:00:00+00:00"
    readings = scan(
        text=metric("SELECT name FROM games LIMIT 1", measure="age"), number=metric("SELECT 20131101", measure="age")
    )
    assert str(readings["text"].error).startswith("the query returns 'game 1', which is not a time in ISO 8601")
    assert str(readings["number"].error).startswith("the query returns int, which is not a time: write to_timestamp(x)")
    assert readings["text"].unit == "hours"


def test_no_row_and_null(scan: Scan) -> None:
    nothing, null = "SELECT id FROM games WHERE id < 0", "SELECT max(id) FROM games WHERE id < 0"
    readings = scan(
        nothing=metric(nothing),
        null=metric(null),
        text=metric(null, absent=None),
        zero=metric(null, absent=0),
        age=metric(nothing, measure="age", absent=None),
    )
    assert (readings["nothing"].method, readings["nothing"].error) == ("failed", "the query returns no row")
    assert (readings["null"].method, readings["null"].error) == ("failed", "the query returns NULL")
    assert (readings["text"].value, readings["text"].method) == (None, "exact")
    assert (readings["zero"].value, readings["zero"].details) == (0, {"absent": "the query returns NULL"})
    assert (readings["age"].value, readings["age"].error) == (None, None)


def test_more_than_one_row_fails(scan: Scan) -> None:
    readings = scan(two=metric("SELECT 1 UNION SELECT 2"), all=metric("SELECT id FROM games"), good=metric("SELECT 3"))
    assert readings["good"].value == 3
    for name in ("two", "all"):
        error = "the query returns more than one row: aggregate them, or add ORDER BY and LIMIT 1"
        assert readings[name].error == error


def test_a_text_over_64_kib_fails_alone(scan: Scan) -> None:
    readings = scan(long=metric("SELECT printf('%.*c', 65537, 'x')"), fits=metric("SELECT printf('%.*c', 65536, 'x')"))
    assert "a text of 65,537 bytes, more than 64 KiB" in str(readings["long"].error)
    assert readings["fits"].value == "x" * 65536


def test_the_column_must_be_unambiguous(scan: Scan) -> None:
    readings = scan(
        two=metric("SELECT id, name FROM games"),
        gone=metric("SELECT id, name FROM games", column="title"),
        twice=metric("SELECT id, id FROM games", column="id"),
    )
    assert readings["two"].error == "the query returns 2 columns. Set `column` to one of id, name"
    assert readings["gone"].error == "the query returns no column 'title'. It returns id, name"
    assert readings["twice"].error == "the query returns more than one column 'id'. It returns id, id"


def test_a_query_that_fails_only_fails_its_own_metrics(scan: Scan) -> None:
    readings = scan(
        good=metric("SELECT count(*) FROM games"),
        table=metric("SELECT count(*) FROM teams"),
        bytes=metric("SELECT raw FROM games LIMIT 1"),
        again=metric("SELECT count(*) + 1 FROM games"),
    )
    assert (readings["good"].value, readings["again"].value) == (2500, 2501)
    assert readings["table"].error == "the query failed: no such table: teams"
    assert "bytes" in str(readings["bytes"].error)


def test_counted_rows_are_named(scan: Scan) -> None:
    rows = "SELECT name, id FROM games WHERE id > 1 ORDER BY id"
    readings = scan(
        some=metric("SELECT count(*) - 1 FROM games", rows=rows, names=2),
        more=metric("SELECT count(*) - 1 FROM games", rows=rows, names=3),
        none=metric("SELECT 0", rows=f"{rows} LIMIT 0"),
        null=metric("SELECT 1", rows="SELECT NULL"),
        bad=metric("SELECT 1", rows="SELECT name FROM teams"),
    )
    assert readings["some"].details == {"rows": ["game 2", "game 3"], "rows_total": 2499}
    assert readings["more"].details["rows"] == ["game 2", "game 3", "game 4"]
    assert readings["none"].details == {"rows": [], "rows_total": 0}
    assert readings["null"].details == {"rows": ["None"], "rows_total": 1}
    assert readings["bad"].error == "`rows`: the query failed: no such table: teams"
    json.dumps([asdict(reading) for reading in readings.values()])


def test_equal_queries_run_once(scan: Scan, monkeypatch: pytest.MonkeyPatch) -> None:
    checked: list[str] = []
    monkeypatch.setattr("dims_worker.probes.sql.snapshot.check_read_only", checked.append)
    scan(
        a=metric("SELECT count(*) FROM games", rows="SELECT id FROM games"),
        b=metric("SELECT count(*) FROM games", unit="games", rows="SELECT id FROM games", names=1),
        c=metric("SELECT 1"),
    )
    assert sorted(checked) == ["SELECT 1", "SELECT count(*) FROM games", "SELECT id FROM games"]


def test_a_pass_sees_one_snapshot(games: Path, context: ScanContext, deadline: Deadline) -> None:
    with open_snapshot(source(), context, deadline) as snapshot:
        before = snapshot("SELECT count(*) FROM games")
        with closing(sqlite3.connect(games, timeout=0)) as other, pytest.raises(sqlite3.OperationalError):
            other.execute("DELETE FROM games")
            other.commit()  # SQLite locks writers out during a read
        assert snapshot("SELECT count(*) FROM games") == before
    assert before.columns == ("count(*)",) and before.rows == ((2500,),) and before.total == 1


def test_nothing_is_written(games: Path, scan: Scan, context: ScanContext, deadline: Deadline) -> None:
    held = games.read_bytes()
    readings = scan(
        delete=metric("DELETE FROM games"),
        second=metric("SELECT 1; DELETE FROM games"),
        pragma=metric("PRAGMA query_only = OFF"),
        hidden=metric("WITH one AS (SELECT 1) DELETE FROM games RETURNING id"),
    )
    assert readings["delete"].error and readings["delete"].error.startswith("the query starts with DELETE: ")
    assert readings["second"].error == "the query has more than one statement: write one, without `;`"
    assert readings["pragma"].method == "failed"
    assert readings["hidden"].error == "the query failed: attempt to write a readonly database"
    with pytest.raises(MeasureError, match="readonly"):
        query_rows(
            source(f"sqlite:///file:{games}?uri=true"), "WITH a AS (SELECT 1) DELETE FROM games", context, deadline
        )
    assert games.read_bytes() == held


@pytest.mark.parametrize(
    "query",
    [
        "select 1;",
        " ( SELECT 1 ) -- the end; really\n ; ",
        "/* DELETE; */ SELECT ';', \";\", E'it\\'s;', 'it''s;', $$a;b$$, $q$;$q$ ;",
        "WITH a AS (SELECT 1) SELECT date'2020-01-01', * FROM a",
        "VALUES (1)",
        "TABLE games",
        "EXPLAIN SELECT 1",
    ],
)
def test_queries_that_read(query: str) -> None:
    check_read_only(query)


@pytest.mark.parametrize(
    ("query", "inner"),
    [
        ("SELECT 1 ; -- the end", "SELECT 1"),
        ("SELECT ';' -- a; b\n;", "SELECT ';'"),
        ("VALUES (1)", "VALUES (1)"),
        ("/* first */ (SELECT 'a;b' AS \"c;\") ;", "/* first */ (SELECT 'a;b' AS \"c;\")"),
        ("EXPLAIN SELECT 1", None),
        ("SHOW TimeZone", None),
    ],
)
def test_queries_that_can_be_in_from(query: str, inner: str | None) -> None:
    assert as_subquery(query) == inner


@pytest.mark.parametrize(
    "query",
    [
        *("", ";", "-- nothing", "COMMIT", "INSERT INTO a VALUES (1)", "DO $$ $$", "SET x = 1", "selected"),
        *("SELECT 1; COMMIT", "SELECT 'a'; DELETE FROM b; --'", "SELECT 1 AS a$b$; DELETE FROM x; --$b$"),
        *("SELECT 'a\\'; DELETE FROM b; --'", "SELECT 1 /* /* */ */; DELETE FROM b"),
    ],
)
def test_queries_that_do_not_read(query: str) -> None:
    with pytest.raises(MeasureError, match=r"the query (starts with|has more than one statement)"):
        check_read_only(query)


def test_a_query_without_end_is_stopped(scan: Scan) -> None:
    readings = scan(seconds=2, first=metric("SELECT 1"), endless=metric(FOREVER), last=metric("SELECT 2"))
    assert (readings["first"].value, readings["last"].value) == (1, 2)
    assert "timeout" in str(readings["endless"].error)


def test_other_probes_can_run_queries(games: Path, context: ScanContext, deadline: Deadline) -> None:
    rows = query_rows(source(), "SELECT id, name FROM games WHERE id < 4 ORDER BY id", context, deadline).rows
    assert [row[0] for row in rows] == [1, 2, 3]
    answer = query_rows(source(), "SELECT id, name AS title FROM games ORDER BY id", context, deadline, keep=1)
    assert (answer.columns, answer.rows, answer.total) == (("id", "title"), ((1, "game 1"),), 2500)
    empty = query_rows(source(), "SELECT id FROM games WHERE id < 0", context, deadline)
    assert (empty.columns, empty.rows, empty.total) == (("id",), (), 0)
    with pytest.raises(MeasureError, match="no such table"):
        query_rows(source(), "SELECT id FROM teams", context, deadline)
    with open_snapshot(source(), context, deadline) as snapshot, pytest.raises(ZeroDivisionError):
        snapshot.first("SELECT 1 / 0")
        raise ZeroDivisionError


@pytest.mark.parametrize(
    ("url", "text"),
    [
        ("", "no database URL: set `url`"),
        ("  ", "no database URL: set `url`"),
        ("games.db", "is not a database URL"),
        ("postgresql://me:s3cret@host:port/db", "is not a database URL"),
        ("sqlite:///gone.db", "gone.db does not exist"),
        ("abacus://me:s3cret@host/db", "SQLAlchemy has no driver abacus"),
        ("mysql+pymysql://me:s3cret@host/db", "pymysql is not installed: pip install pymysql"),
        ("postgres://me:s3cret@127.0.0.1:9/db", "cannot connect to the database db at 127.0.0.1:9"),
        ("postgresql://me:s3cret@127.0.0.1:9/db?nonsense=1", "cannot connect to"),
    ],
)
def test_a_database_that_cannot_be_connected_to(url: str, text: str, scan: Scan, tmp_path: Path) -> None:
    assert "s3cret" not in repr(source(url))
    with pytest.raises(MeasureError) as raised:
        scan(source(url), a=metric("SELECT 1"))
    assert text in str(raised.value)
    assert "s3cret" not in "".join(traceback.format_exception(raised.value))
    assert not (tmp_path / "gone.db").exists()


def test_a_missing_driver_is_named_by_its_package(scan: Scan, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "psycopg2", None)
    with pytest.raises(MeasureError, match="psycopg2 is not installed: pip install psycopg2-binary"):
        scan(source("postgresql://host/db"), a=metric("SELECT 1"))


def test_a_file_that_is_not_a_database(scan: Scan, games: Path) -> None:
    games.write_text("a text, and a long one at that" * 100)
    readings = scan(a=metric("SELECT 1 FROM games"))
    assert readings["a"].error == "the query failed: file is not a database"


def run_in_shares(durations: Mapping[str, float], seconds: float, monkeypatch: pytest.MonkeyPatch) -> dict[str, object]:
    """Run calls that take this long, by a clock that only they move. Return each result, or "late"."""
    now = [0.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])

    def call(name: str, share: Deadline) -> str:
        if durations[name] > share.left:
            now[0] += share.left
            raise QueryTookTooLong("late")
        now[0] += durations[name]
        return name

    answers = _run_in_shares(
        {name: partial(call, name) for name in durations}, Deadline.after(timedelta(seconds=seconds))
    )
    assert now[0] <= seconds + 0.01
    return {name: str(answer) for name, answer in answers.items()}


def test_a_slow_query_has_the_time_that_the_others_leave(monkeypatch: pytest.MonkeyPatch) -> None:
    assert run_in_shares({"a": 3.9, "b": 0.1, "c": 0.1}, 6, monkeypatch) == {"a": "late", "b": "b", "c": "c"}
    assert run_in_shares({"a": 3.5, "b": 0.1, "c": 0.1}, 6, monkeypatch) == {"a": "a", "b": "b", "c": "c"}
    assert run_in_shares({"a": 0.1, "b": 5.5}, 6, monkeypatch) == {"a": "a", "b": "b"}
    assert run_in_shares({"a": 99, "b": 99, "c": 0.1}, 6, monkeypatch) == {"a": "late", "b": "late", "c": "c"}
    assert run_in_shares({"a": 59}, 60, monkeypatch) == {"a": "a"}
