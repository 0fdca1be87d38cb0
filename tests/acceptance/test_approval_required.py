"""Test that a large drift of a critical metric is held, whatever triggers the measurement."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from redis import Redis
from sqlalchemy import Engine, text

from dims_worker.domain.schedule import last_tick, tick_event
from dims_worker.events import STREAM, Event
from tests.conftest import Project, Worker, wait_for

TRIGGERS = ("event", "schedule", "update", "workflow", "replay")
METRICS = "".join(
    f"    {trigger}: {{source: tools, command: [cat, {trigger}.txt], critical: true, unit: objects}}\n"
    for trigger in TRIGGERS
)
CONFIG = """
settings: {lease: 5s, sweep: 1s}
sources:
  tools: {type: command}
  project: {type: files, path: "."}
metrics:
  by:
{METRICS}
rules:
  scraped: {on: dims.scraper.complete, metrics: [by.event]}
  again: {on: test.again, metrics: [by.replay]}
  daily: {schedule: "0 9 * * *", metrics: [by.schedule]}
workflows:
  file_inventory: {source: project, metrics: [by.workflow]}
""".replace("{METRICS}", METRICS)


def rows(engine: Engine, sql: str) -> list[Any]:
    with engine.connect() as connection:
        return list(connection.execute(text(sql)).fetchall())


def values(engine: Engine, column: str) -> dict[str, Any]:
    states = rows(engine, f"SELECT metric, {column} AS value FROM dims_metrics WHERE metric LIKE 'by.%'")
    return {row.metric.removeprefix("by."): row.value for row in states}


def send(project: Project, event: Event) -> None:
    with Redis.from_url(project.env["DIMS_BROKER_URL"]) as redis:
        redis.xadd(STREAM, {"event": event.to_json()})


def test_every_trigger_holds_a_critical_drift(
    project: Project, engine: Engine, start_worker: Callable[..., Worker]
) -> None:
    project.write({"dims.yaml": CONFIG, **{f"{trigger}.txt": "172726\n" for trigger in TRIGGERS}})
    start_worker()
    wait_for(lambda: values(engine, "baseline") == dict.fromkeys(TRIGGERS, 172_726))
    again = Event.new("test.again", "test", now=datetime.now(UTC), id="again")
    send(project, again)  # measured before the drift, and replayed later
    wait_for(lambda: rows(engine, "SELECT 1 FROM dims_metrics_history WHERE metric = 'by.replay' OFFSET 1"))

    project.write({f"{trigger}.txt": "205000\n" for trigger in TRIGGERS})
    send(project, Event.new("dims.scraper.complete", "test", now=datetime.now(UTC)))
    send(project, tick_event("daily", last_tick(project.config.rules["daily"], datetime.now(UTC))))
    project.dims("events", "replay", "again", check=True)
    updated = project.dims("verify", "--update", "-m", "by.update")
    assert (updated.returncode, "waits for approval: request 1" in updated.stdout) == (1, True)
    project.dims("workflow", "file-inventory")
    wait_for(lambda: values(engine, "value") == dict.fromkeys(TRIGGERS, 205_000))

    assert values(engine, "baseline") == dict.fromkeys(TRIGGERS, 172_726)
    requests = json.loads(project.dims("approvals", "list", "--json", check=True).stdout)["requests"]
    # a workflow checks only, as `dims verify` does: it moves no baseline and opens no request
    assert {request["metric"] for request in requests} == {
        f"by.{trigger}" for trigger in TRIGGERS if trigger != "workflow"
    }
    for request in requests:
        assert (request["baseline"], request["value"], round(request["drift_pct"], 1)) == (172_726, 205_000, 18.7)
        assert (type(request["baseline"]), type(request["value"])) == (int, int)

    # the whole trigger of one of them: shown, approved by its metric, an integer everywhere, and requests no more
    shown = project.dims("approvals", "show", "by.event", check=True).stdout
    assert "172,726 objects" in shown
    assert "205,000 objects  (+18.7 %, high)" in shown
    done = project.dims("approvals", "approve", "by.event", "--as", "ada", "--note", "the backfill", check=True)
    assert "205,000 objects is the baseline now (was 172,726 objects)" in done.stdout
    query = "SELECT baseline::text, jsonb_typeof(baseline) FROM dims_metrics WHERE metric = 'by.event'"
    assert [tuple(row) for row in rows(engine, query)] == [("205000", "number")]
    history = json.loads(project.dims("approvals", "history", "by.event", "--json", check=True).stdout)["requests"]
    (decision,) = history
    assert (decision["value"], type(decision["value"])) == (205_000, int)
    assert (decision["decided_by"], decision["known_by"]) == ("ada", "option")
    assert decision["note"] == "the backfill"
    repeated = project.dims("approvals", "approve", str(decision["id"]), "--as", "ben")
    assert (repeated.returncode, "by ada" in repeated.stdout) == (0, True)
    assert "nothing was changed" in repeated.stdout
    other = project.dims("approvals", "reject", str(decision["id"]))
    assert (other.returncode, "approved by ada already" in other.stderr) == (1, True)
