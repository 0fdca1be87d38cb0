"""Compare the time of queries on a history of 10,000 rows with one of 10,000,000 rows."""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

from sqlalchemy import Connection, Engine, text

from benchmarks.local_stack import local_stack
from dims_worker.config import Config
from dims_worker.store import metric_states
from dims_worker.store.engine import engine as engine_of
from dims_worker.store.history import daily_readings, metric_trend
from dims_worker.store.migrations import migrate
from tests.fixtures.long_history import fill

METRICS = 500
SMALL, LARGE = 10_000, int(os.environ.get("BENCH_ROWS", "10_000_000"))
DAYS = 90
READINGS = SMALL / METRICS
"""Readings of each metric in the last 90 days, equal in both databases. Only the older history differs."""
ROUNDS, CALLS = 5, 40
MAX_RATIO = 2.0

PROJECT = f"""
sources: {{lake: {{type: s3, bucket: bench}}}}
metrics:
  m:
{"".join(f"    n{n}: {{source: lake, prefix: p{n}/, measure: count}}{chr(10)}" for n in range(METRICS))}
"""
Query = Callable[[Connection, int], object]


def queries(config: Config) -> dict[str, Query]:
    """Return the timed queries. Each takes a connection and the number of the call."""
    names = sorted(config.metrics)
    return {
        "latest values": lambda connection, _: metric_states.states_of(connection, names),
        f"{DAYS}-day trend": lambda connection, n: metric_trend(
            connection, names[n * 37 % METRICS], timedelta(days=DAYS)
        ),
        f"overview, {DAYS} days": lambda connection, _: daily_readings(connection, names[:50], DAYS),
    }


def timed(engine: Engine, query: Query, calls: int) -> float:
    """Return the median time of `calls` calls, in seconds."""
    took = []
    with engine.connect() as connection:
        for number in range(calls):
            begun = time.perf_counter()
            query(connection, number)
            took.append(time.perf_counter() - begun)
    return statistics.median(took)


def main() -> None:
    """Fill two databases on one server, time the queries on both in turn, and print the ratios."""
    with local_stack({"dims.yaml": PROJECT}) as stack:
        engines, seconds = [], []
        for rows in (SMALL, LARGE):
            with stack.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as admin:
                admin.execute(text(f"CREATE DATABASE rows_{rows}"))
            engine = engine_of(stack.engine.url.set(database=f"rows_{rows}").render_as_string(hide_password=False))
            migrate(engine)
            begun = time.monotonic()
            fill(engine, stack.config, until=datetime.now(UTC), days=DAYS * rows / SMALL, per_day=READINGS / DAYS)
            seconds.append(time.monotonic() - begun)
            with engine.connect() as connection:
                counted = connection.execute(text("SELECT count(*) FROM dims_metrics_history")).scalar_one()
            if counted != rows:
                raise AssertionError(f"{counted:,} rows instead of {rows:,}")
            engines.append(engine)
        print(
            f"history, {LARGE:,} rows of {METRICS} metrics: filled in {seconds[1]:.0f} s, "
            f"{SMALL:,} rows in {seconds[0]:.1f} s"
        )
        for name, query in queries(stack.config).items():
            calls = CALLS if "overview" not in name else 4
            pairs = [[timed(engine, query, calls) for engine in engines] for _ in range(ROUNDS)]
            small, large = (statistics.median(column) for column in zip(*pairs, strict=True))
            verdict = "within" if large <= MAX_RATIO * small else "OVER"
            print(
                f"history, {name}: {large * 1000:.2f} ms with {LARGE:,} rows, {small * 1000:.2f} ms with {SMALL:,} "
                f"rows (medians); {large / small:.2f} times, {verdict} the limit of {MAX_RATIO:g} times"
            )
        for engine in engines:
            engine.dispose()
