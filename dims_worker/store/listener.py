"""Hearing that something happened: one connection that listens, and reads.

A notification carries nothing but the name of a table, and may be lost (to a pooler that knows no LISTEN, to a
connection that broke): who hears one looks for itself, and looks now and then without one.
https://www.postgresql.org/docs/current/sql-notify.html
"""

from __future__ import annotations

import selectors
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psycopg2
from sqlalchemy import Connection, Engine, NullPool, create_engine, text

from dims_worker.errors import DatabaseUnreachable
from dims_worker.store.engine import connect_args

CHANNEL = "dims"
"""The channel that the triggers in `schema/sql/triggers.sql` notify."""
NAME = "dims web"
"""The listener's name in the server's list of connections."""


@contextmanager
def subscribe(engine: Engine) -> Iterator[Connection]:
    """A connection of its own to the same database that hears the bells; idle, so read in transactions of its own."""
    own = create_engine(engine.url, poolclass=NullPool, connect_args=connect_args(NAME))
    try:
        with own.connect() as connection:
            connection.execute(text(f"LISTEN {CHANNEL}"))
            connection.commit()
            yield connection
    finally:
        own.dispose()


def wait_for_notification(connection: Connection, seconds: float, wake: socket.socket) -> bool:
    """Wait for a bell: whether one rang before the time was over, or before somebody wrote to `wake`.

    Raises DatabaseUnreachable where the connection broke.
    """
    raw: Any = connection.connection.dbapi_connection
    if not raw.notifies:  # those that came with the last answers are there already
        with selectors.DefaultSelector() as selector:
            selector.register(raw, selectors.EVENT_READ)
            selector.register(wake, selectors.EVENT_READ)
            selector.select(seconds)
        try:
            raw.poll()
        except psycopg2.Error as error:
            raise DatabaseUnreachable(f"the listening connection broke: {str(error).strip()}") from error
    rang = bool(raw.notifies)
    raw.notifies.clear()
    return rang
