"""Describe why PostgreSQL, or a pooler in front of it, refuses to work: one sentence with the fix.

https://www.postgresql.org/docs/current/errcodes-appendix.html
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from sqlalchemy.exc import DBAPIError

from dims_worker.errors import (
    ConfigError,
    DatabaseBusy,
    DatabaseForbidden,
    DatabaseRefused,
    DatabaseUnreachable,
    DimsError,
)

_VARIABLE = "DIMS_DATABASE_URL"
_CONNECTIONS = (
    "Close connections that you do not need, raise the limit, or put PgBouncer in front of the database. "
    "DIMS needs up to 15 connections for each process"
)
_WAIT = "DIMS tries again. If this lasts, read the log of the server"

_BUSY = {
    "40001": "Try again",
    "40P01": "Try again",
    "55P03": "Another session holds a lock. Try again, or find the session in the view pg_stat_activity",
    "57014": "statement_timeout is over, or an administrator cancelled the query. Try again, or raise the limit",
    "25P03": "The transaction paused for longer than idle_in_transaction_session_timeout. Try again",
    "25P04": "The transaction took longer than transaction_timeout. Try again, or raise the limit",
}
"""SQLSTATEs of a transaction that can succeed if it is tried again."""

_REFUSED = {
    "53": "The server has too few resources: read its log",
    "53100": "Free space on the disk of the server, or move its data to a larger one",
    "53200": "The server has too little memory: give it more, or lower its work_mem",
    "53300": _CONNECTIONS,
    "53400": "Raise the limit in the configuration of the server",
    "57P01": _WAIT,
    "57P02": _WAIT,
    "57P03": _WAIT,
    "57P04": f"Create it again, or name another one in {_VARIABLE}",
    "57P05": "Set idle_session_timeout to 0 for the user of DIMS",
    "58": "The server cannot use one of its files: read its log",
    "XX": "This is a fault in the server or in its data: read its log",
    "08": "Check that the server runs",
    "28": f"Check the user and the password in {_VARIABLE}",
    "3D000": f"Create it, or correct its name in {_VARIABLE}",
    "0A000": "DIMS needs PostgreSQL 14 or later",
}
"""The fix by SQLSTATE, or by its class."""

_AT_CONNECTION: Sequence[tuple[str, str]] = (
    # psycopg2 has no SQLSTATE for an attempt to connect. These are the English messages of PostgreSQL and PgBouncer
    ("too many clients|too many connections|remaining connection slots|no more connections|sorry, too", _CONNECTIONS),
    ("password authentication failed|no password supplied|SASL auth|wrong password", _REFUSED["28"]),
    ('role "[^"]*" does not exist|no such user', f"Create the user, or correct its name in {_VARIABLE}"),
    ('role "[^"]*" is not permitted to log in', 'Run as an administrator: ALTER ROLE "{user}" LOGIN'),
    ('permission denied for database|"?CONNECT"? privilege', 'Run: GRANT CONNECT ON DATABASE "{database}" TO "{user}"'),
    ('database "[^"]*" does not exist|no such database', f"Create it, or correct its name in {_VARIABLE}"),
    ("is not currently accepting connections", 'Run: ALTER DATABASE "{database}" ALLOW_CONNECTIONS true'),
    ("session is read-only|session is not read-only|server is in hot standby", "Name the primary server"),
    ("SSL is required|SSL required$|no encryption|SSL off|requires SSL", f"Add ?sslmode=verify-full to {_VARIABLE}"),
    ("server does not support SSL", f"Turn SSL on at the server, or remove sslmode from {_VARIABLE}"),
    ("root certificate file|certificate verify failed|certificate has expired", "See docs/security.md, section TLS"),
    ("no pg_hba.conf entry|pg_hba.conf rejects", "Add a line for this host and user to pg_hba.conf of the server"),
    ("shutting down|starting up|recovery mode|not yet accepting connections|reset-only", _WAIT),
    ("server login has been failing|query_wait_timeout|cannot connect to server", "Read the log of PgBouncer"),
    ("could not translate host name|Name or service not known", f"Correct the host in {_VARIABLE}"),
    ("No space left on device", _REFUSED["53100"]),
)
_UNREACHABLE = f"Start the server, or correct {_VARIABLE}"
SCHEMA_CODES = ("42P01", "42703", "42883", "42704", "42P10", "3F000", "42804")
"""SQLSTATEs of a statement that does not fit the tables, for example because they are of another version."""


def sqlstate_of(error: DBAPIError) -> str | None:
    code: str | None = getattr(error.orig, "pgcode", None)
    return code


def translate(error: DBAPIError, place: str, user: str | None, database: str | None) -> DimsError | None:
    """Return the error to raise instead, or None for an error that is about the data or the statement."""
    message, code = _one_line(error.orig), sqlstate_of(error)
    names = {"user": user or "USER", "database": database or "NAME"}
    names = {kind: name.replace('"', '""') for kind, name in names.items()}  # as an identifier in quotes
    if "invalid dsn" in message or "invalid connection option" in message:
        return ConfigError(f"{_VARIABLE} has an option that libpq does not know")
    if code is None or code == "08P01":
        return _without_code(error, place, message, names)
    if code in _BUSY:
        return DatabaseBusy(f"{place}: {_end(message)} {_BUSY[code]}.")
    if code == "25006":
        return DatabaseForbidden(
            f"{place} is read-only here: {_end(message)} Name the primary server in {_VARIABLE}, "
            f'or run: ALTER DATABASE "{names["database"]}" RESET default_transaction_read_only'
        )
    if code == "42501":
        return DatabaseForbidden(
            f"{place}: the user {user} lacks the right to do this: {_end(message)} {_grant(names)}"
        )
    fix = _REFUSED.get(code) or _REFUSED.get(code[:2])
    return DatabaseRefused(f"{place}: {_end(message)} {fix}.") if fix else None


def _without_code(error: DBAPIError, place: str, message: str, names: dict[str, str]) -> DimsError | None:
    for pattern, fix in _AT_CONNECTION:
        if re.search(pattern, message, re.IGNORECASE):
            return DatabaseRefused(f"{place}: {_end(message)} {fix.format(**names)}.")
    lost = error.connection_invalidated or type(error).__name__ in ("OperationalError", "InterfaceError")
    return DatabaseUnreachable(f"{place}: {_end(message)} {_UNREACHABLE}.") if lost else None


def _grant(names: dict[str, str]) -> str:
    return f'Run as the owner of the tables: GRANT dims_app TO "{names["user"]}", or name another user in {_VARIABLE}.'


def _one_line(orig: Any) -> str:
    """Return the message of the driver in one line, without its own guesses and the position in the statement."""
    hints = r"\nLINE \d+:|\nHINT:|\nDETAIL:|\nCONTEXT:|\n\s+This probably means|\n\s+Is the server running"
    message = re.split(hints, str(orig))[0]
    return " ".join(message.split())


def _end(message: str) -> str:
    return message if message.endswith((".", "!", "?")) else f"{message}."
