"""The stream `dims:events` from its reader's side: batches for one consumer of the group, and what keeps it sound."""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, cast

from redis import Redis
from redis.exceptions import RedisError, ResponseError

from dims_worker.events import STREAM

GROUP = "dims"
BATCH = 1000
"""Entries in one batch."""
BATCH_BYTES = 16 * 1024 * 1024
"""About so many bytes at the most: anybody who may XADD may send entries of 10 MB, or of 500."""
FUTURE_MS = 60_000
"""An id so far ahead of the broker's own clock was chosen by a producer."""
FORGOTTEN_MS = 3_600_000
"""A consumer that has done nothing for so long is forgotten, unless it still holds entries."""

Entry = tuple[bytes, dict[bytes, bytes] | None]
"""An entry's id and fields; no fields (None or empty): it was deleted after it was handed out."""

_REMAKE = """
if redis.call('XLEN', KEYS[1]) > 0 then return 0 end
local info, last = redis.call('XINFO', 'STREAM', KEYS[1]), '0-0'
for i = 1, #info, 2 do if info[i] == 'last-generated-id' then last = info[i + 1] end end
if tonumber(string.match(last, '%d+')) <= redis.call('TIME')[1] * 1000 + ARGV[2] then return 0 end
redis.call('DEL', KEYS[1])
redis.call('XGROUP', 'CREATE', KEYS[1], ARGV[1], '0', 'MKSTREAM')
return 1
"""
_TAKE = """
local taken, size, from = {}, 0, ARGV[3]
while #taken < tonumber(ARGV[4]) and size < tonumber(ARGV[5]) do
  local answer = redis.call('XREADGROUP', 'GROUP', ARGV[1], ARGV[2], 'COUNT', 1, 'STREAMS', KEYS[1], from)
  local entry = answer and answer[1][2][1]
  if not entry then break end
  taken[#taken + 1] = entry
  for _, part in ipairs(entry[2] or {}) do size = size + #part end
  if from ~= '>' then from = entry[1] end
end
return taken
"""
_UNREAD = """
local oldest = redis.call('XRANGE', KEYS[1], '-', '+', 'COUNT', 1)[1]
if not oldest then return {0, 0} end
local patience, from = tonumber(ARGV[2]), tonumber(string.match(oldest[1], '%d+'))
local consumers = redis.pcall('XINFO', 'CONSUMERS', KEYS[1], ARGV[1])
for _, one in ipairs(consumers) do
  local said = {}
  for i = 1, #one, 2 do said[one[i]] = one[i + 1] end
  if said['idle'] < patience then return {0, 0} end
end
if redis.call('TIME')[1] * 1000 - from < patience then return {0, 0} end
return {redis.call('XLEN', KEYS[1]), from}
"""
_CLAIM = "return redis.call('XAUTOCLAIM', KEYS[1], ARGV[1], ARGV[2], ARGV[3], ARGV[4], 'COUNT', ARGV[5], 'JUSTID')"
"""By a script, because redis-py drops the cursor where it is told JUSTID."""
_FORGET = """
for _, one in ipairs(redis.call('XINFO', 'CONSUMERS', KEYS[1], ARGV[1])) do
  local said = {}
  for i = 1, #one, 2 do said[one[i]] = one[i + 1] end
  if said['pending'] == 0 and said['idle'] > tonumber(ARGV[2]) then
    redis.call('XGROUP', 'DELCONSUMER', KEYS[1], ARGV[1], said['name'])
  end
end
"""


def consumer_name() -> str:
    """This process's name in the consumer group: what it read and did not finish is its own to finish."""
    return f"{socket.gethostname()}:{os.getpid()}"


def read_batches(redis: Redis, orphan: timedelta) -> Iterator[list[Entry]]:
    """What is ours and unfinished, then what others took and left for `orphan`, then what is new.

    Each batch is to be `done` before the next is asked for. Raises redis's errors.
    """
    ensure_group(redis)
    while entries := _read(redis, "0"):
        yield entries
    while _claim_orphans(redis, orphan):
        while entries := _read(redis, "0"):
            yield entries
    while entries := _read(redis, ">"):
        yield entries


def read_new(redis: Redis) -> list[Entry]:
    """A batch of what nobody has taken yet; empty where there is none."""
    return _read(redis, ">")


def wait_for_entry(redis: Redis, wait_ms: int) -> list[Entry]:
    """The next entry that nobody has taken yet, as soon as there is one; empty where none comes in time.

    It is one, whatever its size, and in our hands by the answer that wakes us: nothing else is to be asked first.
    """
    answer = cast(Any, redis.xreadgroup(GROUP, consumer_name(), {STREAM: ">"}, count=1, block=wait_ms))
    return [(key, fields) for key, fields in answer[0][1]] if answer else []


def acknowledge(redis: Redis, keys: Sequence[bytes]) -> None:
    """These entries are stored: acknowledge and delete them."""
    with redis.pipeline(transaction=True) as pipe:
        pipe.xack(STREAM, GROUP, *keys)
        pipe.xdel(STREAM, *keys)
        pipe.execute()


def release_entries(redis: Redis, keys: Sequence[bytes], orphan: timedelta) -> None:
    """These entries could not be stored now: whoever comes next may claim them, without waiting for `orphan`."""
    idle = int(orphan.total_seconds() * 1000) + 1
    with contextlib.suppress(RedisError):  # then they wait for it
        redis.xclaim(STREAM, GROUP, consumer_name(), 0, keys, idle=idle, justid=True)  # type: ignore[arg-type]


def backlog(redis: Redis, patience: timedelta) -> tuple[int, datetime | None]:
    """How many entries wait, and since when, where for `patience` nobody has even asked for any; else none.

    Raises redis's errors.
    """
    asked = (_UNREAD, 1, STREAM, GROUP, int(patience.total_seconds() * 1000))
    number, from_ms = cast(tuple[int, int], redis.eval(*asked))
    return number, datetime.fromtimestamp(from_ms / 1000, UTC) if number else None


def ensure_group(redis: Redis) -> None:
    """The consumer group, made at 0: what was sent before it existed is read too."""
    try:
        redis.xgroup_create(STREAM, GROUP, id="0", mkstream=True)
    except ResponseError as error:
        if "BUSYGROUP" not in str(error):
            raise


def repair_last_id(redis: Redis) -> bool:
    """Make the stream anew, once it is empty, where its last id lies in the future; whether that was done.

    A producer may choose an entry's id, which no ACL can forbid. Every later id must be larger: after the largest
    there is, no producer could add anything any more.
    """
    return bool(redis.eval(_REMAKE, 1, STREAM, GROUP, str(FUTURE_MS)))


def remove_stale_consumers(redis: Redis) -> None:
    """Forget consumers that are long gone. One that still holds entries is kept: they are to be claimed."""
    redis.eval(_FORGET, 1, STREAM, GROUP, str(FORGOTTEN_MS))


def _read(redis: Redis, start: str) -> list[Entry]:
    taken = cast(Any, redis.eval(_TAKE, 1, STREAM, GROUP, consumer_name(), start, str(BATCH), str(BATCH_BYTES)))
    return [(key, dict(zip(fields[::2], fields[1::2], strict=True)) if fields else None) for key, fields in taken]


def _claim_orphans(redis: Redis, orphan: timedelta) -> bool:
    """Make ours a batch of what others left, by its ids alone; whether there was any."""
    asked = (GROUP, consumer_name(), str(int(orphan.total_seconds() * 1000)))
    cursor = b"0-0"
    while True:  # on by the cursor: entries that are still in work may stand before them
        answer = cast(Any, redis.eval(_CLAIM, 1, STREAM, *asked, cursor, str(BATCH)))
        cursor, claimed = answer[:2]
        if claimed or cursor == b"0-0":
            return bool(claimed)
