"""`dims migrate` in databases that are not new: another application's Alembic table, and an unreleased version's."""

from __future__ import annotations

import pytest
from sqlalchemy import Engine, text

from dims_worker.store.migrations import head_revision
from tests.conftest import Project

REVISIONS = """
    CREATE TABLE alembic_version (version_num VARCHAR(32) PRIMARY KEY);
    INSERT INTO alembic_version VALUES ('0008')
"""
TABLES = "SELECT relname FROM pg_class WHERE relkind = 'r' AND relname LIKE 'dims\\_%' ORDER BY 1"


def rows(engine: Engine, query: str) -> list[tuple[object, ...]]:
    with engine.connect() as connection:
        return [tuple(row) for row in connection.execute(text(query))]


def do(engine: Engine, statements: str) -> None:
    with engine.begin() as connection:
        connection.execute(text(statements))


@pytest.fixture
def unmigrated(project: Project, empty: Engine) -> Project:
    """A project whose database has no DIMS tables."""
    project.write(
        {
            "dims.yaml": "sources: {p: {type: files, path: '.'}}\n"
            "metrics: {m: {docs: {source: p, measure: count, paths: '*.md'}}}\n"
        }
    )
    project.env["DIMS_DATABASE_URL"] = empty.url.render_as_string(hide_password=False)
    return project


def test_the_revision_of_another_application_is_left_alone(unmigrated: Project, empty: Engine, engine: Engine) -> None:
    do(empty, REVISIONS)
    done = unmigrated.dims("migrate", check=True)
    assert done.stdout == f"the database is at revision {head_revision()} (was empty)\n"
    assert rows(empty, TABLES) == rows(engine, TABLES) != []
    assert rows(empty, "SELECT version_num FROM alembic_version") == [("0008",)]
    assert rows(empty, "SELECT relacl FROM pg_class WHERE relname = 'alembic_version'") == [(None,)]
    assert rows(empty, "SELECT version_num FROM dims_alembic_version") == [(head_revision(),)]
    unmigrated.dims("verify", check=True)
    assert unmigrated.dims("migrate", check=True).stdout == f"the database is at revision {head_revision()}\n"


def test_a_database_of_an_unreleased_version_is_refused_with_the_fix(project: Project, engine: Engine) -> None:
    do(engine, "DROP TABLE dims_alembic_version;" + REVISIONS)
    project.write({"dims.yaml": "sources: {}\n"})
    before = rows(engine, TABLES)
    done = project.dims("migrate")
    assert done.returncode == 4 and done.stdout == ""
    assert " ".join(done.stderr.split()).partition(" has tables ")[2] == (
        "from a development version of DIMS before 0.2, which cannot be upgraded. Create an empty database, set "
        "DIMS_DATABASE_URL to it, and run `dims migrate`. If the database is DIMS's own, run `dims down`, move the "
        "data directory (DIMS_HOME, by default `.dims`) away, and run `dims up`."
    )
    assert str(engine.url.database) in done.stderr
    assert rows(engine, TABLES) == before
