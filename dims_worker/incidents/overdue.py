"""Open, update and close the incidents that begin or end without a reading. The sweep does this every few seconds.

A metric becomes stale, an age grows too old, a request expires, a rule becomes silent, a flapping metric has been calm
for the quiet period, `close_after` is over, a metric or rule is no longer configured.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection

from dims_worker.config import Config, DerivedMetric
from dims_worker.domain.decide import Judge
from dims_worker.domain.silence import TICK_PATIENCE, silent_rules
from dims_worker.formatting import format_age, format_limit
from dims_worker.incidents.lifecycle import take_steps
from dims_worker.incidents.rules import Condition, Step, next_step
from dims_worker.store import incidents, notifications
from dims_worker.store.approval_requests import requests_by_number
from dims_worker.store.expectations import discard_bands
from dims_worker.store.incidents import RULE, Incident
from dims_worker.store.schedules import schedule_states


@dataclass(frozen=True, slots=True)
class Sweep:
    """When incidents are swept: the time `now`, and since when this process of DIMS has been running."""

    now: datetime
    up_since: datetime


def sweep_incidents(connection: Connection, config: Config, sweep: Sweep) -> None:
    """Update the incidents that need no reading. A metric that another transaction has locked waits."""
    steps = _steps(connection, config, sweep, lock=False)
    if not steps:
        return
    metrics = {step.condition.metric for step in steps if not step.condition.metric.startswith(RULE)}
    free = set(notifications.lock_free_metrics(connection, metrics))
    # Read them again under the lock: a run may have changed them meanwhile
    again = _steps(connection, config, sweep, lock=True)
    chosen = [step for step in again if step.condition.metric in free or step.condition.metric.startswith(RULE)]
    expired = [step for step in chosen if step.resolution == "expired" and step.known]
    take_steps(connection, [step for step in chosen if step not in expired], sweep.now, None)
    requests = requests_by_number(connection, [step.known.request or 0 for step in expired if step.known])
    for request in requests.values():
        incidents.keep_as_drift(connection, request, "expired", sweep.now)
    if taught := {step.condition.metric for step in chosen if step.resolution == "timeout"}:
        discard_bands(connection, taught)


def _steps(connection: Connection, config: Config, sweep: Sweep, *, lock: bool) -> list[Step]:
    quiet = config.notify.quiet_period
    lasting = incidents.lasting_incidents(connection, None, sweep.now - quiet, lock=lock)
    known: dict[tuple[str, str], Incident] = {(each.metric, each.kind): each for each in lasting}
    ended = list(_ended(connection, config, lasting, sweep.now))
    done = {step.known.id for step in ended if step.known}
    conditions = [
        *_stale(connection, config, known, sweep.now),
        *_limits(connection, config, lasting, sweep.now),
        *_silences(connection, config, lasting, sweep),
        *(Condition(each.metric, each.kind, False) for each in lasting if each.active and each.calm_at),
    ]
    steps = []
    for condition in conditions:
        of = known.get((condition.metric, condition.kind))
        if of is not None and (of.id in done or (condition.holds and of.active and of.calm_at is None)):
            continue  # it is open already, and a sweep adds nothing to it
        if step := next_step(condition, of, sweep.now, quiet):
            steps.append(step)
            done |= {of.id} if of is not None else set()
    return [*ended, *steps]


def _ended(connection: Connection, config: Config, lasting: Sequence[Incident], now: datetime) -> Iterator[Step]:
    """Yield the steps of active incidents that end for a reason other than their condition."""
    active = [each for each in lasting if each.active]
    requests = requests_by_number(connection, [each.request for each in active if each.request is not None])
    retired = incidents.retired_metrics(connection, [each.metric for each in active])
    for each in active:
        condition = Condition(each.metric, each.kind, False)
        if each.metric in retired or (each.rule is not None and each.rule not in config.rules):
            yield Step("close", condition, each, resolution="retired")
        elif each.kind == "approval" and each.request in requests:
            state = requests[each.request].state
            if state == "expired":
                yield Step("close", condition, each, resolution="expired")
        elif each.kind == "drift" and each.metric in config.definitions:
            after = config.policy_of(each.metric).close_after
            if after is not None and now - each.opened_at >= after:
                yield Step("close", condition, each, resolution="timeout")


def _stale(
    connection: Connection, config: Config, known: Mapping[tuple[str, str], Incident], now: datetime
) -> Iterator[Condition]:
    """Yield the metrics that were not measured for too long. A stale input is reported instead of what it feeds."""
    after = {
        name: span
        for name, metric in config.metrics.items()
        if metric.enabled and (span := config.policy_of(name).stale_after) is not None
    }
    stale = notifications.stale_metrics(connection, after, now)
    for name, as_of in stale.items():
        inputs = config.with_inputs([name]) - {name}
        if isinstance(config.metrics[name], DerivedMetric) and inputs & stale.keys():
            continue
        reason = f"not measured for {format_age(now - as_of)}, longer than {format_limit(after[name])}"
        yield Condition(name, "stale", True, "medium", reason)
    for metric, kind in known:
        if kind == "stale" and metric not in stale:
            yield Condition(metric, "stale", False)


def _limits(connection: Connection, config: Config, lasting: Sequence[Incident], now: datetime) -> Iterator[Condition]:
    """Yield the limits of ages, which time breaks, and those of incidents, which the configuration may have changed."""
    beyond = {each.metric for each in lasting if each.kind == "limit" and each.metric in config.metrics}
    ages = {name for name, metric in config.metrics.items() if metric.enabled and metric.is_age}
    latest = notifications.latest_values(connection, beyond | ages) if beyond | ages else {}
    for name, last in latest.items():
        broken = Judge.of(config, name).format_broken_limit(last.value, now, last.as_of)
        if broken is None:
            yield Condition(name, "limit", False)
        elif name in ages:
            yield Condition(name, "limit", True, "high", broken, last.value, last.unit, last.as_of)


def _silences(connection: Connection, config: Config, lasting: Sequence[Incident], sweep: Sweep) -> Iterator[Condition]:
    if not any(rule.schedule or rule.silent_after for rule in config.rules.values()):
        return
    silent = silent_rules(config.rules, schedule_states(connection), sweep.now, sweep.up_since)
    for silence in silent:
        yield Condition(f"{RULE}{silence.rule}", "silence", True, "high", silence.reason, anchor_as_of=silence.since)
    if sweep.now - sweep.up_since >= TICK_PATIENCE:
        names = {f"{RULE}{silence.rule}" for silence in silent}
        for each in lasting:
            if each.kind == "silence" and each.metric not in names:
                yield Condition(each.metric, "silence", False)
