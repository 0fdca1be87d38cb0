"""Query a database: many queries in one snapshot, read only, and never past the deadline."""

from __future__ import annotations

import contextlib
import math
import os
import socket
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from sqlalchemy import Connection, CursorResult, Engine, event, text
from sqlalchemy.exc import DBAPIError

from dims_worker.config import SqlSource
from dims_worker.errors import MeasureError
from dims_worker.probes.base import Deadline, ScanContext
from dims_worker.probes.sql import bounded
from dims_worker.probes.sql.replaced_tables import REPLACED_TABLES
from dims_worker.probes.sql.statement import as_subquery, check_read_only
from dims_worker.probes.sql.url import DatabaseLocation, database_location, engine_of
from dims_worker.probes.sql.values import name_text

_PAGE = 1000
"""The number of rows that are fetched at a time."""

_GRACE = 2.0
"""Seconds that PostgreSQL has to stop a query itself before DIMS closes the connection."""

_CANCELLED = "57014"
_LOCKED = "55P03"
_LOCK_SHARE = 0.9
"""The part of its time that a query may wait for a lock, so that the error names the lock."""

_LIMITS = (
    "SELECT pg_catalog.set_config('statement_timeout', :statement, true), "
    "pg_catalog.set_config('lock_timeout', :lock, true)"
)
_BEGIN = {
    "postgresql": (
        "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY",
        "SELECT set_config('TimeZone', 'UTC', true), set_config('DateStyle', 'ISO', true), "
        "set_config('extra_float_digits', '3', true), set_config('cursor_tuple_fraction', '1', true)",
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


class QueryTookTooLong(MeasureError):
    """A query took longer than its share of the time. The queries after it have their own."""


class TablesReplaced(MeasureError):
    """Tables of a query were replaced after the snapshot was taken, so the query may have seen none of their rows."""


class SnapshotQuery:
    """Runs queries in one transaction. A query that fails raises MeasureError and does not affect the others.
    What a query sets (`set_config`) is undone after it.

    On PostgreSQL, a query whose tables others replaced meanwhile raises TablesReplaced. See `replaced_tables`.
    """

    def __init__(self, connection: Connection, place: DatabaseLocation, deadline: Deadline) -> None:
        self._connection = connection
        self._place = place
        self._deadline = deadline
        self._postgresql = connection.dialect.name == "postgresql"
        self._lost: str | None = None

    def __call__(self, query: str, keep: int | None = None, limit: Deadline | None = None) -> QueryResult:
        """Return all rows, or the first `keep` and the number of all. Only kept rows are in memory.

        `limit` is the query's own share of the time.
        """
        check_read_only(query)
        return self._rows(query, keep, limit or self._deadline)

    def names(self, query: str, keep: int, limit: Deadline | None = None) -> QueryResult:
        """Return the first column of the first `keep` rows as text, each cut at 1,000 characters, and the number of all
        rows."""
        limit = limit or self._deadline
        inner = self._subquery(query)
        if inner is None:
            result = self._rows(query, keep, limit)
            return replace(result, rows=tuple((name_text(row[0]),) for row in result.rows))
        with self._guarded(limit):
            described = self._columns(inner)
            result = self._fetch(bounded.names(inner, described), keep, limit)
        return replace(result, rows=tuple((bounded.name_of(row),) for row in result.rows))

    def first(self, query: str, limit: Deadline | None = None) -> QueryResult:
        """Return the first row, and a `total` of 0, 1, or 2 for more than one row.

        On PostgreSQL, the server keeps back a value that is too long. A cell that cannot be a measurement is a
        MeasureError with the reason. Without a stream, PostgreSQL can use parallel plans.
        """
        inner = self._subquery(query)
        with self._guarded(limit or self._deadline):
            if inner is None:
                with self._run(query) as result:
                    names, rows = tuple(result.keys()), [tuple(row) for row in result.fetchmany(2)]
            else:
                described = self._columns(inner)
                names = tuple(column.name for column in described)
                with self._run(bounded.values(inner, described)) as result:
                    rows = [tuple(bounded.cells(row)) for row in result]
        return QueryResult(names, tuple(rows[:1]), len(rows))

    def _subquery(self, query: str) -> str | None:
        """Return the query as it can be in FROM, on PostgreSQL. Raises MeasureError for a query that does not read."""
        check_read_only(query)
        return as_subquery(query) if self._postgresql else None

    def _columns(self, inner: str) -> Sequence[bounded.ServerColumn]:
        with self._run(bounded.description(inner)) as result:
            return bounded.columns(result.cursor.description)

    def _rows(self, query: str, keep: int | None, limit: Deadline) -> QueryResult:
        with self._guarded(limit):
            return self._fetch(query, keep, limit)

    def _fetch(self, query: str, keep: int | None, limit: Deadline) -> QueryResult:
        """Return all rows, or the first `keep`, from a stream, and the number of all."""
        with self._run(query, stream=keep is not None) as result:
            kept: list[tuple[Any, ...]] = []
            total = 0
            while page := result.fetchmany(_PAGE):
                self._check_time(limit)
                total += len(page)
                wanted = len(page) if keep is None else max(keep - len(kept), 0)
                kept.extend(tuple(row) for row in page[:wanted])
            return QueryResult(tuple(result.keys()), tuple(kept), total)

    @contextlib.contextmanager
    def _run(self, query: str, *, stream: bool = False) -> Iterator[CursorResult[Any]]:
        # Without parameters, % and : in the query have no special meaning
        options = {"no_parameters": True, "stream_results": stream, "max_row_buffer": _PAGE}
        with contextlib.closing(self._connection.exec_driver_sql(query, execution_options=options)) as result:
            if not result.returns_rows:
                raise MeasureError("the query returns no rows")
            yield result

    @contextlib.contextmanager
    def _guarded(self, limit: Deadline) -> Iterator[None]:
        """Run one query of a metric: within its limit, with clear errors, and without an effect on the next one."""
        self._check_time(limit)
        if self._lost:
            raise MeasureError(self._lost)
        try:
            with self._bounded(limit):
                yield
                self._check_tables()
        except MeasureError:
            raise
        except Exception as error:  # noqa: BLE001 - drivers also raise other errors, such as ValueError
            raise self._translated(error, limit) from None
        finally:
            self._undo()

    def _check_tables(self) -> None:
        """Raise TablesReplaced if the query read tables that others replaced after the snapshot was taken."""
        if self._postgresql and (replaced := list(self._connection.exec_driver_sql(REPLACED_TABLES).scalars())):
            raise TablesReplaced(
                f"{', '.join(replaced)} changed while DIMS measured, in a way that hides rows from a query that has "
                "begun (TRUNCATE, ALTER TABLE, DROP, an exchange of names or partitions). Measure again after the load"
            )

    def _check_time(self, limit: Deadline) -> None:
        self._deadline.check()
        if limit.over:
            raise self._too_long(limit)

    def _too_long(self, limit: Deadline) -> QueryTookTooLong:
        whole = self._deadline.timeout.total_seconds()
        return QueryTookTooLong(
            f"the query took longer than its share of the time, {limit.timeout.total_seconds():.3g} s of {whole:g} s. "
            "Make it faster, or raise `timeout` of the source"
        )

    @contextlib.contextmanager
    def _bounded(self, limit: Deadline) -> Iterator[None]:
        """Limit the next query to its share of the time: by the server, or by an interrupt of SQLite."""
        raw = self._connection.connection.dbapi_connection
        if self._postgresql:
            share = limit.left * 1000
            limits = {"statement": str(math.ceil(share)), "lock": str(math.ceil(share * _LOCK_SHARE))}
            self._connection.execute(text(_LIMITS), limits)
            yield
        elif raw is not None and hasattr(raw, "interrupt"):
            timer = threading.Timer(limit.left, raw.interrupt)
            timer.daemon = True
            timer.start()
            try:
                yield
            finally:
                timer.cancel()
                timer.join()
        else:
            yield

    def _undo(self) -> None:
        if self._postgresql and not self._lost:
            try:
                self._connection.exec_driver_sql("ROLLBACK TO SAVEPOINT dims")
            except DBAPIError as error:
                self._translated(error, self._deadline)
                self._lost = self._lost or f"{self._place} ended the transaction"

    def _translated(self, error: Exception, limit: Deadline) -> MeasureError:
        message = self._place.redact(_driver_message(error))
        if isinstance(error, DBAPIError) and error.connection_invalidated:
            self._lost = f"lost the connection to {self._place}: {message}"
        try:
            self._deadline.check()
        except MeasureError as over:
            return over
        if self._lost:
            return MeasureError(self._lost)
        orig = getattr(error, "orig", None)
        code = getattr(orig, "pgcode", None) or getattr(orig, "sqlstate", None)  # psycopg2, psycopg 3
        if code == _LOCKED:
            return QueryTookTooLong(
                "the query waited for a table that another session has locked, for example with TRUNCATE or ALTER "
                "TABLE. Measure again when that session has ended"
            )
        if limit.over:
            return self._too_long(limit)
        if code == _CANCELLED:
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
    """Run one query in its own snapshot, and in a second one if its tables were replaced meanwhile.

    See `SnapshotQuery.__call__`.
    """
    try:
        with open_snapshot(source, context, deadline) as snapshot:
            return snapshot(query, keep)
    except TablesReplaced:
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
