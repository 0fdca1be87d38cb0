"""The stream from its reader's side: what is large, what others left, what a stolen producer's key can do to it."""

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
    return {one["name"].decode() for one in redis.xinfo_consumers(STREAM, GROUP)}


# --- an id of the producer's own choice ------------------------------------------------------------------


@pytest.mark.parametrize("id", [LARGEST, "32503680000000-0"])
def test_a_stream_whose_last_id_lies_in_the_future_is_made_anew_once_it_is_empty(
    redis: Redis, flow: Flow, id: str
) -> None:
    ensure_group(redis)
    send(redis, flow)
    redis.xadd(STREAM, {"event": request("m.a", id="far").to_json()}, id=id)
    assert repair_last_id(redis) is False  # it holds what is not stored yet
    assert ingest_stream(redis, flow.engine, flow.planner).stored == 2
    assert repair_last_id(redis) is True
    assert repair_last_id(redis) is False
    send(redis, flow)
    (entry,) = redis.xrange(STREAM)
    assert int(entry[0].partition(b"-")[0]) <= redis.time()[0] * 1000 + 1000
    assert ingest_stream(redis, flow.engine, flow.planner).stored == 1  # by the group that was made with it


def test_the_largest_id_blocks_who_comes_later_until_it_is_mended(redis: Redis, flow: Flow) -> None:
    ensure_group(redis)
    redis.xadd(STREAM, {"event": "x"}, id=LARGEST)
    with pytest.raises(ResponseError, match="exhausted"):
        send(redis, flow)
    ingest_stream(redis, flow.engine, flow.planner)
    repair_last_id(redis)
    send(redis, flow)


def test_a_stream_of_today_is_left_alone(redis: Redis, flow: Flow) -> None:
    ensure_group(redis)
    assert repair_last_id(redis) is False
    send(redis, flow)
    ingest_stream(redis, flow.engine, flow.planner)
    assert repair_last_id(redis) is False


def test_a_rejected_entry_under_an_id_that_was_used_before_is_kept_too(redis: Redis, flow: Flow) -> None:
    """A stream that was made anew may give an id again."""
    for said in ("one", "two", "two"):
        redis.delete(STREAM)
        ensure_group(redis)
        redis.xadd(STREAM, {"event": said}, id="5-5")
        ingest_stream(redis, flow.engine, flow.planner)
    kept = flow.rows("SELECT stream_id, payload FROM dims_event_log ORDER BY seq")
    assert [(row.stream_id, row.payload) for row in kept] == [("5-5", "one"), ("5-5", "two")]


# --- size ----------------------------------------------------------------------------------------------


def test_large_entries_are_taken_few_at_a_time(redis: Redis, flow: Flow, monkeypatch: pytest.MonkeyPatch) -> None:
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


def test_one_entry_larger_than_a_batch_is_taken_alone(
    redis: Redis, flow: Flow, monkeypatch: pytest.MonkeyPatch
) -> None:
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


def test_what_dead_consumers_left_is_found_behind_what_is_still_in_work(
    redis: Redis, flow: Flow, monkeypatch: pytest.MonkeyPatch
) -> None:
    """XAUTOCLAIM looks at ten times its count of entries and gives a cursor; what is idle may stand after that."""
    ensure_group(redis)
    send(redis, flow, 30)
    redis.xreadgroup(GROUP, "dead:1", {STREAM: ">"})
    pending = [one["message_id"] for one in redis.xpending_range(STREAM, GROUP, "-", "+", 30)]
    redis.xclaim(STREAM, GROUP, "dead:1", 0, pending[25:], idle=60_000)
    monkeypatch.setattr(event_stream, "BATCH", 1)
    assert ingest_stream(redis, flow.engine, flow.planner).stored == 5
    assert redis.xlen(STREAM) == 25


def test_a_consumer_that_is_long_gone_is_forgotten_unless_it_holds_entries(
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
