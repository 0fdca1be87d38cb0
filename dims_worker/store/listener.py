"""Wait for PostgreSQL's notifications on a connection of its own.

A notification carries only the name of a table. It may be lost, by a pooler that does not support LISTEN or a
connection that breaks. The caller queries for what changed, and also queries from time to time without one.
Behind a pooler, nothing is listened for: in transaction mode, a pooler would keep the LISTEN for another client.
https://www.postgresql.org/docs/current/sql-notify.html
"""

from __future__ import annotations

import selectors
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psycopg2
from sqlalchemy import Connection, Engine, NullPool, text

from dims_worker.errors import DatabaseUnreachable
from dims_worker.store.engine import new_engine, translated
from dims_worker.store.sessions import is_pooled

NOTIFY_CHANNEL = "dims"
"""The channel that the triggers in `schema/sql/triggers.sql` notify."""
APPLICATION_NAME = "dims web"
"""The listener's name in the server's list of connections."""


@contextmanager
def subscribe(engine: Engine) -> Iterator[Connection]:
    """Yield a new connection to the same database that listens for notifications, unless a pooler is between them.

    It is not in a transaction.
    """
    listener = new_engine(engine.url, APPLICATION_NAME, poolclass=NullPool)
    try:
        with translated(engine), listener.connect() as connection:
            if not is_pooled(connection):
                connection.execute(text(f"LISTEN {NOTIFY_CHANNEL}"))
                connection.commit()
            yield connection
    finally:
        listener.dispose()


def wait_for_notification(connection: Connection, seconds: float, wake: socket.socket) -> bool:
    """Wait for a notification, for at most `seconds` or until `wake` is readable. Return whether one came.

    Raises DatabaseUnreachable if the connection broke.
    """
    raw: Any = connection.connection.dbapi_connection
    if not raw.notifies:  # some may have come with the answer to the last query
        with selectors.DefaultSelector() as selector:
            selector.register(raw, selectors.EVENT_READ)
            selector.register(wake, selectors.EVENT_READ)
            selector.select(seconds)
        try:
            raw.poll()
        except psycopg2.Error as error:
            raise DatabaseUnreachable(f"the listening connection broke: {str(error).strip()}") from error
    notified = bool(raw.notifies)
    raw.notifies.clear()
    return notified
