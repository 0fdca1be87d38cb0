"""Query a database: many queries in one snapshot, read only, and never past the deadline."""

from __future__ import annotations

import contextlib
import math
import os
import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, CursorResult, Engine, event, text
from sqlalchemy.exc import DBAPIError

from dims_worker.config import SqlSource
from dims_worker.errors import MeasureError
from dims_worker.probes.base import Deadline, ScanContext
from dims_worker.probes.sql.statement import check_read_only
from dims_worker.probes.sql.url import DatabaseLocation, database_location, engine_of

_PAGE = 1000
"""The number of rows that are fetched at a time."""

_GRACE = 2.0
"""Seconds that PostgreSQL has to stop a query itself before DIMS closes the connection."""

_CANCELLED = "57014"
_BEGIN = {
    "postgresql": (
        "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY",
        "SELECT set_config('TimeZone', 'UTC', true), set_config('cursor_tuple_fraction', '1', true)",
        "SAVEPOINT dims",
    ),
    "sqlite": ("PRAGMA query_only = ON", "BEGIN"),
    "mysql": ("START TRANSACTION WITH CONSISTENT SNAPSHOT, READ ONLY",),
    "mariadb": ("START TRANSACTION WITH CONSISTENT SNAPSHOT, READ ONLY",),
}


@dataclass(frozen=True, slots=True)
class QueryResult:
    """The result of a query: the kept rows, out of `total`."""

    columns: tuple[str, ...]
    rows: tuple[tuple[Any, ...], ...]
    total: int


class SnapshotQuery:
    """Runs queries in one transaction. A query that fails raises MeasureError and does not affect the others.
    What a query sets (`set_config`) is undone after it."""

    def __init__(self, connection: Connection, place: DatabaseLocation, deadline: Deadline) -> None:
        self._connection = connection
        self._place = place
        self._deadline = deadline
        self._postgresql = connection.dialect.name == "postgresql"
        self._lost: str | None = None

    def __call__(self, query: str, keep: int | None = None) -> QueryResult:
        """Return all rows, or the first `keep` and the number of all. Only kept rows are in memory."""
        with self._result(query, stream=keep is not None) as result:
            kept: list[tuple[Any, ...]] = []
            total = 0
            while page := result.fetchmany(_PAGE):
                self._deadline.check()
                total += len(page)
                wanted = len(page) if keep is None else max(keep - len(kept), 0)
                kept.extend(tuple(row) for row in page[:wanted])
            return QueryResult(tuple(result.keys()), tuple(kept), total)

    def first(self, query: str) -> QueryResult:
        """Return the first row. `total` is 0 or 1. Without a stream, PostgreSQL can use parallel plans."""
        with self._result(query, stream=False) as result:
            row = result.fetchone()
            return QueryResult(tuple(result.keys()), () if row is None else (tuple(row),), 0 if row is None else 1)

    @contextlib.contextmanager
    def _result(self, query: str, *, stream: bool) -> Iterator[CursorResult[Any]]:
        check_read_only(query)
        self._deadline.check()
        if self._lost:
            raise MeasureError(self._lost)
        # Without parameters, % and : in the query have no special meaning
        options = {"no_parameters": True, "stream_results": stream, "max_row_buffer": _PAGE}
        try:
            self._bound()
            with contextlib.closing(self._connection.exec_driver_sql(query, execution_options=options)) as result:
                if not result.returns_rows:
                    raise MeasureError("the query returns no rows")
                yield result
        except MeasureError:
            raise
        except Exception as error:  # noqa: BLE001 - drivers also raise other errors, such as ValueError
            raise self._translated(error) from None
        finally:
            self._undo()

    def _bound(self) -> None:
        """Set the time left as the limit of PostgreSQL for the next query."""
        if self._postgresql:
            limit = {"ms": str(math.ceil(self._deadline.left * 1000))}
            self._connection.execute(text("SELECT set_config('statement_timeout', :ms, true)"), limit)

    def _undo(self) -> None:
        if self._postgresql and not self._lost:
            try:
                self._connection.exec_driver_sql("ROLLBACK TO SAVEPOINT dims")
            except DBAPIError as error:
                self._translated(error)
                self._lost = self._lost or f"{self._place} ended the transaction"

    def _translated(self, error: Exception) -> MeasureError:
        message = self._place.redact(_driver_message(error))
        if isinstance(error, DBAPIError) and error.connection_invalidated:
            self._lost = f"lost the connection to {self._place}: {message}"
        try:
            self._deadline.check()
        except MeasureError as over:
            return over
        if self._lost:
            return MeasureError(self._lost)
        if getattr(getattr(error, "orig", None), "pgcode", None) == _CANCELLED:
            return MeasureError(f"{self._place} cancelled the query: {message}")
        return MeasureError(f"the query failed: {message}")


@contextlib.contextmanager
def open_snapshot(source: SqlSource, context: ScanContext, deadline: Deadline) -> Iterator[SnapshotQuery]:
    """Open one connection and one transaction. All its queries see the same data, and nothing is written.

    PostgreSQL uses REPEATABLE READ, READ ONLY, in UTC. SQLite opens the file read only. The transaction is always
    rolled back. Raises MeasureError if the URL or the driver is missing, the database is unreachable or refuses
    the connection, or no time is left.
    """
    deadline.check()
    place = database_location(source, context)
    engine = engine_of(place, deadline)
    with contextlib.ExitStack() as closing:
        closing.callback(engine.dispose)
        watch = closing.enter_context(_watched(engine, deadline))
        try:
            connection = closing.enter_context(engine.connect())
            closing.callback(connection.invalidate)  # no rollback, which would wait for a dead server
            closing.callback(watch.end)
            for statement in _BEGIN.get(connection.dialect.name, ()):
                connection.exec_driver_sql(statement)
        except ImportError as error:  # some dialects import their driver only now
            raise MeasureError(f"{error.name} is not installed: pip install {error.name}") from None
        except Exception as error:  # noqa: BLE001 - naming the errors of a driver needs an import of the driver
            deadline.check()
            raise MeasureError(f"cannot connect to {place}: {place.redact(_driver_message(error))}") from None
        yield SnapshotQuery(connection, place, deadline)


def query_rows(
    source: SqlSource, query: str, context: ScanContext, deadline: Deadline, keep: int | None = None
) -> QueryResult:
    """Run one query in its own snapshot. See `SnapshotQuery.__call__`."""
    with open_snapshot(source, context, deadline) as snapshot:
        return snapshot(query, keep)


def _driver_message(error: Exception) -> str:
    """Return the message of the driver. The text of SQLAlchemy would repeat the query."""
    orig = getattr(error, "orig", None)
    return str(orig if orig is not None else error).strip() or type(error).__name__


class _DeadlineWatch:
    """Closes a connection when the deadline is over, from its own thread."""

    def __init__(self, deadline: Deadline) -> None:
        self._deadline = deadline
        self._timer: threading.Timer | None = None

    def begin(self, raw: Any, grace: float) -> None:
        self._timer = threading.Timer(self._deadline.left + grace, _cut, [raw])
        self._timer.daemon = True
        self._timer.start()

    def end(self) -> None:
        """Stop before the connection is closed. After that, its file descriptor may belong to another one."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer.join()


@contextlib.contextmanager
def _watched(engine: Engine, deadline: Deadline) -> Iterator[_DeadlineWatch]:
    """Watch the connection from its start, because SQLAlchemy already sends queries before it returns it."""
    watch = _DeadlineWatch(deadline)

    @event.listens_for(engine, "do_connect")
    def connect(dialect: Any, _record: Any, arguments: list[Any], named: dict[str, Any]) -> Any:
        raw = dialect.connect(*arguments, **named)
        watch.begin(raw, _GRACE if dialect.name == "postgresql" else 0.0)
        return raw

    try:
        yield watch
    finally:
        watch.end()


def _cut(raw: Any) -> None:
    """Make a driver's call come back that another thread waits in."""
    with contextlib.suppress(Exception):
        if hasattr(raw, "interrupt"):  # SQLite, DuckDB
            raw.interrupt()
        elif hasattr(raw, "fileno"):  # libpq's
            with socket.socket(fileno=os.dup(raw.fileno())) as same:
                same.shutdown(socket.SHUT_RDWR)
        else:
            raw.close()
