"""Asking a database: many queries of one moment, read only, and never past the deadline."""

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
from dims_worker.probes.sql.statement import check_reads
from dims_worker.probes.sql.url import DatabaseLocation, database_location, engine_of

_PAGE = 1000
"""Rows fetched at a time where not all are kept."""

_GRACE = 2.0
"""Seconds that PostgreSQL has to stop a query by itself, before its connection is cut."""

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
    """What a query gave: the rows that were kept, of `total` in all."""

    columns: tuple[str, ...]
    rows: tuple[tuple[Any, ...], ...]
    total: int


class SnapshotQuery:
    """A transaction that can be asked. A query that fails raises MeasureError and leaves the others alone;
    what a query sets (`set_config`) is undone after it."""

    def __init__(self, connection: Connection, place: DatabaseLocation, deadline: Deadline) -> None:
        self._connection = connection
        self._place = place
        self._deadline = deadline
        self._postgresql = connection.dialect.name == "postgresql"
        self._lost: str | None = None

    def __call__(self, query: str, keep: int | None = None) -> QueryResult:
        """All rows; with `keep` the first so many and the number of all, in memory for those that are kept."""
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
        """The first row alone; `total` is 0 or 1. Unlike a stream, it leaves PostgreSQL its parallel plans."""
        with self._result(query, stream=False) as result:
            row = result.fetchone()
            return QueryResult(tuple(result.keys()), () if row is None else (tuple(row),), 0 if row is None else 1)

    @contextlib.contextmanager
    def _result(self, query: str, *, stream: bool) -> Iterator[CursorResult[Any]]:
        check_reads(query)
        self._deadline.check()
        if self._lost:
            raise MeasureError(self._lost)
        # No parameters: a % in the query is a %, and a : a :
        options = {"no_parameters": True, "stream_results": stream, "max_row_buffer": _PAGE}
        try:
            self._bound()
            with contextlib.closing(self._connection.exec_driver_sql(query, execution_options=options)) as result:
                if not result.returns_rows:
                    raise MeasureError("the query gives no rows")
                yield result
        except MeasureError:
            raise
        except Exception as error:  # noqa: BLE001 - drivers also raise what is no DBAPIError, such as ValueError
            raise self._translated(error) from None
        finally:
            self._undo()

    def _bound(self) -> None:
        """The time left, as PostgreSQL's own limit for the query that follows."""
        if self._postgresql:
            limit = {"ms": str(math.ceil(self._deadline.left * 1000))}
            self._connection.execute(text("SELECT set_config('statement_timeout', :ms, true)"), limit)

    def _undo(self) -> None:
        if self._postgresql and not self._lost:
            try:
                self._connection.exec_driver_sql("ROLLBACK TO SAVEPOINT dims")
            except DBAPIError as error:
                self._translated(error)
                self._lost = self._lost or f"{self._place} gave up the transaction"

    def _translated(self, error: Exception) -> MeasureError:
        said = self._place.clean(_said(error))
        if isinstance(error, DBAPIError) and error.connection_invalidated:
            self._lost = f"{self._place} was lost during the queries: {said}"
        try:
            self._deadline.check()
        except MeasureError as over:
            return over
        if self._lost:
            return MeasureError(self._lost)
        if getattr(getattr(error, "orig", None), "pgcode", None) == _CANCELLED:
            return MeasureError(f"the query was cancelled by {self._place}: {said}")
        return MeasureError(f"the query failed: {said}")


@contextlib.contextmanager
def open_snapshot(source: SqlSource, around: ScanContext, deadline: Deadline) -> Iterator[SnapshotQuery]:
    """One connection and one transaction, whose queries all see one moment; nothing is written.

    On PostgreSQL REPEATABLE READ, READ ONLY, in UTC; on SQLite opened to read; always rolled back. Raises
    MeasureError for no URL, a missing driver, a database that is not reached or refuses, and no time left.
    """
    deadline.check()
    place = database_location(source, around)
    engine = engine_of(place, deadline)
    with contextlib.ExitStack() as closing:
        closing.callback(engine.dispose)
        watch = closing.enter_context(_watched(engine, deadline))
        try:
            connection = closing.enter_context(engine.connect())
            closing.callback(connection.invalidate)  # closed as it is: a rollback would wait for a dead server
            closing.callback(watch.end)
            for statement in _BEGIN.get(connection.dialect.name, ()):
                connection.exec_driver_sql(statement)
        except ImportError as error:  # some dialects look for their driver as late as this
            raise MeasureError(f"{error.name} is not installed: pip install {error.name}") from None
        except Exception as error:  # noqa: BLE001 - what a driver raises could not be named without importing it
            deadline.check()
            raise MeasureError(f"{place} cannot be used: {place.clean(_said(error))}") from None
        yield SnapshotQuery(connection, place, deadline)


def query_rows(
    source: SqlSource, query: str, around: ScanContext, deadline: Deadline, keep: int | None = None
) -> QueryResult:
    """One query in a snapshot of its own; see `Ask.__call__`."""
    with open_snapshot(source, around, deadline) as ask:
        return ask(query, keep)


def first_column(source: SqlSource, query: str, around: ScanContext, deadline: Deadline) -> list[Any]:
    """The first column of all rows of one query, such as expected ids."""
    return [row[0] for row in query_rows(source, query, around, deadline).rows]


def _said(error: Exception) -> str:
    """What the driver said; SQLAlchemy's own text would repeat the query."""
    orig = getattr(error, "orig", None)
    said = str(orig if orig is not None else error).strip()
    return said or type(error).__name__


class _DeadlineWatch:
    """Ends a connection whose deadline is over, from a thread of its own."""

    def __init__(self, deadline: Deadline) -> None:
        self._deadline = deadline
        self._timer: threading.Timer | None = None

    def begin(self, raw: Any, grace: float) -> None:
        self._timer = threading.Timer(self._deadline.left + grace, _cut, [raw])
        self._timer.daemon = True
        self._timer.start()

    def end(self) -> None:
        """Before the connection is closed: its file descriptor may be another's after that."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer.join()


@contextlib.contextmanager
def _watched(engine: Engine, deadline: Deadline) -> Iterator[_DeadlineWatch]:
    """A watch that begins with the connection: SQLAlchemy asks the server questions before it hands it out."""
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
