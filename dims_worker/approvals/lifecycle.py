"""Open, update, supersede and withdraw the approval requests of held values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import Connection

from dims_worker.config import Config
from dims_worker.domain.decide import Baseline, HoldingDrift, Judge, inside_band
from dims_worker.domain.run import RunReading
from dims_worker.store import approval_requests
from dims_worker.store.baselines import change_span
from dims_worker.store.engine import clock
from dims_worker.store.events import events_between
from dims_worker.store.metric_states import MetricState
from dims_worker.store.runs import runs_by_number

EVIDENCE = 50
"""The most events that a request names."""


def update_requests(
    connection: Connection, config: Config, run_id: int, items: Sequence[RunReading], states: Mapping[str, MetricState]
) -> None:
    """Update the requests for a run, in its transaction. `states` are the locked rows of its metrics.

    A held value opens a request. In the band of the open request, it updates that request, else it supersedes it. An
    accepted value withdraws the open request.
    """
    decisive = {item.metric: item for item in items if item.outcome in ("held", "accepted")}
    open_requests = approval_requests.open_requests(connection, decisive) if decisive else {}
    for name, item in decisive.items():
        known = open_requests.get(name)
        if item.outcome == "accepted":
            if known:
                approval_requests.close_request(connection, known.id, "withdrawn")
            continue
        state, holding = states[name], _holding_drift(config, item, states[name])
        facts = _facts(item, state, run_id, holding)
        if known and inside_band(known.anchor, item.value, config.policy_of(name).tolerance_pct):
            seen = (known.value, known.baseline_version, known.compared_with)
            changed = seen != (item.value, state.baseline_version, holding.value if holding else item.baseline)
            facts |= {"evidence": _evidence(connection, config, item, state, run_id, holding)} if changed else {}
            approval_requests.update_request(connection, known.id, facts, changed=changed)
            continue
        if known:
            approval_requests.close_request(connection, known.id, "superseded")
        expire = config.policy_of(name).expire_after
        facts |= {"evidence": _evidence(connection, config, item, state, run_id, holding)}
        facts |= {"expires_at": clock(connection) + expire if expire else None}
        approval_requests.insert_request(connection, {"metric": name, **facts})


def _holding_drift(config: Config, item: RunReading, state: MetricState) -> HoldingDrift | None:
    """Return the drift that holds a value. It may be the drift from what a person last accepted."""
    accepted = Baseline(state.accepted) if state.accepted_as_of else None
    return Judge.of(config, item.metric).holding_drift(Baseline(item.baseline), item.value, accepted)


def _facts(item: RunReading, state: MetricState, run_id: int, holding: HoldingDrift | None) -> dict[str, Any]:
    return {
        "value": item.value,
        "unit": item.unit,
        "as_of": item.as_of,
        "drift_pct": holding.drift_pct if holding else item.drift_pct,
        "severity": item.severity,
        "reason": item.reason,
        "run_id": run_id,
        "baseline": item.baseline,
        "baseline_as_of": state.baseline_as_of,
        "baseline_version": state.baseline_version,
    }


def _evidence(
    connection: Connection,
    config: Config,
    item: RunReading,
    state: MetricState,
    run_id: int,
    holding: HoldingDrift | None,
) -> dict[str, Any]:
    """Return the evidence beside the numbers: the events in the span of the change (their number, and the newest by
    their number in the log), the details of the reading, such as gaps, and what a person last accepted, if the value
    is held for its drift from that.

    The span ends with the reading that first had this value. Later readings of the same value do not extend it.
    """
    reads = sorted(config.with_inputs([item.metric])) if item.metric in config.metrics else [item.metric]
    (run,) = runs_by_number(connection, [run_id])
    after, until = change_span(connection, item.metric, state.baseline_as_of or item.as_of, run.started_at)
    number, newest = events_between(connection, reads, after, until, EVIDENCE)
    return {
        "events": number,
        "newest": [event.seq for event in newest],
        "after": after.isoformat(),
        "until": until.isoformat(),
        "details": item.details,
        **({approval_requests.COMPARED: holding.value} if holding and holding.from_person else {}),
    }
