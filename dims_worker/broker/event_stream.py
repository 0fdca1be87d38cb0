"""Read the stream `dims:events`: batches for one consumer of the group, and the repair of the stream itself."""

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
"""The most entries in one batch."""
BATCH_BYTES = 16 * 1024 * 1024
"""A batch ends at about this size, because any producer may send entries of 10 MB or more."""
FUTURE_MS = 60_000
"""An id that is further ahead of the broker's clock than this was chosen by a producer."""
STALE_CONSUMER_MS = 3_600_000
"""A consumer that was idle for longer than this is removed, unless it still holds entries."""

Entry = tuple[bytes, dict[bytes, bytes] | None]
"""The id and the fields of an entry. An entry without fields was deleted after it was delivered."""

_RECREATE = """
if redis.call('EXISTS', KEYS[1]) == 0 or redis.call('XLEN', KEYS[1]) > 0 then return 0 end
local info, last = redis.call('XINFO', 'STREAM', KEYS[1]), '0-0'
for i = 1, #info, 2 do if info[i] == 'last-generated-id' then last = info[i + 1] end end
if tonumber(string.match(last, '%d+')) <= redis.call('TIME')[1] * 1000 + ARGV[2] then return 0 end
redis.call('DEL', KEYS[1])
redis.call('XGROUP', 'CREATE', KEYS[1], ARGV[1], '0', 'MKSTREAM')
return 1
"""
_READ = """
local entries, size, from = {}, 0, ARGV[3]
while #entries < tonumber(ARGV[4]) and size < tonumber(ARGV[5]) do
  local answer = redis.call('XREADGROUP', 'GROUP', ARGV[1], ARGV[2], 'COUNT', 1, 'STREAMS', KEYS[1], from)
  local entry = answer and answer[1][2][1]
  if not entry then break end
  entries[#entries + 1] = entry
  for _, part in ipairs(entry[2] or {}) do size = size + #part end
  if from ~= '>' then from = entry[1] end
end
return entries
"""
_BACKLOG = """
local oldest = redis.call('XRANGE', KEYS[1], '-', '+', 'COUNT', 1)[1]
if not oldest then return {0, 0} end
local patience, from = tonumber(ARGV[2]), tonumber(string.match(oldest[1], '%d+'))
local consumers = redis.pcall('XINFO', 'CONSUMERS', KEYS[1], ARGV[1])
for _, fields in ipairs(consumers) do
  local consumer = {}
  for i = 1, #fields, 2 do consumer[fields[i]] = fields[i + 1] end
  if consumer['idle'] < patience then return {0, 0} end
end
if redis.call('TIME')[1] * 1000 - from < patience then return {0, 0} end
return {redis.call('XLEN', KEYS[1]), from}
"""
_CLAIM = "return redis.call('XAUTOCLAIM', KEYS[1], ARGV[1], ARGV[2], ARGV[3], ARGV[4], 'COUNT', ARGV[5], 'JUSTID')"
"""A script, because redis-py drops the cursor of the answer if JUSTID is set."""
_REMOVE_STALE = """
for _, fields in ipairs(redis.call('XINFO', 'CONSUMERS', KEYS[1], ARGV[1])) do
  local consumer = {}
  for i = 1, #fields, 2 do consumer[fields[i]] = fields[i + 1] end
  if consumer['pending'] == 0 and consumer['idle'] > tonumber(ARGV[2]) then
    redis.call('XGROUP', 'DELCONSUMER', KEYS[1], ARGV[1], consumer['name'])
  end
end
"""


def consumer_name() -> str:
    """Return this process's name in the consumer group. Entries that it has read belong to this name."""
    return f"{socket.gethostname()}:{os.getpid()}"


def read_batches(redis: Redis, orphan: timedelta) -> Iterator[list[Entry]]:
    """Yield our own unfinished entries, then entries that other consumers left for `orphan`, then new entries.

    Acknowledge each batch before you take the next. Raises redis's errors.
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
    """Return a batch of entries that no consumer has read yet, or an empty list."""
    return _read(redis, ">")


def wait_for_entry(redis: Redis, wait_ms: int) -> list[Entry]:
    """Wait for the next entry that no consumer has read yet. Empty if none arrives within `wait_ms`.

    The answer that ends the wait already contains the entry, so no second call delays it.
    """
    answer = cast(Any, redis.xreadgroup(GROUP, consumer_name(), {STREAM: ">"}, count=1, block=wait_ms))
    return [(key, fields) for key, fields in answer[0][1]] if answer else []


def acknowledge(redis: Redis, keys: Sequence[bytes]) -> None:
    """Acknowledge and delete entries that are stored."""
    with redis.pipeline(transaction=True) as pipe:
        pipe.xack(STREAM, GROUP, *keys)
        pipe.xdel(STREAM, *keys)
        pipe.execute()


def release_entries(redis: Redis, keys: Sequence[bytes], orphan: timedelta) -> None:
    """Release entries that could not be stored now. Any consumer may claim them without waiting for `orphan`."""
    idle = int(orphan.total_seconds() * 1000) + 1
    with contextlib.suppress(RedisError):  # then another consumer claims them after `orphan`
        redis.xclaim(STREAM, GROUP, consumer_name(), 0, keys, idle=idle, justid=True)  # type: ignore[arg-type]


def backlog(redis: Redis, patience: timedelta) -> tuple[int, datetime | None]:
    """Return how many entries wait, and since when, if no consumer has read for `patience`. Else `(0, None)`.

    Raises redis's errors.
    """
    patience_ms = int(patience.total_seconds() * 1000)
    number, oldest_ms = cast(tuple[int, int], redis.eval(_BACKLOG, 1, STREAM, GROUP, patience_ms))
    return number, datetime.fromtimestamp(oldest_ms / 1000, UTC) if number else None


def ensure_group(redis: Redis) -> None:
    """Create the consumer group at 0, so that entries sent before it existed are read too."""
    try:
        redis.xgroup_create(STREAM, GROUP, id="0", mkstream=True)
    except ResponseError as error:
        if "BUSYGROUP" not in str(error):
            raise


def repair_last_id(redis: Redis) -> bool:
    """Re-create the stream if it is empty and its last id lies in the future. True if that was done.

    A producer may choose an entry's id, and no ACL can forbid that. Every later id must be larger. After the
    largest possible id, no producer could add an entry.
    """
    return bool(redis.eval(_RECREATE, 1, STREAM, GROUP, str(FUTURE_MS)))


def remove_stale_consumers(redis: Redis) -> None:
    """Remove consumers that ended long ago. One that still holds entries stays until they are claimed."""
    redis.eval(_REMOVE_STALE, 1, STREAM, GROUP, str(STALE_CONSUMER_MS))


def _read(redis: Redis, start: str) -> list[Entry]:
    answer = cast(Any, redis.eval(_READ, 1, STREAM, GROUP, consumer_name(), start, str(BATCH), str(BATCH_BYTES)))
    return [(key, dict(zip(fields[::2], fields[1::2], strict=True)) if fields else None) for key, fields in answer]


def _claim_orphans(redis: Redis, orphan: timedelta) -> bool:
    """Claim a batch of entries that other consumers left. True if there were any."""
    orphan_ms = str(int(orphan.total_seconds() * 1000))
    cursor = b"0-0"
    while True:  # follow the cursor: entries that are still in work may come before them
        answer = cast(Any, redis.eval(_CLAIM, 1, STREAM, GROUP, consumer_name(), orphan_ms, cursor, str(BATCH)))
        cursor, claimed = answer[:2]
        if claimed or cursor == b"0-0":
            return bool(claimed)
