"""Check the broker by writing to it, and read what waits in it."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from redis import Redis
from redis.exceptions import (
    AuthenticationError,
    BusyLoadingError,
    NoPermissionError,
    OutOfMemoryError,
    ReadOnlyError,
    RedisError,
    ResponseError,
)
from redis.exceptions import TimeoutError as RedisTimeout

from dims_producers.publish import connect
from dims_worker.broker import event_stream
from dims_worker.broker.queues import BEAT, REFUSED, queue_names
from dims_worker.checks.check import Check
from dims_worker.config import Config
from dims_worker.events import FIELD, STREAM
from dims_worker.formatting import format_age, format_bytes, pluralize

ANSWER_SECONDS = 2.0
"""How long the broker may take for the connection, and for each answer."""
PROBE_KEY = "dims:check"
"""The key that the check writes. It expires by itself."""
PROBE_MS = 10_000
MEMORY_SHARE = 0.9
"""More of the broker's memory than this is a warning."""
WAKEUPS_PER_SOURCE = 10
"""More wake-ups for each source than this are a warning: workers cannot keep up."""
EVENT_PATIENCE = timedelta(minutes=1)
"""An event that waits for longer is a warning."""

START = "Start it with `dims up`, or correct DIMS_BROKER_URL."
FIXES: Mapping[str, tuple[str, str]] = {
    "MISCONF": (
        "refuses to write: its last save to disk failed",
        "Free space on the broker's disk and read its log. It accepts writes again after its next successful save.",
    ),
    "OOM": ("refuses to write: its memory is full", "Raise its `maxmemory`, or remove keys that are not from DIMS."),
    "READONLY": (
        "refuses to write: it is a read-only replica",
        "Let DIMS_BROKER_URL name the primary, or a name that follows it after a failover.",
    ),
    "NOREPLICAS": (
        "refuses to write: too few replicas are connected",
        "Start its replicas again, or lower `min-replicas-to-write`.",
    ),
    "NOPERM": (
        "refuses to write: its user lacks a right",
        "Give the user of DIMS_BROKER_URL the rights that the page Deploying lists.",
    ),
    "LOADING": ("is not ready: it reads its data from disk", "Wait until it has read its data."),
    "NOAUTH": ("refuses the password", "Correct the password in DIMS_BROKER_URL."),
    "WRONGPASS": ("refuses the user or the password", "Correct the user and the password in DIMS_BROKER_URL."),
    "CLUSTERDOWN": ("refuses to write: its cluster is down", "Use a broker that is not a Redis Cluster."),
    "MASTERDOWN": ("refuses to answer: it has lost its primary", "Start the primary, or promote this replica."),
    "WRONGTYPE": (
        f"has a key {STREAM} that is not a stream",
        "Let DIMS_BROKER_URL name a database number that only this project uses.",
    ),
}
"""What each error code of the broker means, and what to do. No text names a host."""
HANGS = ("accepts connections but does not answer", "Restart it, or read its log and free its computer of other load.")
UNREACHABLE = ("is unreachable", START)
OTHER_REFUSAL = ("refuses to write", "Read the broker's log.")


@dataclass
class BrokerState:
    """What the broker answered. `refusal` is an error code of `FIXES` with the broker's own text, if it refused."""

    refusal: tuple[str, str] | None = None
    write_seconds: float = 0.0
    clock_offset: float | None = None
    waiting: int = 0
    in_work: int = 0
    refused: int = 0
    queues: dict[str, int] = field(default_factory=dict)
    beat: float | None = None
    has_group: bool = False
    """Whether a worker has ever read the stream."""
    oldest: timedelta | None = None
    """How long the oldest event in the stream has waited."""
    idle: bool = False
    """Whether events wait and no worker has read the stream for a while."""
    info: Mapping[str, Any] = field(default_factory=dict)


def read_broker(config: Config, url: str) -> BrokerState:
    """Write to the broker as a producer and a worker do, then read what waits.

    Raises redis's errors if it does not answer at all.
    """
    with connect(url, timeout=ANSWER_SECONDS) as client:
        state = BrokerState()
        began = time.monotonic()
        state.refusal = _write(client)
        state.write_seconds = time.monotonic() - began
        try:
            _read(client, config, state)
        except (NoPermissionError, ResponseError) as error:
            state.refusal = state.refusal or refusal_of(error)
        return state


def _write(client: Redis) -> tuple[str, str] | None:
    """Send an event that no broker stores, then write a key. Return the refusal, if there is one.

    A producer may only send events, so the event is first.
    """
    try:
        try:
            # The broker checks memory, disk, replicas and rights before it refuses this id, which no entry can have
            client.xadd(STREAM, {FIELD: ""}, id="0-0", nomkstream=True)
        except ResponseError as error:
            if "must be greater than 0-0" not in str(error):
                raise
        client.set(PROBE_KEY, "1", px=PROBE_MS)
    except (AuthenticationError, BusyLoadingError):
        raise
    except ResponseError as error:
        return refusal_of(error)
    return None


def refusal_of(error: RedisError | OSError) -> tuple[str, str]:
    """Return the error code of an answer, and the answer. redis-py removes the code of errors that have a class."""
    message = " ".join(str(error).split())
    classes = {
        ReadOnlyError: "READONLY",
        OutOfMemoryError: "OOM",
        NoPermissionError: "NOPERM",
        BusyLoadingError: "LOADING",
        AuthenticationError: "WRONGPASS",
    }
    code = next((code for kind, code in classes.items() if isinstance(error, kind)), message.partition(" ")[0])
    return code, message


def _read(client: Redis, config: Config, state: BrokerState) -> None:
    names = queue_names(config)
    with client.pipeline(transaction=False) as pipe:
        began = time.time()
        pipe.time()
        pipe.xlen(STREAM)
        pipe.get(BEAT)
        pipe.get(REFUSED)
        pipe.xrange(STREAM, count=1)
        for name in names:
            pipe.llen(name)
        (seconds, micros), waiting, beat, refused, oldest, *lengths = pipe.execute()
        ended = time.time()
    now = seconds + micros / 1_000_000
    state.clock_offset = (began + ended) / 2 - now
    state.waiting, state.refused = int(waiting), int(refused or 0)
    state.beat = now - float(beat) if beat else None
    state.queues = {name: int(length) for name, length in zip(names, lengths, strict=True)}
    if oldest:
        state.oldest = timedelta(seconds=max(0.0, now - int(oldest[0][0].split(b"-")[0]) / 1000))
        state.idle = bool(event_stream.backlog(client, _patience(config))[0])
    state.info = client.info()
    if client.exists(STREAM):
        groups: Any = client.xinfo_groups(STREAM)
        ours = [group for group in groups if group["name"] == event_stream.GROUP.encode()]
        state.has_group = bool(ours)
        state.in_work = sum(int(group["pending"]) for group in ours)


def _patience(config: Config) -> timedelta:
    return max(timedelta(seconds=15), 3 * config.settings.sweep)


def broker_checks(config: Config, state: BrokerState, *, rights: bool = True) -> Iterator[Check]:
    """Yield the checks of a broker that answered. Without `rights`, a user that may only add events is fine."""
    yield _write_check(state, rights)
    if state.info:
        yield memory_check(state.info)
        yield stream_check(state)
        yield _queues_check(config, state)


def _write_check(state: BrokerState, rights: bool) -> Check:
    if state.refusal is None or (state.refusal[0] == "NOPERM" and not rights):
        problem = (
            f"; {pluralize(state.refused, 'message')} refused: see the logs of the workers" if state.refused else ""
        )
        waiting = f"{pluralize(state.waiting, 'event')} waiting in the stream, {state.in_work:,} in work{problem}"
        return Check("broker", "warning" if problem else "ok", f"up, {waiting}", REFUSED_FIX if problem else "")
    code, text = state.refusal
    meaning, fix = FIXES.get(code, OTHER_REFUSAL)
    return Check("broker", "problem", f"{meaning} ({text})", fix, f"The broker {meaning}")


REFUSED_FIX = "Find out who else writes to this broker, and give each project a database number of its own."


def unreachable_broker(error: Exception) -> Check:
    """Return the check of a broker that did not answer, or refused the connection."""
    text = " ".join(str(error).split()) or type(error).__name__
    meaning, fix = UNREACHABLE
    if isinstance(error, RedisTimeout | TimeoutError):
        meaning, fix = HANGS
    elif isinstance(error, AuthenticationError | BusyLoadingError | ResponseError):
        meaning, fix = FIXES.get(refusal_of(error)[0], OTHER_REFUSAL)
    public = f"The broker {meaning}, so DIMS receives no events"
    summary = f"unreachable: {text}" if fix == START else f"{meaning} ({text})"
    return Check("broker", "problem", summary, fix, public)


def memory_check(info: Mapping[str, Any]) -> Check:
    """Return the check of the broker's memory and of its saves to disk."""
    used, limit = int(info.get("used_memory", 0)), int(info.get("maxmemory", 0))
    text = f"{format_bytes(used)} used" + (f" of {format_bytes(limit)}" if limit else "")
    if info.get("cluster_enabled"):
        return Check("broker_memory", "problem", "the broker is a Redis Cluster", FIXES["CLUSTERDOWN"][1])
    if limit and used > MEMORY_SHARE * limit:
        public = "The broker's memory is nearly full"
        return Check("broker_memory", "warning", f"nearly full: {text}", FIXES["OOM"][1], public)
    policy = str(info.get("maxmemory_policy", "noeviction"))
    if limit and policy != "noeviction":
        fix = "Set `maxmemory-policy noeviction`, because the broker may delete events."
        return Check("broker_memory", "warning", f"{text}; `maxmemory-policy` is {policy}", fix)
    failed = [key for key in ("rdb_last_bgsave_status", "aof_last_write_status") if info.get(key, "ok") != "ok"]
    if failed:
        return Check("broker_memory", "warning", f"{text}; {' and '.join(failed)}: error", FIXES["MISCONF"][1])
    return Check("broker_memory", "ok", text)


def stream_check(state: BrokerState) -> Check:
    """Return the check of the events that wait to be stored."""
    if not state.waiting or state.oldest is None:
        return Check("events", "ok", "none waits to be stored")
    text = f"{pluralize(state.waiting, 'event')} to be stored, the oldest for {format_age(state.oldest)}"
    fix = "Start the process `ingest` (`dims up`). If it runs, read its log."
    if state.idle:
        public = f"No worker is ingesting: {pluralize(state.waiting, 'event')} waiting"
        return Check("events", "problem", f"no process reads the stream: {text}", fix, public)
    if state.oldest > EVENT_PATIENCE:
        return Check("events", "warning", text, "Read the log of the process `ingest`.", f"Late: {text}")
    return Check("events", "ok", text)


def _queues_check(config: Config, state: BrokerState) -> Check:
    text = ", ".join(f"{name} {length:,}" for name, length in state.queues.items())
    limit = WAKEUPS_PER_SOURCE * (len(config.scans) + 1)
    full = [name for name, length in state.queues.items() if length > limit]
    if not full:
        return Check("queues", "ok", text)
    fix = "Start workers for these queues, or remove what waits: DIMS sends each wake-up again when it is needed."
    return Check("queues", "warning", f"{text}; too many wake-ups wait in {_names(full)}", fix)


def _names(names: Sequence[str]) -> str:
    return ", ".join(names)


def is_late(beat_seconds: float | None, config: Config) -> bool:
    """Return whether beat has given no sign of life for longer than three sweeps."""
    return beat_seconds is None or beat_seconds > 3 * config.settings.sweep.total_seconds() + 5
