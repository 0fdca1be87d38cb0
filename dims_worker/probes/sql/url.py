"""The URL of a source: its driver, its location, and messages without secrets."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote, quote_plus

from sqlalchemy import URL, Engine, NullPool, create_engine, make_url
from sqlalchemy.exc import ArgumentError, NoSuchModuleError

from dims_worker.config import SqlSource
from dims_worker.errors import MeasureError
from dims_worker.probes.base import Deadline, ScanContext

_CONNECT = 5
"""Seconds to wait for a connection. The minimum of libpq is 2."""

_PACKAGES = {"psycopg2": "psycopg2-binary", "MySQLdb": "mysqlclient", "cx_Oracle": "oracledb"}
_SECRET = re.compile(r"pass|secret|token|key", re.IGNORECASE)
_LIBPQ = ("psycopg2", "psycopg", "psycopg2cffi")


@dataclass(frozen=True)
class DatabaseLocation:
    """Where a database is. `str()` of it contains no user and no password."""

    url: URL = field(repr=False)

    def __str__(self) -> str:
        if self.url.get_backend_name() == "sqlite":
            return f"the database {(self.url.database or ':memory:').removeprefix('file:')}"
        host = self.url.host or "the local socket"
        return f"the database {self.url.database or ''} at {host}{f':{self.url.port}' if self.url.port else ''}"

    def redact(self, message: str) -> str:
        """Return the message of a driver in one line and without the secrets of the URL."""
        values = [value for key, value in self.url.query.items() if _SECRET.search(key)]
        for secret in (self.url.password, *values):
            if isinstance(secret, str) and secret:
                for form in (secret, quote(secret, safe=""), quote_plus(secret)):
                    message = message.replace(form, "***")
        return " ".join(message.split())[:500]


def database_location(source: SqlSource, context: ScanContext) -> DatabaseLocation:
    """Return the location of a source. A relative SQLite file is below the project, and opened read only.

    Raises MeasureError for a missing or invalid URL, and for a SQLite file that does not exist, because SQLite
    would create it.
    """
    written = source.url.get_secret_value().strip()
    if not written:
        raise MeasureError("no database URL: set `url` of the source, or the environment variable that it names")
    try:
        # For SQLAlchemy 2.1 `postgresql://` means psycopg 3. DIMS installs psycopg2
        url = make_url(re.sub(r"^postgres(ql)?://", "postgresql+psycopg2://", written))
    except (ArgumentError, ValueError):
        raise MeasureError("`url` is not a database URL, such as postgresql://USER:PASSWORD@HOST/DATABASE") from None
    name = url.database
    if url.get_backend_name() != "sqlite" or not name or name == ":memory:" or name.startswith("file:"):
        return DatabaseLocation(url)
    file = context.path_of(name)
    if not file.is_file():
        raise MeasureError(f"the database {file} does not exist: check `url`")
    return DatabaseLocation(
        url.set(database=f"file:{quote(str(file))}", query={**url.query, "mode": "ro", "uri": "true"})
    )


def engine_of(place: DatabaseLocation, deadline: Deadline) -> Engine:
    """Create an engine without a pool. Raises MeasureError, with the package, if the driver is missing."""
    driver = place.url.drivername
    try:
        url = place.url
        return create_engine(url, poolclass=NullPool, connect_args=_arguments(url, deadline), hide_parameters=True)
    except NoSuchModuleError:
        raise MeasureError(f"SQLAlchemy has no driver {driver}: install the package that provides it") from None
    except ImportError as error:
        module = (error.name or driver).partition(".")[0]
        raise MeasureError(f"{module} is not installed: pip install {_PACKAGES.get(module, module)}") from None
    except (ArgumentError, TypeError, ValueError) as error:
        raise MeasureError(f"{driver} does not accept `url`: {place.redact(str(error))}") from None


def _arguments(url: URL, deadline: Deadline) -> Mapping[str, Any]:
    seconds = max(2, min(_CONNECT, math.ceil(deadline.left)))
    backend, _, driver = url.drivername.partition("+")
    if backend == "sqlite":
        return {"timeout": min(float(seconds), deadline.left)}
    if driver in _LIBPQ:
        return {
            "connect_timeout": seconds,
            "application_name": "dims",
            # Detect a server that disappeared, instead of waiting for ever
            "keepalives": 1,
            "keepalives_idle": 15,
            "keepalives_interval": 5,
            "keepalives_count": 3,
        }
    return {"connect_timeout": seconds} if driver in ("pymysql", "mysqldb") else {}
