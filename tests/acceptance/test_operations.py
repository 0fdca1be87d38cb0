"""Test the operation of DIMS: rejected events, replay, schedules, status, a changed configuration."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from redis import Redis
from sqlalchemy import Engine, text

from dims_worker.cli.session import Session
from dims_worker.cli.up import ConfigReloader
from dims_worker.events import STREAM, Event
from tests.conftest import Project, Worker, wait_for

Start = Callable[..., Worker]
CONFIG = """
settings: {lease: 5s, sweep: 1s}
sources:
  project: {type: files, path: "."}
metrics:
  code:
    python_files: {source: project, measure: count, paths: "**/*.py", stale_after: 1h}
    docs: {source: project, measure: count, paths: "docs/**", absent: 0}
rules:
  scraper_complete: {on: dims.scraper.complete, metrics: ["code.*"]}
  daily: {schedule: "0 9 * * *", timezone: Europe/Berlin, metrics: [code.docs]}
"""


@pytest.fixture
def configured(project: Project) -> Project:
    project.write({"dims.yaml": CONFIG, "a.py": "x = 1\n"})
    return project


def scalar(engine: Engine, sql: str) -> Any:
    with engine.connect() as connection:
        return connection.execute(text(sql)).scalar()


def execute(engine: Engine, sql: str) -> None:
    with engine.begin() as connection:
        connection.execute(text(sql))


def run_json(project: Project, *arguments: str, code: int = 0) -> dict[str, Any]:
    done = project.dims(*arguments, "--json")
    assert done.returncode == code, done.stdout + done.stderr
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


def served(engine: Engine, events: int) -> Callable[[], bool]:
    """Return a condition: at least `events` events are stored, and no metric is due."""

    def is_served() -> bool:
        stored = scalar(engine, "SELECT count(*) FROM dims_event_log")
        due = scalar(engine, "SELECT count(*) FROM dims_metrics WHERE requested_gen > measured_gen")
        rows = scalar(engine, "SELECT count(*) FROM dims_metrics")
        return bool(rows and stored >= events and not due)

    return is_served


def test_rejected_events_are_listed_with_their_reason_and_replayed(
    configured: Project, engine: Engine, start_worker: Start
) -> None:
    start_worker()
    scraped = Event.new("dims.scraper.complete", "test", now=datetime.now(UTC), id="scraped")
    with Redis.from_url(configured.env["DIMS_BROKER_URL"]) as redis:
        redis.xadd(STREAM, {"event": "no envelope"})
        redis.xadd(STREAM, {"event": b"\xff" * 40_000})
        redis.xadd(STREAM, {"event": scraped.to_json()})
    wait_for(served(engine, 3))
    first, second = sorted(run_json(configured, "events", "rejected")["events"], key=lambda event: event["seq"])
    assert (first["payload"], first["whole"], "not JSON" in first["reason"]) == ("no envelope", True, True)
    assert (second["whole"], "not UTF-8" in second["reason"]) == (False, True)

    listed = configured.dims("events", "rejected", check=True).stdout
    assert "not JSON" in listed
    assert "no envelope" in listed

    # an event that was kept in part is named in the error, and none of the two is sent
    refused = configured.dims("events", "replay", str(first["seq"]), str(second["seq"]))
    assert refused.returncode == 2
    assert f"event {second['seq']} was too large or not text" in refused.stderr

    assert "was sent again" in configured.dims("events", "replay", str(first["seq"]), check=True).stdout
    wait_for(served(engine, 4))
    remaining = [event["seq"] for event in run_json(configured, "events", "rejected")["events"]]
    assert first["seq"] not in remaining
    assert len(remaining) == 2
    assert len(run_json(configured, "events", "rejected", "--all")["events"]) == 3

    # a stored event is measured again, with a new id
    runs = scalar(engine, "SELECT count(*) FROM dims_verification_runs")
    configured.dims("events", "replay", "scraped", check=True)
    wait_for(lambda: scalar(engine, "SELECT count(*) FROM dims_verification_runs") > runs)
    rows = scalar(engine, "SELECT count(*) FROM dims_event_log WHERE type = 'dims.scraper.complete'")
    assert (rows, scalar(engine, "SELECT count(*) FROM dims_event_log WHERE event_id = 'scraped'")) == (2, 1)


def test_replay_reports_what_it_cannot_do(configured: Project) -> None:
    configured.dims("verify", check=True)
    unknown = configured.dims("events", "replay", "unknown")
    assert (unknown.returncode, "there is no event unknown" in unknown.stderr) == (2, True)
    configured.env["DIMS_BROKER_URL"] = "redis://127.0.0.1:1/0"
    done = configured.dims("verify", "--update")  # it stores an event without a broker
    assert done.returncode == 0
    unreachable = configured.dims("events", "replay", "1")
    assert (unreachable.returncode, "127.0.0.1:1 is unreachable" in unreachable.stderr) == (3, True)


def test_a_tick_missed_while_dims_was_down_is_caught_up_once(
    configured: Project, engine: Engine, start_worker: Start
) -> None:
    first = start_worker()
    wait_for(served(engine, 0))
    first.kill()
    assert [row["missed"] for row in run_json(configured, "schedule")["schedules"]] == [False]
    execute(
        engine, "UPDATE dims_schedules SET first_seen_at = first_seen_at - interval '3 days'"
    )  # as if DIMS had been down since then
    (row,) = run_json(configured, "schedule")["schedules"]
    assert (row["rule"], row["timezone"], row["last"], row["missed"]) == ("daily", "Europe/Berlin", None, True)
    assert datetime.fromisoformat(row["next"]) > datetime.now(UTC)
    start_worker()
    wait_for(served(engine, 1))
    (row,) = run_json(configured, "schedule")["schedules"]
    last = datetime.fromisoformat(row["last"])
    assert timedelta(0) < datetime.now(UTC) - last < timedelta(days=1)
    assert row["missed"] is False
    ids = scalar(engine, "SELECT array_agg(event_id) FROM dims_event_log")
    assert ids == [f"daily@{last:%Y-%m-%dT%H:%MZ}"]
    assert "Europe/Berlin" in configured.dims("schedule", check=True).stdout


def test_status_has_a_line_for_each_part(configured: Project, engine: Engine, start_worker: Start) -> None:
    start_worker()
    wait_for(served(engine, 0))
    execute(engine, "UPDATE dims_metrics SET as_of = as_of - interval '2 hours' WHERE metric = 'code.python_files'")
    due = "requested_gen = requested_gen + 1, due_since = now() - interval '1 hour'"
    later = "not_before = now() + interval '1 hour'"
    execute(engine, f"UPDATE dims_metrics SET {due}, {later} WHERE metric = 'code.docs'")
    silent = "INSERT INTO dims_processes (process, host, role, pid, version, config_hash, started_at, seen_at, "
    silent += "last_sweep_at) SELECT 'beat@far', 'far', 'beat', 1, '0', '0', ago, ago, ago "
    execute(engine, silent + "FROM (SELECT now() - interval '10 minutes' AS ago) AS t")
    with Redis.from_url(configured.env["DIMS_BROKER_URL"]) as redis:
        redis.rpush("dims.verify", "x")  # not a message of Celery
    spool = Path(configured.env["DIMS_HOME"]) / "spool" / "new"
    spool.mkdir(parents=True)
    (spool / "1.json").write_text("{}")
    status = run_json(configured, "status", code=3)
    assert "beat" in {check["name"] for check in status["checks"] if check["state"] == "problem"}
    assert all(check["fix"] for check in status["checks"] if check["state"] != "ok")
    numbers = status["numbers"]
    assert status["broker"].startswith("up, 0 events waiting in the stream")
    assert status["database"].startswith("up, 0 events, 0 rejected; last reading")
    assert status["beat"].startswith("unreachable: last tick 10 minutes ago")
    assert status["due"].startswith("behind: 1 of 2 metrics")
    assert "waited 1 hour" in status["due"]
    assert (status["stale"], status["failed"], status["requests"]) == ("code.python_files", "none", "none")
    assert status["spool"].startswith("1 event to be sent")
    assert (numbers["due"], numbers["stale"], numbers["spool"], numbers["stream"]) == (1, ["code.python_files"], 1, 0)
    assert 3600 <= numbers["oldest_due_seconds"] < 3700
    assert set(numbers["queues"]) == {"dims.ingest", "dims.verify", "dims.verify.slow"}


def test_commands_that_read_change_nothing(configured: Project, engine: Engine) -> None:
    """`status`, `metrics` and `schedule` do not register a changed configuration."""
    configured.dims("verify", check=True)
    before = scalar(engine, "SELECT array_agg(m::text ORDER BY metric) FROM dims_metrics m")
    configured.write({"dims.yaml": CONFIG.replace('measure: count, paths: "docs', 'measure: lines, paths: "docs')})
    for command in ("status", "metrics", "schedule"):
        configured.dims(command, check=True)
    assert scalar(engine, "SELECT array_agg(m::text ORDER BY metric) FROM dims_metrics m") == before


def test_status_without_servers_ends_with_3(configured: Project) -> None:
    configured.env["DIMS_BROKER_URL"] = "redis://127.0.0.1:1/0"
    configured.env["DIMS_DATABASE_URL"] = "postgresql://dims:secret@127.0.0.1:1/dims"
    status = run_json(configured, "status", code=3)
    assert status["broker"].startswith("unreachable: ")
    assert status["database"].startswith("unreachable: ")
    assert "secret" not in json.dumps(status)


def test_a_changed_configuration_is_noticed_once_and_an_invalid_one_ignored(configured: Project) -> None:
    session = Session(None, configured.env, configured.folder)
    lines: list[str] = []
    reloader = ConfigReloader(session, session.config, lines.append)
    file = configured.folder / "dims.yaml"
    assert reloader.changed() is None
    file.write_text(CONFIG + "  hourly: {schedule: '0 * * * *'}\n")
    assert reloader.changed() == "The configuration has changed"
    assert reloader.changed() is None
    file.write_text(CONFIG + "  hourly: {schedule: 'never'}\n")
    assert reloader.changed() is None
    assert "is not valid" in lines[0]
    assert "rules.hourly" in lines[0]
    assert reloader.changed() is None
    file.unlink()
    assert reloader.changed() is None
    file.write_text("include: [more.yaml]\n" + CONFIG)
    assert reloader.changed() is None  # more.yaml is missing
    (configured.folder / "more.yaml").write_text("watch: [project]\n")
    file.touch()
    assert reloader.changed() == "The configuration has changed"
    os.utime(configured.folder / "more.yaml", (1, 1))
    assert reloader.changed() == "The configuration has changed"
    assert len(lines) == 3
