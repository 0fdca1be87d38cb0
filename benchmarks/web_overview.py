"""Compare the dashboard's first page (500 metrics, 1,000,000 readings) with one query for the rows that it shows.

The query is one statement, which uses indexes for everything: each metric's state, its open request, its value a day
ago, and its last value on each of 30 days. Three forms are timed (the days as arrays, as rows, or from all readings),
and the fastest counts. The time includes fetching the rows in Python.

The ASGI application runs in this process: middleware, session, transaction, queries and rendering, but no network. The
page is requested once plain and once compressed with gzip, as a browser requests it.
"""

from __future__ import annotations

import asyncio
import gc
import statistics
import time
from collections.abc import Callable
from datetime import UTC, datetime

import httpx2
from sqlalchemy import Connection, Engine, text

from benchmarks.local_stack import local_stack
from dims_worker.config import Config, WebSection
from dims_worker.store.engine import engine as engine_of
from dims_worker.store.metric_states import _NAMES
from dims_worker.web.app import build_app
from dims_worker.web.context import WebContext
from dims_worker.web.identity import SignInPolicy, Viewer
from dims_worker.web.live_hub import LiveHub
from dims_worker.web.pages.overview import DAYS
from tests.fixtures.long_history import fill

CATEGORIES, METRICS_PER_CATEGORY = 20, 25
METRICS = CATEGORIES * METRICS_PER_CATEGORY
HISTORY_DAYS, PER_DAY = 400, 5
"""1,000,000 readings: 2,000 of each metric, five a day."""
ROUNDS = 15
MAX_RATIO = 3.0

PROJECT = "sources: {lake: {type: s3, bucket: bench}}\nmetrics:\n" + "".join(
    f"  category_{c}:\n"
    + "".join(
        f"    objects_{n}: {{source: lake, prefix: p{c}/{n}/, measure: count, description: 'Objects below p{c}/{n}', "
        f"critical: {'true' if n == 0 else 'false'}, stale_after: 1d}}\n"
        for n in range(METRICS_PER_CATEGORY)
    )
    for c in range(CATEGORIES)
)

_ROW = ", ".join(f"s.{name}" for name in _NAMES)
_JUDGED = "h.outcome NOT IN ('failed', 'superseded', 'provisional')"
_HEAD = f"""
    SELECT {_ROW}, r.id, r.opened_at, y.value AS yesterday, l.* FROM dims_metrics s
    LEFT JOIN dims_approval_requests r ON r.metric = s.metric AND r.state = 'open'
    LEFT JOIN LATERAL (SELECT h.value FROM dims_metrics_history h WHERE h.metric = s.metric
        AND h.as_of <= now() - interval '1 day' AND {_JUDGED} ORDER BY h.as_of DESC, h.id DESC LIMIT 1) y ON true
    LEFT JOIN LATERAL
"""
_DAYS = (
    f"generate_series(date_trunc('day', now(), 'UTC') - interval '{DAYS - 1} days', now(), interval '1 day') AS d(day)"
)
_LAST = f"""
    {_DAYS} CROSS JOIN LATERAL (SELECT h.value FROM dims_metrics_history h WHERE h.metric = s.metric
        AND h.as_of >= d.day AND h.as_of < d.day + interval '1 day' AND {_JUDGED}
        ORDER BY h.as_of DESC, h.id DESC LIMIT 1) h
"""
_TAIL = "ON true WHERE s.metric = ANY(:names)"
QUERIES = {
    "arrays": f"{_HEAD} (SELECT array_agg(d.day::date ORDER BY d.day), array_agg(h.value::float8 ORDER BY d.day) "
    f"FROM {_LAST}) l {_TAIL}",
    "a row a day": f"{_HEAD} (SELECT d.day::date, h.value::float8 FROM {_LAST}) l {_TAIL}",
    "all of the days": f"{_HEAD} (SELECT array_agg(h.day ORDER BY h.day), array_agg(h.value ORDER BY h.day) FROM "
    "(SELECT DISTINCT ON ((h.as_of AT TIME ZONE 'UTC')::date) (h.as_of AT TIME ZONE 'UTC')::date AS day, "
    "h.value::float8 AS value FROM dims_metrics_history h WHERE h.metric = s.metric "
    f"AND h.as_of >= date_trunc('day', now(), 'UTC') - interval '{DAYS - 1} days' AND {_JUDGED} "
    f"ORDER BY (h.as_of AT TIME ZONE 'UTC')::date DESC, h.as_of DESC, h.id DESC) h) l {_TAIL}",
}


def timed(function: Callable[[], object]) -> float:
    gc.collect()  # so that garbage from before is not collected during the measurement
    begun = time.perf_counter()
    function()
    return time.perf_counter() - begun


def site_of(config: Config, engine: Engine) -> tuple[WebContext, dict[str, str]]:
    """Return a dashboard, and the cookies of a person who is signed in."""
    access = SignInPolicy(
        WebSection.model_validate({"tokens": {"ada": "ada-token-" + "x" * 20}}), "a secret of the benchmark"
    )
    signed = {access.cookie: access.session(Viewer("ada", "token"))}
    return WebContext(config, engine, None, access, None, LiveHub(engine, config)), signed


async def compare(config: Config, engine: Engine, connection: Connection) -> None:
    """Time the query and the page in turns, so that other load on the machine affects both."""
    site, signed = site_of(config, engine)
    names = list(config.metrics)

    def query(sql: str) -> Callable[[], object]:
        return lambda: connection.execute(text(sql), {"names": names}).all()

    transport = httpx2.ASGITransport(app=build_app(site))
    client = httpx2.AsyncClient(transport=transport, base_url="http://localhost", cookies=signed)
    took: dict[str, list[float]] = {}
    sizes: dict[str, int] = {}
    for turn in range(ROUNDS + 1):
        for name, sql in QUERIES.items():
            took.setdefault(name, []).append(timed(query(sql)))
        for name, coding in (("page", "identity"), ("page with gzip", "gzip")):
            gc.collect()
            begun = time.perf_counter()
            answer = await client.get("/", headers={"accept-encoding": coding})
            took.setdefault(name, []).append(time.perf_counter() - begun)
            if answer.status_code != 200 or answer.text.count("<tr><td>") != METRICS:
                raise AssertionError(f"the answer has status {answer.status_code} and is not the page")
            if coding == "gzip" and answer.headers.get("content-encoding") != "gzip":
                raise AssertionError("the page is not compressed")
            sizes[name] = int(answer.headers["content-length"])
        if turn == 0:
            took.clear()  # the first turn fills caches
    medians = {name: statistics.median(times) for name, times in took.items()}
    best = min(QUERIES, key=medians.__getitem__)
    print(
        "web overview, one query: "
        + ", ".join(f"{name} {medians[name] * 1000:.0f} ms" for name in QUERIES)
        + f"; medians of {ROUNDS}; the comparison uses {best!r}"
    )
    for name, size in sizes.items():
        ratio = medians[name] / medians[best]
        verdict = "within" if ratio <= MAX_RATIO else "OVER"
        print(
            f"web overview, {name}: {medians[name] * 1000:.0f} ms, {size / 1000:,.0f} kB; "
            f"{ratio:.2f} times the query, {verdict} the limit of {MAX_RATIO:g} times"
        )
    await client.aclose()


def main() -> None:
    with local_stack({"dims.yaml": PROJECT}) as stack:
        begun = time.monotonic()
        fill(stack.engine, stack.config, until=datetime.now(UTC), days=HISTORY_DAYS, per_day=PER_DAY, log=50)
        with stack.engine.connect() as connection:
            rows = connection.execute(text("SELECT count(*) FROM dims_metrics_history")).scalar_one()
            if rows != METRICS * HISTORY_DAYS * PER_DAY:
                raise AssertionError(f"{rows:,} rows instead of {METRICS * HISTORY_DAYS * PER_DAY:,}")
            print(f"web overview, {METRICS} metrics, {rows:,} readings: filled in {time.monotonic() - begun:.0f} s")
        engine = engine_of(stack.engine.url.render_as_string(hide_password=False))
        with stack.engine.connect() as connection:
            asyncio.run(compare(stack.config, engine, connection))
        engine.dispose()
