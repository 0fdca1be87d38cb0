"""Time the HTML report of a year: 68 metrics with daily readings, from the database to the file."""

from __future__ import annotations

import tempfile
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from statistics import median

from dims_worker import local
from dims_worker.config import load_config
from dims_worker.reports import html
from dims_worker.reports.files import write_text_atomically
from dims_worker.reports.inventory import gather_report
from dims_worker.store.engine import engine as engine_of
from dims_worker.store.engine import transaction
from dims_worker.store.migrations import migrate
from tests.fixtures.long_history import fill

REPO = Path(__file__).parents[1]
MAX_SECONDS, MAX_BYTES, TURNS = 3, 2_000_000, 5


def main() -> None:
    config = load_config(REPO / "config" / "dims.yaml", {}, REPO)
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        home = place / "home"
        home.mkdir()
        try:
            engine = engine_of(str(local.start(home, fast=True).database_url))
            migrate(engine)
            fill(engine, config, until=datetime.now(UTC))
            took = []
            for turn in range(TURNS):
                begin = time.perf_counter()
                with transaction(engine) as connection:
                    content = gather_report(connection, config, timedelta(days=365))
                write_text_atomically(place / f"{turn}.html", html.render_page(content))
                took.append(time.perf_counter() - begin)
            size = (place / "0.html").stat().st_size
            engine.dispose()
        finally:
            local.stop(home)
    verdict = "within" if median(took) <= MAX_SECONDS and size <= MAX_BYTES else "OVER"
    print(
        f"HTML report: {len(content.metrics)} metrics x 365 days: {median(took):.2f} s (median of {TURNS}), "
        f"{size / 1e6:.2f} MB; {verdict} the limits of {MAX_SECONDS} s and 2 MB"
    )
