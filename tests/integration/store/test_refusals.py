"""A database that refuses to work: one sentence with the fix, exit code 3, and no event is rejected."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from alembic.script import ScriptDirectory
from sqlalchemy import Engine, make_url, text
from sqlalchemy.exc import DBAPIError

from dims_worker.errors import (
    DatabaseBusy,
    DatabaseForbidden,
    DatabaseRefused,
    DatabaseUnreachable,
    DimsError,
)
from dims_worker.store import migrations
from dims_worker.store.engine import check_schema, new_engine, transaction
from dims_worker.store.migrations import head_revision, migrate
from dims_worker.store.revisions import known_revisions
from dims_worker.store.sessions import SessionSettings
from tests.conftest import Project
from tests.integration.helpers import CONFIG, Flow
from tests.integration.store.pgbouncer import needs_pgbouncer, pgbouncer

LOGIN = {"username": "plain_user", "password": "secret"}


def run(engine: Engine, statement: str) -> None:
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text(statement))


@pytest.fixture
def plain(engine: Engine) -> Iterator[Engine]:
    """The same database for a user without rights."""
    run(engine, f"CREATE ROLE {LOGIN['username']} LOGIN PASSWORD '{LOGIN['password']}'")
    made = new_engine(make_url(engine.url).set(**LOGIN), "dims")
    yield made
    made.dispose()
    run(engine, f"DROP OWNED BY {LOGIN['username']}")
    run(engine, f"DROP ROLE {LOGIN['username']}")


def refusal(engine: Engine, statement: str = "SELECT 1") -> DimsError:
    """Return the error of a transaction, which must be one sentence with a fix and without a password."""
    try:
        with pytest.raises(DimsError) as raised, transaction(engine) as connection:
            connection.execute(text(statement))
    finally:
        engine.dispose()
    check(raised.value)
    return raised.value


def check(error: DimsError) -> None:
    message = str(error)
    assert error.exit_code == 3
    assert "\n" not in message and "the database " in message
    assert "secret" not in message and "psycopg2" not in message and "sqlalche.me" not in message


@contextmanager
def limited_role(engine: Engine, limit: str) -> Iterator[None]:
    run(engine, f"ALTER ROLE {LOGIN['username']} {limit}")
    yield
    run(engine, f"ALTER ROLE {LOGIN['username']} LOGIN CONNECTION LIMIT -1")


def test_a_role_without_connections_left(engine: Engine, plain: Engine) -> None:
    with limited_role(engine, "CONNECTION LIMIT 0"):
        error = refusal(plain)
    assert isinstance(error, DatabaseRefused) and "raise the limit" in str(error)


def test_a_role_that_may_not_log_in(engine: Engine, plain: Engine) -> None:
    with limited_role(engine, "NOLOGIN"):
        assert 'ALTER ROLE "plain_user" LOGIN' in str(refusal(plain))


def test_a_role_that_may_not_connect(engine: Engine, plain: Engine) -> None:
    run(engine, f"REVOKE CONNECT ON DATABASE {engine.url.database} FROM PUBLIC")
    assert f'GRANT CONNECT ON DATABASE "{engine.url.database}" TO "plain_user"' in str(refusal(plain))


@pytest.mark.parametrize(
    ("change", "fix"),
    [
        ({"password": "wrong_secret"}, "Check the user and the password"),
        ({"database": "nowhere"}, "Create it, or correct its name in DIMS_DATABASE_URL"),
        ({"username": "stranger"}, "the user and the password|Create the user"),
        ({"port": 1}, "Start the server, or correct DIMS_DATABASE_URL"),
        ({"host": "no-such-host.invalid"}, "Correct the host in DIMS_DATABASE_URL"),
        ({"query": {"sslmode": "require"}}, "Turn SSL on at the server, or remove sslmode"),
    ],
    ids=["password", "database", "role", "port", "host", "ssl"],
)
def test_a_url_that_does_not_fit(engine: Engine, change: dict[str, str], fix: str) -> None:
    error = refusal(new_engine(make_url(engine.url).set(**change), "dims"))
    assert isinstance(error, DatabaseUnreachable)
    assert any(part in str(error) for part in fix.split("|"))


def test_a_read_only_database(engine: Engine) -> None:
    run(engine, f"ALTER DATABASE {engine.url.database} SET default_transaction_read_only = on")
    error = refusal(new_engine(engine.url, "dims"), "DELETE FROM dims_snapshots")
    assert isinstance(error, DatabaseForbidden) and "is read-only here" in str(error)
    assert f'ALTER DATABASE "{engine.url.database}" RESET default_transaction_read_only' in str(error)


def test_a_lock_that_another_session_holds(engine: Engine) -> None:
    hasty = new_engine(engine.url, "dims", settings=SessionSettings(lock_timeout=0.1))
    with engine.begin() as connection:
        connection.execute(text("LOCK dims_metrics"))
        error = refusal(hasty, "SELECT 1 FROM dims_metrics")
    assert isinstance(error, DatabaseBusy) and "pg_stat_activity" in str(error)


def test_a_statement_that_takes_too_long(engine: Engine) -> None:
    error = refusal(engine, "SET LOCAL statement_timeout = 50; SELECT pg_sleep(5)")
    assert isinstance(error, DatabaseBusy) and "statement_timeout" in str(error)


def test_a_session_that_an_administrator_ends(engine: Engine) -> None:
    error = refusal(engine, "SELECT pg_terminate_backend(pg_backend_pid())")
    assert isinstance(error, DatabaseUnreachable)
    assert "closed the connection" in str(error) or "tries again" in str(error)


def test_a_user_without_a_right(engine: Engine, plain: Engine) -> None:
    error = refusal(plain, "SELECT * FROM dims_metrics")
    assert isinstance(error, DatabaseForbidden) and "GRANT dims_app TO" in str(error)


CODES = (
    *("53000", "53100", "53200", "53300", "53400", "57P01", "57P02", "57P03", "58000", "58030", "58P01"),
    *("XX000", "XX001", "08006", "25006", "40001", "40P01", "55P03", "57014", "42501", "28000"),
)
UNKNOWN_CODES = ("F0000", "55000")
"""DIMS has no fix for these, but they are no problem of the data either."""


def test_no_error_of_the_database_itself_rejects_an_event(flow: Flow) -> None:
    for code in (*CODES, *UNKNOWN_CODES):
        raise_at_insert(flow, code)
        with pytest.raises(DBAPIError if code in UNKNOWN_CODES else DatabaseUnreachable) as raised:
            flow.ask("m.a")
        if isinstance(raised.value, DimsError):
            check(raised.value)
    assert flow.scalar("SELECT count(*) FROM dims_event_log") == 0


def raise_at_insert(flow: Flow, code: str) -> None:
    flow.do(f"""
        CREATE OR REPLACE FUNCTION problem() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            RAISE EXCEPTION 'problem' USING ERRCODE = '{code}';
        END $$;
        CREATE OR REPLACE TRIGGER problem BEFORE INSERT ON dims_event_log FOR EACH ROW EXECUTE FUNCTION problem();
    """)


@needs_pgbouncer
def test_pgbouncer_without_free_connections(tmp_path: Path, database_url: str) -> None:
    with pgbouncer(tmp_path / "pgbouncer", database_url, max_client_conn=1) as url:
        first, second = new_engine(url, "dims"), new_engine(url, "dims")
        with transaction(first) as connection:
            connection.execute(text("SELECT 1"))
            assert "raise the limit" in str(refusal(second))
        first.dispose()


@needs_pgbouncer
def test_pgbouncer_that_cannot_reach_the_server(tmp_path: Path, database_url: str) -> None:
    nowhere = make_url(database_url).set(port=1).render_as_string(hide_password=False)
    with pgbouncer(tmp_path / "pgbouncer", nowhere, query_wait_timeout=2) as url:
        error = refusal(new_engine(url, "dims"))
    assert isinstance(error, DatabaseUnreachable)


# --- migrate -----------------------------------------------------------------------------------------


def migration_refusal(engine: Engine) -> str:
    with pytest.raises(DatabaseRefused) as raised:
        migrate(engine)
    engine.dispose()
    check(raised.value)
    return str(raised.value)


def test_a_role_that_may_not_create_tables(empty: Engine, plain: Engine) -> None:
    theirs = plain.url.set(database=empty.url.database)
    message = migration_refusal(new_engine(theirs, "dims"))
    grant = 'GRANT CREATE ON SCHEMA "public" TO "plain_user"'
    assert message.endswith(grant)
    run(empty, grant)
    able = new_engine(theirs, "dims")
    assert migrate(able) == (None, head_revision())
    able.dispose()
    run(empty, f"DROP OWNED BY {LOGIN['username']}")


def test_a_role_that_does_not_own_the_tables(engine: Engine, plain: Engine) -> None:
    run(engine, f"GRANT dims_app TO {LOGIN['username']}")
    run(engine, "UPDATE dims_alembic_version SET version_num = '0001'")
    assert f"of the user {engine.url.username}" in migration_refusal(plain)


def test_a_search_path_without_a_schema(empty: Engine) -> None:
    run(empty, f"ALTER DATABASE {empty.url.database} SET search_path = nowhere")
    assert "CREATE SCHEMA dims AUTHORIZATION" in migration_refusal(new_engine(empty.url, "dims"))


def test_an_encoding_that_cannot_store_every_text(engine: Engine) -> None:
    run(engine, "CREATE DATABASE latin TEMPLATE template0 ENCODING 'LATIN1' LOCALE 'C'")
    try:
        assert "ENCODING 'UTF8'" in migration_refusal(new_engine(make_url(engine.url).set(database="latin"), "dims"))
    finally:
        run(engine, "DROP DATABASE latin")


def test_a_server_that_is_too_old(empty: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(migrations, "MINIMUM_VERSION", (99,))
    assert "needs 99 or later" in migration_refusal(empty)


def test_a_read_only_database_is_not_migrated(empty: Engine) -> None:
    run(empty, f"ALTER DATABASE {empty.url.database} SET default_transaction_read_only = on")
    assert "is read-only here" in migration_refusal(new_engine(empty.url, "dims"))


@pytest.mark.parametrize(
    ("revision", "fix"), [("9999", "upgrade dims-worker"), ("0001", "run `dims migrate`"), (None, "run `dims migrate`")]
)
def test_tables_of_another_version(project: Project, engine: Engine, revision: str | None, fix: str) -> None:
    run(
        engine,
        f"UPDATE dims_alembic_version SET version_num = '{revision}'"
        if revision
        else "DROP SCHEMA public CASCADE; CREATE SCHEMA public",
    )
    with pytest.raises(DatabaseRefused) as raised:
        check_schema(engine)
    check(raised.value)
    assert fix in str(raised.value)
    project.write({"dims.yaml": CONFIG})
    for command in (
        "metrics",
        "verify",
        "events",
        "report json",
        "migrate" if revision == "9999" else "runs",
    ):
        done = project.dims(*command.split())
        assert (done.returncode, "internal error" in done.stderr) == (3, False), command
        assert fix in done.stdout + done.stderr


def test_alembic_knows_the_same_revisions() -> None:
    scripts = ScriptDirectory.from_config(migrations._config())
    assert sorted(script.revision for script in scripts.walk_revisions()) == list(known_revisions())


# --- the whole program -------------------------------------------------------------------------------


def test_every_command_ends_with_3_on_a_read_only_database(project: Project, engine: Engine) -> None:
    project.write({"dims.yaml": CONFIG, "one/a": "", "two/b": ""})
    project.dims("verify", check=True)
    run(engine, f"ALTER DATABASE {engine.url.database} SET default_transaction_read_only = on")
    for command in (
        "verify",
        "verify --update",
        "baseline set m.a 3 --note x",
        "snapshot take x",
        "approvals approve 1",
    ):
        done = project.dims(*command.split())
        if command.startswith("approvals"):
            assert done.returncode == 2  # there is no such request, and nothing is written
            continue
        assert done.returncode == 3, (command, done.stderr)
        assert "is read-only here" in done.stderr and "Traceback" not in done.stderr
    for command in ("metrics", "events", "runs", "report json"):
        assert project.dims(*command.split()).returncode in (0, 1), command


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 3 MB that the server of the test can write to."""
    folder = tmp_path / "small"
    folder.mkdir()
    mount = shutil.which("mount")
    if os.geteuid() != 0 or mount is None:
        pytest.skip("mounting a tmpfs needs root")
    account = pwd.getpwnam("nobody")  # the server runs as this user
    size = f"size=3m,uid={account.pw_uid},mode=700"
    if subprocess.run([mount, "-t", "tmpfs", "-o", size, "tmpfs", folder], check=False).returncode:
        pytest.skip("this machine allows no mount")
    yield folder
    subprocess.run(["umount", folder], check=True)


def test_a_full_disk_rejects_nothing_and_names_the_fix(flow: Flow, small_disk: Path) -> None:
    for parent in small_disk.parents:
        if parent.stat().st_uid == 0 and not parent.stat().st_mode & 0o001:
            parent.chmod(parent.stat().st_mode | 0o001)
    run(flow.engine, f"CREATE TABLESPACE small LOCATION '{small_disk}'")
    try:
        flow.do("ALTER TABLE dims_event_log SET TABLESPACE small")
        with pytest.raises(DatabaseRefused, match="Free space on the disk") as raised:
            flow.do(
                "INSERT INTO dims_event_log (digest, outcome, payload, batch_id) "
                "SELECT n::text, 'rejected', repeat(md5(n::text), 60), 0 FROM generate_series(1, 20000) AS n"
            )
        check(raised.value)
        flow.do("ALTER TABLE dims_event_log SET TABLESPACE pg_default")
    finally:
        run(flow.engine, "DROP TABLESPACE small")
