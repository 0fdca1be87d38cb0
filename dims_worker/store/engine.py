"""SQLAlchemy engines and transactions."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from functools import cache
from typing import Any

from sqlalchemy import Connection, Engine, create_engine, text
from sqlalchemy.engine import make_url
from sqlalchemy.exc import DBAPIError, InterfaceError, InternalError, OperationalError, ProgrammingError

from dims_worker.errors import ConfigError, DatabaseUnreachable, DimsError, NotAllowed


def engine(url: str) -> Engine:
    """Return the engine of a URL. Each process has its own, because a connection must not cross a fork."""
    return _engine(url, os.getpid())


@cache
def _engine(url: str, pid: int) -> Engine:
    return create_engine(url, pool_pre_ping=True, pool_size=5, connect_args=connect_args("dims"))


def connect_args(name: str) -> dict[str, Any]:
    """Return the arguments for libpq. `name` appears in the server's list of connections."""
    return {
        "connect_timeout": 5,
        "application_name": name,
        # Notice a server that is gone while the connection is idle, and while a query waits for its answer
        "keepalives": 1,
        "keepalives_idle": 15,
        "keepalives_interval": 5,
        "keepalives_count": 3,
        "tcp_user_timeout": 30_000,
        # JIT: compiling a query with thousands of index look-ups takes longer than running it
        "options": "-c timezone=UTC -c lock_timeout=30s -c jit=off",
    }


@contextmanager
def transaction(engine: Engine) -> Iterator[Connection]:
    """Run one transaction: commit at the end, roll back on an exception.

    Raises DatabaseUnreachable (with the host, never the password) if the database does not answer, DimsError if
    it lacks the tables of DIMS, and NotAllowed if its user lacks a right.
    """
    try:
        with engine.begin() as connection:
            yield connection
    except (OperationalError, InterfaceError) as error:
        if error.connection_invalidated or getattr(error.orig, "pgcode", None) is None:
            raise DatabaseUnreachable(f"{place_of(engine)}: {str(error.orig).strip()}") from error
        raise
    except InternalError as error:
        if getattr(error.orig, "pgcode", None) == "25006":  # read_only_sql_transaction
            raise NotAllowed(f"{place_of(engine)} is read-only here: {str(error.orig).strip()}") from error
        raise
    except ProgrammingError as error:
        if "invalid dsn" in str(error.orig):
            raise ConfigError("DIMS_DATABASE_URL has an option that libpq does not know") from None
        if getattr(error.orig, "pgcode", None) == "42P01":  # undefined_table
            raise DimsError(f"{place_of(engine)} lacks DIMS's tables: run `dims migrate`") from error
        if getattr(error.orig, "pgcode", None) == "42501":  # insufficient_privilege
            user = engine.url.username
            raise NotAllowed(f"{place_of(engine)}: the user {user} lacks the right to do this") from error
        raise


def is_busy(error: DBAPIError) -> bool:
    """Return whether a transaction failed because of other transactions, so that a retry can succeed."""
    return getattr(error.orig, "pgcode", None) in ("40001", "40P01", "55P03", "57014")


def place_of(engine: Engine) -> str:
    """Return "the database NAME at HOST:PORT", which holds no password."""
    url = make_url(engine.url)
    return f"the database {url.database} at {url.host or 'the local socket'}:{url.port or 5432}"


def clock(connection: Connection) -> datetime:
    """Return the current time of the database, whose clock all hosts share (not the start of the transaction)."""
    now: datetime = connection.execute(text("SELECT clock_timestamp()")).scalar_one()
    return now
