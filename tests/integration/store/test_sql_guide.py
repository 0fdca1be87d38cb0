"""docs/api.md matches the database: every query runs for a reader, and every column is listed."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
from sqlalchemy import Engine, create_engine, text

from tests.conftest import REPO
from tests.docs.pages import SPAN, blocks, rows, sections

PAGE = (REPO / "docs" / "api.md").read_text(encoding="utf-8")
QUERIES = [query for query in blocks(PAGE, "sql") if query.startswith("SELECT")]
RELATIONS = {**sections(sections(PAGE, 2)["Views"], 3), **sections(sections(PAGE, 2)["Functions"], 3)}

DATA = (
    "INSERT INTO dims_verification_runs (trigger, status, started_at) VALUES ('event', 'ok', now())",
    "INSERT INTO dims_metrics (metric, definition, value, as_of, baseline, baseline_as_of) "
    "VALUES ('s3_storage.total_objects', '', '205000', now() - interval '8 days', '172726', now())",
    "INSERT INTO dims_metrics_history (run_id, metric, value, unit, method, as_of, status, severity, outcome) "
    "SELECT 1, 's3_storage.total_objects', value::jsonb, 'objects', 'exact', now() - age::interval, 'extreme', 'high', "
    "outcome FROM (VALUES ('172726', '9 days', 'accepted'), ('205000', '6 days', 'held')) r(value, age, outcome)",
    "INSERT INTO dims_approval_requests "
    "(metric, state, value, unit, as_of, baseline, baseline_version, drift_pct, severity, reason) "
    "VALUES ('s3_storage.total_objects', 'open', '205000', 'objects', now(), '172726', 1, 18.68, 'high', 'up')",
    "INSERT INTO dims_incidents "
    "(story, metric, kind, state, severity, reason, value, anchor, opened_at, updated_at, closed_at, resolution) "
    "SELECT 1, 's3_storage.total_objects', 'drift', state, 'high', 'down', '50', '100', now() - interval '2 days', "
    "now(), closed_at, resolution "
    "FROM (VALUES ('open', NULL, NULL), ('closed', now(), 'recovered')) r(state, closed_at, resolution)",
)


@pytest.fixture
def ada(engine: Engine) -> Iterator[Engine]:
    """An engine with the login that the guide creates, on a database with a reading, a drift and a request."""
    (create,) = (block for block in blocks(PAGE, "sql") if block.startswith("CREATE ROLE"))
    name = f"ada_{engine.url.database}"
    with engine.begin() as connection:
        connection.execute(text(create.replace("ada", name)))
        for statement in DATA:
            connection.execute(text(statement))
    made = create_engine(engine.url.set(username=name, password="a long one"))
    yield made
    made.dispose()
    with engine.begin() as connection:
        connection.execute(text(f"DROP ROLE {name}"))


def test_every_query_in_the_guide_returns_a_row_to_a_reader(ada: Engine) -> None:
    assert (len(RELATIONS), len(QUERIES)) == (7, 9)  # each has an example, and the table of incidents has two
    for query in QUERIES:
        with ada.connect() as connection:
            assert connection.execute(text(query)).fetchall(), query


@pytest.mark.parametrize("name", RELATIONS)
def test_the_guide_lists_exactly_the_columns_that_exist(engine: Engine, name: str) -> None:
    listed = [column for row in rows(RELATIONS[name], "column") for column in SPAN.findall(row[0])]
    relation = f"{name}('a', 'b', 1)" if "_metric_" in name else name
    with engine.connect() as connection:
        columns = list(connection.execute(text(f"SELECT * FROM {relation}")).keys())
    assert sorted(listed) == sorted(columns)


def test_the_guide_lists_all_views_functions_and_tables(engine: Engine) -> None:
    query = (
        "SELECT relname FROM pg_class WHERE relkind IN ('r', 'v') AND relname LIKE 'dims\\_%' "
        "UNION SELECT proname FROM pg_proc WHERE proname LIKE 'dims\\_%metric\\_%'"
    )
    with engine.connect() as connection:
        there = {row[0] for row in connection.execute(text(query))}
    listed = {name for row in rows(PAGE, "table") for name in SPAN.findall(row[0])} | set(RELATIONS)
    assert listed == there
    assert set(
        re.findall(r"\bdims_(?:get_)?metric\w*|\bdims_(?:pending|recent|approval_log)\w*", " ".join(QUERIES))
    ) == set(RELATIONS)
