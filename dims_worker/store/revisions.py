"""Compare the revision of a database's tables with the revisions that this version of DIMS knows."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from sqlalchemy import Connection, text

from dims_worker import __version__

VERSION_TABLE = "dims_alembic_version"
"""Not Alembic's default, which another application in the same database may use."""


def scripts_folder() -> Path:
    """Return the path of `schema/`: inside an installed package, or beside it in a checkout."""
    package = Path(__file__).parents[1]
    return next(place for place in (package / "schema", package.parent / "schema") if place.is_dir())


@cache
def known_revisions() -> tuple[str, ...]:
    """Return the revisions of this version, oldest first. The file of each begins with its number.

    Alembic is not imported, because every command calls this.
    """
    files = (scripts_folder() / "versions").glob("[0-9]*_*.py")
    return tuple(sorted(file.name.partition("_")[0] for file in files))


def revision_problem(connection: Connection) -> str | None:
    """Return why this version cannot use the tables, with the fix, as the end of a sentence. None if it can."""
    if not connection.execute(text(f"SELECT to_regclass('{VERSION_TABLE}')")).scalar_one():
        return "lacks DIMS's tables: run `dims migrate`"
    revision = connection.execute(text(f"SELECT version_num FROM {VERSION_TABLE}")).scalar()
    return describe_revision(revision)


def describe_revision(revision: str | None) -> str | None:
    """Return why this version cannot use tables of this revision, or None if it can."""
    known = known_revisions()
    if revision is None:
        return "lacks DIMS's tables: run `dims migrate`"
    if revision not in known:
        return (
            f"was migrated by a newer DIMS (revision {revision}), and this is {__version__}, which knows the revisions "
            f"up to {known[-1]}: upgrade dims-worker on this host"
        )
    if revision != known[-1]:
        return f"has tables of an older DIMS (revision {revision}, and {known[-1]} is needed): run `dims migrate`"
    return None
