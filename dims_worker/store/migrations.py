"""Create or upgrade the tables of DIMS in a database."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from alembic import command
from alembic.config import Config as AlembicConfig
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Engine, text
from sqlalchemy.event import listen

from dims_worker.errors import DimsError
from dims_worker.store.engine import place_of, transaction

log = logging.getLogger(__name__)

VERSION_TABLE = "dims_alembic_version"
"""Not Alembic's default, which another application in the same database may use."""

_LOCK = 0x44494D53  # "DIMS": the advisory lock that lets one process migrate at a time

_UNRELEASED = (
    "has tables from a development version of DIMS before 0.2, which cannot be upgraded. Create an empty database, set "
    "DIMS_DATABASE_URL to it, and run `dims migrate`. If the database is DIMS's own, run `dims down`, move the data "
    "directory (DIMS_HOME, by default `.dims`) away, and run `dims up`."
)


def _scripts() -> str:
    """Return the path of `schema/`: inside an installed package, or beside it in a checkout."""
    package = Path(__file__).parents[1]
    return str(next(place for place in (package / "schema", package.parent / "schema") if place.is_dir()))


def _config() -> AlembicConfig:
    config = AlembicConfig()
    config.set_main_option("script_location", _scripts().replace("%", "%%"))
    return config


def migrate(engine: Engine) -> tuple[str | None, str]:
    """Upgrade to the newest revision. Return the revisions before and after, which may be equal.

    If a migration cannot do something, such as create roles, it logs a warning with the fix.
    Raises DimsError for tables that an unreleased version of DIMS made.
    """
    config = _config()
    with transaction(engine) as connection:
        connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _LOCK})
        before = MigrationContext.configure(connection, opts={"version_table": VERSION_TABLE}).get_current_revision()
        if before is None and connection.execute(text("SELECT to_regclass('dims_metrics')")).scalar_one():
            raise DimsError(f"{place_of(engine)} {_UNRELEASED}")
        config.attributes["connection"] = connection
        listen(connection, "after_cursor_execute", _pass_on)
        command.upgrade(config, "head")
    return before, head_revision()


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


def known_revisions() -> frozenset[str]:
    """Return every revision that this version of DIMS can upgrade from."""
    return frozenset(script.revision for script in ScriptDirectory.from_config(_config()).walk_revisions())
