"""Create or upgrade the tables of DIMS in a database."""

from __future__ import annotations

import logging
from typing import Any

from alembic import command
from alembic.config import Config as AlembicConfig
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, Engine, text
from sqlalchemy.event import listen

from dims_worker.errors import DatabaseRefused, DimsError
from dims_worker.store.engine import place_of, transaction
from dims_worker.store.revisions import VERSION_TABLE, describe_revision, known_revisions, scripts_folder

log = logging.getLogger(__name__)

MINIMUM_VERSION = (14,)
"""The oldest PostgreSQL that DIMS supports."""

_LOCK = 0x44494D53  # "DIMS": the advisory lock that lets one process migrate at a time

_UNRELEASED = (
    "has tables from a development version of DIMS before 0.2, which cannot be upgraded. Create an empty database, set "
    "DIMS_DATABASE_URL to it, and run `dims migrate`. If the database is DIMS's own, run `dims down`, move the data "
    "directory (DIMS_HOME, by default `.dims`) away, and run `dims up`."
)


def _config() -> AlembicConfig:
    config = AlembicConfig()
    config.set_main_option("script_location", str(scripts_folder()).replace("%", "%%"))
    return config


def migrate(engine: Engine) -> tuple[str | None, str]:
    """Upgrade to the newest revision. Return the revisions before and after, which may be equal.

    If a migration cannot do something, such as create roles, it logs a warning with the fix.
    Raises DimsError for tables that an unreleased version of DIMS made, and DatabaseRefused, with the fix, if the
    database or its user does not fit.
    """
    config, place = _config(), place_of(engine)
    with transaction(engine) as connection:
        _check_server(connection, place)
        connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _LOCK})
        before = MigrationContext.configure(connection, opts={"version_table": VERSION_TABLE}).get_current_revision()
        if before is None and connection.execute(text("SELECT to_regclass('dims_metrics')")).scalar_one():
            raise DimsError(f"{place} {_UNRELEASED}")
        if before is not None and before not in known_revisions():
            raise DatabaseRefused(f"{place} {describe_revision(before)}")
        if before != head_revision():
            _check_rights(connection, place)
        config.attributes["connection"] = connection
        listen(connection, "after_cursor_execute", _pass_on)
        command.upgrade(config, "head")
    return before, head_revision()


def _check_server(connection: Connection, place: str) -> None:
    """Raise DatabaseRefused for a version of PostgreSQL that is too old. SQLAlchemy already knows the version."""
    version = connection.dialect.server_version_info or MINIMUM_VERSION
    if version < MINIMUM_VERSION:
        raise DatabaseRefused(
            f"{place} runs PostgreSQL {'.'.join(map(str, version))}, and DIMS needs {MINIMUM_VERSION[0]} or later: "
            "upgrade the server, or name another one in DIMS_DATABASE_URL"
        )


def _check_rights(connection: Connection, place: str) -> None:
    """Raise DatabaseRefused if the user may not create or change the tables, or the encoding does not fit."""
    row = connection.execute(
        text(
            "SELECT current_schema() AS schema, current_user AS user, current_setting('server_encoding') AS encoding, "
            "has_schema_privilege(current_schema(), 'CREATE') AS may_create, t.owner, t.is_owner "
            "FROM (SELECT) AS one LEFT JOIN (SELECT pg_get_userbyid(relowner) AS owner, "
            "pg_has_role(relowner, 'USAGE') AS is_owner FROM pg_class "
            "WHERE oid = to_regclass('dims_metrics')) AS t ON true"
        )
    ).one()
    if row.encoding != "UTF8":
        raise DatabaseRefused(
            f"{place} has the encoding {row.encoding}, which cannot store every text: create a database with "
            "CREATE DATABASE dims TEMPLATE template0 ENCODING 'UTF8', and name it in DIMS_DATABASE_URL"
        )
    if row.schema is None:
        raise DatabaseRefused(
            f"{place} has no schema that the search_path of the user {row.user} names. Run as the owner of the "
            f'database: CREATE SCHEMA dims AUTHORIZATION "{row.user}"; ALTER ROLE "{row.user}" SET search_path = dims'
        )
    if row.owner is not None and not row.is_owner:
        raise DatabaseRefused(
            f"{place}: its tables belong to {row.owner}, and the user {row.user} may not change them. "
            f"Run `dims migrate` with DIMS_DATABASE_URL of the user {row.owner}"
        )
    if not row.may_create:
        raise DatabaseRefused(
            f"{place}: the user {row.user} may not create tables in the schema {row.schema}. "
            f'Run as the owner of the database: GRANT CREATE ON SCHEMA "{row.schema}" TO "{row.user}"'
        )


def _pass_on(connection: object, cursor: Any, *_: object) -> None:
    """Log the notices of DIMS's own migrations. SQLAlchemy drops notices right after this."""
    for notice in cursor.connection.notices:
        if "DIMS: " in notice:
            log.warning("%s", notice[notice.index("DIMS: ") :].strip())


def head_revision() -> str:
    """Return the revision that this version of DIMS needs."""
    head = ScriptDirectory.from_config(_config()).get_current_head()
    assert head is not None
    return head
