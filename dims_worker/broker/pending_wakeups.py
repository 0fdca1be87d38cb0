"""Which wake-ups wait, so that no queue holds the same wake-up twice, and which are to be sent later.

For each queue, a hash holds the names that have a wake-up in it, with the time at which it was sent. A sender
reserves a name before it sends, and sends only if the name was free. A worker removes the name BEFORE it does the work,
so an event that arrives meanwhile sends a new wake-up. So a queue never grows beyond the number of its names, however
many events arrive, and even if no worker serves it.

A wake-up can be lost: its worker dies, or a person purges the queue. A sweep reserves such a name again. It knows
from the order of the queue: a wake-up that was sent long before one that a worker has already received was lost. If the
queue is empty, it was lost, too. Each wake-up carries the time at which it was sent. Several senders reserve at once
and send one after the other, so the order of a queue is right only to within some seconds.

All times are milliseconds by the clock of the broker. If that clock is set back, names with a time in the future count
as lost.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

from redis import Redis

PREFIX = "dims:wakeups:"
"""Followed by the name of a queue: the hash of the names that have a wake-up in it."""
RECEIVED = "dims:wakeups_received"
"""A hash. For each queue: when the newest wake-up that a worker has received was sent."""
SCHEDULED = "dims:wakeups_scheduled"
"""A sorted set: the sources that get a wake-up later, by the time at which their cooldown or back-off ends."""
BATCH = 1_000
"""The most names in one call of a script."""

_NOW = "local clock = redis.call('TIME') local now = clock[1] * 1000 + math.floor(clock[2] / 1000)\n"
_RESERVE = (
    _NOW
    + """
local free = {now}
for i, name in ipairs(ARGV) do
  if redis.call('HSETNX', KEYS[1], name, now) == 1 then free[#free + 1] = name end
end
return free
"""
)
_RESERVE_LOST = (
    _NOW
    + """
local received = tonumber(redis.call('HGET', KEYS[2], KEYS[3]) or 0)
if received > now then received = 0 end
local patience, empty, lost = tonumber(ARGV[1]), redis.call('LLEN', KEYS[3]) == 0, {now}
for i = 2, #ARGV do
  local sent = tonumber(redis.call('HGET', KEYS[1], ARGV[i]) or -1)
  if sent < 0 or sent > now or sent < received - 2 * patience or (empty and now - sent > patience) then
    redis.call('HSET', KEYS[1], ARGV[i], now)
    lost[#lost + 1] = ARGV[i]
  end
end
return lost
"""
)
_RECEIVE = """
redis.call('HDEL', KEYS[1], ARGV[2])
local received = redis.call('HGET', KEYS[2], ARGV[1])
if tonumber(ARGV[3]) > tonumber(received or 0) then redis.call('HSET', KEYS[2], ARGV[1], ARGV[3]) end
"""
_SCHEDULE = (
    _NOW
    + """
for i = 1, #ARGV, 2 do redis.call('ZADD', KEYS[1], 'LT', now + ARGV[i + 1], ARGV[i]) end
"""
)
_POP_SCHEDULED = (
    _NOW
    + """
local due = redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', now, 'LIMIT', 0, ARGV[1])
if #due > 0 then redis.call('ZREM', KEYS[1], unpack(due)) end
local following = redis.call('ZRANGE', KEYS[1], 0, 0, 'WITHSCORES')[2]
return {due, following and math.max(0, following - now) or -1}
"""
)
_TAKE_TURN = """
if (redis.call('GET', KEYS[1]) or '') ~= ARGV[1] then return 0 end
redis.call('INCR', KEYS[1])
return 1
"""


def reserve(redis: Redis, queue: str, names: Sequence[str]) -> dict[str, int]:
    """Reserve names for wake-ups that you send now. Return those that had no wake-up in this queue, with the time.

    Raises redis's errors.
    """
    return _names(redis.eval(_RESERVE, 1, PREFIX + queue, *part) for part in _parts(names))


def reserve_lost(redis: Redis, queue: str, names: Sequence[str], patience_ms: int) -> dict[str, int]:
    """Reserve those of these names that have no wake-up in this queue, or whose wake-up was lost. Return them.

    An empty queue counts as a lost wake-up after `patience_ms`, because a worker may just have received it. In a queue
    that is not empty, a wake-up was lost if one that was sent more than twice that time later has been received.
    """
    keys = (PREFIX + queue, RECEIVED, queue)
    return _names(redis.eval(_RESERVE_LOST, 3, *keys, str(patience_ms), *part) for part in _parts(names))


def receive(redis: Redis, queue: str, name: str, sent: int) -> None:
    """Note that a worker has received the wake-up of a name, sent at that time. Call this before the work begins."""
    redis.eval(_RECEIVE, 2, PREFIX + queue, RECEIVED, queue, name, str(sent))


def release(redis: Redis, queue: str, names: Sequence[str]) -> None:
    """Free names whose wake-up could not be sent."""
    redis.hdel(PREFIX + queue, *names)


def schedule(redis: Redis, delays: Mapping[str, float]) -> None:
    """Note that sources need a wake-up after so many seconds. An earlier time that is noted already stays."""
    for part in _parts(list(delays)):
        pairs = [text for source in part for text in (source, str(int(delays[source] * 1000) + 1))]
        redis.eval(_SCHEDULE, 1, SCHEDULED, *pairs)


def pop_scheduled(redis: Redis) -> tuple[list[str], float | None]:
    """Remove and return the sources whose time has come, and the seconds until the next one, if there is any."""
    due, following = cast(Any, redis.eval(_POP_SCHEDULED, 1, SCHEDULED, str(BATCH)))
    return [source.decode() for source in due], None if following < 0 else following / 1000


def take_turn(redis: Redis, key: str, seen: bytes) -> bool:
    """Increase a counter if it still has the value that you saw. Of many members, exactly one succeeds."""
    return bool(redis.eval(_TAKE_TURN, 1, key, seen))


def _parts(names: Sequence[str]) -> list[Sequence[str]]:
    return [names[start : start + BATCH] for start in range(0, len(names), BATCH)]


def _names(answers: Any) -> dict[str, int]:
    return {name.decode(): int(now) for now, *names in answers for name in names}
