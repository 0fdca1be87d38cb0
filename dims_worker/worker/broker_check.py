"""Check the broker before a process of this project uses it: it is no cluster, and it belongs to this database."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable
from functools import cache

from redis import Redis
from redis.exceptions import RedisError

from dims_producers.broker_refusal import broker_reason, explains_itself
from dims_producers.publish import connect
from dims_worker.broker.binding import refuse_cluster, require_broker
from dims_worker.broker.outage_log import BROKER, DATABASE, outages
from dims_worker.config import Config
from dims_worker.errors import BrokerUnreachable, ConfigError, DimsError
from dims_worker.store.engine import engine
from dims_worker.store.identity import DatabaseIdentity, database_identity

log = logging.getLogger(__name__)

TIMEOUT = 5.0
PAUSE = 1.0
"""Seconds between two attempts while the broker or the database is unreachable."""
_PART = "the check at start"


def check_broker(config: Config, redis: Redis | None = None) -> None:
    """Check that the broker of the configuration serves its database. Without a database, look for a cluster only.

    Raises WrongBroker, DatabaseUnreachable and what else `transaction` raises, and redis's errors.
    """
    if redis is None:
        with connect(str(config.broker_url), TIMEOUT) as client:
            check_broker(config, client)
    elif config.database_url is None:
        refuse_cluster(redis)
    else:
        require_broker(redis, _identity(config.database_url, os.getpid()))


@cache
def _identity(url: str, pid: int) -> DatabaseIdentity:
    """Return the identity of the database, read once per process: workers reconnect while the database is down."""
    return database_identity(engine(url))


def wait_for_broker(config: Config, may_go_on: Callable[[], object]) -> None:
    """Check the broker, and wait while it or the database is unreachable. `may_go_on` may end the wait by raising.

    Raises WrongBroker.
    """
    while True:
        may_go_on()
        try:
            check_broker(config)
        except ConfigError:
            raise
        except (RedisError, BrokerUnreachable, OSError) as error:
            outages.failed(BROKER, _PART, broker_reason(error), explained=explains_itself(error))
        except DimsError as error:
            outages.failed(DATABASE, _PART, str(error))
        else:
            outages.succeeded(BROKER, _PART)
            outages.succeeded(DATABASE, _PART)
            return
        time.sleep(PAUSE)
