"""The invariants after every step: compare the tables with the simulated world."""

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
"""A critical value that moves this far needs a person's decision."""


@dataclass(frozen=True)
class Tables:
    """The content of the database."""

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
        """Return how often each event of a producer is stored."""
        return Counter(row.event_id for row in self.log if row.producer == producer)

    def last_event(self, metric: str) -> datetime | None:
        """Return when the newest event that concerns a metric was stored."""
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
    """Only a changed configuration raises them, too. A known event causes no measurement."""
    if {(n, s.definition, s.retired_at) for n, s in before.states.items()} != {
        (n, s.definition, s.retired_at) for n, s in now.states.items()
    }:
        return
    new = now.log[len(before.log) :]
    for name, state in now.states.items():
        events = sum(name in row.metrics for row in new)
        assert state.requested_gen - before.states[name].requested_gen <= events, name


def no_baseline_moves_far_without_a_person(config: Config, before: Tables, now: Tables, person: str | None) -> None:
    """`person`: the metric that a person approved meanwhile. A changed or restored definition starts from scratch."""
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


def what_is_not_due_is_true(config: Config, now: Tables, world: World, pending: Collection[str]) -> None:
    """A metric that is not due and has no `pending` event was measured after its last event, and has the true value. A
    derived metric matches its inputs."""
    uncertain = now.due | set(pending)
    for name, metric in config.metrics.items():
        if config.with_inputs([name]) & uncertain:
            continue
        state, last = now.states[name], now.last_event(name)
        if not isinstance(metric, DerivedMetric):
            assert state.as_of is not None, f"{name} is not due, but was never measured"
            assert last is None or state.as_of > last, f"{name} was not measured after its last event"
        elif state.baseline_as_of is None:
            continue  # newly defined: the next sweep computes it
        assert state.value == world.truth(config, name), f"{name} is not due, but its last reading is wrong"


def all_is_measured(config: Config, now: Tables, world: World) -> None:
    """At the end, everything is measured. A metric that cannot be measured may be due, and blocks no other."""
    assert now.due <= world.unmeasurable
    for name, metric in config.metrics.items():
        if config.with_inputs([name]) & world.unmeasurable:
            continue
        state = now.states[name]
        assert state.value == world.truth(config, name), name
        if state.baseline != state.value:
            assert metric.critical, f"{name} was not judged"
            known = [state.baseline, state.accepted]
            assert any(abs(state.value - value) >= FAR * abs(value) for value in known), (
                f"{name} is held without a reason"
            )
