"""Every kind of value that PostgreSQL returns: a value with all its digits, or a failure with the cast to write."""

from __future__ import annotations

from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr
from sqlalchemy import Engine

from dims_worker.config import SqlMetric, SqlSource
from dims_worker.probes.base import Deadline, Reading, ScanContext, readings_by_name
from dims_worker.probes.sql.probe import SqlProbe

CONTEXT = ScanContext(Path("/project"), Path("/project/.dims"))
LONG = 12345678901234567890123456789012345678

VALUES: dict[str, Any] = {
    "9223372036854775807::bigint": 9223372036854775807,
    f"{LONG}::numeric": LONG,
    f"-{LONG}.1234567890::numeric": Decimal(f"-{LONG}.1234567890"),
    "12.50::numeric(12, 2)": Decimal("12.50"),
    "100.000::numeric": Decimal("100.000"),
    "0.1::numeric": 0.1,
    "0.1::float4": 0.1,
    "0.1::float8 + 0.2": 0.30000000000000004,
    "1e22::float8": 1e22,
    "100::float8": 100.0,
    "'-0'::float8": 0.0,
    "7::smallint": 7,
    "4294967295::oid": 4294967295,
    "true": True,
    "NULL::boolean IS NULL": True,
    "'6f0f8a3e-9a53-4b6d-9b0c-8f4bb5b7a001'::uuid": "6f0f8a3e-9a53-4b6d-9b0c-8f4bb5b7a001",
    "'10.0.0.1'::inet": "10.0.0.1",
    "'08:00:2b:01:02:03'::macaddr": "08:00:2b:01:02:03",
    "B'101'": "101",
    "B'101'::varbit": "101",
    "'12:30'::time": "12:30:00",
    "'12:30+02'::timetz": "12:30:00+02",
    "'ok'::char(10)": "ok",
    "''": "",
    "'a text'::name": "a text",
    "E'beep\\x07 and \\x0b'": "beep\x07 and \x0b",
    "'won'::result": "won",
    "7::score": 7,
    "12.50::price": Decimal("12.50"),
    "current_date - current_date": 0,
    "'2026-11-30'::date": "2026-11-30",
    "'2026-11-30 05:00:00.123456+02'::timestamptz": "2026-11-30T03:00:00.123456+00:00",
    "'2026-11-30 05:00:00'::timestamp": "2026-11-30T05:00:00",
    "'pg_class'::regclass": "pg_class",
}
FAILURES = {
    "12.5::numeric::money": "money, whose text depends on the locale of the server: write CAST(x AS numeric)",
    "'Infinity'::numeric": "Infinity, which is not a measurement",
    "'-Infinity'::float8": "-Infinity, which is not a measurement",
    "'NaN'::numeric": "FILTER (WHERE abs(x) < 'Infinity')",
    "'NaN'::float4": "FILTER (WHERE abs(x) < 'Infinity')",
    "10::numeric ^ 301": "1.00e+301, which is not a measurement",
    "1.0::numeric(1000, 999) / 3 * 1::numeric(1000, 999)": "more than 1,000 digits",
    "sha256('x')": "bytea, which is binary: write octet_length(x) or encode(x, 'hex')",
    "'{\"a\": 1}'::jsonb": "CAST(x ->> 'total' AS numeric)",
    "'5'::json": "CAST(x ->> 'total' AS numeric)",
    "array[1, 2]": "int4[], an array: write cardinality(x)",
    "array['won']::result[]": "an array: write cardinality(x)",
    "ROW(1, 2)": "a row: name one of its columns",
    "ROW(1, 2)::pair": "a row: name one of its columns",
    "int4range(1, 5)": "a range: write lower(x) or upper(x)",
    "'<(1, 1), 2>'::circle": "write CAST(x AS text)",
    "point(1, 2)": "write CAST(x AS text)",
    "to_tsvector('a')": "write CAST(x AS text)",
    "pg_sleep(0)": "void, which is no value",
    "repeat('x', 65537)": "a text of 65,537 bytes, more than 64 KiB",
    "repeat('ü', 40000)": "a text of 80,000 bytes, more than 64 KiB",
    "repeat('x', 20000000)": "a text of 20,000,000 bytes, more than 64 KiB",
    "('[' || repeat('1,', 500000) || '1]')::jsonb": "a text of",
    "'0044-03-15 BC'::date": "a time before the year 1",
    "'infinity'::date": "isfinite(x)",
    "'-infinity'::timestamp": "isfinite(x)",
    "interval '36 hours'": "set `unit` to seconds, minutes, hours, days, weeks, or write EXTRACT(epoch FROM x)",
}


@pytest.fixture
def url(engine: Engine, database_url: str) -> str:
    with engine.begin() as connection:
        connection.exec_driver_sql(
            "CREATE TYPE result AS ENUM ('won', 'lost'); CREATE TYPE pair AS (a int, b int);"
            "CREATE DOMAIN score AS int; CREATE DOMAIN price AS numeric(12, 2)"
        )
    return database_url


def measure(url: str, metrics: dict[str, SqlMetric]) -> dict[str, Reading]:
    source = SqlSource(type="sql", url=SecretStr(url))
    deadline = Deadline.after(timedelta(seconds=60))
    return readings_by_name(SqlProbe().scan(source, metrics, CONTEXT, deadline).readings)


def metric(expression: str, **keys: Any) -> SqlMetric:
    return SqlMetric(source="db", query=f"SELECT {expression}", **keys)


def test_values_and_failures(url: str) -> None:
    readings = measure(url, {each: metric(each) for each in (*VALUES, *FAILURES)})
    values = {each: (readings[each].value, readings[each].error) for each in VALUES}
    assert values == {each: (value, None) for each, value in VALUES.items()}
    for each, value in VALUES.items():
        assert (type(readings[each].value), str(readings[each].value)) == (type(value), str(value)), each
    for each, text in FAILURES.items():
        assert readings[each].value is None and text in str(readings[each].error), (each, readings[each].error)


def test_intervals_in_a_unit_of_time(url: str) -> None:
    cases = {
        ("interval '36 hours'", "hours"): 36,
        ("interval '1 day 12:00'", "days"): 1.5,
        ("interval '-90 minutes'", "minutes"): -90,
        ("interval '1.25 seconds'", "seconds"): 1.25,
        ("max(d) FROM (VALUES (interval '36 hours'), ('2 days')) AS t(d)", "hours"): 48,
    }
    readings = measure(url, {f"{each} {unit}": metric(each, unit=unit) for each, unit in cases})
    assert [(reading.value, reading.error) for reading in readings.values()] == [(v, None) for v in cases.values()]
    late = measure(
        url, {each: metric(f"interval '{each}'", unit="days") for each in ("1 mon", "2 years", "-3 months 2 days")}
    )
    assert all("a month has no fixed length" in str(reading.error) for reading in late.values())


def test_ages(url: str) -> None:
    good = {
        "'2026-11-30 05:00:00+02'::timestamptz": "2026-11-30T03:00:00+00:00",
        "'2026-11-30 05:00:00'::timestamp": "2026-11-30T05:00:00+00:00",
        "'2026-11-30'::date": "2026-11-30T00:00:00+00:00",
        "'2026-11-30 05:00:00+02'": "2026-11-30T03:00:00+00:00",
        "'20261129'": "2026-11-29T00:00:00+00:00",
        "to_timestamp(0)": "1970-01-01T00:00:00+00:00",
        "'2085-01-01'::timestamptz": "2085-01-01T00:00:00+00:00",
    }
    bad = {
        "'infinity'::timestamptz": "isfinite(x)",
        "max(t) FROM (VALUES ('2026-01-01'::timestamptz), ('infinity')) AS v(t)": "isfinite(x)",
        "'-infinity'::date": "isfinite(x)",
        "'0044-03-15 BC'::timestamptz": "before the year 1",
        "to_timestamp(1796015436000)": "to_timestamp(x / 1000.0)",
        "1796015436": "to_timestamp(x)",
        "1796015436.5": "to_timestamp(x)",
        "'1796015436'": "to_timestamp(x)",
        "'2026-11-29T22:00:00 EST'": "CAST(x AS timestamptz)",
        "'yesterday'": "CAST(x AS timestamptz)",
        "'12:30'::time": "CAST(x AS timestamptz)",
        "interval '1 day'": "return the time that it counts from",
        "true": "write a CAST",
    }
    readings = measure(url, {each: metric(each, measure="age") for each in (*good, *bad)})
    assert {each: (readings[each].value, readings[each].error) for each in good} == {
        each: (value, None) for each, value in good.items()
    }
    for each, text in bad.items():
        assert text in str(readings[each].error), (each, readings[each].error)
    assert readings["'2026-11-30 05:00:00'::timestamp"].details == {"assumed_timezone": "UTC"}
    assert readings["'2026-11-30 05:00:00+02'::timestamptz"].details == {}
    zoned = {"t": metric("'2026-11-30 05:00:00'::timestamp", measure="age", timezone="Asia/Tokyo")}
    assert measure(url, zoned)["t"].value == "2026-11-29T20:00:00+00:00"


def test_rows_and_columns(url: str) -> None:
    queries = {
        "no row": ("SELECT 1 WHERE false", "the query returns no row"),
        "null": ("SELECT NULL::int", "the query returns NULL"),
        "no money": ("SELECT NULL::money", "the query returns NULL"),
        "no interval": ("SELECT NULL::interval", "the query returns NULL"),
        "rows": ("VALUES (1), (2)", "more than one row: aggregate them, or add ORDER BY and LIMIT 1"),
        "columns": ("SELECT 1 AS a, 2 AS b", "2 columns. Set `column` to one of a, b"),
        "twice": ("SELECT 1 AS a, 2 AS a", "2 columns. Set `column` to one of a, a"),
        "none": ("SELECT", "0 columns"),
        "explain": ("EXPLAIN SELECT 1 FROM pg_class WHERE oid < 5", "more than one row"),
    }
    readings = measure(url, {name: SqlMetric(source="db", query=query) for name, (query, _) in queries.items()})
    for name, (_, text) in queries.items():
        assert text in str(readings[name].error), (name, readings[name].error)
    column = {"b": SqlMetric(source="db", query="SELECT repeat('x', 9999999) AS a, 2 AS b", column="b")}
    assert measure(url, column)["b"].value == 2


def test_names_are_text_of_limited_length(url: str) -> None:
    rows = "SELECT n FROM (VALUES ('2026-11-30'::timestamptz), ('infinity')) AS v(n) ORDER BY 1"
    readings = measure(
        url,
        {
            "times": metric("1", rows=rows),
            "long": metric("1", rows="SELECT repeat('x', 5000000) FROM generate_series(1, 3)", names=3),
            "null": metric("1", rows="SELECT NULL::int"),
            "money": metric("1", rows="SELECT 12.5::numeric::money"),
            "span": metric("1", rows="SELECT interval '36 hours'"),
            "nothing": metric("1", rows="SELECT pg_sleep(0)"),
        },
    )
    assert readings["times"].details == {"rows": ["2026-11-30T00:00:00+00:00", "infinity"], "rows_total": 2}
    assert readings["long"].details == {"rows": ["x" * 1000 + "…"] * 3, "rows_total": 3}
    assert readings["null"].details == {"rows": ["None"], "rows_total": 1}
    assert readings["span"].details == {"rows": ["36:00:00"], "rows_total": 1}
    assert readings["nothing"].details == {"rows": ["None"], "rows_total": 1}
    assert readings["money"].details == {"rows": ["$12.50"], "rows_total": 1}
