"""Processes write signs of life, and the rows of silent ones go."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

from sqlalchemy import Engine, text

from dims_worker.store.engine import transaction
from dims_worker.store.processes import (
    ProcessIdentity,
    delete_process,
    delete_silent_processes,
    process_rows,
    record_sign_of_life,
)

START = datetime(2026, 1, 2, 3, 4, tzinfo=UTC)
WORKER = ProcessIdentity("worker@a", "a", "worker", 7, "0.2.0", "abc", ("dims.verify",), START)


def test_a_sign_of_life_keeps_the_times_that_it_does_not_name(engine: Engine) -> None:
    ahead = datetime.now(UTC) + timedelta(minutes=10)
    with transaction(engine) as connection:
        record_sign_of_life(connection, WORKER, swept=START, claimed=START, now=ahead)
        record_sign_of_life(connection, WORKER, stored=START, now=ahead)
        (row,) = process_rows(connection)
    assert (row.last_sweep_at, row.last_claim_at, row.last_stored_at) == (START, START, START)
    assert row.queues == ("dims.verify",)
    assert row.clock_offset is not None
    assert 500 < row.clock_offset <= 600


def test_a_restarted_process_does_not_inherit_progress(engine: Engine) -> None:
    now = datetime.now(UTC)
    with transaction(engine) as connection:
        record_sign_of_life(connection, WORKER, swept=START, claimed=START, stored=START, now=now)
        record_sign_of_life(connection, replace(WORKER, pid=8), now=now)
        (row,) = process_rows(connection)
    assert (row.pid, row.last_sweep_at, row.last_claim_at, row.last_stored_at) == (8, None, None, None)


def test_processes_without_a_sign_of_life_disappear(engine: Engine) -> None:
    now = datetime.now(UTC)
    with transaction(engine) as connection:
        for name in ("worker@a", "worker@b", "worker@c"):
            record_sign_of_life(connection, replace(WORKER, process=name), now=now)
        connection.execute(
            text("UPDATE dims_processes SET seen_at = now() - interval '2 days' WHERE process = 'worker@a'")
        )
        assert [row.process for row in process_rows(connection)] == ["worker@b", "worker@c"]
        delete_silent_processes(connection)
        delete_process(connection, "worker@b")
        assert connection.execute(text("SELECT process FROM dims_processes")).scalars().all() == ["worker@c"]
