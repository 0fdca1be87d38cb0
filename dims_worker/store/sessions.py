"""Give every session and every transaction of DIMS its settings, also behind a connection pooler.

PgBouncer refuses settings in the startup message. In transaction mode, it also runs each transaction of a client in any
of its server sessions, so a `SET` does not last and would change the sessions of other clients. So DIMS finds out
whether it has a session of its own:

- If it has one, DIMS changes the settings once, with the query that finds it out.
- Behind a pooler, DIMS sends `SET LOCAL` in the same message as the first statement of each transaction.

Neither needs a round trip for each transaction.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from psycopg2 import extensions
from sqlalchemy import Connection, Engine, event

_POOLED = "dims_pooled"


@dataclass(frozen=True, slots=True)
class SessionSettings:
    """Settings of PostgreSQL for the sessions of DIMS. Times are in seconds."""

    lock_timeout: float = 30.0
    pause: float = 60.0
    """How long a transaction may wait for its client. After that, the server rolls it back and frees its locks. The
    client may be stopped, or its host may have lost power."""
    unreachable: int = 30
    """How long a client may be unreachable on the network before the server ends its session."""

    def of_transactions(self) -> dict[str, str]:
        """Return the settings that a transaction needs, by name."""
        return {
            "timezone": "UTC",
            "lock_timeout": f"{self.lock_timeout * 1000:.0f}",
            "idle_in_transaction_session_timeout": f"{self.pause * 1000:.0f}",
            # JIT: compiling a query with thousands of index look-ups takes longer than running it
            "jit": "off",
        }

    def of_sessions(self) -> dict[str, str]:
        """Return the settings of a session that no other client uses, by name.

        Those of TCP make the server notice a host that is gone: the defaults of Linux take more than two hours.
        """
        return self.of_transactions() | {
            "tcp_keepalives_idle": f"{self.unreachable // 2}",
            "tcp_keepalives_interval": f"{max(1, self.unreachable // 6)}",
            "tcp_keepalives_count": "3",
            "tcp_user_timeout": f"{self.unreachable * 1000}",
            "client_connection_check_interval": "10000",
        }


SETTINGS = SessionSettings()


def prepare_sessions(engine: Engine, settings: SessionSettings) -> None:
    """Apply the settings to every connection that the engine will make."""

    @event.listens_for(engine, "connect")
    def connected(raw: Any, record: Any) -> None:
        pooled = not _set_for_session(raw, settings)
        record.info[_POOLED] = pooled
        if pooled:
            raw.cursor_factory = _pooled_cursor(settings)


def allow_pauses(connection: Connection) -> None:
    """Let this transaction wait for its client as long as it likes. Use it where no row is locked."""
    connection.exec_driver_sql("SET LOCAL idle_in_transaction_session_timeout = 0")


def is_pooled(connection: Connection) -> bool:
    """Return whether a pooler is between this connection of `prepare_sessions` and the server."""
    return bool(connection.info.get(_POOLED))


def _set_for_session(raw: Any, settings: SessionSettings) -> bool:
    """Change the settings of the session, or return False without a change if it belongs to a pooler.

    A pooler invents the process number that it sends to its clients, so it differs from the one of the server.
    """
    raw.autocommit = True
    try:
        with raw.cursor() as cursor:
            cursor.execute(
                "SELECT set_config(name, setting, false) FROM unnest(%s, %s) AS s(name, setting) "
                "WHERE pg_backend_pid() = %s "
                # Other systems refuse it
                "AND (name <> 'client_connection_check_interval' OR version() LIKE '%%linux%%')",
                [list(settings.of_sessions()), list(settings.of_sessions().values()), raw.info.backend_pid],
            )
            return bool(cursor.rowcount)
    finally:
        raw.autocommit = False


def _pooled_cursor(settings: SessionSettings) -> type[extensions.cursor]:
    """Return a cursor that sends the settings with the first statement of each transaction."""
    prefix = "".join(f"SET LOCAL {name} = '{value}'; " for name, value in settings.of_transactions().items())

    class PooledCursor(extensions.cursor):
        """Sends `SET LOCAL` before the first statement of a transaction, in the same message if it can."""

        def execute(self, query: Any, vars: Any = None) -> None:
            if self.connection.status != extensions.STATUS_READY or self.connection.autocommit:
                super().execute(query, vars)
            elif isinstance(query, str) and self.name is None:
                super().execute(prefix + query, vars)
            else:  # the statement of a named cursor begins with DECLARE
                with self.connection.cursor(cursor_factory=extensions.cursor) as cursor:
                    cursor.execute(prefix)
                super().execute(query, vars)

    return PooledCursor
