"""What people who keep the machine do and see: rejected events, replay, schedules, status, a changed configuration."""

from __future__ import annotations

import json
import os
import time
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
def made(project: Project) -> Project:
    project.write({"dims.yaml": CONFIG, "a.py": "x = 1\n"})
    return project


def scalar(engine: Engine, sql: str) -> Any:
    with engine.connect() as connection:
        return connection.execute(text(sql)).scalar()


def do(engine: Engine, sql: str) -> None:
    with engine.begin() as connection:
        connection.execute(text(sql))


def told(project: Project, *arguments: str, code: int = 0) -> dict[str, Any]:
    done = project.dims(*arguments, "--json")
    assert done.returncode == code, done.stdout + done.stderr
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


def served(engine: Engine, events: int) -> Callable[[], bool]:
    """All of so many events stored, and nothing due."""

    def asked() -> bool:
        stored = scalar(engine, "SELECT count(*) FROM dims_event_log")
        due = scalar(engine, "SELECT count(*) FROM dims_metrics WHERE requested_gen > measured_gen")
        rows = scalar(engine, "SELECT count(*) FROM dims_metrics")
        return bool(rows and stored >= events and not due)

    return asked


def test_rejected_events_are_listed_with_the_reason_and_sent_again(
    made: Project, engine: Engine, start_worker: Start
) -> None:
    start_worker()
    scraped = Event.new("dims.scraper.complete", "test", now=datetime.now(UTC), id="scraped")
    with Redis.from_url(made.env["DIMS_BROKER_URL"]) as redis:
        redis.xadd(STREAM, {"event": "no envelope"})
        redis.xadd(STREAM, {"event": b"\xff" * 40_000})
        redis.xadd(STREAM, {"event": scraped.to_json()})
    wait_for(served(engine, 3))
    first, second = sorted(told(made, "events", "rejected")["events"], key=lambda event: event["seq"])
    assert (first["payload"], first["whole"], "not JSON" in first["reason"]) == ("no envelope", True, True)
    assert (second["whole"], "not UTF-8" in second["reason"]) == (False, True)

    listed = made.dims("events", "rejected", check=True).stdout
    assert "not JSON" in listed
    assert "no envelope" in listed

    # what was kept in part is named, and nothing is sent, not even its neighbour
    refused = made.dims("events", "replay", str(first["seq"]), str(second["seq"]))
    assert refused.returncode == 2
    assert f"event {second['seq']} was too large or no text" in refused.stderr

    assert "is sent again" in made.dims("events", "replay", str(first["seq"]), check=True).stdout
    wait_for(served(engine, 4))
    remaining = [event["seq"] for event in told(made, "events", "rejected")["events"]]
    assert first["seq"] not in remaining
    assert len(remaining) == 2
    assert len(told(made, "events", "rejected", "--all")["events"]) == 3

    # a stored one is measured anew, under an id of its own
    runs = scalar(engine, "SELECT count(*) FROM dims_verification_runs")
    made.dims("events", "replay", "scraped", check=True)
    wait_for(lambda: scalar(engine, "SELECT count(*) FROM dims_verification_runs") > runs)
    rows = scalar(engine, "SELECT count(*) FROM dims_event_log WHERE type = 'dims.scraper.complete'")
    assert (rows, scalar(engine, "SELECT count(*) FROM dims_event_log WHERE event_id = 'scraped'")) == (2, 1)


def test_replay_says_what_it_cannot_do(made: Project) -> None:
    made.dims("verify", check=True)
    unknown = made.dims("events", "replay", "nobody")
    assert (unknown.returncode, "there is no event nobody" in unknown.stderr) == (2, True)
    made.env["DIMS_BROKER_URL"] = "redis://127.0.0.1:1/0"
    done = made.dims("verify", "--update")  # an event in the log, without any broker
    assert done.returncode == 0
    away = made.dims("events", "replay", "1")
    assert (away.returncode, "127.0.0.1:1 is unreachable" in away.stderr) == (3, True)


def test_a_tick_that_was_missed_while_all_was_down_is_made_up_for_once_on_start(
    made: Project, engine: Engine, start_worker: Start
) -> None:
    first = start_worker()
    wait_for(served(engine, 0))
    first.kill()
    assert [row["missed"] for row in told(made, "schedule")["schedules"]] == [False]
    do(
        engine, "UPDATE dims_schedules SET first_seen_at = first_seen_at - interval '3 days'"
    )  # as if it had been down since
    (row,) = told(made, "schedule")["schedules"]
    assert (row["rule"], row["timezone"], row["last"], row["missed"]) == ("daily", "Europe/Berlin", None, True)
    assert datetime.fromisoformat(row["next"]) > datetime.now(UTC)
    start_worker()
    wait_for(served(engine, 1))
    (row,) = told(made, "schedule")["schedules"]
    last = datetime.fromisoformat(row["last"])
    assert timedelta(0) < datetime.now(UTC) - last < timedelta(days=1)
    assert row["missed"] is False
    ids = scalar(engine, "SELECT array_agg(event_id) FROM dims_event_log")
    assert ids == [f"daily@{last:%Y-%m-%dT%H:%MZ}"]
    assert "Europe/Berlin" in made.dims("schedule", check=True).stdout


def test_status_says_in_a_line_each_what_is_up_down_and_lagging(
    made: Project, engine: Engine, start_worker: Start
) -> None:
    start_worker()
    wait_for(served(engine, 0))
    do(engine, "UPDATE dims_metrics SET as_of = as_of - interval '2 hours' WHERE metric = 'code.python_files'")
    do(engine, "UPDATE dims_metrics SET requested_gen = requested_gen + 1, due_since = now() - interval '1 hour', "
               "not_before = now() + interval '1 hour' WHERE metric = 'code.docs'")  # fmt: skip
    with Redis.from_url(made.env["DIMS_BROKER_URL"]) as redis:
        redis.set("dims:beat", str(time.time() - 600))
        redis.rpush("dims.verify", "x")  # not JSON of Celery's: nobody takes it while the worker is busy
    spool = Path(made.env["DIMS_HOME"]) / "spool" / "new"
    spool.mkdir(parents=True)
    (spool / "1.json").write_text("{}")
    status = told(made, "status")
    numbers = status["numbers"]
    assert status["broker"].startswith("up, 0 events waiting in the stream")
    assert status["database"].startswith("up, 0 events, 0 rejected; last reading")
    assert status["beat"].startswith("away: last sign 10 minutes ago")
    assert status["due"].startswith("lags: 1 of 2 metrics")
    assert "waited 1 hour" in status["due"]
    assert (status["stale"], status["failed"], status["requests"]) == ("code.python_files", "none", "none")
    assert status["spool"].startswith("1 event to be sent")
    assert (numbers["due"], numbers["stale"], numbers["spool"], numbers["stream"]) == (1, ["code.python_files"], 1, 0)
    assert 3600 <= numbers["oldest_due_seconds"] < 3700
    assert set(numbers["queues"]) == {"dims.ingest", "dims.verify"}


def test_looking_changes_nothing(made: Project, engine: Engine) -> None:
    """status, metrics, schedule: a file that was edited is not registered by who only looks."""
    made.dims("verify", check=True)
    before = scalar(engine, "SELECT array_agg(m::text ORDER BY metric) FROM dims_metrics m")
    made.write({"dims.yaml": CONFIG.replace('measure: count, paths: "docs', 'measure: lines, paths: "docs')})
    for command in ("status", "metrics", "schedule"):
        made.dims(command, check=True)
    assert scalar(engine, "SELECT array_agg(m::text ORDER BY metric) FROM dims_metrics m") == before


def test_status_without_servers_ends_with_3(made: Project) -> None:
    made.env |= {"DIMS_BROKER_URL": "redis://127.0.0.1:1/0",
                 "DIMS_DATABASE_URL": "postgresql://dims:secret@127.0.0.1:1/dims"}  # fmt: skip
    status = told(made, "status", code=3)
    assert status["broker"].startswith("away: ")
    assert status["database"].startswith("away: ")
    assert "secret" not in json.dumps(status)


def test_a_changed_configuration_is_noticed_once_and_one_that_is_not_valid_changes_nothing(made: Project) -> None:
    session = Session(None, made.env, made.folder)
    said: list[str] = []
    reading = ConfigReloader(session, session.config, said.append)
    file = made.folder / "dims.yaml"
    assert reading.changed() is None
    file.write_text(CONFIG + "  hourly: {schedule: '0 * * * *'}\n")
    assert reading.changed() == "The configuration has changed"
    assert reading.changed() is None
    file.write_text(CONFIG + "  hourly: {schedule: 'never'}\n")
    assert reading.changed() is None
    assert "is not valid" in said[0]
    assert "rules.hourly" in said[0]
    assert reading.changed() is None
    file.unlink()
    assert reading.changed() is None
    file.write_text("include: [more.yaml]\n" + CONFIG)
    assert reading.changed() is None  # more.yaml is missing
    (made.folder / "more.yaml").write_text("watch: [project]\n")
    file.touch()
    assert reading.changed() == "The configuration has changed"
    os.utime(made.folder / "more.yaml", (1, 1))
    assert reading.changed() == "The configuration has changed"
    assert len(said) == 3
