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
from sqlalchemy.exc import DBAPIError

from dims_worker.errors import DatabaseRefused
from dims_worker.numbers import loads
from dims_worker.store.bulk import dumps
from dims_worker.store.refusals import SCHEMA_CODES, sqlstate_of, translate
from dims_worker.store.revisions import revision_problem
from dims_worker.store.sessions import SETTINGS, SessionSettings, prepare_sessions


def engine(url: str) -> Engine:
    """Return the engine of a URL. Each process has its own, because a connection must not cross a fork."""
    return _engine(url, os.getpid())


@cache
def _engine(url: str, pid: int) -> Engine:
    return new_engine(url, "dims", pool_size=5)


def new_engine(url: Any, name: str, *, settings: SessionSettings = SETTINGS, **options: Any) -> Engine:
    """Return a new engine whose sessions have the settings of DIMS, also behind a pooler such as PgBouncer.

    `name` appears in the server's list of connections. `options` are for `create_engine`.
    """
    # DIMS does not use hstore, and looking for it would cost a round trip for each connection
    created = create_engine(
        url,
        pool_pre_ping=True,
        use_native_hstore=False,
        connect_args=connect_args(name),
        json_serializer=dumps,
        json_deserializer=loads,
        **options,
    )
    prepare_sessions(created, settings)
    return created


def connect_args(name: str) -> dict[str, Any]:
    """Return the arguments for libpq. `name` appears in the server's list of connections.

    PgBouncer refuses the argument `options`, so `prepare_sessions` changes the settings of the server instead.
    """
    return {
        "connect_timeout": 5,
        "application_name": name,
        # Notice a server that is gone while the connection is idle, and while a query waits for its answer
        "keepalives": 1,
        "keepalives_idle": 5,
        "keepalives_interval": 2,
        "keepalives_count": 3,
        "tcp_user_timeout": 10_000,
    }


@contextmanager
def transaction(engine: Engine) -> Iterator[Connection]:
    """Run one transaction: commit at the end, roll back on an exception.

    Raises DatabaseUnreachable if the database does not answer, DatabaseRefused if it answers but cannot be used, and
    DatabaseBusy if a retry can succeed. Each has one sentence with the place, never the password, and the fix. An error
    about the data or the statement is raised as the DBAPIError that it is.
    """
    with translated(engine), engine.begin() as connection:
        yield connection


@contextmanager
def translated(engine: Engine) -> Iterator[None]:
    """Raise the errors of the block as `transaction` does."""
    try:
        yield
    except DBAPIError as error:
        url = make_url(engine.url)
        refusal = translate(error, place_of(engine), url.username, url.database)
        if refusal is None and sqlstate_of(error) in SCHEMA_CODES:
            refusal = _schema_refusal(engine)
        if refusal is None:
            raise
        raise refusal from error


def check_schema(engine: Engine) -> None:
    """Raise DatabaseRefused if the tables are missing, or of an older or a newer version of DIMS."""
    if refusal := _schema_refusal(engine):
        raise refusal


def _schema_refusal(engine: Engine) -> DatabaseRefused | None:
    try:
        with transaction(engine) as connection:
            problem = revision_problem(connection)
    except DatabaseRefused as error:
        if isinstance(error.__cause__, DBAPIError) and sqlstate_of(error.__cause__) == "42501":
            return None  # a user who may not read the revision can still have every right that a query needs
        raise
    return DatabaseRefused(f"{place_of(engine)} {problem}") if problem else None


def place_of(engine: Engine) -> str:
    """Return "the database NAME at HOST:PORT", which holds no password."""
    url = make_url(engine.url)
    return f"the database {url.database} at {url.host or 'the local socket'}:{url.port or 5432}"


def clock(connection: Connection) -> datetime:
    """Return the current time of the database, whose clock all hosts share (not the start of the transaction)."""
    now: datetime = connection.execute(text("SELECT clock_timestamp()")).scalar_one()
    return now
