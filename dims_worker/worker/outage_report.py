"""Report to the outage log what a part of a worker notices: its errors, and that it works again."""

from __future__ import annotations

import logging

from kombu.exceptions import OperationalError
from redis.exceptions import RedisError

from dims_producers.broker_refusal import explains_itself
from dims_worker.broker.outage_log import BROKER, DATABASE, outages
from dims_worker.broker.refusals import describe_refusal
from dims_worker.config import Config
from dims_worker.errors import BrokerUnreachable, WrongBroker

log = logging.getLogger(__name__)

FILES = "the file system"


def report_failure(part: str, error: BaseException, config: Config) -> str:
    """Note that a part of this process failed because of a server. Return the reason in one line."""
    if isinstance(error, RedisError | OperationalError | ConnectionError | TimeoutError):
        server, reason = BROKER, describe_refusal(error, config)
    elif isinstance(error, BrokerUnreachable | WrongBroker):
        server, reason = BROKER, str(error)
    elif isinstance(error, OSError):
        server, reason = FILES, str(error)
    else:
        server, reason = DATABASE, str(error) or type(error).__name__
    reason = " ".join(reason.split())
    outages.failed(server, part, reason, explained=server == BROKER and explains_itself(error))
    return reason


def report_success(part: str) -> None:
    """Note that a part of this process has used every server."""
    for server in (BROKER, DATABASE, FILES):
        outages.succeeded(server, part)
