"""No path goes around a person: whichever way a critical drift comes in, it is held."""

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

WAYS = ("event", "schedule", "update", "workflow", "replay")
CONFIG = """
settings: {lease: 5s, sweep: 1s}
sources:
  tools: {type: command}
  project: {type: files, path: "."}
metrics:
  by:
""" + "".join(
    f"    {way}: {{source: tools, command: [cat, {way}.txt], critical: true, unit: objects}}\n" for way in WAYS
) + """
rules:
  scraped: {on: dims.scraper.complete, metrics: [by.event]}
  again: {on: test.again, metrics: [by.replay]}
  daily: {schedule: "0 9 * * *", metrics: [by.schedule]}
workflows:
  file_inventory: {source: project, metrics: [by.workflow]}
"""  # fmt: skip


def rows(engine: Engine, sql: str) -> list[Any]:
    with engine.connect() as connection:
        return list(connection.execute(text(sql)).fetchall())


def values(engine: Engine, column: str) -> dict[str, Any]:
    found = rows(engine, f"SELECT metric, {column} AS value FROM dims_metrics WHERE metric LIKE 'by.%'")
    return {row.metric.removeprefix("by."): row.value for row in found}


def send(project: Project, event: Event) -> None:
    with Redis.from_url(project.env["DIMS_BROKER_URL"]) as redis:
        redis.xadd(STREAM, {"event": event.to_json()})


def test_every_way_in_holds_a_critical_drift_alike(
    project: Project, engine: Engine, start_worker: Callable[..., Worker]
) -> None:
    project.write({"dims.yaml": CONFIG, **{f"{way}.txt": "172726\n" for way in WAYS}})
    start_worker()
    wait_for(lambda: values(engine, "baseline") == dict.fromkeys(WAYS, 172_726))
    again = Event.new("test.again", "test", now=datetime.now(UTC), id="again")
    send(project, again)  # measured while all is as it was, and to be replayed
    wait_for(lambda: rows(engine, "SELECT 1 FROM dims_metrics_history WHERE metric = 'by.replay' OFFSET 1"))

    project.write({f"{way}.txt": "205000\n" for way in WAYS})
    send(project, Event.new("dims.scraper.complete", "test", now=datetime.now(UTC)))
    send(project, tick_event("daily", last_tick(project.config.rules["daily"], datetime.now(UTC))))
    project.dims("events", "replay", "again", check=True)
    updated = project.dims("verify", "--update", "-m", "by.update")
    assert (updated.returncode, "held: waits for approval" in updated.stdout) == (1, True)
    project.dims("workflow", "file-inventory")
    wait_for(lambda: values(engine, "value") == dict.fromkeys(WAYS, 205_000))

    assert values(engine, "baseline") == dict.fromkeys(WAYS, 172_726)
    asked = json.loads(project.dims("approvals", "list", "--json", check=True).stdout)["requests"]
    # a workflow looks, as `dims verify` does: it changes no baseline, and asks nobody
    assert {one["metric"] for one in asked} == {f"by.{way}" for way in WAYS if way != "workflow"}
    for one in asked:
        assert (one["baseline"], one["value"], round(one["drift_pct"], 1)) == (172_726, 205_000, 18.7)
        assert (type(one["baseline"]), type(one["value"])) == (int, int)

    # the whole way of one of them: shown, approved by its metric, an integer everywhere, and asked no more
    shown = project.dims("approvals", "show", "by.event", check=True).stdout
    assert "172,726 objects" in shown
    assert "205,000 objects  (+18.7 %, high)" in shown
    done = project.dims("approvals", "approve", "by.event", "--as", "ada", "--note", "the backfill", check=True)
    assert "205,000 objects is the baseline now (was 172,726 objects)" in done.stdout
    kept = rows(engine, "SELECT baseline::text AS text, jsonb_typeof(baseline) AS kind FROM dims_metrics "
                        "WHERE metric = 'by.event'")  # fmt: skip
    assert [tuple(row) for row in kept] == [("205000", "number")]
    history = json.loads(project.dims("approvals", "history", "by.event", "--json", check=True).stdout)["requests"]
    (decision,) = history
    assert (decision["value"], type(decision["value"]), decision["decided_by"], decision["known_by"]) == (
        205_000, int, "ada", "option",
    )  # fmt: skip
    assert decision["note"] == "the backfill"
    again_ = project.dims("approvals", "approve", str(decision["id"]), "--as", "ben")
    assert (again_.returncode, "by ada" in again_.stdout, "nothing was changed" in again_.stdout) == (0, True, True)
    other = project.dims("approvals", "reject", str(decision["id"]))
    assert (other.returncode, "approved by ada already" in other.stderr) == (1, True)
