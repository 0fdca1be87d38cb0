"""A year of the first user's metrics, made once for all that only look."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
from sqlalchemy import Engine, create_engine, text

from dims_worker import services
from dims_worker.config import Config, load
from tests.conftest import REPO
from tests.filled import fill

HOSTILE = '=HYPERLINK("http://x.example","<script>alert(1)</script>|`x`")'
"""A text that is a formula to a spreadsheet, a script to a browser and markup to Markdown."""


def found(workflow: str, n: int) -> dict[str, Any]:
    """A result with figures, tables, and a hostile text."""
    return {
        **{"workflow": workflow, "generated_at": "2026-11-25T09:00:00+00:00", "quick": False, "unreached": {}},
        **{"summary": [["games", n], ["share", 0.5]], "attention": [HOSTILE]},
        "games": {"all": {"games": 1230 + n, "coverage_pct": 97.5}, "missing": [{"id": "0021", "season": 2013}]},
    }


@pytest.fixture(scope="session")
def year() -> Config:
    """The shipped configuration."""
    return load(REPO / "config" / "dims.yaml", {}, REPO)


@pytest.fixture(scope="module")
def filled(servers: services.Servers, template: str, year: Config) -> Iterator[Engine]:
    """A database with a year of readings, one of whose reasons, and one request's, is hostile."""
    admin = create_engine(str(servers.database_url), isolation_level="AUTOCOMMIT")
    with admin.connect() as connection:
        connection.execute(text("DROP DATABASE IF EXISTS filled WITH (FORCE)"))
        connection.execute(text(f"CREATE DATABASE filled TEMPLATE {template}"))
    engine = create_engine(str(servers.database_url).rpartition("/")[0] + "/filled")
    fill(engine, year, until=datetime.now(UTC))
    with engine.begin() as connection:
        connection.execute(text("UPDATE dims_metrics SET error = :bad WHERE error IS NOT NULL"), {"bad": HOSTILE})
        connection.execute(
            text("UPDATE dims_approval_requests SET reason = :bad WHERE state = 'open'"), {"bad": HOSTILE}
        )
        connection.execute(
            text("UPDATE dims_event_log SET subject = :bad WHERE seq = (SELECT max(seq) FROM dims_event_log)"),
            {"bad": HOSTILE},
        )
        for n, name in enumerate(year.configured_workflows):
            connection.execute(
                text(
                    "INSERT INTO dims_verification_runs (trigger, source, status, started_at, result) "
                    "VALUES ('workflow', :source, 'ok', now(), CAST(:result AS jsonb))"
                ),
                {"source": f"workflow.{name}", "result": json.dumps(found(name, n))},
            )
    yield engine
    engine.dispose()
    with admin.connect() as connection:
        connection.execute(text("DROP DATABASE filled WITH (FORCE)"))
    admin.dispose()
