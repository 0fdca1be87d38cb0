"""Concurrent decisions while readings come in: each request is decided once, each baseline is an approved value."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from sqlalchemy import create_engine

from dims_worker.approvals.decisions import Choice, DecisionResult, decide_request, load_request
from dims_worker.domain.approvers import Decider
from dims_worker.errors import Refused
from tests.integration.helpers import Flow

METRICS = [f"m.c{number:02}" for number in range(20)]
CALLS, READINGS, SEED = 200, 60, 20261125
CONFIG = "\n".join(
    [
        "sources: {one: {type: files, path: one}}",
        "metrics:",
        "  m:",
        *(f"    {name.removeprefix('m.')}: {{source: one, measure: count, critical: true}}" for name in METRICS),
        "rules: {scraped: {on: dims.scraper.complete}}",
    ]
)


def measure(flow: Flow, values: dict[str, int]) -> None:
    """Send an event for these metrics, and measure what is due unless another worker does."""
    flow.ask(*values)
    if claim := flow.claim():
        flow.record(claim, {name: values.get(name, 150) for name in claim.generations})


def test_200_decisions_on_20_requests_while_readings_come_in(
    make_flow: Callable[[str], Flow], database_url: str
) -> None:
    flow = make_flow(CONFIG)
    flow.engine = create_engine(database_url, pool_size=12, connect_args={"options": "-c lock_timeout=30s"})
    try:
        _decide_at_once(flow)
    finally:
        flow.engine.dispose()


def _decide_at_once(flow: Flow) -> None:
    draw = random.Random(SEED)
    measure(flow, dict.fromkeys(METRICS, 100))
    measure(flow, dict.fromkeys(METRICS, 150))
    first = {row.metric: row.id for row in flow.rows("SELECT * FROM dims_approval_requests WHERE state = 'open'")}
    assert len(first) == 20

    def decide(number: int, metric: str, choice: Choice) -> DecisionResult | Refused:
        request = load_request(flow.engine, metric)
        person = Decider(f"person {number}", "option")
        try:
            return decide_request(
                flow.engine,
                flow.config,
                str(request.id),
                choice,
                version=request.version,
                person=person,
                note=str(number),
            )
        except Refused as refused:
            return refused

    choices: list[Choice] = ["approved", "rejected"]
    calls = [(number, METRICS[number % 20], draw.choice(choices)) for number in range(CALLS)]
    draw.shuffle(calls)
    readings = [
        {metric: draw.choice([150, 151, 152, 190]) for metric in draw.sample(METRICS, 5)} for _ in range(READINGS)
    ]
    with ThreadPoolExecutor(10) as pool:
        running = [pool.submit(decide, *call) for call in calls]
        measuring = [pool.submit(measure, flow, values) for values in readings]
        results = [future.result(120) for future in running]
        for future in measuring:
            future.result(120)

    # every decision is one row with its person
    made = [result for result in results if isinstance(result, DecisionResult) and not result.already]
    log = flow.rows("SELECT * FROM dims_approval_requests WHERE decided_by IS NOT NULL")
    assert Counter((result.request.id, result.choice, result.request.note) for result in made) == Counter(
        (row.id, row.state, row.note) for row in log
    )
    assert {row.id for row in flow.rows("SELECT id FROM dims_approval_requests")} >= set(first.values())
    for metric in METRICS:
        _check(flow, metric)


def _check(flow: Flow, metric: str) -> None:
    """The baseline is the last approved value, each approval changed it once, and at most one request is open."""
    state = flow.state(metric)
    rows = flow.rows("SELECT * FROM dims_approval_requests WHERE metric = :m ORDER BY decided_at, id", m=metric)
    approved = [row for row in rows if row.state == "approved"]
    accepted = flow.scalar(
        "SELECT count(*) FROM dims_metrics_history WHERE metric = :m AND outcome = 'accepted' AND status <> 'new'",
        m=metric,
    )
    assert state.accepted == (approved[-1].value if approved else 100)
    assert all(isinstance(row.value, int) for row in approved)
    if not accepted:  # no reading was near enough to the baseline to move it by policy
        assert state.baseline == state.accepted
        assert state.baseline_version == 1 + len(approved)
    assert sum(row.state == "open" for row in rows) <= 1
    assert {row.state for row in rows} <= {"open", "approved", "rejected", "superseded", "withdrawn"}
    held = flow.rows("SELECT outcome, count(*) AS n FROM dims_metrics_history WHERE metric = :m GROUP BY 1", m=metric)
    assert {row.outcome for row in held} <= {"accepted", "approved", "rejected", "held"}
