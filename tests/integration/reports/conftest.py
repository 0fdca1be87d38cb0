"""A database with a year of readings, shared by the tests that only read it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
from sqlalchemy import Engine, create_engine, text

from dims_worker import local
from dims_worker.config import Config, load_config
from tests.conftest import REPO
from tests.fixtures.long_history import fill, fill_incidents

HOSTILE = '=HYPERLINK("http://x.example","<script>alert(1)</script>|`x`")'
"""A text that is a formula in a spreadsheet, a script in a browser and markup in Markdown."""

GAPS: dict[str, dict[str, Any]] = {
    "basketball_reference_data.completeness_pct": {"missing": 2, "missing_ids": ["201304160IND", "x" * 90]},
    "data_gaps.missing_games_count": {"rows": ["0021201048"], "rows_total": 1},
}
"""Details with the names of what is missing. One is too long for a line and has no place to break."""


def workflow_result(workflow: str, n: int) -> dict[str, Any]:
    """Return a result with figures, tables, and a hostile text."""
    return {
        "workflow": workflow,
        "generated_at": "2026-11-25T09:00:00+00:00",
        "quick": False,
        "unreached": {},
        "summary": [["games", n], ["share", 0.5]],
        "attention": [HOSTILE, "/".join(("a_long_folder",) * 9)],
        "games": {
            "all": {"games": 1230 + n, "coverage_pct": 97.5},
            "seasons": [
                {"season": "2013-14", "games": 1230, "without_box_score": 3, "without_play_by_play": 31}
                | {"coverage_pct": 97.5}
            ],
            "missing": [{"id": "0021", "season": 2013}],
        },
    }


@pytest.fixture(scope="session")
def year() -> Config:
    """Return the configuration that comes with DIMS."""
    return load_config(REPO / "config" / "dims.yaml", {}, REPO)


@pytest.fixture(scope="module")
def filled(servers: local.ServerUrls, template: str, year: Config) -> Iterator[Engine]:
    """Yield a database with a year of readings and hostile texts in errors, reasons and subjects."""
    admin = create_engine(str(servers.database_url), isolation_level="AUTOCOMMIT")
    with admin.connect() as connection:
        connection.execute(text("DROP DATABASE IF EXISTS filled WITH (FORCE)"))
        connection.execute(text(f"CREATE DATABASE filled TEMPLATE {template}"))
    engine = create_engine(str(servers.database_url).rpartition("/")[0] + "/filled")
    fill(engine, year, until=datetime.now(UTC))
    fill_incidents(engine)
    with engine.begin() as connection:
        connection.execute(text("UPDATE dims_metrics SET error = :bad WHERE error IS NOT NULL"), {"bad": HOSTILE})
        connection.execute(
            text("UPDATE dims_approval_requests SET reason = :bad WHERE state = 'open'"), {"bad": HOSTILE}
        )
        connection.execute(
            text(
                "UPDATE dims_incidents SET reason = :bad, note = CASE state WHEN 'acknowledged' THEN :bad END "
                "WHERE state <> 'closed'"
            ),
            {"bad": HOSTILE},
        )
        connection.execute(
            text("UPDATE dims_event_log SET subject = :bad WHERE seq = (SELECT max(seq) FROM dims_event_log)"),
            {"bad": HOSTILE},
        )
        for name, details in GAPS.items():
            connection.execute(
                text("UPDATE dims_metrics SET details = CAST(:details AS jsonb) WHERE metric = :name"),
                {"name": name, "details": json.dumps(details)},
            )
        for n, name in enumerate(year.configured_workflows):
            connection.execute(
                text(
                    "INSERT INTO dims_verification_runs (trigger, source, status, started_at, result) "
                    "VALUES ('workflow', :source, 'ok', now(), CAST(:result AS jsonb))"
                ),
                {"source": f"workflow.{name}", "result": json.dumps(workflow_result(name, n))},
            )
    yield engine
    engine.dispose()
    with admin.connect() as connection:
        connection.execute(text("DROP DATABASE filled WITH (FORCE)"))
    admin.dispose()
