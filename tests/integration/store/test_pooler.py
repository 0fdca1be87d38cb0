"""DIMS works through PgBouncer in transaction mode, and every transaction has its settings."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, create_engine, text

from dims_worker.store.engine import new_engine, transaction
from dims_worker.store.migrations import head_revision, migrate
from dims_worker.store.point_in_time import begin_read_only
from dims_worker.store.sessions import is_pooled
from tests.conftest import Project, Worker
from tests.integration.helpers import CONFIG, Flow, event
from tests.integration.store.pgbouncer import needs_pgbouncer, pgbouncer
from tests.integration.web.serving import serving

pytestmark = needs_pgbouncer

SETTINGS = (
    "SELECT current_setting('TimeZone'), current_setting('lock_timeout'), current_setting('jit'), "
    "current_setting('idle_in_transaction_session_timeout')"
)
EXPECTED = ("UTC", "30s", "off", "1min")


@pytest.fixture
def pooled_url(tmp_path: Path, database_url: str) -> Iterator[str]:
    with pgbouncer(tmp_path / "pgbouncer", database_url) as url:
        yield url


@pytest.fixture
def pooled(pooled_url: str) -> Iterator[Engine]:
    engine = new_engine(pooled_url, "dims")
    yield engine
    engine.dispose()


def read_settings(engine: Engine) -> tuple[Any, ...]:
    with transaction(engine) as connection:
        return tuple(connection.execute(text(SETTINGS)).one())


def test_a_session_of_its_own_is_not_pooled(database_url: str) -> None:
    engine = new_engine(database_url, "dims")
    with transaction(engine) as connection:
        assert not is_pooled(connection)
        assert tuple(connection.execute(text(SETTINGS)).one()) == EXPECTED
        names = ("tcp_keepalives_idle", "tcp_keepalives_interval", "tcp_keepalives_count", "tcp_user_timeout")
        found = [connection.execute(text(f"SHOW {name}")).scalar_one() for name in names]
        assert found == ["15", "5", "3", "30000"]
        assert connection.execute(text("SHOW client_connection_check_interval")).scalar_one() in ("10s", "0")
    engine.dispose()


def test_pgbouncer_is_recognized_and_every_transaction_has_the_settings(pooled: Engine) -> None:
    with transaction(pooled) as connection:
        assert is_pooled(connection)
    assert [read_settings(pooled) for _ in range(3)] == [EXPECTED] * 3


def test_the_settings_reach_no_other_client_of_the_pooler(pooled: Engine, pooled_url: str) -> None:
    read_settings(pooled)
    other = create_engine(pooled_url)
    with other.begin() as connection:
        assert connection.execute(text("SHOW lock_timeout")).scalar_one() == "0"
        assert connection.execute(text("SHOW idle_in_transaction_session_timeout")).scalar_one() == "0"
    other.dispose()


def test_the_settings_come_with_the_first_statement_in_the_same_message(pooled: Engine) -> None:
    """`current_query` returns the whole text of a message."""
    with transaction(pooled) as connection:
        first, second = (connection.execute(text("SELECT current_query()")).scalar_one() for _ in range(2))
    assert first.startswith("SET LOCAL ") and first.endswith("; SELECT current_query()")
    assert second == "SELECT current_query()"


def test_a_snapshot_a_stream_and_parameters_work_as_the_first_statement(pooled: Engine) -> None:
    with transaction(pooled) as connection:
        begin_read_only(connection)
        assert connection.execute(text("SHOW transaction_isolation")).scalar_one() == "repeatable read"
        assert tuple(connection.execute(text(SETTINGS)).one()) == EXPECTED
    with transaction(pooled) as connection:
        stream = connection.execute(
            text("SELECT n, current_setting('jit') FROM generate_series(1, :last) AS n"),
            {"last": 2500},
            execution_options={"stream_results": True, "yield_per": 1000},
        )
        rows = stream.fetchall()
        assert (len(rows), rows[0]) == (2500, (1, "off"))
    with transaction(pooled) as connection:
        assert connection.execute(text("SELECT :value"), {"value": "100 %; 'x'"}).scalar_one() == "100 %; 'x'"


def test_a_failed_first_statement_leaves_nothing_behind(pooled: Engine) -> None:
    with pytest.raises(Exception, match="division by zero"), transaction(pooled) as connection:
        connection.execute(text("SELECT 1 / 0"))
    assert read_settings(pooled) == EXPECTED


def test_an_empty_database_is_migrated_through_pgbouncer(empty: Engine, tmp_path: Path) -> None:
    with pgbouncer(tmp_path / "pgbouncer", empty.url.render_as_string(hide_password=False)) as url:
        engine = new_engine(url, "dims")
        assert migrate(engine) == (None, head_revision())
        assert migrate(engine) == (head_revision(), head_revision())
        engine.dispose()


def test_the_whole_path_works_through_pgbouncer(
    project: Project, pooled_url: str, start_worker: Callable[..., Worker]
) -> None:
    """Migrate, check, ingest, measure and report, with the only URL of the database being PgBouncer's."""
    project.env["DIMS_DATABASE_URL"] = pooled_url
    project.write({"dims.yaml": CONFIG, "one/a.txt": "a", "two/b.txt": "b"})
    assert project.dims("migrate", check=True).stdout.startswith("the database is at revision ")
    start_worker()
    done = project.dims("enqueue", "dims.scraper.complete", "--wait", check=True)
    assert "m.a" in done.stdout
    project.dims("verify", check=True)
    assert "dims.scraper.complete" in project.dims("events", check=True).stdout
    assert "m.a" in project.dims("metrics", check=True).stdout
    status = json.loads(project.dims("status", "--json").stdout)
    assert status["database"].startswith("up")


def test_an_open_page_is_updated_without_notifications(flow: Flow, pooled: Engine) -> None:
    """Behind a pooler, the live hub reads the database at short intervals."""
    with serving(pooled, flow.config) as site:
        page = site.live()
        flow.store(event("dims.scraper.complete"))
        page.until('"id": 1')
        assert "dims.scraper.complete" in page.activity[-1]["sentences"][0]
        listening = flow.scalar(
            "SELECT count(*) FROM pg_stat_activity WHERE query ILIKE '%LISTEN dims%' AND pid <> pg_backend_pid()"
        )
        assert listening == 0
