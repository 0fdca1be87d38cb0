"""Read the stream: large entries, entries that other consumers left, and what a stolen producer key can do."""

from __future__ import annotations

import pytest
from redis import Redis
from redis.exceptions import ResponseError

from dims_worker.broker import event_stream
from dims_worker.broker.event_stream import GROUP, ensure_group, remove_stale_consumers, repair_last_id
from dims_worker.events import STREAM
from dims_worker.pipeline.ingest import ingest_stream
from tests.integration.helpers import Flow, request

LARGEST = "18446744073709551615-18446744073709551615"


def send(redis: Redis, flow: Flow, number: int = 1) -> None:
    for _ in range(number):
        redis.xadd(STREAM, {"event": request("m.a").to_json()})


def consumers(redis: Redis) -> set[str]:
    return {consumer["name"].decode() for consumer in redis.xinfo_consumers(STREAM, GROUP)}


# --- an id that a producer chose ------------------------------------------------------------------


@pytest.mark.parametrize("id", [LARGEST, "32503680000000-0"])
def test_a_stream_whose_last_id_lies_in_the_future_is_recreated_once_it_is_empty(
    redis: Redis, flow: Flow, id: str
) -> None:
    ensure_group(redis)
    send(redis, flow)
    redis.xadd(STREAM, {"event": request("m.a", id="far").to_json()}, id=id)
    assert repair_last_id(redis) is False  # it holds entries that are not stored yet
    assert ingest_stream(redis, flow.engine, flow.planner).stored == 2
    assert repair_last_id(redis) is True
    assert repair_last_id(redis) is False
    send(redis, flow)
    (entry,) = redis.xrange(STREAM)
    assert int(entry[0].partition(b"-")[0]) <= redis.time()[0] * 1000 + 1000
    assert ingest_stream(redis, flow.engine, flow.planner).stored == 1  # with the re-created group


def test_the_largest_id_blocks_later_entries_until_the_stream_is_repaired(redis: Redis, flow: Flow) -> None:
    ensure_group(redis)
    redis.xadd(STREAM, {"event": "x"}, id=LARGEST)
    with pytest.raises(ResponseError, match="exhausted"):
        send(redis, flow)
    ingest_stream(redis, flow.engine, flow.planner)
    repair_last_id(redis)
    send(redis, flow)


def test_a_normal_stream_is_not_changed(redis: Redis, flow: Flow) -> None:
    ensure_group(redis)
    assert repair_last_id(redis) is False
    send(redis, flow)
    ingest_stream(redis, flow.engine, flow.planner)
    assert repair_last_id(redis) is False


def test_a_rejected_entry_under_an_id_that_was_used_before_is_kept_too(redis: Redis, flow: Flow) -> None:
    """A re-created stream may use an id again."""
    for payload in ("one", "two", "two"):
        redis.delete(STREAM)
        ensure_group(redis)
        redis.xadd(STREAM, {"event": payload}, id="5-5")
        ingest_stream(redis, flow.engine, flow.planner)
    kept = flow.rows("SELECT stream_id, payload FROM dims_event_log ORDER BY seq")
    assert [(row.stream_id, row.payload) for row in kept] == [("5-5", "one"), ("5-5", "two")]


# --- size ----------------------------------------------------------------------------------------------


def test_large_entries_are_read_in_small_batches(redis: Redis, flow: Flow, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(event_stream, "BATCH_BYTES", 1_000_000)
    ensure_group(redis)
    for _ in range(20):
        redis.xadd(STREAM, {"event": b"x" * 300_000})
    sizes = []
    for entries in event_stream.read_batches(redis, flow.config.settings.orphan):
        sizes.append(len(entries))
        event_stream.acknowledge(redis, [key for key, _ in entries])
    assert sum(sizes) == 20
    assert max(sizes) <= 4


def test_an_entry_larger_than_a_batch_is_read_alone(redis: Redis, flow: Flow, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(event_stream, "BATCH_BYTES", 1000)
    ensure_group(redis)
    redis.xadd(STREAM, {"event": b"x" * 300_000})
    send(redis, flow)
    result = ingest_stream(redis, flow.engine, flow.planner)
    assert (result.rejected, result.stored) == (1, 1)


def test_an_entry_without_the_field_is_rejected_with_that_reason(redis: Redis, flow: Flow) -> None:
    ensure_group(redis)
    redis.xadd(STREAM, {"evnt": request("m.a").to_json()})
    assert ingest_stream(redis, flow.engine, flow.planner).rejected == 1
    assert flow.scalar("SELECT reason FROM dims_event_log") == "the entry has no field `event`, or an empty one"


# --- other consumers -----------------------------------------------------------------------------------


def test_entries_of_dead_consumers_are_found_after_entries_in_work(
    redis: Redis, flow: Flow, monkeypatch: pytest.MonkeyPatch
) -> None:
    """XAUTOCLAIM reads ten times its count of entries and returns a cursor. Idle entries may come after that."""
    ensure_group(redis)
    send(redis, flow, 30)
    redis.xreadgroup(GROUP, "dead:1", {STREAM: ">"})
    pending = [entry["message_id"] for entry in redis.xpending_range(STREAM, GROUP, "-", "+", 30)]
    redis.xclaim(STREAM, GROUP, "dead:1", 0, pending[25:], idle=60_000)
    monkeypatch.setattr(event_stream, "BATCH", 1)
    assert ingest_stream(redis, flow.engine, flow.planner).stored == 5
    assert redis.xlen(STREAM) == 25


def test_a_stale_consumer_is_removed_unless_it_holds_entries(
    redis: Redis, flow: Flow, monkeypatch: pytest.MonkeyPatch
) -> None:
    ensure_group(redis)
    send(redis, flow, 2)
    redis.xreadgroup(GROUP, "holds", {STREAM: ">"}, count=1)
    redis.xgroup_createconsumer(STREAM, GROUP, "idle")
    remove_stale_consumers(redis)
    assert consumers(redis) == {"holds", "idle"}  # it may come back within the hour
    monkeypatch.setattr(event_stream, "STALE_CONSUMER_MS", -1)
    remove_stale_consumers(redis)
    assert consumers(redis) == {"holds"}
