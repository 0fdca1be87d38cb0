"""The sizes and rows of tables in aws-inventory: counted, estimated with their age, or unknown with the reason."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr
from sqlalchemy import Engine, make_url

from dims_worker.config import SqlSource
from dims_worker.probes.base import Deadline, ScanContext
from dims_worker.workflows.aws_inventory import report
from dims_worker.workflows.aws_inventory.database import Relation, read_database


def run(engine: Engine, *statements: str) -> None:
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        for statement in statements:
            connection.exec_driver_sql(statement)


def read(url: str, counting: float = 20) -> dict[str, Any]:
    source = SqlSource(type="sql", url=SecretStr(url))
    context = ScanContext(Path("/project"), Path("/project/.dims"))
    whole = Deadline.after(timedelta(seconds=30))
    return read_database(source, context, whole, Deadline.after(timedelta(seconds=counting)))


def by_name(database: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    return {table["name"].removeprefix("public."): table for table in database["tables"]}


def url_of(engine: Engine, **changes: Any) -> str:
    return engine.url.set(**changes).render_as_string(hide_password=False)


@pytest.fixture
def wh(empty: Engine) -> Engine:
    """A database in which no table is analyzed unless a test does it."""
    run(empty, f'ALTER DATABASE "{make_url(str(empty.url)).database}" SET default_statistics_target = 10')
    return empty


def grown(engine: Engine) -> None:
    """Make a table that is analyzed with 1,000 rows and then grows to 100,000, and one that is never analyzed."""
    run(
        engine,
        "CREATE TABLE grown (n int) WITH (autovacuum_enabled = off)",
        "INSERT INTO grown SELECT generate_series(1, 1000)",
        "SELECT pg_stat_force_next_flush()",
        "ANALYZE grown",
        "INSERT INTO grown SELECT generate_series(1, 99000)",
        "CREATE TABLE never (n int) WITH (autovacuum_enabled = off)",
        "INSERT INTO never SELECT generate_series(1, 5000)",
        "CREATE TABLE nothing (n int) WITH (autovacuum_enabled = off)",
        "SELECT pg_stat_force_next_flush()",
    )


def test_rows_are_counted(wh: Engine) -> None:
    grown(wh)
    tables = by_name(read(url_of(wh)))
    assert {name: (table["rows"], table["rows_method"]) for name, table in tables.items()} == {
        "grown": (100_000, "count"),
        "never": (5_000, "count"),
        "nothing": (0, "count"),
    }
    assert report.rows_note(tables["never"]) == "counted"


def test_without_time_to_count_an_estimate_has_its_age_and_unknown_is_null(wh: Engine) -> None:
    grown(wh)
    tables = by_name(read(url_of(wh), counting=0))
    never, old = tables["never"], tables["grown"]
    assert (never["rows"], never["rows_method"], never["bytes"] > 0) == (None, None, True)
    assert never["rows_note"] == "the time for counting, 0 s, was over, and the table was never analyzed: run ANALYZE"
    assert tables["nothing"]["rows"] is None
    assert (old["rows"], old["rows_method"], old["rows_uncertainty"]) == (1000, "estimate", 99_000)
    today = datetime.now(UTC).date().isoformat()
    assert old["rows_since"].startswith(today)
    assert report.rows_note(old) == (
        f"estimate from {today}, 99,000 changes since: 0 to 100,000 (the time for counting, 0 s, was over)"
    )


def test_a_table_that_takes_too_long_leaves_the_numbers_of_smaller_ones(
    wh: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    grown(wh)
    slow = "SELECT count(*) FROM public.grown, pg_sleep(60)"  # as a table of many gigabytes would be
    query = property(lambda each: slow if each.name == "grown" else f"SELECT count(*) FROM public.{each.name}")
    monkeypatch.setattr(Relation, "count_query", query)
    tables = by_name(read(url_of(wh), counting=3))
    assert (tables["never"]["rows"], tables["nothing"]["rows"]) == (5_000, 0)
    assert (tables["grown"]["rows"], tables["grown"]["rows_method"]) == (1_000, "estimate")
    assert "counting it takes longer than 1." in tables["grown"]["rows_note"]


def test_a_locked_table_leaves_time_for_the_others(wh: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    grown(wh)
    names: list[str] = []

    def lock_before_counting(relation: Relation) -> str:
        if not names:
            locked.connection.exec_driver_sql("LOCK TABLE never")
        names.append(relation.name)
        return f"SELECT count(*) FROM ONLY public.{relation.name}"

    monkeypatch.setattr(Relation, "count_query", property(lock_before_counting))
    with wh.connect() as connection, connection.begin() as locked:
        tables = by_name(read(url_of(wh), counting=4))
    assert names == ["nothing", "never", "grown"]
    assert (tables["nothing"]["rows"], tables["grown"]["rows"]) == (0, 100_000)
    assert tables["never"]["rows"] is None and "another session has locked" in tables["never"]["rows_note"]


def test_partitions_add_up_and_views_are_left_out(wh: Engine) -> None:
    run(
        wh,
        "CREATE TABLE part (n int) PARTITION BY RANGE (n)",
        "CREATE TABLE part_1 PARTITION OF part FOR VALUES FROM (0) TO (100)",
        "CREATE TABLE part_2 PARTITION OF part FOR VALUES FROM (100) TO (1000) PARTITION BY RANGE (n)",
        "CREATE TABLE part_2_1 PARTITION OF part_2 FOR VALUES FROM (100) TO (1000)",
        "INSERT INTO part SELECT generate_series(0, 299)",
        "CREATE TABLE parent (n int)",
        "CREATE TABLE child () INHERITS (parent)",
        "INSERT INTO parent SELECT generate_series(1, 3)",
        "INSERT INTO child SELECT generate_series(1, 7)",
        "CREATE VIEW seen AS SELECT * FROM part",
        "CREATE MATERIALIZED VIEW stored AS SELECT * FROM part",
        "CREATE MATERIALIZED VIEW unfilled AS SELECT * FROM part WITH NO DATA",
        'CREATE TABLE "odd; ""name""--|`x`" (n int)',
    )
    database = read(url_of(wh))
    tables = by_name(database)
    assert {name: table["rows"] for name, table in tables.items()} == {
        **{"part": 300, "part_1": 100, "part_2": 200, "part_2_1": 200, "parent": 3, "child": 7},
        **{"stored": 300, "unfilled": None, 'odd; "name"--|`x`': 0},
    }
    assert tables["part"]["bytes"] == tables["part_1"]["bytes"] + tables["part_2_1"]["bytes"] > 0
    assert (tables["part_1"]["partition_of"], tables["part"]["kind"]) == ("public.part", "partitioned table")
    assert "never refreshed" in tables["unfilled"]["rows_note"]
    assert database["views"] == ["public.seen"]
    # An estimate of a part makes the whole an estimate, and an unknown part makes it unknown
    estimated = by_name(read(url_of(wh), counting=0))
    assert estimated["part"]["rows"] is None and "partition public.part_" in estimated["part"]["rows_note"]
    run(wh, "ANALYZE part_1", "ANALYZE part_2_1", "SELECT pg_stat_force_next_flush()")
    estimated = by_name(read(url_of(wh), counting=0))
    assert (estimated["part"]["rows"], estimated["part"]["rows_method"]) == (300, "estimate")


def test_what_a_role_may_not_read_is_unknown(wh: Engine) -> None:
    grown(wh)
    role = f"low_{make_url(str(wh.url)).database}"
    run(
        wh,
        f"CREATE ROLE {role} LOGIN PASSWORD 'not-a-secret'",
        "CREATE SCHEMA closed CREATE TABLE inside (n int)",
        f"GRANT SELECT ON nothing TO {role}",
        "CREATE TABLE hidden (n int)",
        "INSERT INTO hidden SELECT generate_series(1, 10)",
        "ALTER TABLE hidden ENABLE ROW LEVEL SECURITY",
        f"GRANT SELECT ON hidden TO {role}",
        "CREATE FOREIGN DATA WRAPPER no_handler",
        "CREATE SERVER elsewhere FOREIGN DATA WRAPPER no_handler",
        "CREATE FOREIGN TABLE far (n int) SERVER elsewhere",
    )
    try:
        tables = by_name(read(url_of(wh, username=role, password="not-a-secret")))
    finally:
        run(wh, f"DROP OWNED BY {role}", f"DROP ROLE {role}")
    assert {name: table["rows"] for name, table in tables.items()} == {
        **{"grown": 1000, "never": None, "nothing": 0, "hidden": None, "closed.inside": None, "far": None},
    }
    assert "permission denied" in tables["never"]["rows_note"] and tables["never"]["bytes"] > 0
    assert "permission denied" in tables["grown"]["rows_note"] and tables["grown"]["rows_method"] == "estimate"
    assert "row security" in tables["hidden"]["rows_note"]
    assert tables["far"]["bytes"] is None and "another database" in tables["far"]["rows_note"]
    lines = report.markdown(
        {**EMPTY, "database": {"name": "wh", "bytes": None, "bytes_note": "no", "tables": [*tables.values()]}}
    )
    assert "`wh`: its size is unknown (no)." in lines
    (line,) = [line for line in lines.split("\n") if "public.far" in line]
    assert line.split(" | ")[2:5] == ["unknown", "it is stored in another database", "unknown"]


EMPTY: Mapping[str, Any] = {
    "attention": [],
    "bucket": "lake",
    "lake": None,
    "instance": None,
    "cost": {"lines": [], "unpriced": [], "missing": [], "sum_usd": None, "known_usd": 0},
    "paid": None,
    "left_out": [],
}
