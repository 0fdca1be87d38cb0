"""The site's first page with 500 metrics and 1,000,000 readings, beside one query for the rows that it shows.

The query is one statement, which finds all by index: each metric's state, its open request, the value that it had a
day ago, and its last value of each of 30 days, these as two arrays, so that a metric is one row to be sent and read.
(The same with a row for each day was slower, and so was reading all of the 30 days to keep the last of each: both are
timed, and the fastest counts.) Its time is from Python, with the rows fetched.

The page is asked of the ASGI application in this process: the guard, a session's signature, a transaction, queries,
rendering, all but the network; once as it is, and once packed by gzip, as a browser asks for it.
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

from benchmarks.local_stack import machine
from dims_worker.config import Config, WebSection
from dims_worker.store.engine import engine as engine_of
from dims_worker.store.metric_states import _NAMES
from dims_worker.web.app import build_app
from dims_worker.web.context import WebContext
from dims_worker.web.identity import SignInPolicy, Viewer
from dims_worker.web.live_hub import LiveHub
from dims_worker.web.pages.overview import DAYS
from tests.fixtures.long_history import fill

CATEGORIES, EACH = 20, 25
METRICS = CATEGORIES * EACH
YEAR, PER_DAY = 400, 5
"""1,000,000 readings: 2,000 of each metric, five a day."""
ROUNDS = 15
BAR = 3.0

PROJECT = "sources: {lake: {type: s3, bucket: bench}}\nmetrics:\n" + "".join(
    f"  category_{c}:\n"
    + "".join(
        f"    objects_{n}: {{source: lake, prefix: p{c}/{n}/, measure: count, description: 'Objects below p{c}/{n}', "
        f"critical: {'true' if n == 0 else 'false'}, stale_after: 1d}}\n"
        for n in range(EACH)
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


def timed(what: Callable[[], object]) -> float:
    gc.collect()  # what others left is not counted here
    begun = time.perf_counter()
    what()
    return time.perf_counter() - begun


def site_of(config: Config, engine: Engine) -> tuple[WebContext, dict[str, str]]:
    """A site, and the cookies of somebody who may look at it."""
    access = SignInPolicy(
        WebSection.model_validate({"tokens": {"ada": "ada-token-" + "x" * 20}}), "a secret of the benchmark"
    )
    signed = {access.cookie: access.session(Viewer("ada", "token"))}
    return WebContext(config, engine, None, access, None, LiveHub(engine, config)), signed


async def compare(config: Config, engine: Engine, connection: Connection) -> None:
    """In turn, the query and the page, so that what else the machine does meets both."""
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
        for name, coding in (("page", "identity"), ("packed page", "gzip")):
            gc.collect()
            begun = time.perf_counter()
            answer = await client.get("/", headers={"accept-encoding": coding})
            took.setdefault(name, []).append(time.perf_counter() - begun)
            if answer.status_code != 200 or answer.text.count("<tr><td>") != METRICS:
                raise AssertionError(f"{answer.status_code}: not the page")
            if coding == "gzip" and answer.headers.get("content-encoding") != "gzip":
                raise AssertionError("not packed")
            sizes[name] = int(answer.headers["content-length"])
        if turn == 0:
            took.clear()  # the first of each fills caches
    medians = {name: statistics.median(times) for name, times in took.items()}
    best = min(QUERIES, key=medians.__getitem__)
    print(
        "web overview, one query: "
        + ", ".join(f"{name} {medians[name] * 1000:.0f} ms" for name in QUERIES)
        + f"; medians of {ROUNDS}, {best!r} counts"
    )
    for name, size in sizes.items():
        ratio = medians[name] / medians[best]
        verdict = "within" if ratio <= BAR else "OVER"
        print(
            f"web overview, {name}: {medians[name] * 1000:.0f} ms, {size / 1000:,.0f} kB; "
            f"{ratio:.2f} times, {verdict} the {BAR:g}"
        )
    await client.aclose()


def main() -> None:
    with machine({"dims.yaml": PROJECT}) as made:
        begun = time.monotonic()
        fill(made.engine, made.config, until=datetime.now(UTC), days=YEAR, per_day=PER_DAY, log=50)
        with made.engine.connect() as connection:
            rows = connection.execute(text("SELECT count(*) FROM dims_metrics_history")).scalar_one()
            if rows != METRICS * YEAR * PER_DAY:
                raise AssertionError(f"{rows:,} rows")
            print(f"web overview, {METRICS} metrics, {rows:,} readings: filled in {time.monotonic() - begun:.0f} s")
        engine = engine_of(made.engine.url.render_as_string(hide_password=False))
        with made.engine.connect() as connection:
            asyncio.run(compare(made.config, engine, connection))
        engine.dispose()
