"""Invariant 12: the configuration may change at any time. A metric with a changed definition is due and new, a removed
metric is retired, and a worker with an older configuration changes nothing that it does not know."""

from __future__ import annotations

from collections.abc import Callable
from copy import copy
from pathlib import Path

import pytest
from sqlalchemy import text

from dims_worker.config import load_config
from dims_worker.pipeline.ingest import register_config
from dims_worker.pipeline.record import DEFINITION_CHANGED
from dims_worker.pipeline.verify import measure_due
from dims_worker.store.engine import transaction
from dims_worker.store.events import raise_generations
from tests.integration.helpers import CONFIG, Down, Flow

Restart = Callable[[str], Flow]


def with_(old: str, new: str) -> str:
    assert old in CONFIG
    return CONFIG.replace(old, new)


OTHER_A = with_("a: {source: one, measure: count}", "a: {source: one, measure: lines}")
OTHER_C = with_("c: {source: one, measure: count,", "c: {source: one, measure: lines,")
WITHOUT_C = with_("    c: {source: one, measure: count, critical: true}\n", "")
OTHER_SUM = with_('"m.a + m.b"', '"m.a + m.b + 1"')


@pytest.fixture
def measured(flow: Flow) -> Flow:
    """A flow where everything was measured once and nothing is due."""
    flow.serve(a=1, c=100)
    flow.serve(b=2, e=4)
    assert flow.state("m.ratio").value == 0.75
    return flow


def due(flow: Flow) -> set[str]:
    return {row.metric for row in flow.rows("SELECT metric FROM dims_metrics WHERE requested_gen > measured_gen")}


def test_a_start_with_the_same_configuration_changes_nothing(measured: Flow, restart: Restart) -> None:
    before = measured.rows("SELECT * FROM dims_metrics ORDER BY metric")
    # policy and display are not part of the definition
    restart(with_("e: {source: two, measure: count}", "e: {source: two, measure: count, critical: true, min_abs: 3}"))
    assert measured.rows("SELECT * FROM dims_metrics ORDER BY metric") == before


def test_a_metric_with_a_changed_definition_is_due_and_its_next_reading_is_new(
    measured: Flow, restart: Restart
) -> None:
    later = restart(OTHER_A)
    assert due(later) == {"m.a"}
    claim = later.claim()
    assert claim is not None
    items = {item.metric: item for item in later.record(claim, {"m.a": 1000}).items}
    assert (items["m.a"].status, items["m.a"].outcome, items["m.a"].baseline) == ("new", "accepted", None)
    assert (items["m.sum"].value, items["m.sum"].status) == (1002, "new")  # its input has a new definition
    assert due(later) == set()
    assert later.serve(a=1010)["m.a"].baseline == 1000


def test_a_new_formula_is_computed_from_inputs_that_are_measured_again(measured: Flow, restart: Restart) -> None:
    later = restart(OTHER_SUM)
    assert due(later) == {"m.a", "m.b", "m.e"}  # m.ratio reads the sum, and m.e
    later.record(later.claim("one"), {"m.a": 1})
    later.record(later.claim("two"), {"m.b": 2, "m.e": 4})
    assert (later.state("m.sum").baseline, later.state("m.ratio").baseline) == (4, 1.0)


def test_an_open_request_is_withdrawn_when_the_definition_changes(measured: Flow, restart: Restart) -> None:
    measured.serve(c=200)
    assert measured.open("m.c") is not None
    restart(OTHER_C)
    assert measured.states_of_requests() == ["withdrawn"]


def test_a_metric_removed_while_due_is_retired_and_no_longer_due(measured: Flow, restart: Restart) -> None:
    measured.serve(c=200)
    measured.ask("m.c")
    later = restart(WITHOUT_C)
    state = later.state("m.c")
    assert (state.retired_at is not None, state.due, later.claim()) == (True, False, None)
    assert measured.states_of_requests() == ["withdrawn"]
    assert later.scalar("SELECT count(*) FROM dims_metrics_history WHERE metric = 'm.c'") == 2  # kept for ever


def test_an_event_of_an_older_configuration_does_not_make_a_retired_metric_due(
    measured: Flow, restart: Restart
) -> None:
    restart(WITHOUT_C)
    assert measured.ask("m.c").generations == {}
    assert not measured.state("m.c").due


def test_a_restored_metric_is_due_and_new(measured: Flow, restart: Restart) -> None:
    restart(WITHOUT_C)
    later = restart(CONFIG)
    assert due(later) == {"m.c"}
    claim = later.claim()
    assert claim is not None
    (item,) = later.record(claim, {"m.c": 900}).items
    assert (item.status, item.outcome) == ("new", "accepted")
    assert later.state("m.c").retired_at is None


def test_a_worker_of_an_older_configuration_claims_only_what_it_knows(measured: Flow, restart: Restart) -> None:
    later = restart(OTHER_A)
    later.ask("m.a", "m.c")
    claim = measured.claim()
    assert claim is not None
    assert list(claim.generations) == ["m.c"]


def test_a_reading_of_a_definition_that_changed_meanwhile_goes_to_the_history(measured: Flow, restart: Restart) -> None:
    claim = measured.claimed("m.a", "m.c")
    later = restart(OTHER_A)
    items = {item.metric: item for item in measured.record(claim, {"m.a": 50, "m.c": 101}).items}
    assert (items["m.a"].outcome, items["m.a"].reason) == ("superseded", DEFINITION_CHANGED)
    assert items["m.c"].outcome == "accepted"
    assert "m.sum" not in items or items["m.sum"].outcome == "superseded"
    assert (later.state("m.a").value, due(later)) == (1, {"m.a"})
    assert later.state("m.sum").value == 3  # a worker with the new formula computes it


def test_a_metric_that_is_retired_while_it_is_measured_gets_no_reading(measured: Flow, restart: Restart) -> None:
    claim = measured.claimed("m.c")
    later = restart(WITHOUT_C)
    (item,) = measured.record(claim, {"m.c": Down("gone")}).items
    assert item.outcome == "superseded"
    assert (later.state("m.c").error, later.state("m.c").due) == (None, False)


def test_a_check_with_an_older_configuration_sets_no_baseline(measured: Flow, restart: Restart) -> None:
    restart(OTHER_A)
    assert measured.look(a=5)["m.a"].outcome == "superseded"
    assert measured.state("m.a").baseline_as_of is None


def test_a_disabled_metric_that_changes_is_not_due(flow: Flow, restart: Restart) -> None:
    later = restart(with_("measure: count, critical: true}", "measure: lines, enabled: false}"))
    assert due(later) == set()


def test_a_database_that_was_migrated_keeps_its_baselines(measured: Flow, restart: Restart) -> None:
    """Definitions that an earlier version did not store are unknown, not different."""
    measured.do("UPDATE dims_metrics SET definition = ''")
    later = restart(CONFIG)
    assert due(later) == set()
    assert (later.state("m.c").baseline, later.state("m.c").baseline_as_of is not None) == (100, True)
    assert measure_due(later.engine, later.config, "one") is None


def test_a_retired_metric_gets_no_ingest_batch(measured: Flow, restart: Restart) -> None:
    restart(WITHOUT_C)
    with transaction(measured.engine) as connection:
        batch = connection.execute(text("SELECT nextval('dims_batch_ids')")).scalar_one()
        assert set(raise_generations(connection, ["m.a", "m.c"], batch)) == {"m.a"}


def test_a_category_of_another_file_is_read_again(tmp_path: Path, restart: Restart) -> None:
    (tmp_path / "more.yaml").write_text("metrics: {n: {x: {source: one, measure: count}}}\n")
    later = restart("include: [more.yaml]\n" + CONFIG)
    assert "n.x" in due(later)
    assert [file.name for file in later.config.files] == ["dims.yaml", "more.yaml"]


def test_a_check_adds_missing_rows_and_changes_no_others(measured: Flow, tmp_path: Path) -> None:
    """A shell with another environment, or a file that you are editing, must not bypass approval."""
    before = {row.metric: row for row in measured.rows("SELECT * FROM dims_metrics")}
    (tmp_path / "dims.yaml").write_text(OTHER_C.replace("  m:\n", "  n: {x: {source: one, measure: count}}\n  m:\n"))
    other = copy(measured)
    other.config = load_config(None, {}, tmp_path)
    with transaction(other.engine) as connection:
        register_config(connection, other.config, whole=False)
    after = {row.metric: row for row in measured.rows("SELECT * FROM dims_metrics")}
    assert after.keys() - before.keys() == {"n.x"}
    assert {name: after[name] for name in before} == before
    assert other.look(c=5)["m.c"].outcome == "superseded"
    assert measured.state("m.c").baseline == 100
