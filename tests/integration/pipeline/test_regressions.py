"""Faults that a review found. Each test failed before the fix."""

from __future__ import annotations

import secrets
import threading
import time

import pytest
import redis
from sqlalchemy import Engine, text

from dims_worker.config import S3Source
from dims_worker.domain.plan import Planner
from dims_worker.events import STREAM, Event
from dims_worker.pipeline import verify
from dims_worker.pipeline.ingest import ReceivedEnvelope, ingest_stream, register_config, store_events
from dims_worker.probes import scan
from dims_worker.probes.base import Deadline, ScanContext
from dims_worker.probes.scan_process import pool
from dims_worker.text.activity import MAX_SKIPPED, SKIPPED_SECONDS, ActivityFollower, SequenceTracker
from tests.conftest import Project

CONFIG = """
sources:
  project: {type: files, path: ".", timeout: 300ms}
metrics:
  code:
    files: {source: project, measure: count, paths: "*.py"}
rules:
  all: {on: "*"}
"""
ENVELOPE = '{"specversion":"1.0","id":"%s","source":"%s","type":"t","time":"2026-11-22T09:00:00Z"}'


def test_an_event_with_names_too_long_for_an_index_is_stored_and_blocks_no_other(
    project: Project, engine: Engine, broker_url: str
) -> None:
    project.write({"dims.yaml": CONFIG})
    client = redis.Redis.from_url(broker_url)
    long = secrets.token_urlsafe(1536)[:2048]
    client.xadd(STREAM, {"event": ENVELOPE % (long, long[::-1])})
    client.xadd(STREAM, {"event": ENVELOPE % ("b", "p")})
    result = ingest_stream(client, engine, Planner(project.config))
    assert (result.stored, result.rejected, client.xlen(STREAM)) == (2, 0, 0)
    client.close()


def test_an_event_that_the_database_refuses_is_rejected_alone(
    project: Project, engine: Engine, broker_url: str
) -> None:
    project.write({"dims.yaml": CONFIG})
    with engine.begin() as connection:
        connection.execute(text("ALTER TABLE dims_event_log ADD CHECK (subject <> 'refuse me')"))
    client = redis.Redis.from_url(broker_url)
    bad = (ENVELOPE % ("bad", "p")).replace('"type"', '"subject":"refuse me","type"')
    for payload in (ENVELOPE % ("a", "p"), bad, ENVELOPE % ("c", "p")):
        client.xadd(STREAM, {"event": payload})
    result = ingest_stream(client, engine, Planner(project.config))
    assert (result.stored, result.rejected, client.xlen(STREAM)) == (2, 1, 0)
    with engine.connect() as connection:
        reason = connection.execute(text("SELECT reason FROM dims_event_log WHERE outcome = 'rejected'")).scalar_one()
    assert reason.startswith("the database refuses this event: ")
    client.close()


def test_a_scan_that_does_not_end_is_killed(project: Project, engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    project.write({"dims.yaml": CONFIG})
    over = threading.Event()

    class Stuck:
        follows_state = False

        def scan(self, source: S3Source, metrics: object, context: ScanContext, deadline: Deadline) -> None:
            over.wait(60)

    monkeypatch.setattr(scan, "probe_for", lambda kind: Stuck())
    monkeypatch.setattr(pool, "GRACE", 0.2)
    with engine.begin() as connection:
        register_config(connection, project.config)
    begun = time.monotonic()
    run = verify.measure_due(engine, project.config, "project")
    over.set()
    assert run is not None
    assert str(run.items[0].error).startswith(
        "the scan of project took longer than its timeout of 0.3 s and was killed"
    )
    assert time.monotonic() - begun < 30  # it would have been a minute
    with engine.connect() as connection:
        assert connection.execute(text("SELECT lease_until FROM dims_sources")).scalar_one() is None


def test_follow_shows_a_batch_that_got_its_number_before_another_and_committed_after_it(
    project: Project, engine: Engine
) -> None:
    """Two batches of 1,000 events: the first gets its number, the second commits before it."""
    project.write({"dims.yaml": CONFIG})
    planner = Planner(project.config)

    def batch(name: str) -> list[ReceivedEnvelope]:
        return [ReceivedEnvelope(f"{name}-{n}", (ENVELOPE % (f"{name}{n}", name)).encode()) for n in range(1000)]

    with engine.begin() as connection:
        register_config(connection, project.config)
    follower = ActivityFollower(project.config)
    with engine.begin() as connection:
        follower.start(connection)
    with engine.connect() as first:
        outer = first.begin()
        first.execute(
            text("SELECT nextval('dims_batch_ids'), nextval(pg_get_serial_sequence('dims_event_log', 'seq'))")
        )
        with engine.begin() as second:
            store_events(second, planner, batch("second"))
        with engine.begin() as connection:
            shown = " ".join(follower.sentences(connection))
        assert "1,000 events" in shown
        store_events(first, planner, batch("first"))
        outer.commit()
    with engine.begin() as connection:
        assert "1,000 events" in " ".join(follower.sentences(connection))
        assert list(follower.sentences(connection)) == []
    assert len(follower.batches.skipped) == 1  # the number that no batch uses


def test_follow_shows_a_batch_that_many_others_overtook(project: Project, engine: Engine) -> None:
    """One batch gets its number and waits while fifty others commit. Another is rolled back and never appears."""
    project.write({"dims.yaml": CONFIG})
    planner = Planner(project.config)

    def batch(name: str) -> list[ReceivedEnvelope]:
        return [ReceivedEnvelope(name, f"no event: {name}".encode())]  # concerns no metric, so no transaction waits

    def shown() -> str:
        with engine.begin() as connection:
            return " ".join(follower.sentences(connection))

    with engine.begin() as connection:
        register_config(connection, project.config)
    follower = ActivityFollower(project.config)
    with engine.connect() as first, engine.connect() as undone:
        outer, lost = first.begin(), undone.begin()
        store_events(first, planner, batch("first"))
        with engine.begin() as connection:
            follower.start(connection)
        undone.execute(text("SELECT nextval('dims_batch_ids')"))
        for number in range(50):
            with engine.begin() as other:
                store_events(other, planner, batch(f"other{number}"))
        assert shown().count("measures nothing for it") == 50
        outer.commit()
        lost.rollback()
    assert shown().count("measures nothing for it") == 1 and shown() == ""
    assert len(follower.batches.skipped) == 1
    follower.batches.mark_seen((), time.monotonic() + SKIPPED_SECONDS)
    assert not follower.batches.skipped


def test_the_list_of_missing_numbers_is_bounded() -> None:
    numbers = SequenceTracker()
    numbers.mark_seen([3, 10**9], 0)
    assert len(numbers.skipped) == MAX_SKIPPED and max(numbers.skipped) == 10**9 - 1
    numbers.mark_seen([10**9 - 1, 10**9 + 2], 1)
    assert max(numbers.skipped) == 10**9 + 1 and 10**9 - 1 not in numbers.skipped and numbers.last == 10**9 + 2
    assert len(numbers.skipped) == MAX_SKIPPED


def test_a_subject_is_no_markup(project: Project, engine: Engine) -> None:
    project.write({"dims.yaml": CONFIG})
    with engine.begin() as connection:
        event = Event.from_json(
            '{"specversion":"1.0","id":"c","source":"p","type":"dims.git.commit","time":"2026-11-22T09:00:00Z",'
            '"data":{"root":"/x","subject":"[/b] app/[id]/page","paths":["a"]}}'
        )
        store_events(connection, Planner(project.config), [ReceivedEnvelope("", event.to_json().encode())])
    shown = project.dims("events", check=True).stdout
    assert "[/b] app/[id]/page" in shown
    planned = project.dims("plan", "dims.git.commit", "--path", "app/[id]/a.py", check=True).stdout
    assert "would measure" in planned
