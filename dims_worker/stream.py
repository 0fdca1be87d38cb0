"""The stream `dims:events` from its reader's side: batches for one consumer of the group, and what keeps it sound."""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Iterator, Sequence
from datetime import timedelta
from typing import Any, cast

from redis import Redis
from redis.exceptions import RedisError, ResponseError

from dims_worker.events import STREAM

GROUP = "dims"
BATCH = 1000
"""Entries in one batch."""
BATCH_BYTES = 64 * 1024 * 1024
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
_FORGET = """
for _, one in ipairs(redis.call('XINFO', 'CONSUMERS', KEYS[1], ARGV[1])) do
  local said = {}
  for i = 1, #one, 2 do said[one[i]] = one[i + 1] end
  if said['pending'] == 0 and said['idle'] > tonumber(ARGV[2]) then
    redis.call('XGROUP', 'DELCONSUMER', KEYS[1], ARGV[1], said['name'])
  end
end
"""


def consumer() -> str:
    """This process's name in the consumer group: what it read and did not finish is its own to finish."""
    return f"{socket.gethostname()}:{os.getpid()}"


def batches(redis: Redis, orphan: timedelta) -> Iterator[list[Entry]]:
    """What is ours and unfinished, then what others took and left for `orphan`, then what is new.

    Each batch is to be `done` before the next is asked for. Raises redis's errors.
    """
    ensure_group(redis)
    while entries := _read(redis, "0"):
        yield entries
    yield from _orphans(redis, orphan)
    while entries := _read(redis, ">"):
        yield entries


def done(redis: Redis, keys: Sequence[bytes]) -> None:
    """These entries are stored: acknowledge and delete them."""
    with redis.pipeline(transaction=True) as pipe:
        pipe.xack(STREAM, GROUP, *keys)
        pipe.xdel(STREAM, *keys)
        pipe.execute()


def give_back(redis: Redis, keys: Sequence[bytes], orphan: timedelta) -> None:
    """These entries could not be stored now: whoever comes next may claim them, without waiting for `orphan`."""
    idle = int(orphan.total_seconds() * 1000) + 1
    with contextlib.suppress(RedisError):  # then they wait for it
        redis.xclaim(STREAM, GROUP, consumer(), 0, keys, idle=idle, justid=True)  # type: ignore[arg-type]


def ensure_group(redis: Redis) -> None:
    """The consumer group, made at 0: what was sent before it existed is read too."""
    try:
        redis.xgroup_create(STREAM, GROUP, id="0", mkstream=True)
    except ResponseError as error:
        if "BUSYGROUP" not in str(error):
            raise


def mend(redis: Redis) -> bool:
    """Make the stream anew, once it is empty, where its last id lies in the future; whether that was done.

    A producer may choose an entry's id, which no ACL can forbid. Every later id must be larger: after the largest
    there is, no producer could add anything any more.
    """
    return bool(redis.eval(_REMAKE, 1, STREAM, GROUP, str(FUTURE_MS)))


def forget_consumers(redis: Redis) -> None:
    """Forget consumers that are long gone. One that still holds entries is kept: they are to be claimed."""
    redis.eval(_FORGET, 1, STREAM, GROUP, str(FORGOTTEN_MS))


def _count(redis: Redis) -> int:
    """How many entries to take at once: `BATCH`, or fewer where they are large on the average."""
    with redis.pipeline(transaction=False) as pipe:
        pipe.memory_usage(STREAM)
        pipe.xlen(STREAM)
        size, length = pipe.execute()
    return max(1, min(BATCH, BATCH_BYTES * int(length or 1) // int(size or 1)))


def _read(redis: Redis, start: str) -> list[Entry]:
    answer = cast(Any, redis.xreadgroup(GROUP, consumer(), {STREAM: start}, count=_count(redis)))
    if not answer:
        return []
    streams = answer.items() if isinstance(answer, dict) else answer
    (_, entries), *_ = streams
    return _flat(entries)


def _orphans(redis: Redis, orphan: timedelta) -> Iterator[list[Entry]]:
    """What others left, followed by the cursor: entries that are still in work may stand before them."""
    idle, cursor = int(orphan.total_seconds() * 1000), b"0-0"
    while True:
        answer = cast(Any, redis.xautoclaim(STREAM, GROUP, consumer(), idle, cursor, count=_count(redis)))
        cursor, entries = answer[0], _flat(answer[1])
        if entries:
            yield entries
        if cursor in (b"0-0", "0-0"):
            return


def _flat(entries: Any) -> list[Entry]:
    """redis-py wraps the entries of one stream in a list of its own under RESP 3."""
    if len(entries) == 1 and isinstance(entries[0], list):
        entries = entries[0]
    return [(key, fields) for key, fields in entries]
