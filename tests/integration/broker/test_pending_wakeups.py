"""A queue holds a wake-up for each name at most once, and a wake-up that was lost is sent again."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from redis import Redis

from dims_worker.broker import pending_wakeups
from dims_worker.broker.pending_wakeups import PREFIX, RECEIVED, SCHEDULED

QUEUE = "dims.verify"
PATIENCE_MS = 5_000


def lost(redis: Redis, *names: str) -> list[str]:
    return list(pending_wakeups.reserve_lost(redis, QUEUE, names, PATIENCE_MS))


def reserve(redis: Redis, names: list[str], queue: str = QUEUE) -> list[str]:
    return list(pending_wakeups.reserve(redis, queue, names))


def receive(redis: Redis, name: str) -> None:
    pending_wakeups.receive(redis, QUEUE, name, int(redis.hget(PREFIX + QUEUE, name) or 0))


def age(redis: Redis, name: str, milliseconds: int) -> None:
    """Make a wake-up look older than it is."""
    redis.hincrby(PREFIX + QUEUE, name, -milliseconds)


@pytest.fixture
def waiting(redis: Redis) -> Redis:
    """The queue holds a message, as it does while wake-ups wait."""
    redis.lpush(QUEUE, "a message")
    return redis


def test_a_name_is_reserved_once_until_its_wakeup_is_received(redis: Redis) -> None:
    assert reserve(redis, ["a", "b"]) == ["a", "b"]
    assert reserve(redis, ["b", "c"]) == ["c"]
    assert reserve(redis, ["b"], "dims.verify.slow") == ["b"]
    receive(redis, "b")
    assert reserve(redis, ["a", "b", "c"]) == ["b"]


def test_more_names_than_fit_one_call(redis: Redis) -> None:
    names = [f"source {number}" for number in range(2_500)]
    assert reserve(redis, names) == names
    assert reserve(redis, names) == []
    assert redis.hlen(PREFIX + QUEUE) == 2_500


def test_a_name_whose_wakeup_could_not_be_sent_is_free(redis: Redis) -> None:
    reserve(redis, ["a", "b"])
    pending_wakeups.release(redis, QUEUE, ["a"])
    assert reserve(redis, ["a", "b"]) == ["a"]


def test_a_wakeup_that_still_waits_is_not_lost_however_old_it_is(waiting: Redis) -> None:
    reserve(waiting, ["a"])
    age(waiting, "a", 86_400_000)
    assert lost(waiting, "a") == []


def test_a_name_without_a_wakeup_gets_one(waiting: Redis) -> None:
    assert lost(waiting, "a") == ["a"]
    assert lost(waiting, "a") == []


def test_an_empty_queue_has_lost_a_wakeup_after_a_while(redis: Redis) -> None:
    reserve(redis, ["a"])
    assert lost(redis, "a") == []  # a worker may just have received it
    age(redis, "a", PATIENCE_MS + 1)
    assert lost(redis, "a") == ["a"]
    assert lost(redis, "a") == []


def test_a_wakeup_that_a_later_one_has_overtaken_is_lost(waiting: Redis) -> None:
    reserve(waiting, ["a", "b", "c"])
    age(waiting, "a", 2 * PATIENCE_MS + 1)
    age(waiting, "c", 2 * PATIENCE_MS - 1_000)  # its sender may have been slower
    receive(waiting, "b")
    assert lost(waiting, "a", "c") == ["a"]


def test_an_old_wakeup_of_a_name_that_was_sent_again_overtakes_no_other(waiting: Redis) -> None:
    (first,) = pending_wakeups.reserve(waiting, QUEUE, ["a"]).values()
    reserve(waiting, ["b"])
    waiting.hset(PREFIX + QUEUE, "a", str(first + 60_000))  # a sweep has sent it again, much later
    pending_wakeups.receive(waiting, QUEUE, "a", first)
    assert lost(waiting, "b") == []


@pytest.mark.parametrize(
    "set_back",
    [
        lambda redis: age(redis, "a", -600_000),
        lambda redis: redis.hset(RECEIVED, QUEUE, str(9_999_999_999_999)),
    ],
    ids=["the wake-up is from the future", "a received wake-up is from the future"],
)
def test_a_clock_that_is_set_back_neither_loses_nor_multiplies_wakeups(
    waiting: Redis, set_back: Callable[[Redis], object]
) -> None:
    reserve(waiting, ["a"])
    set_back(waiting)
    first, second = lost(waiting, "a"), lost(waiting, "a")
    assert (len(first) <= 1, second) == (True, [])


def test_receiving_an_unknown_wakeup_changes_nothing(redis: Redis) -> None:
    pending_wakeups.receive(redis, QUEUE, "a", 0)
    assert not redis.exists(PREFIX + QUEUE, RECEIVED)


def test_scheduled_sources_come_in_time_and_once(redis: Redis) -> None:
    assert pending_wakeups.pop_scheduled(redis) == ([], None)
    pending_wakeups.schedule(redis, {"a": -1.0, "b": 60.0, "c": 90.0})
    due, following = pending_wakeups.pop_scheduled(redis)
    assert due == ["a"]
    assert following is not None
    assert 50 < following <= 60.01
    assert pending_wakeups.pop_scheduled(redis)[0] == []


def test_the_earliest_of_two_times_counts(redis: Redis) -> None:
    pending_wakeups.schedule(redis, {"a": 60.0})
    pending_wakeups.schedule(redis, {"a": 30.0})
    pending_wakeups.schedule(redis, {"a": 90.0})
    (_, following) = pending_wakeups.pop_scheduled(redis)
    assert following is not None
    assert 20 < following <= 30.01
    assert redis.zcard(SCHEDULED) == 1


def test_of_two_members_that_saw_the_same_count_one_takes_the_turn(redis: Redis) -> None:
    assert pending_wakeups.take_turn(redis, "turns", b"")
    assert not pending_wakeups.take_turn(redis, "turns", b"")
    assert pending_wakeups.take_turn(redis, "turns", b"1")
    assert redis.get("turns") == b"2"
