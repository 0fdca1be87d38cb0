"""The health of a metric: its flags, label, sentence and severity."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from dims_worker.config.policy import Policy
from dims_worker.domain.decide import Judge
from dims_worker.domain.health import FLAGS, Health, HealthInputs, health_of
from dims_worker.store.incidents import Incident
from dims_worker.store.metric_states import MetricState

NOW = datetime(2026, 3, 1, tzinfo=UTC)
HOUR = timedelta(hours=1)
DRIFTED = {"value": 60, "status": "major", "severity": "high", "baseline_as_of": NOW - HOUR}
"""The columns of a value that a check found, or a person rejected."""


def state(**columns: Any) -> MetricState:
    good = {"value": 100, "baseline": 100, "as_of": NOW, "baseline_as_of": NOW, "status": "ok", "severity": "none"}
    return MetricState("raw.files", "project", **(good | columns))


def incident(kind: str = "drift", **columns: Any) -> Incident:
    empty = dict.fromkeys(Incident.__slots__)
    values = {"id": 7, "metric": "raw.files", "kind": kind, "state": "open", "severity": "urgent", "flaps": 0}
    values |= {"reason": "down 40 %", "value": 60, "anchor": 100, "anchor_as_of": NOW - HOUR, "opened_at": NOW}
    return Incident(**(empty | values | columns))


ACKNOWLEDGED = {"state": "acknowledged", "acknowledged_by": "ana", "note": "the disk is old"}


def health(
    metric: MetricState, *incidents: Incident, enabled: bool = True, is_age: bool = False, **policy: Any
) -> Health:
    judge = Judge(Policy(**policy), is_age)
    return health_of(HealthInputs(metric, incidents, judge, enabled, HOUR), NOW)


@pytest.mark.parametrize(
    ("found", "flags", "label"),
    [
        (health(state()), ["ok"], "ok"),
        (health(state(error="no such bucket")), ["failing"], "failing"),
        (health(state(error="no", as_of=None, baseline_as_of=None)), ["failing", "new"], "failing"),
        (health(state(), incident("approval", request=4)), ["waiting"], "waits for approval"),
        (health(state(**DRIFTED), incident("approval", request=4)), ["waiting"], "waits for approval"),
        (health(state(), max=50.0), ["limit"], "beyond its limit"),
        (health(state(value="2026-03-02T00:00:00Z"), is_age=True), ["limit"], "in the future"),
        (health(state(), incident()), ["drifted"], "lost"),
        (health(state(), incident(value=160)), ["drifted"], "drifted"),
        (health(state(), incident(value="b", anchor="a")), ["drifted"], "drifted"),
        (health(state(), incident(), direction="up"), ["drifted"], "drifted"),
        (health(state(**DRIFTED)), ["drifted"], "lost"),
        (health(state(**(DRIFTED | {"value": 190}))), ["drifted"], "drifted"),
        (health(state(), incident(**ACKNOWLEDGED)), ["drifted"], "lost, acknowledged"),
        (health(state(), incident(flaps=3)), ["drifted"], "lost"),
        (health(state(as_of=NOW - 30 * 24 * HOUR)), ["stale"], "stale"),
        (health(state(requested_gen=1, due_since=NOW - 2 * HOUR)), ["overdue"], "overdue"),
        (health(state(requested_gen=1, due_since=NOW)), ["ok"], "ok"),
        (health(state(status="new")), ["new"], "new"),
        (health(MetricState("raw.files", "project")), ["new"], "not measured yet"),
        (health(state(), enabled=False), ["off"], "off"),
        (health(state(), incident(), enabled=False), ["drifted"], "lost"),
        (health(state(method="approximate")), ["ok"], "approximate"),
    ],
)
def test_each_state_has_its_flags_and_label(found: Health, flags: list[str], label: str) -> None:
    assert (list(found.flags), found.label) == (flags, label)
    assert found.labels[0] == label and found.text.startswith(label)
    assert found.sentence.endswith(".") and found.sentences[0] == found.sentence


def test_the_worst_flag_is_first_and_gives_the_label() -> None:
    old = state(error="no", as_of=NOW - 30 * 24 * HOUR, requested_gen=1)
    found = health(old, incident("approval", request=4), incident(**ACKNOWLEDGED), max=50.0)
    assert list(found.flags) == sorted(found.flags, key=FLAGS.index)
    assert found.flags == ("failing", "waiting", "limit", "drifted", "stale")
    assert found.text == "failing; waits for approval; beyond its limit; lost; stale"
    assert found.severity == "urgent" and not found.healthy and not found.acknowledged
    assert found.broken == "100 is above max = 50"


def test_one_open_incident_keeps_the_label_unacknowledged() -> None:
    assert health(state(), incident(**ACKNOWLEDGED), incident("stale"), max=50.0).label == "beyond its limit"
    both = health(state(), incident(**ACKNOWLEDGED), incident("limit", **ACKNOWLEDGED), max=50.0)
    assert both.text == "beyond its limit, acknowledged; lost"
    assert "ana acknowledged it: the disk is old." in both.sentence


def test_a_value_that_was_measured_again_without_a_change_stays_accepted() -> None:
    accepted = state(value=60, baseline=60, status="major", severity="high")
    assert health(replace(accepted, as_of=NOW + HOUR)).label == "ok"


def test_a_broken_limit_alone_is_no_drift() -> None:
    """A check of a value beyond its limit has severity high, however small its drift is."""
    checked = state(**(DRIFTED | {"value": 99, "status": "minor"}))
    assert health(checked, max=50.0).flags == ("limit",)
    assert health(replace(checked, status="major"), max=50.0).flags == ("limit", "drifted")
    outside = replace(checked, expected_low=99.5, expected_high=101.0)
    assert health(outside, max=50.0).flags == ("limit", "drifted")


def test_texts_from_outside_are_escaped() -> None:
    assert "\x1b" not in health(state(error="bad \x1b[31m")).sentence
    assert "\x1b" not in health(state(), incident(reason="bad \x1b[31m")).sentence
