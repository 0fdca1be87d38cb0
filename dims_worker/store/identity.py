"""The identity of the database: what the broker records, so that two projects never share one."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import Engine, text

from dims_worker.store.engine import place_of, transaction


@dataclass(frozen=True, slots=True)
class DatabaseIdentity:
    """A database of DIMS: its id (a UUID in the table `dims_database`), its name, and its place without a password.

    The id comes with a dump, so a restored database is the same one. A copy on the same server has another name.
    """

    id: str
    name: str
    place: str


def database_identity(engine: Engine) -> DatabaseIdentity:
    """Return the identity of a database. Raises what `transaction` raises."""
    with transaction(engine) as connection:
        row = connection.execute(text("SELECT id, current_database() AS name FROM dims_database")).one()
    return DatabaseIdentity(str(row.id), row.name, place_of(engine))
