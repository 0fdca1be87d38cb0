"""Engines and transactions."""

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
    """The engine of a URL, one a process: a connection must not cross a fork."""
    return _engine(url, os.getpid())


@cache
def _engine(url: str, pid: int) -> Engine:
    return create_engine(url, pool_pre_ping=True, pool_size=5, connect_args=connect_args("dims"))


def connect_args(name: str) -> dict[str, Any]:
    """How we connect; `name` is what the server's list of connections says of it."""
    return {
        "connect_timeout": 5,
        "application_name": name,
        # A server that vanished without a word is noticed, instead of waited for without end
        **{"keepalives": 1, "keepalives_idle": 15, "keepalives_interval": 5, "keepalives_count": 3},
        "tcp_user_timeout": 30_000,  # and so while a query is under way, for which TCP would try 15 minutes
        # To compile a query of thousands of look-ups in an index takes longer than to answer it
        "options": "-c timezone=UTC -c lock_timeout=30s -c jit=off",
    }


@contextmanager
def transaction(engine: Engine) -> Iterator[Connection]:
    """One transaction: committed at the end, rolled back by an exception.

    Raises DatabaseUnreachable, which names the host and never the password, where there is no database,
    DimsError with the remedy where it lacks our tables, and NotAllowed where its user may only look.
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
            raise NotAllowed(f"{place_of(engine)} can only be read from here: {str(error.orig).strip()}") from error
        raise
    except ProgrammingError as error:
        if "invalid dsn" in str(error.orig):
            raise ConfigError("DIMS_DATABASE_URL has an option that libpq does not know") from None
        if getattr(error.orig, "pgcode", None) == "42P01":  # undefined_table
            raise DimsError(f"{place_of(engine)} lacks DIMS's tables: run `dims migrate`") from error
        if getattr(error.orig, "pgcode", None) == "42501":  # insufficient_privilege
            user = engine.url.username
            raise NotAllowed(f"{place_of(engine)}: its user {user} may not do this, only look") from error
        raise


def is_busy(error: DBAPIError) -> bool:
    """Whether others hold what a transaction needs, and it may do when it is tried again."""
    return getattr(error.orig, "pgcode", None) in ("40001", "40P01", "55P03", "57014")


def place_of(engine: Engine) -> str:
    """Return "the database NAME at HOST:PORT", which holds no password."""
    url = make_url(engine.url)
    return f"the database {url.database} at {url.host or 'the local socket'}:{url.port or 5432}"


def clock(connection: Connection) -> datetime:
    """The database's clock, now and not at the transaction's start: all hosts share it."""
    now: datetime = connection.execute(text("SELECT clock_timestamp()")).scalar_one()
    return now
