"""The migrations create the tables of the models. They can run twice, at the same time, and backwards."""

from __future__ import annotations

import re
from typing import Any

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy import Engine, text

from dims_worker.store import incidents
from dims_worker.store.migrations import _LOCK, _config, head_revision, migrate
from dims_worker.store.models import metadata
from dims_worker.store.revisions import VERSION_TABLE, scripts_folder
from tests.conftest import wait_for
from tests.integration.helpers import Threads, outcome

CATALOG = """
    SELECT c.relname || '.' || a.attname, format_type(a.atttypid, a.atttypmod) || ' ' || a.attnotnull || ' '
        || a.attidentity::text || ' ' || coalesce(pg_get_expr(d.adbin, d.adrelid), '') || ' '
        || coalesce(col_description(c.oid, a.attnum), '')
    FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0
    LEFT JOIN pg_attrdef d ON d.adrelid = c.oid AND d.adnum = a.attnum
    WHERE c.relkind IN ('r', 'S') AND c.relname LIKE 'dims%'
    UNION ALL SELECT indexname, indexdef FROM pg_indexes WHERE tablename LIKE 'dims%'
    UNION ALL SELECT conname, pg_get_constraintdef(oid) FROM pg_constraint WHERE conrelid::regclass::text LIKE 'dims%'
    UNION ALL SELECT relname, coalesce(obj_description(oid), '') FROM pg_class
        WHERE relname LIKE 'dims%' AND relkind <> 'v'
    ORDER BY 1, 2
"""
BESIDE = """
    SELECT relname, pg_get_viewdef(oid) || obj_description(oid) FROM pg_class
        WHERE relkind = 'v' AND relname LIKE 'dims%'
    UNION ALL SELECT proname, pg_get_functiondef(oid) FROM pg_proc WHERE proname LIKE 'dims%'
    UNION ALL SELECT relname, relacl::text FROM pg_class WHERE relacl IS NOT NULL AND relname LIKE 'dims%'
    UNION ALL SELECT 'later ' || defaclobjtype::text, defaclacl::text FROM pg_default_acl
    ORDER BY 1, 2
"""
"""What the models do not describe: views, functions and privileges."""


def catalog(engine: Engine, *queries: str) -> list[tuple[Any, ...]]:
    """Return the rows of the queries without Alembic's version table, which a downgrade keeps."""
    with engine.connect() as connection:
        rows = [tuple(row) for query in queries or (CATALOG,) for row in connection.execute(text(query))]
    return [row for row in rows if not row[0].startswith(VERSION_TABLE)]


def test_the_migrations_create_what_the_models_describe(engine: Engine, empty: Engine) -> None:
    with engine.connect() as connection:
        context = MigrationContext.configure(
            connection,
            opts={
                "compare_type": True,
                "compare_server_default": True,
                "target_metadata": metadata,
                "version_table": VERSION_TABLE,
            },
        )
        assert compare_metadata(context, metadata) == []
    metadata.create_all(empty)  # alembic overlooks partial indexes and sequences; the catalog does not
    assert catalog(engine) == catalog(empty)


def test_migrating_twice_changes_nothing(engine: Engine) -> None:
    before = catalog(engine)
    assert migrate(engine) == (head_revision(), head_revision())
    assert catalog(engine) == before


def test_a_downgrade_removes_everything_and_an_upgrade_restores_it(engine: Engine) -> None:
    before = catalog(engine, CATALOG, BESIDE)
    assert len(catalog(engine, BESIDE)) > 20
    config = _config()
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        command.downgrade(config, "base")
    assert catalog(engine, CATALOG, BESIDE) == []
    assert migrate(engine) == (None, head_revision())
    assert catalog(engine, CATALOG, BESIDE) == before


def views_before_the_old_names() -> str:
    """Return the views and functions as revisions 0001 to 0004 first made them."""
    views = (scripts_folder() / "sql" / "views.sql").read_text(encoding="utf-8")
    own, _, added = views.partition("-- The old names\n")
    assert added
    columns = r",\n +split_part\(\w\.metric, .*? AS metric_category,\n.*? AS metric_name,\n.*? AS numeric_value\n"
    before, count = re.subn(columns, "\n", own)
    assert count == 3
    return before


@pytest.mark.parametrize("revision", ["0003", "0004"])
def test_an_upgrade_gives_the_old_names_and_their_rights(engine: Engine, empty: Engine, revision: str) -> None:
    config = _config()
    with empty.begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, revision)
        connection.execute(text("DROP VIEW dims_metrics_latest, dims_pending_approvals, dims_recent_drift"))
        connection.execute(text("DROP VIEW dims_approval_log"))
        connection.execute(text("DROP FUNCTION dims_metric_trend, dims_metric_stats, dims_get_metric_trend"))
        connection.exec_driver_sql(views_before_the_old_names())
        columns = "SELECT count(*) FROM information_schema.columns WHERE column_name = 'metric_category'"
        assert connection.execute(text(columns)).scalar() == 0
    assert migrate(empty) == (revision, head_revision())
    assert catalog(empty, CATALOG, BESIDE) == catalog(engine, CATALOG, BESIDE)


def test_an_upgrade_makes_incidents_of_waiting_values_and_ends_the_old_messages(empty: Engine) -> None:
    config = _config()
    with empty.begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "0005")
        connection.execute(
            text(
                "INSERT INTO dims_approval_requests (metric, state, value, unit, as_of, baseline, baseline_as_of, "
                "baseline_version, severity, reason) VALUES "
                "('m.a', 'open', '50', 'files', now(), '100', now() - interval '1 day', 1, 'urgent', 'down 50.0 %'), "
                "('m.b', 'approved', '50', 'files', now(), '100', now() - interval '1 day', 1, 'urgent', 'down 50.0 %')"
            )
        )
        connection.execute(
            text(
                "INSERT INTO dims_notifications (channel, metric, state, facts) VALUES "
                "('ops', 'm.a', 'held:1', '{}'), ('ops', 'workflow.audit', 'attention', '{}')"
            )
        )
    migrate(empty)
    with empty.connect() as connection:
        (incident,) = incidents.open_incidents(connection)
        ended = connection.execute(text("SELECT state, ended_at IS NOT NULL FROM dims_notifications ORDER BY id"))
        assert [tuple(row) for row in ended] == [("held:1", True), ("attention", False)]
    assert (incident.metric, incident.kind, incident.request, incident.story) == ("m.a", "approval", 1, incident.id)
    assert (incident.anchor, incident.value, incident.severity) == (100, 50, "urgent")


def test_two_simultaneous_migrations_take_turns(empty: Engine, engine: Engine, beside: Threads) -> None:
    def waiting() -> bool:
        with engine.connect() as connection:
            query = "SELECT count(*) FROM pg_stat_activity WHERE datname = :name AND wait_event = 'advisory'"
            return bool(connection.execute(text(query), {"name": empty.url.database}).scalar())

    config = _config()
    with empty.begin() as first:
        first.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _LOCK})
        second = beside(migrate, empty)
        wait_for(waiting, timeout=10)
        config.attributes["connection"] = first
        command.upgrade(config, "head")
    assert outcome(second) == (head_revision(), head_revision())
    assert catalog(empty) == catalog(engine)
