"""The worker's Celery consumer: accepts wake-ups, refuses and counts other messages, hides the broker's password.

Celery itself refuses pickle and YAML. Other malformed messages end its worker (JSON that is not a list of three), or go
back to the queue and are read again for ever (one without an id; celery 5.6, kombu 5.7). So each message is checked
before Celery sees it. Format: https://docs.celeryq.dev/en/stable/internals/protocol.html
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Container, Mapping
from typing import Any

from celery.worker.consumer import Consumer
from kombu.exceptions import ContentDisallowed, DecodeError
from kombu.utils.url import maybe_sanitize_url
from redis.exceptions import RedisError

from dims_worker.broker.queues import REFUSED
from dims_worker.worker.patient_consumer import PatientConsumer

log = logging.getLogger(__name__)

_JSON = "application/json"
_SHOWN = ("transport", "uri_prefix", "hostname", "port", "virtual_host", "userid", "connect_timeout", "heartbeat")


class MessageGuard(PatientConsumer):
    """See the module. The setting `worker_consumer` names this class."""

    class Blueprint(Consumer.Blueprint):  # type: ignore[misc]
        """Celery's blueprint, without secrets in what `celery inspect stats` and Flower show of the broker."""

        def info(self, parent: Any) -> dict[str, Any]:
            info: dict[str, Any] = super().info(parent)
            return {**info, "broker": broker_summary(info.get("broker"))}

    def create_task_handler(self, *args: Any, **kwargs: Any) -> Callable[[Any], None]:
        accept = super().create_task_handler(*args, **kwargs)

        def on_task_received(message: Any) -> None:
            if reason := refusal_reason(message, self.strategies):
                self._refuse(message, reason)
            else:
                accept(message)

        return on_task_received

    def on_decode_error(self, message: Any, exc: Exception) -> None:
        self._refuse(message, f"it cannot be read ({type(exc).__name__})")

    def on_invalid_task(self, body: Any, message: Any, exc: Exception) -> None:
        self._refuse(message, f"Celery calls it invalid ({type(exc).__name__})")

    def _refuse(self, message: Any, reason: str) -> None:
        """Count a message, then drop it. Its content is not logged: it may be anything, of any length."""
        queue = (message.delivery_info or {}).get("routing_key")
        log.warning("refused a message in the queue %r: %s", queue, reason)
        try:
            message.channel.client.incr(REFUSED)
        except RedisError as error:  # the broker is unreachable or full: the consumer's own loop reacts
            log.warning("cannot count the refused message: %s", error)
        message.reject_log_error(log, self.connection_errors)


def broker_summary(broker: Any) -> Any:
    """Return the fields of a connection that contain no secret. Celery hides the password, but not inside the host's
    name (`redis+socket://`), the alternates, or the TLS options."""
    if not isinstance(broker, Mapping):
        return broker
    return {name: maybe_sanitize_url(broker.get(name)) for name in _SHOWN}


def refusal_reason(message: Any, known: Container[str]) -> str | None:
    """Return why Celery cannot run a message as one of the `known` tasks, or None if it can.

    Only JSON is ever decoded.
    """
    if message.content_type != _JSON:
        return f"its content is {str(message.content_type)[:60]!r}, not JSON"
    if reason := _header_reason(message.headers, known):
        return reason
    try:
        body = message.payload
    except (ContentDisallowed, DecodeError) as error:
        return f"it cannot be read ({type(error).__name__})"
    match body:
        case [list(), dict(), dict(embedded)]:
            return "it chains other tasks" if any(embedded.values()) else None
    return "its body is not [arguments, keywords, embedded]"


def _header_reason(headers: Any, known: Container[str]) -> str | None:
    match headers:
        case {"task": str(task), "id": str()}:
            if task not in known:
                return f"there is no task {task[:60]!r}"
        case _:
            return "it names no task, or has no id"
    for name, is_valid in _HEADERS.items():
        if headers.get(name) is not None and not is_valid(headers[name]):
            return f"its header {name} has the wrong type"
    return None


def _is_string(value: Any) -> bool:
    return isinstance(value, str) and bool(value)


def _is_string_list(value: Any) -> bool:
    return isinstance(value, list) and all(map(_is_string, value))


def _is_time_limit(value: Any) -> bool:
    match value:
        case [None | int() | float(), None | int() | float()]:
            return True
    return False


_HEADERS: Mapping[str, Callable[[Any], bool]] = {
    **dict.fromkeys(("shadow", "eta", "expires"), _is_string),
    "stamped_headers": _is_string_list,
    "timelimit": _is_time_limit,
}
"""Headers that end or block a worker if they have another type. A test sends all kinds of them."""
