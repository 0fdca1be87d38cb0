"""The worker's consumer: it takes bells, refuses and counts whatever else lies in its queues, and tells nobody
the broker's password.

Celery itself refuses pickle and YAML, but a message of another wrong shape ends its worker (JSON that is no list
of three) or, worse, goes back to the queue and is taken again for ever (one without an id; celery 5.6, kombu 5.7).
So a message is looked at before Celery sees it. Format:
https://docs.celeryq.dev/en/stable/internals/protocol.html
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Container, Mapping
from typing import Any

from celery.worker.consumer import Consumer as CeleryConsumer
from kombu.exceptions import ContentDisallowed, DecodeError
from kombu.utils.url import maybe_sanitize_url
from redis.exceptions import RedisError

from dims_worker.broker.queues import REFUSED

log = logging.getLogger(__name__)

_JSON = "application/json"
_SHOWN = ("transport", "uri_prefix", "hostname", "port", "virtual_host", "userid", "connect_timeout", "heartbeat")


class MessageGuard(CeleryConsumer):  # type: ignore[misc]
    """See the module. Named to Celery by the setting `worker_consumer`."""

    class Blueprint(CeleryConsumer.Blueprint):  # type: ignore[misc]
        """Celery's, but for what `celery inspect stats` and Flower show of the broker."""

        def info(self, parent: Any) -> dict[str, Any]:
            told: dict[str, Any] = super().info(parent)
            return {**told, "broker": message_summary(told.get("broker"))}

    def create_task_handler(self, *args: Any, **kwargs: Any) -> Callable[[Any], None]:
        take = super().create_task_handler(*args, **kwargs)

        def on_task_received(message: Any) -> None:
            if reason := fault(message, self.strategies):
                self._refuse(message, reason)
            else:
                take(message)

        return on_task_received

    def on_decode_error(self, message: Any, exc: Exception) -> None:
        self._refuse(message, f"it cannot be read ({type(exc).__name__})")

    def on_invalid_task(self, body: Any, message: Any, exc: Exception) -> None:
        self._refuse(message, f"Celery takes it for invalid ({type(exc).__name__})")

    def _refuse(self, message: Any, reason: str) -> None:
        """Count it, then drop it. What it holds is not logged: it may be anything, and of any length."""
        queue = (message.delivery_info or {}).get("routing_key")
        log.warning("refused a message of %r: %s", queue, reason)
        try:
            message.channel.client.incr(REFUSED)
        except RedisError as error:  # the broker is away, or full: the consumer's own loop will notice
            log.warning("the refused message was not counted: %s", error)
        message.reject_log_error(log, self.connection_errors)


def message_summary(broker: Any) -> Any:
    """What may be shown of a connection. Celery leaves its password out, but not where that is part of the host's
    name (`redis+socket://`), of the alternates, or of the TLS options."""
    if not isinstance(broker, Mapping):
        return broker
    return {name: maybe_sanitize_url(broker.get(name)) for name in _SHOWN}


def fault(message: Any, known: Container[str]) -> str | None:
    """Why a message is no task that Celery can take, in a few words; None where it is one.

    `known` are the names of tasks. Nothing but JSON is ever decoded.
    """
    if message.content_type != _JSON:
        return f"its content is {str(message.content_type)[:60]!r}, not JSON"
    if reason := _fault_of_headers(message.headers, known):
        return reason
    try:
        body = message.payload
    except (ContentDisallowed, DecodeError) as error:
        return f"it cannot be read ({type(error).__name__})"
    match body:
        case [list(), dict(), dict(embedded)]:
            return "it wants other tasks to follow" if any(embedded.values()) else None
    return "its body is not [arguments, keywords, embedded]"


def _fault_of_headers(headers: Any, known: Container[str]) -> str | None:
    match headers:
        case {"task": str(task), "id": str()}:
            if task not in known:
                return f"there is no task {task[:60]!r}"
        case _:
            return "it has no task, or no id"
    for name, fits in _HEADERS.items():
        if headers.get(name) is not None and not fits(headers[name]):
            return f"its header {name} is of a wrong shape"
    return None


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and bool(value)


def _are_texts(value: Any) -> bool:
    return isinstance(value, list) and all(map(_is_text, value))


def _are_limits(value: Any) -> bool:
    match value:
        case [None | int() | float(), None | int() | float()]:
            return True
    return False


_HEADERS: Mapping[str, Callable[[Any], bool]] = {
    **dict.fromkeys(("shadow", "eta", "expires"), _is_text),
    "stamped_headers": _are_texts,
    "timelimit": _are_limits,
}
"""Those that end or block a worker where they are of another shape; a test sends all sorts of them."""
