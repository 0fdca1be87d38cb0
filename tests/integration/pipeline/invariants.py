"""What must be so after every step, whatever happened: the tables, held against the made world."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Engine, Row, text

from dims_worker.config import Config, DerivedMetric
from dims_worker.store import approval_requests, metric_states
from dims_worker.store.approval_requests import ApprovalRequest
from dims_worker.store.engine import transaction
from dims_worker.store.metric_states import MetricState
from tests.integration.pipeline.world import METRICS, World

FAR = 0.15
"""A critical value that moves by so much needs a person."""


@dataclass(frozen=True)
class Tables:
    """What the database says."""

    states: Mapping[str, MetricState]
    log: Sequence[Row[Any]]
    requests: Mapping[str, ApprovalRequest]

    @classmethod
    def of(cls, engine: Engine) -> Tables:
        with transaction(engine) as connection:
            return cls(
                metric_states.read_states(connection, METRICS),
                connection.execute(
                    text("SELECT producer, event_id, outcome, metrics, received_at FROM dims_event_log ORDER BY seq")
                ).fetchall(),
                approval_requests.open_requests(connection),
            )

    @property
    def due(self) -> set[str]:
        return {name for name, state in self.states.items() if state.due}

    def stored(self, producer: str) -> Counter[str]:
        """How often each event of a producer is stored."""
        return Counter(row.event_id for row in self.log if row.producer == producer)

    def last_event(self, metric: str) -> datetime | None:
        """When the newest event that concerned a metric was stored."""
        return max((row.received_at for row in self.log if metric in row.metrics), default=None)


def nothing_goes_back(before: Tables, now: Tables) -> None:
    for name, old in before.states.items():
        new = now.states[name]
        assert new.requested_gen >= old.requested_gen, name
        assert new.requested_gen >= new.measured_gen >= old.measured_gen, name
        assert (new.due_since is not None) == new.due, name
        assert not old.as_of or new.as_of >= old.as_of or old.definition != new.definition, name
        if new.baseline_as_of and old.baseline_as_of:
            assert new.baseline_as_of >= old.baseline_as_of, name


def generations_are_raised_by_new_events_alone(before: Tables, now: Tables) -> None:
    """And by a configuration that says something else. What is known already makes nobody measure again."""
    if {(n, s.definition, s.retired_at) for n, s in before.states.items()} != {
        (n, s.definition, s.retired_at) for n, s in now.states.items()
    }:
        return
    new = now.log[len(before.log) :]
    for name, state in now.states.items():
        told = sum(name in row.metrics for row in new)
        assert state.requested_gen - before.states[name].requested_gen <= told, name


def no_baseline_moves_far_without_a_person(config: Config, before: Tables, now: Tables, person: str | None) -> None:
    """`person`: what one approved meanwhile. A definition that changed begins anew, and so does what is back."""
    for name, metric in config.metrics.items():
        new, old = now.states.get(name), before.states.get(name)
        if new is None or not metric.critical or new.baseline_as_of is None:
            continue
        assert abs(new.baseline - new.accepted) < FAR * abs(new.accepted), name
        if old and old.baseline_as_of and old.definition == new.definition and name != person:
            assert abs(new.baseline - old.baseline) < FAR * abs(old.baseline), name


def requests_are_about_the_baseline(now: Tables) -> None:
    for name, request in now.requests.items():
        state = now.states[name]
        assert not state.retired_at, name
        assert (request.baseline, request.baseline_version) == (state.baseline, state.baseline_version), name


def what_is_not_due_is_true(config: Config, now: Tables, world: World, told: Collection[str]) -> None:
    """What is not due, nor told of by an event that is still on its way (`told`), was measured after its last
    event, and its last good reading is as the world is. A derived one's is as its inputs are."""
    unsure = now.due | set(told)
    for name, metric in config.metrics.items():
        if config.with_inputs([name]) & unsure:
            continue
        state, last = now.states[name], now.last_event(name)
        if not isinstance(metric, DerivedMetric):
            assert state.as_of is not None, f"{name} is not due and was never measured"
            assert last is None or state.as_of > last, f"{name} was not measured after its last event"
        elif state.baseline_as_of is None:
            continue  # newly defined: the next sweep computes it
        assert state.value == world.truth(config, name), f"{name} is not due, and its last reading is not true"


def all_is_measured(config: Config, now: Tables, world: World) -> None:
    """Once it is calm. What cannot be measured may be due; it hinders nobody else."""
    assert now.due <= world.hindered
    for name, metric in config.metrics.items():
        if config.with_inputs([name]) & world.hindered:
            continue
        state = now.states[name]
        assert state.value == world.truth(config, name), name
        if state.baseline != state.value:
            assert metric.critical, f"{name} was judged by nobody"
            known = [state.baseline, state.accepted]
            assert any(abs(state.value - one) >= FAR * abs(one) for one in known), f"{name} is held for nothing"
