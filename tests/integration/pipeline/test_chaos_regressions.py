"""Faults that the chaos test found, each reproduced without killing."""

from __future__ import annotations

from dims_worker.pipeline.ingest import register_config
from dims_worker.store import leases, metric_states
from dims_worker.store.engine import transaction
from tests.integration.helpers import LEASE, Flow, Threads, outcome


def test_a_worker_that_starts_while_a_run_is_recorded_does_not_deadlock_with_it(flow: Flow, beside: Threads) -> None:
    claim = flow.claimed("m.a")

    def start() -> None:
        with transaction(flow.engine) as connection:
            register_config(connection, flow.config)

    with transaction(flow.engine) as recording:
        assert leases.release_lease(recording, claim, LEASE)
        other = beside(start)
        flow.blocked()
        metric_states.lock_states(recording, ["m.a", "m.c"])  # the starting worker has locked none of them
    assert outcome(other) is None
