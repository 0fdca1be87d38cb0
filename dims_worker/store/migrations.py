"""Bringing a database to this version's tables."""

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

from dims_worker.store.engine import transaction

log = logging.getLogger(__name__)

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
    """Upgrade to the newest revision. Returns the revisions before and after; equal where nothing was due.

    What a migration could not do, such as making roles, is logged as a warning, with the remedy.
    """
    config = _config()
    with transaction(engine) as connection:
        connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _LOCK})
        before = MigrationContext.configure(connection).get_current_revision()
        config.attributes["connection"] = connection
        listen(connection, "after_cursor_execute", _pass_on)
        command.upgrade(config, "head")
    return before, head_revision()


def _pass_on(connection: object, cursor: Any, *_: object) -> None:
    """What our own migrations have to say; SQLAlchemy drops notices right after this."""
    for notice in cursor.connection.notices:
        if "DIMS: " in notice:
            log.warning("%s", notice[notice.index("DIMS: ") :].strip())


def head_revision() -> str:
    """The revision that this version of DIMS needs."""
    head = ScriptDirectory.from_config(_config()).get_current_head()
    assert head is not None
    return head
