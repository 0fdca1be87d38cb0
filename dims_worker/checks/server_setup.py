"""Check how the servers are set up: their versions, the tables of DIMS, and encryption over a network."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import urlsplit

from alembic.runtime.migration import MigrationContext
from sqlalchemy import Connection, make_url, text
from sqlalchemy.exc import SQLAlchemyError

from dims_producers.broker_url import BrokerAddress
from dims_worker.checks.check import Check
from dims_worker.checks.database import probe_engine
from dims_worker.errors import DimsError
from dims_worker.local.ports import is_loopback
from dims_worker.store.migrations import head_revision
from dims_worker.store.revisions import VERSION_TABLE, known_revisions

OLDEST_POSTGRESQL = 14
OLDEST_REDIS = (6, 2)
VERIFYING = ("verify-ca", "verify-full")


def database_setup_checks(url: str, *, own: bool) -> Iterator[Check]:
    """Yield the checks of the database's version, tables and encryption.

    Without `own`, it is the database of the data directory, which `dims up` migrates. A database that cannot be
    reached yields only what its error says about certificates: another check reports that it is unreachable.
    """
    try:
        with probe_engine(url).connect() as connection:
            yield _postgresql_check(connection)
            yield migrations_check(connection, own=own)
            yield _database_tls_check(url, connection)
    except (SQLAlchemyError, DimsError) as error:
        if "certificate" in str(error).lower():
            fix = "Let `sslrootcert` in DIMS_DATABASE_URL name the certificate of the authority that signed it."
            yield Check("database TLS", "problem", f"the certificate is not accepted: {_first_line(error)}", fix)


def _first_line(error: Exception) -> str:
    return str(getattr(error, "orig", error)).strip().partition("\n")[0]


def _postgresql_check(connection: Connection) -> Check:
    number = int(connection.execute(text("SHOW server_version_num")).scalar_one())
    version = connection.execute(text("SHOW server_version")).scalar_one()
    if number // 10_000 < OLDEST_POSTGRESQL:
        fix = f"Upgrade the server to PostgreSQL {OLDEST_POSTGRESQL} or later."
        return Check("PostgreSQL", "problem", f"version {version} is not supported", fix)
    return Check("PostgreSQL", "ok", f"version {version}")


def migrations_check(connection: Connection, *, own: bool) -> Check:
    """Return whether the tables are those of this version of DIMS."""
    context = MigrationContext.configure(connection, opts={"version_table": VERSION_TABLE})
    current, head = context.get_current_revision(), head_revision()
    migrate = "Run `dims migrate`." if own else "Run `dims up`, which migrates its database."
    if current == head:
        return Check("migrations", "ok", f"the database is at revision {head}")
    if current is None:
        return Check("migrations", "problem", "the database lacks DIMS's tables", migrate)
    if current not in known_revisions():
        fix = "Install the version of DIMS that migrated it, or a later one, on this host."
        return Check("migrations", "problem", f"the database (revision {current}) is newer than this DIMS", fix)
    return Check("migrations", "problem", f"the database is at revision {current}, and DIMS needs {head}", migrate)


def _database_tls_check(url: str, connection: Connection) -> Check:
    parsed = make_url(url)
    host = str(parsed.host or parsed.query.get("host") or "")
    if not host or host.startswith("/") or is_loopback(host):
        return Check("database TLS", "ok", "the connection does not leave this host")
    encrypted = connection.execute(text("SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()")).scalar()
    fix = "Add sslmode=verify-full and sslrootcert=FILE to DIMS_DATABASE_URL."
    if not encrypted:
        return Check("database TLS", "warning", f"the connection to {host} is not encrypted", fix)
    if str(parsed.query.get("sslmode") or "prefer") not in VERIFYING:
        return Check("database TLS", "warning", f"the certificate of {host} is not verified", fix)
    return Check("database TLS", "ok", f"the connection to {host} is encrypted, and its certificate verified")


def broker_setup_checks(url: str, info: Mapping[str, Any] | None) -> Iterator[Check]:
    """Yield the checks of the broker's version and encryption. `info` is its INFO, if it answered."""
    if info:
        yield _broker_version_check(info)
    yield broker_tls_check(url)


def _broker_version_check(info: Mapping[str, Any]) -> Check:
    if valkey := info.get("valkey_version"):
        return Check("broker version", "ok", f"Valkey {valkey}")
    version = str(info.get("redis_version", "unknown"))
    numbers = tuple(int(part) for part in version.split(".")[:2] if part.isdigit())
    oldest = ".".join(map(str, OLDEST_REDIS))
    if len(numbers) == len(OLDEST_REDIS) and numbers < OLDEST_REDIS:
        fix = f"Use Valkey, or Redis {oldest} or later."
        return Check("broker version", "problem", f"Redis {version} is not supported", fix)
    return Check("broker version", "ok", f"Redis {version}")


def broker_tls_check(url: str) -> Check:
    """Return whether the connection to the broker is encrypted where it leaves this host."""
    address = BrokerAddress.of(url)
    host = urlsplit(f"//{address.place}").hostname or ""
    if address.place.startswith("/") or is_loopback(host):
        return Check("broker TLS", "ok", "the connection does not leave this host")
    if address.tls is None:
        fix = "Let DIMS_BROKER_URL begin with rediss:// or valkeys://."
        return Check("broker TLS", "warning", f"the connection to {address.place} is not encrypted", fix)
    if address.tls["ssl_cert_reqs"] != "required" or not address.tls["ssl_check_hostname"]:
        fix = "Remove ssl_cert_reqs and ssl_check_hostname from DIMS_BROKER_URL, and set ssl_ca_certs=FILE if needed."
        return Check("broker TLS", "warning", f"the certificate of {address.place} is not verified", fix)
    return Check("broker TLS", "ok", f"the connection to {address.place} is encrypted, and its certificate verified")
