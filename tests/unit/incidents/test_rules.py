"""What a condition does to a known incident: each row of the table in `incidents/rules.py`."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from dims_worker.incidents.rules import Condition, next_step
from dims_worker.store.incidents import Incident

NOW = datetime(2026, 11, 30, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)
QUIET = 6 * HOUR

OPEN = Incident(
    **(dict.fromkeys(Incident.__slots__) | {"id": 7, "story": 7, "metric": "m.a", "kind": "drift", "state": "open"}),
)
OPEN = replace(OPEN, version=1, severity="high", reason="down", value=60, anchor=100, opened_at=NOW - HOUR, flaps=0)
BY_PERSON = replace(OPEN, state="closed", resolution="expected", closed_at=NOW - HOUR)
RECOVERED = replace(OPEN, state="closed", resolution="recovered", closed_at=NOW - HOUR, over_at=NOW - HOUR)
FLAPPING = replace(OPEN, flaps=1, flapping_until=NOW + 5 * HOUR)
CALM = replace(FLAPPING, calm_at=NOW - HOUR)


def condition(holds: bool, **facts: Any) -> Condition:
    given = {"severity": "high", "reason": "down", "value": 60, "as_of": NOW} | facts
    return Condition("m.a", "drift", holds, **given)


def test_a_condition_opens_an_incident() -> None:
    step = next_step(condition(True), None, NOW, QUIET)
    assert step is not None
    assert (step.what, step.known) == ("open", None)


@pytest.mark.parametrize("known", [None, RECOVERED], ids=["none", "recovered"])
def test_a_condition_that_is_over_changes_nothing_without_an_active_incident(known: Incident | None) -> None:
    assert next_step(condition(False), known, NOW, QUIET) is None


def test_an_incident_closes_when_its_condition_is_over() -> None:
    step = next_step(condition(False), OPEN, NOW, QUIET)
    assert step is not None
    assert (step.what, step.resolution) == ("close", "recovered")


@pytest.mark.parametrize(
    ("facts", "raised"),
    [({}, False), ({"value": 50}, True), ({"severity": "urgent"}, True), ({"request": 3}, True)],
)
def test_the_version_rises_only_if_people_see_something_else(facts: dict[str, Any], raised: bool) -> None:
    step = next_step(condition(True, **facts), OPEN, NOW, QUIET)
    assert step is not None
    assert (step.what, step.new_version) == ("update", raised)
    assert ("anchor" in step.changes) == ("request" in facts)  # that of a held value is the baseline of its request


def test_an_incident_that_comes_back_within_the_quiet_period_flaps() -> None:
    step = next_step(condition(True), RECOVERED, NOW, QUIET)
    assert step is not None
    assert step.changes["state"] == "open"
    assert (step.changes["flaps"], step.changes["flapping_until"]) == (1, NOW + QUIET)
    assert step.changes["closed_at"] is step.changes["over_at"] is None


def test_a_flapping_incident_becomes_calm_and_comes_back_without_closing() -> None:
    step = next_step(condition(False), FLAPPING, NOW, QUIET)
    assert step is not None
    assert (step.what, step.changes["calm_at"]) == ("update", NOW)
    again = next_step(condition(True), CALM, NOW, QUIET)
    assert again is not None
    assert (again.changes["flaps"], again.changes["calm_at"]) == (2, None)


@pytest.mark.parametrize(("calm_for", "what"), [(5 * HOUR, None), (6 * HOUR, "close")])
def test_a_flapping_incident_closes_after_it_was_calm_for_the_quiet_period(calm_for: timedelta, what: str) -> None:
    step = next_step(condition(False), replace(CALM, calm_at=NOW - calm_for), NOW, QUIET)
    assert (step and step.what) == what


def test_an_incident_that_lasts_for_the_quiet_period_no_longer_flaps() -> None:
    step = next_step(condition(True), replace(FLAPPING, flapping_until=NOW), NOW, QUIET)
    assert step is not None
    assert step.changes["flapping_until"] is None


def test_a_closed_incident_stays_closed_while_its_condition_lasts() -> None:
    assert next_step(condition(True), BY_PERSON, NOW, QUIET) is None
    step = next_step(condition(False), BY_PERSON, NOW, QUIET)
    assert step is not None
    assert (step.what, dict(step.changes)) == ("update", {"over_at": NOW})
