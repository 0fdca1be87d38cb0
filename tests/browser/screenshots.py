"""Take the five screenshots of docs/web.md: python -m tests.browser.screenshots docs

They show a database that looks as if it had been in use for a year.
"""

from __future__ import annotations

import base64
import os
import secrets
import shutil
import struct
import subprocess
import sys
import tempfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sqlalchemy import Engine, create_engine, text

from dims_worker import __version__, local
from dims_worker.broker.queues import queue_names
from dims_worker.config import Config, load_config
from dims_worker.store.migrations import migrate
from dims_worker.store.runs import insert_run
from tests.browser.results import RESULTS
from tests.conftest import REPO, wait_for
from tests.fixtures.chromium import CHROMIUM
from tests.fixtures.long_history import fill, fill_incidents

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

PAGES = {"overview": "/", "incidents": "/incidents", "metric": "/metrics/{metric}", "request": "/requests/{request}"}
PICTURES = (
    ("overview", "wide", "light"),
    ("metric", "wide", "light"),
    ("request", "wide", "light"),
    ("incidents", "wide", "light"),
    ("overview", "phone", "dark"),
)
"""Page, screen and colour scheme of each screenshot. They are the name of its file."""
SCREENS = {"wide": (1280, 1), "phone": (390, 1.5)}
"""The width of a screen in CSS pixels, and the device pixels per CSS pixel."""
HIGHEST = 1800
"""The largest height of a screenshot, in CSS pixels."""
SUBJECTS = (
    *("Fetch the box scores of the new season", "Name the games without play-by-play", "Docs: how seasons are named"),
    *("Scraper: wait between two pages", "Plus-minus: count overtime", "Tests for double uploads", "Clean temp data"),
)

_EVENTS = (
    "UPDATE dims_event_log SET subject = 'main', "
    "metrics = '{documentation.markdown_files, documentation.total_size_mb}', "
    "data = jsonb_set(data, '{subject}', to_jsonb((CAST(:subjects AS text[]))[1 + seq % 7])) "
    "WHERE type = 'dims.git.commit'",
    "UPDATE dims_event_log SET subject = k.key, data = data || jsonb_build_object('key', k.key, "
    "'bucket', CAST(:bucket AS text)), "
    "metrics = '{espn_data.pbp_file_count, s3_storage.total_objects, s3_storage.total_size_gb}' FROM (SELECT seq AS n, "
    "'espn_play_by_play/00213' || lpad((seq % 1230)::text, 5, '0') || '.json' AS key FROM dims_event_log) k "
    "WHERE seq = k.n AND type LIKE 'com.amazonaws.s3.%'",
    "UPDATE dims_event_log SET metrics = '{sync_status.local_s3_sync_status}' WHERE type = 'dims.schedule.tick' "
    "AND outcome = 'planned'",
)
_BANDS = (
    "UPDATE dims_metrics_history SET expected_low = value::float8 * 0.996, expected_high = value::float8 * 1.021 "
    "WHERE metric = 's3_storage.total_objects' AND outcome IN ('accepted', 'approved') AND method <> 'failed'",
    "UPDATE dims_metrics_history SET expected_low = 4478, expected_high = 4590, severity = 'urgent' "
    "WHERE metric = 's3_storage.total_objects' AND outcome = 'held'",
    "UPDATE dims_metrics SET expected_low = 4478, expected_high = 4590, severity = 'urgent' "
    "WHERE metric = 's3_storage.total_objects'",
)
"""The band by which each reading was judged: the dashboard shows it behind the trend."""
_PROCESSES = (
    "INSERT INTO dims_processes (process, host, role, pid, version, config_hash, queues, started_at, last_sweep_at, "
    "last_claim_at, last_stored_at, clock_offset) "
    "SELECT role || '@host', 'host', role, 100, :version, :hash, CAST(:queues AS text[]), now(), now(), now(), now(), "
    "0 FROM unnest(ARRAY['ingest', 'worker', 'slow-worker', 'beat']) AS role"
)
"""What runs. Without these rows, every page would warn that nothing measures."""
_NAMES = {
    "metric": "SELECT metric FROM dims_approval_requests WHERE state = 'open' LIMIT 1",
    "request": "SELECT id FROM dims_approval_requests WHERE state = 'open' LIMIT 1",
}

PALETTE = """async png => {
  const image = await createImageBitmap(await (await fetch("data:image/png;base64," + png)).blob());
  const {width, height} = image, board = new OffscreenCanvas(width, height).getContext("2d");
  board.drawImage(image, 0, 0);
  const seen = new Uint32Array(board.getImageData(0, 0, width, height).data.buffer), often = new Map();
  for (const one of seen) often.set(one, (often.get(one) || 0) + 1);
  const parts = one => [one & 255, one >> 8 & 255, one >> 16 & 255], known = [], nearest = new Map();
  const apart = ([x, y, z], [r, g, b]) => (x - r) ** 2 + (y - g) ** 2 + (z - b) ** 2;
  // Most frequent first. A colour that is almost the same as another would take the place of a rare one
  for (const [one] of [...often].sort((a, b) => b[1] - a[1])) {
    const color = parts(one);
    if (known.length < 256 && known.every(other => apart(other, color) > 40)) known.push(color);
  }
  for (const one of often.keys()) {
    const color = parts(one);
    let best = 0, least = Infinity;
    known.forEach((other, index) => {
      const far = apart(other, color);
      if (far < least) [best, least] = [index, far];
    });
    nearest.set(one, best);
  }
  const rows = new Uint8Array(height * (width + 1));
  for (let y = 0; y < height; y++)
    for (let x = 0; x < width; x++) rows[y * (width + 1) + 1 + x] = nearest.get(seen[y * width + x]);
  let text = "";
  for (let at = 0; at < rows.length; at += 32768) text += String.fromCharCode(...rows.subarray(at, at + 32768));
  return {width, height, palette: known.flat(), rows: btoa(text)};
}"""
"""Reduces a screenshot to 256 of its colours. Returns rows of indices, each after a 0 for the filter."""


def main() -> None:
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else "docs") / "web"
    folder.mkdir(parents=True, exist_ok=True)
    from playwright.sync_api import sync_playwright

    with _site() as (url, link, names), sync_playwright() as playwright:
        assert CHROMIUM
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--hide-scrollbars"])
        state = _signed_in(browser, link)
        for name, screen, scheme in PICTURES:
            width, scale = SCREENS[screen]
            options: dict[str, Any] = {"viewport": {"width": width, "height": 800}, "device_scale_factor": scale}
            options |= {"color_scheme": scheme, "base_url": url, "reduced_motion": "reduce"}
            context = browser.new_context(**options, storage_state=state)
            file = folder / f"{name}_{screen}_{scheme}.png"
            file.write_bytes(_picture(context.new_page(), PAGES[name].format(**names), width))
            print(f"{file} {file.stat().st_size:,} bytes")
            context.close()
        browser.close()


def _picture(page: Page, path: str, width: int) -> bytes:
    page.goto(path)
    page.wait_for_timeout(300)  # until the page shows that it is live
    height = min(page.evaluate("document.documentElement.scrollHeight"), HIGHEST)
    png = page.screenshot(full_page=True, clip={"x": 0, "y": 0, "width": width, "height": height})
    page.goto("about:blank")
    return indexed(page.evaluate(PALETTE, base64.b64encode(png).decode()))


def indexed(pixels: dict[str, Any]) -> bytes:
    """Return a PNG of colour type 3 (https://www.w3.org/TR/png-3/#11IHDR)."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", pixels["width"], pixels["height"], 8, 3, 0, 0, 0)
    parts = (
        *((b"IHDR", head), (b"PLTE", bytes(pixels["palette"]))),
        *((b"IDAT", zlib.compress(base64.b64decode(pixels["rows"]), 9)), (b"IEND", b"")),
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(kind, data) for kind, data in parts)


def _signed_in(browser: Browser, link: str) -> Any:
    context = browser.new_context()
    page = context.new_page()
    page.goto(link)
    page.get_by_role("button", name="Sign in").click()
    page.wait_for_url(lambda url: "/sign-in" not in url)
    state = context.storage_state()
    context.close()
    return state


@contextmanager
def _site() -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Run a dashboard over a filled database. Yields its URL, a sign-in link, and the names in its addresses."""
    with tempfile.TemporaryDirectory() as scratch:
        project, home = Path(scratch) / "nba_panel", Path(scratch) / "home"
        shutil.copytree(REPO / "config", project / "config")
        with (project / "config" / "dims.yaml").open("a") as file:
            file.write("web: {tokens: {ada: '${TOKEN}'}}\n")
        started = local.start(Path(scratch) / "servers", fast=True)
        env = {**os.environ, "DIMS_DATABASE_URL": str(started.database_url), "DIMS_HOME": str(home)}
        env |= {"DIMS_BROKER_URL": str(started.broker_url), "TOKEN": secrets.token_hex(24)}
        command = [sys.executable, "-m", "dims_worker", "web"]
        try:
            names = _filled(str(started.database_url), load_config(project / "config" / "dims.yaml", env, project))
            with subprocess.Popen([*command, "--port", "0"], cwd=project, env=env) as web:
                wait_for((home / "run" / "web.json").is_file)
                link = subprocess.run(
                    [*command, "--link", "--as", "ada"],
                    cwd=project,
                    env=env,
                    check=True,
                    capture_output=True,
                    text=True,
                ).stdout.strip()
                try:
                    yield link.partition("/sign-in")[0], link, names
                finally:
                    web.terminate()
        finally:
            local.stop(Path(scratch) / "servers")


def _filled(url: str, config: Config) -> dict[str, Any]:
    engine: Engine = create_engine(url)
    migrate(engine)
    now = datetime.now(UTC)
    fill(engine, config, until=now)
    with engine.begin() as connection:
        for statement in _EVENTS:
            values = {"subjects": list(SUBJECTS), "bucket": config.sources["lake"].bucket}  # type: ignore[attr-defined]
            connection.execute(text(statement), {name: values[name] for name in values if f":{name}" in statement})
        for result in RESULTS:
            run = {"trigger": "event", "source": f"workflow.{result['workflow']}", "started_at": now, "api_calls": 41}
            run |= {"status": "partial" if result["unreached"] else "ok", "readings": 1, "held": 0}
            run |= {"failed": int(bool(result["unreached"])), "worker": "worker@host", "result": result}
            insert_run(connection, run)
        for statement in _BANDS:
            connection.execute(text(statement))
        queues = list(queue_names(config))
        connection.execute(text(_PROCESSES), {"version": __version__, "hash": config.digest, "queues": queues})
    fill_incidents(engine)
    with engine.connect() as connection:
        names = {name: connection.execute(text(query)).scalar_one() for name, query in _NAMES.items()}
    engine.dispose()
    return names


if __name__ == "__main__":
    main()
