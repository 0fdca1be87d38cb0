"""Say why the broker refuses, for a process that may look into it: it also finds the key of a WRONGTYPE."""

from __future__ import annotations

from redis import Redis
from redis.exceptions import RedisError

from dims_producers.broker_refusal import broker_reason, wrong_type
from dims_producers.publish import connect
from dims_worker.broker.binding import DATABASE
from dims_worker.broker.queues import BEAT, REFUSED, SWEEPS, queue_names
from dims_worker.config import Config
from dims_worker.events import STREAM

TIMEOUT = 3.0

_TYPES: dict[str, str] = {
    STREAM: "stream",
    **dict.fromkeys((DATABASE, BEAT, REFUSED, SWEEPS), "string"),
    "unacked": "hash",
    "unacked_index": "zset",
    "_kombu.binding.celery": "set",
    "_kombu.binding.celery.pidbox": "set",
    "_kombu.binding.celeryev": "set",
}
"""The keys with a fixed name. Source: `kombu/transport/redis.py`."""


def describe_refusal(error: BaseException, config: Config) -> str:
    """Return one line: what the broker answered, and what to do. For a WRONGTYPE, it asks the broker for the types."""
    if "WRONGTYPE" in str(error):
        try:
            with connect(str(config.broker_url), TIMEOUT) as redis:
                if sentence := wrong_key(redis, config):
                    return sentence
        except (RedisError, OSError) as second:
            return f"{broker_reason(error)} (and looking for the key failed: {second})"
    return broker_reason(error)


def wrong_key(redis: Redis, config: Config) -> str | None:
    """Return a sentence that names the keys of DIMS and Celery that have a wrong type. None if there are none."""
    types: dict[str, str] = dict(_TYPES)
    for name in queue_names(config):
        types |= {name: "list", f"_kombu.binding.{name}": "set"}
    with redis.pipeline(transaction=False) as pipe:
        for key in types:
            pipe.type(key)
        found = [answer.decode() for answer in pipe.execute()]
    wrong = [
        wrong_type(key, _NAMES.get(expected, expected))
        for (key, expected), kind in zip(types.items(), found, strict=True)
        if kind not in ("none", expected)
    ]
    return "; ".join(wrong) or None


_NAMES = {"zset": "sorted set"}
