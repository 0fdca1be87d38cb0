"""A source's URL: which driver, which place, and nothing secret in a message."""

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
"""Seconds to wait for a connection; libpq takes less than 2 for 2."""

_PACKAGES = {"psycopg2": "psycopg2-binary", "MySQLdb": "mysqlclient", "cx_Oracle": "oracledb"}
_SECRET = re.compile(r"pass|secret|token|key", re.IGNORECASE)
_LIBPQ = ("psycopg2", "psycopg", "psycopg2cffi")


@dataclass(frozen=True)
class DatabaseLocation:
    """Where a database is. `str()` of it names no user and no password."""

    url: URL = field(repr=False)

    def __str__(self) -> str:
        if self.url.get_backend_name() == "sqlite":
            return f"the database {(self.url.database or ':memory:').removeprefix('file:')}"
        host = self.url.host or "the local socket"
        return f"the database {self.url.database or ''} at {host}{f':{self.url.port}' if self.url.port else ''}"

    def clean(self, said: str) -> str:
        """What a driver said, in one line and without the URL's secrets."""
        values = [value for key, value in self.url.query.items() if _SECRET.search(key)]
        for secret in (self.url.password, *values):
            if isinstance(secret, str) and secret:
                for form in (secret, quote(secret, safe=""), quote_plus(secret)):
                    said = said.replace(form, "***")
        return " ".join(said.split())[:500]


def database_location(source: SqlSource, around: ScanContext) -> DatabaseLocation:
    """The place a source names; a relative SQLite file is below the project's folder, and opened to read.

    Raises MeasureError for no URL, for what is none, and for a SQLite file that is not there: SQLite would make it.
    """
    written = source.url.get_secret_value().strip()
    if not written:
        raise MeasureError("no url: set `url` of this source, or the environment variable that it is taken from")
    try:
        # SQLAlchemy 2.1 takes a bare `postgresql://` for psycopg 3; people mean the driver that is installed
        url = make_url(re.sub(r"^postgres(ql)?://", "postgresql+psycopg2://", written))
    except (ArgumentError, ValueError):
        raise MeasureError("`url` is no database URL, such as postgresql://USER:PASSWORD@HOST/DATABASE") from None
    name = url.database
    if url.get_backend_name() != "sqlite" or not name or name == ":memory:" or name.startswith("file:"):
        return DatabaseLocation(url)
    file = around.path_of(name)
    if not file.is_file():
        raise MeasureError(f"the database {file} does not exist")
    return DatabaseLocation(
        url.set(database=f"file:{quote(str(file))}", query={**url.query, "mode": "ro", "uri": "true"})
    )


def engine_of(place: DatabaseLocation, deadline: Deadline) -> Engine:
    """An engine that keeps no connection. Raises MeasureError, with the package, where the driver is missing."""
    driver = place.url.drivername
    try:
        url = place.url
        return create_engine(url, poolclass=NullPool, connect_args=_arguments(url, deadline), hide_parameters=True)
    except NoSuchModuleError:
        raise MeasureError(f"SQLAlchemy knows no {driver}: install the package that brings it") from None
    except ImportError as error:
        module = (error.name or driver).partition(".")[0]
        raise MeasureError(f"{module} is not installed: pip install {_PACKAGES.get(module, module)}") from None
    except (ArgumentError, TypeError, ValueError) as error:
        raise MeasureError(f"`url` is not one that {driver} takes: {place.clean(str(error))}") from None


def _arguments(url: URL, deadline: Deadline) -> Mapping[str, Any]:
    seconds = max(2, min(_CONNECT, math.ceil(deadline.left)))
    backend, _, driver = url.drivername.partition("+")
    if backend == "sqlite":
        return {"timeout": min(float(seconds), deadline.left)}
    if driver in _LIBPQ:
        return {
            "connect_timeout": seconds,
            "application_name": "dims",
            # A server that vanished without a word is noticed, instead of waited for without end
            **{"keepalives": 1, "keepalives_idle": 15, "keepalives_interval": 5, "keepalives_count": 3},
        }
    return {"connect_timeout": seconds} if driver in ("pymysql", "mysqldb") else {}
