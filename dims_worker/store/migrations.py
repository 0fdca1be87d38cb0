"""Bringing a database to this version's tables."""

from __future__ import annotations

from pathlib import Path

from alembic import command
from alembic.config import Config as AlembicConfig
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Engine, text

from dims_worker.store.engine import transaction

_LOCK = 0x44494D53  # "DIMS": two that migrate at once take turns


def _scripts() -> str:
    """`schema/`: inside an installed package, or beside it in a checkout."""
    package = Path(__file__).parents[1]
    return str(next(place for place in (package / "schema", package.parent / "schema") if place.is_dir()))


def _config() -> AlembicConfig:
    config = AlembicConfig()
    config.set_main_option("script_location", _scripts().replace("%", "%%"))
    return config


def migrate(engine: Engine) -> tuple[str | None, str]:
    """Upgrade to the newest revision. Returns the revisions before and after; equal where nothing was due."""
    config = _config()
    with transaction(engine) as connection:
        connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _LOCK})
        before = MigrationContext.configure(connection).get_current_revision()
        config.attributes["connection"] = connection
        command.upgrade(config, "head")
    return before, newest()


def newest() -> str:
    """The revision that this version of DIMS needs."""
    head = ScriptDirectory.from_config(_config()).get_current_head()
    assert head is not None
    return head
