"""Test a worker: events, interrupted measurements, and `dims verify --update` beside a worker."""

from __future__ import annotations

import http.server
import json
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from redis import Redis
from sqlalchemy import Engine, text

from dims_worker.events import STREAM, Event
from tests.conftest import Project, Worker, wait_for

Start = Callable[..., Worker]


def query(engine: Engine, sql: str, **parameters: Any) -> list[Any]:
    with engine.connect() as connection:
        return list(connection.execute(text(sql), parameters).fetchall())


def scalar(engine: Engine, sql: str, **parameters: Any) -> Any:
    return query(engine, sql, **parameters)[0][0]


def served(engine: Engine) -> bool:
    sql = "SELECT count(*) > 0 AND bool_and(requested_gen = measured_gen) FROM dims_metrics WHERE source <> ''"
    return bool(scalar(engine, sql))


def measured(engine: Engine, metric: str) -> int:
    return int(scalar(engine, "SELECT count(*) FROM dims_metrics_history WHERE metric = :m", m=metric))


def send(project: Project, *events: Event) -> None:
    with Redis.from_url(project.env["DIMS_BROKER_URL"]) as redis:
        for event in events:
            redis.xadd(STREAM, {"event": event.to_json()})


def event(kind: str, id: str, **data: Any) -> Event:
    return Event.new(kind, "test", now=datetime.now(UTC), id=id, data=data)


# --- events -------------------------------------------------------------------------------------------

EVENTS = """
settings: {lease: 5s, sweep: 1s}
sources:
  project: {type: files, path: ".", ignore: gitignore}
  repo: {type: git, path: "."}
metrics:
  code_base:
    python_files: {source: project, measure: count, paths: "**/*.py"}
    python_lines: {source: project, measure: lines, paths: "**/*.py"}
  documentation:
    files: {source: project, measure: count, paths: "docs/**"}
  git:
    commits: {source: repo, measure: commits}
rules:
  git_post_commit: {on: "dims.git.*"}
  scraped: {on: dims.scraper.complete, metrics: ["code_base.*"]}
"""


@pytest.fixture
def watched(project: Project, engine: Engine, start: Start) -> Project:
    """Return a project with a hook, and a worker that has measured everything once."""
    project.commit("Begin", {"dims.yaml": EVENTS, "a.py": "x = 1\n", "docs/a.md": "# A\n"})
    project.dims("hook", "install", check=True)
    start()
    wait_for(lambda: served(engine))
    return project


def test_an_event_that_arrives_five_times_is_one_row_and_one_run(watched: Project, engine: Engine) -> None:
    same = event("dims.scraper.complete", "same")
    send(watched, same, same)
    wait_for(lambda: measured(engine, "code_base.python_files") == 2)
    send(watched, same, same, same, event("dims.git.commit", "last", root=str(watched.folder), paths=["docs/a.md"]))
    wait_for(lambda: measured(engine, "git.commits") == 2)
    wait_for(lambda: served(engine))
    rows = query(engine, "SELECT event_id, count(*) FROM dims_event_log GROUP BY 1 ORDER BY 1")
    assert [tuple(row) for row in rows] == [("last", 1), ("same", 1)]
    assert measured(engine, "code_base.python_files") == measured(engine, "code_base.python_lines") == 2


def test_a_commit_that_touches_only_docs_leaves_the_code_unmeasured(watched: Project, engine: Engine) -> None:
    sha = watched.commit("Documents", {"docs/b.md": "# B\n"})

    def served_event() -> dict[str, Any] | None:
        shown = watched.dims("events", "show", sha[:10], "--json")
        document: dict[str, Any] | None = json.loads(shown.stdout) if shown.returncode == 0 else None
        return document if document and all(metric["run_id"] for metric in document["served"]) else None

    document = wait_for(served_event, period=0.2)
    assert document["left_alone"] == ["code_base.python_files", "code_base.python_lines"]
    measured_values = {metric["metric"]: metric["value"] for metric in document["served"]}
    assert measured_values == {"documentation.files": 2, "git.commits": 2}
    wait_for(lambda: served(engine))
    assert [measured(engine, f"code_base.python_{what}") for what in ("files", "lines")] == [1, 1]
    assert measured(engine, "documentation.files") == 2


def test_enqueue_prints_an_id_and_waits_for_the_verdicts(watched: Project, engine: Engine) -> None:
    done = watched.dims("enqueue", "scraped", "--wait")
    first, *verdicts, last = done.stdout.splitlines()
    assert (done.returncode, last) == (0, "2 metrics measured")
    assert scalar(engine, "SELECT type FROM dims_event_log WHERE event_id = :e", e=first) == "scraped"
    assert len(verdicts) == 2
    for what, line in zip(("files", "lines"), verdicts, strict=True):
        assert f"code_base.python_{what}" in line
        assert line.endswith("  ok")

    watched.write({"b.py": "x = 1\n", "c.py": "x = 1\n"})
    done = watched.dims("enqueue", "dims.scraper.complete", "--subject", "espn", "--data", '{"games": 3}', "--wait")
    assert done.returncode == 1  # extreme drift
    assert "drifted; accepted" in done.stdout
    assert "exit code 1: code_base.python_files (severity urgent)" in done.stdout

    done = watched.dims("enqueue", "dims.no.rule", "--wait")
    assert done.returncode == 2
    assert "no rule matches" in done.stderr
    assert len(done.stdout.splitlines()) == 1  # the id: the event is stored

    script = Path(sys.executable).parent / "dims-enqueue"
    command = [script, "scraped", "--subject", "s"]
    light = subprocess.run(command, cwd=watched.folder, env=watched.env, capture_output=True, text=True, check=False)
    assert (light.returncode, light.stderr) == (0, "")
    name = light.stdout.strip()
    wait_for(lambda: query(engine, "SELECT 1 FROM dims_event_log WHERE event_id = :e", e=name))


# --- a slow source ------------------------------------------------------------------------------------


@dataclass
class Slow:
    """An S3 endpoint with one bucket. It answers a listing only while `gate` is set."""

    url: str = ""
    objects: int = 0
    listings: list[str] = field(default_factory=list)
    gate: threading.Event = field(default_factory=threading.Event)

    def page(self) -> bytes:
        entry = (
            "<Contents><Key>k{:03}</Key><LastModified>2026-11-22T09:00:00.000Z</LastModified><Size>1</Size></Contents>"
        )
        entries = "".join(entry.format(number) for number in range(self.objects))
        return (
            '<?xml version="1.0" encoding="UTF-8"?><ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/">'
            f"<Name>slow</Name><Prefix></Prefix><KeyCount>{self.objects}</KeyCount><MaxKeys>1000</MaxKeys>"
            f"<IsTruncated>false</IsTruncated>{entries}</ListBucketResult>"
        ).encode()


@pytest.fixture
def slow() -> Iterator[Slow]:
    slow = Slow(objects=100)
    slow.gate.set()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            page = slow.page()  # the objects at the beginning of the listing
            slow.listings.append(self.path)
            slow.gate.wait(30)
            try:
                self.send_response(200)
                self.send_header("Content-Type", "application/xml")
                self.send_header("Content-Length", str(len(page)))
                self.end_headers()
                self.wfile.write(page)
            except OSError:
                pass  # the client was killed

        def log_message(self, *_: Any) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    slow.url = f"http://127.0.0.1:{server.server_port}"
    yield slow
    slow.gate.set()
    server.shutdown()
    server.server_close()
    thread.join()


SLOW = """
settings: {{lease: 3s, sweep: 1s}}
sources: {{slow: {{type: s3, bucket: slow, endpoint_url: "{url}", cooldown: 0s, timeout: 20s}}}}
metrics: {{s3: {{objects: {{source: slow, measure: count, critical: true}}}}}}
rules: {{uploaded: {{on: "com.amazonaws.s3.*"}}}}
"""


@pytest.fixture
def lake_project(project: Project, slow: Slow) -> Project:
    project.write({"dims.yaml": SLOW.format(url=slow.url)})
    project.env |= {
        "AWS_ACCESS_KEY_ID": "k",
        "AWS_SECRET_ACCESS_KEY": "s",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_CONFIG_FILE": "/dev/null",
        "AWS_SHARED_CREDENTIALS_FILE": "/dev/null",
    }
    return project


def upload(project: Project, id: str) -> None:
    send(project, event("com.amazonaws.s3.ObjectCreated:Put", id, bucket="slow", key="k"))


def test_an_event_during_a_measurement_causes_a_second_measurement(
    lake_project: Project, engine: Engine, slow: Slow, start: Start
) -> None:
    start()
    wait_for(lambda: served(engine))
    slow.gate.clear()
    upload(lake_project, "first")
    wait_for(lambda: len(slow.listings) == 2)  # the listing of 100 objects has begun
    slow.objects = 101
    upload(lake_project, "second")
    wait_for(lambda: scalar(engine, "SELECT count(*) FROM dims_event_log") == 2)
    slow.gate.set()
    wait_for(lambda: scalar(engine, "SELECT value FROM dims_metrics") == 101)
    wait_for(lambda: served(engine))
    rows = query(engine, "SELECT value, generation FROM dims_metrics_history ORDER BY id")
    assert [tuple(row) for row in rows] == [(100, 1), (100, 2), (101, 3)]
    assert len(slow.listings) == 3


def test_after_a_kill_during_a_measurement_the_metric_is_measured_on_restart(
    lake_project: Project, engine: Engine, slow: Slow, start: Start
) -> None:
    worker = start()
    wait_for(lambda: served(engine))
    slow.gate.clear()
    slow.objects = 105
    upload(lake_project, "upload")
    wait_for(lambda: len(slow.listings) == 2)
    worker.kill()
    slow.gate.set()
    assert scalar(engine, "SELECT value FROM dims_metrics") == 100
    assert not served(engine)
    with Redis.from_url(lake_project.env["DIMS_BROKER_URL"]) as redis:
        redis.delete("dims.verify", "dims.ingest")  # the broker loses the wake-ups too
    start()
    wait_for(lambda: served(engine))
    assert scalar(engine, "SELECT value FROM dims_metrics") == 105
    rows = query(engine, "SELECT value, outcome FROM dims_metrics_history ORDER BY id")
    assert [tuple(row) for row in rows] == [(100, "accepted"), (105, "accepted")]


def test_verify_update_beside_a_worker_is_measured_once_and_held(
    lake_project: Project, engine: Engine, slow: Slow, start: Start
) -> None:
    start()
    wait_for(lambda: served(engine))
    slow.gate.clear()
    slow.objects = 130
    upload(lake_project, "upload")
    wait_for(lambda: len(slow.listings) == 2)  # the worker holds the lease
    with ThreadPoolExecutor(1) as pool:
        verifying = pool.submit(lake_project.dims, "verify", "--update", "--json")
        wait_for(lambda: scalar(engine, "SELECT requested_gen FROM dims_metrics") == 3)
        slow.gate.set()
        done = verifying.result(60)
    assert done.returncode == 1, done.stderr
    document = json.loads(done.stdout)
    (held,) = document["metrics"]
    assert (held["metric"], held["value"], held["baseline"], held["outcome"]) == ("s3.objects", 130, 100, "held")
    wait_for(lambda: served(engine))
    assert len(slow.listings) == 3  # only one of the two measures again
    assert (
        scalar(engine, "SELECT max(h.generation) FROM dims_metrics_history h WHERE run_id = :r", r=document["run"]) == 3
    )
    states = query(engine, "SELECT state, value FROM dims_approval_requests")
    assert [tuple(row) for row in states] == [("open", 130)]
    assert scalar(engine, "SELECT baseline FROM dims_metrics") == 100
    approved = lake_project.dims("approvals", "approve", "s3.objects", "--as", "ada")
    assert approved.returncode == 0, approved.stderr
    assert scalar(engine, "SELECT baseline FROM dims_metrics") == 130
