"""Invariant 7: a metric that crashes its worker is measured alone, then quarantined. Other metrics go on."""

from __future__ import annotations

from datetime import timedelta

from dims_worker.domain.backoff import BACKOFF_MAX
from dims_worker.domain.run import Run
from dims_worker.pipeline.verify import measure_due
from dims_worker.store import leases
from dims_worker.store.leases import MAX_ALONE_LOSSES, MAX_SHARED_LOSSES, Claim
from tests.integration.helpers import Down, Flow, Threads, outcome


def lose(flow: Flow, source: str = "one") -> list[str]:
    """A worker claims what is due and is killed, and its lease expires. Return what it had claimed."""
    claim = flow.claim(source)
    assert claim is not None
    flow.do("UPDATE dims_sources SET lease_until = clock_timestamp() - interval '1 s' WHERE source = :s", s=source)
    return sorted(claim.generations)


def serve_well(flow: Flow, source: str = "one") -> list[str]:
    """A worker claims what is due and records it. Return what it had claimed."""
    claim = flow.claim(source)
    assert claim is not None
    flow.record(claim, dict.fromkeys(claim.generations, 1))
    return sorted(claim.generations)


def attempts(flow: Flow) -> dict[str, int]:
    return {row.metric: row.attempts for row in flow.rows("SELECT * FROM dims_metrics WHERE attempts > 0")}


def test_attempts_are_counted_at_claim_and_cleared_at_record(flow: Flow) -> None:
    flow.ask("m.a", "m.c")
    lose(flow)
    assert attempts(flow) == {"m.a": 1, "m.c": 1}
    claim = flow.claim()
    assert claim is not None
    flow.record(claim, {"m.a": 1, "m.c": Down("away")})  # a failed reading shows that the worker is alive
    assert attempts(flow) == {}


def test_after_two_lost_leases_each_metric_is_measured_alone(flow: Flow) -> None:
    flow.ask("m.a", "m.c")
    assert [lose(flow) for _ in range(MAX_SHARED_LOSSES)] == [["m.a", "m.c"]] * MAX_SHARED_LOSSES
    assert serve_well(flow) == ["m.a"]
    assert serve_well(flow) == ["m.c"]
    assert flow.claim() is None


def test_a_metric_that_loses_three_leases_alone_is_quarantined_and_tried_again_later(flow: Flow) -> None:
    """m.c crashes its worker whenever it is measured."""
    flow.ask("m.a", "m.c")
    lost = [lose(flow) for _ in range(MAX_SHARED_LOSSES)]
    assert serve_well(flow) == ["m.a"]
    lost += [lose(flow) for _ in range(MAX_ALONE_LOSSES)]
    assert lost[MAX_SHARED_LOSSES:] == [["m.c"]] * MAX_ALONE_LOSSES
    run = measure_due(flow.engine, flow.config, "one", at_once=True)
    assert isinstance(run, Run)
    (item,) = run.items
    assert (item.metric, item.outcome, run.status) == ("m.c", "failed", "partial")
    assert "crashed its worker 3 times. DIMS tries it again every 15 minutes" in str(item.error)
    state = flow.state("m.c")
    assert state.due
    assert state.not_before is not None
    assert abs(state.not_before - flow.clock() - BACKOFF_MAX) < timedelta(seconds=20)
    assert flow.claim(at_once=False) is None
    # later it is tried once, alone, and is normal again if that succeeds
    flow.do("UPDATE dims_metrics SET not_before = NULL")
    claim = flow.claim()
    assert claim is not None
    assert (list(claim.generations), claim.quarantined) == (["m.c"], False)
    flow.record(claim, {"m.c": 1})
    assert (attempts(flow), flow.state("m.c").due) == ({}, False)


def test_a_quarantined_metric_that_crashes_once_more_is_quarantined_at_once(flow: Flow) -> None:
    flow.ask("m.c")
    for _ in range(MAX_SHARED_LOSSES + MAX_ALONE_LOSSES):
        lose(flow)
    measure_due(flow.engine, flow.config, "one", at_once=True)
    lose(flow)
    claim = flow.claim()
    assert claim is not None
    assert claim.quarantined


def test_neither_a_suspect_nor_the_other_metrics_wait_for_ever(flow: Flow) -> None:
    """Events keep both due all the time, so they take turns."""
    flow.ask("m.c")
    for _ in range(MAX_SHARED_LOSSES):
        lose(flow)
    served: list[str] = []
    for _ in range(6):
        flow.ask("m.a", "m.c")
        claim = flow.claim()
        assert claim is not None
        (name,) = claim.generations
        served.append(name)
        if name == "m.a":
            flow.record(claim, {"m.a": 1})
        else:  # it is slow, and its lease expires
            flow.do("UPDATE dims_sources SET lease_until = clock_timestamp() - interval '1 s'")
    assert served.count("m.a") == served.count("m.c") == 3


def test_a_source_with_a_crashing_metric_delays_no_other_source(flow: Flow) -> None:
    flow.ask("m.c", "m.b")
    for _ in range(MAX_SHARED_LOSSES):
        lose(flow)
    assert serve_well(flow, "two") == ["m.b"]


def test_a_claim_that_finds_nothing_costs_one_query(flow: Flow, queries: list[str]) -> None:
    """A repeated wake-up: nothing is due, or another worker has the lease."""
    queries.clear()
    assert flow.claim() is None
    assert len(queries) == 1
    flow.ask("m.a")
    assert isinstance(flow.claim(), Claim)
    queries.clear()
    assert flow.claim() is None
    assert len(queries) == 1


def test_a_claim_sees_what_was_recorded_while_it_waited(flow: Flow, beside: Threads) -> None:
    """What is due is read again under the lock, so a metric that was recorded in between is not measured twice."""
    claim = flow.claimed("m.a")
    with flow.engine.begin() as connection:
        connection.exec_driver_sql("SELECT 1 FROM dims_metrics WHERE metric = 'm.a' FOR UPDATE")
        recording = beside(flow.record, claim, {"m.a": 1})  # has released the source, waits for the metric
        flow.blocked()
    outcome(recording)
    assert flow.claim() is None
    assert leases.QUARANTINE_AFTER == MAX_SHARED_LOSSES + MAX_ALONE_LOSSES
