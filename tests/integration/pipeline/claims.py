"""Observe the real claims and records, and check what must hold for them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from typing import Any
from unittest.mock import patch

from sqlalchemy import Connection, Engine

from dims_worker.config import Config
from dims_worker.domain.run import Run
from dims_worker.pipeline import verify
from dims_worker.pipeline.record import Measurement, record_run
from dims_worker.store import leases
from dims_worker.store.engine import transaction
from dims_worker.store.leases import Claim
from dims_worker.store.metric_states import MetricState
from tests.integration.stepped_process import Process, current

HOUR = timedelta(hours=1)

_claim, _record = leases.claim_source, record_run


class Worker(Process):
    """A process that may hold a claim."""

    claim: Claim | None = None


class Claims:
    """A source has one lease holder at a time, which respects cooldown and back-off. A worker that lost its lease
    records nothing. Attempts count the lost claims."""

    def __init__(self) -> None:
        self.last: dict[str, Worker] = {}
        """The last worker that claimed each source."""
        self.holders: dict[str, Worker] = {}
        """The worker whose lease has not expired, by source."""
        self.waiting: set[str] = set()
        """Sources in cooldown, and metrics in back-off."""
        self.lost: Counter[str] = Counter()
        """By metric: the claims since the last recorded one that will never be recorded."""

    @contextmanager
    def observed(self) -> Iterator[None]:
        """Route the real claims and records through this object."""
        with patch.object(leases, "claim_source", self.claim), patch.object(verify, "record_run", self.record):
            yield

    def claim(self, connection: Connection, source: str, *args: Any, at_once: bool) -> Claim | None:
        claim = _claim(connection, source, *args, at_once=at_once)
        if claim is None:
            return None
        assert source not in self.holders, f"{source} is claimed while another holds it"
        assert at_once or not self.waiting & {source, *claim.generations}, f"{source} is claimed too early"
        process = _worker()
        process.claim = claim
        self.holders[source] = self.last[source] = process
        return claim

    def record(self, connection: Connection, config: Config, measured: Measurement) -> Run:
        run, claim = _record(connection, config, measured), measured.claim
        if claim is None:
            return run
        process, source = _worker(), claim.source
        process.claim = None
        assert (run.status == "superseded") == (self.last[source] is not process), (
            "only the last of two holders records"
        )
        if run.status == "superseded":
            self.lost.update(claim.generations)
            return run
        self.holders.pop(source, None)
        for name in claim.generations:
            self.lost[name] = leases.QUARANTINE_AFTER - 1 if claim.quarantined else 0
        failed = {item.metric for item in run.items if item.outcome == "failed" and item.generation}
        cooling = {source} if config.cooldown_of(source) else set()
        self.waiting = self.waiting - set(claim.generations) | failed | cooling
        return run

    def renew(self, engine: Engine, process: Worker) -> None:
        """Renew the lease of a living process, as its thread does."""
        if process.alive and process.claim:
            with transaction(engine) as connection:
                renewed = leases.renew_lease(connection, process.claim, HOUR)
            assert renewed == (self.last[process.claim.source] is process)
            if renewed:
                self.holders[process.claim.source] = process

    def ended(self, process: Worker) -> None:
        """Count the claim of a process that has ended as lost."""
        if not process.alive and process.claim:
            self.lost.update(process.claim.generations)
            process.claim = None

    def attempts_are_claims_that_were_lost(self, alive: list[Worker], now: Mapping[str, MetricState]) -> None:
        held = Counter(name for process in alive if process.claim for name in process.claim.generations)
        for name, state in now.items():
            assert state.attempts <= self.lost[name] + held[name], f"{name}: more attempts than claims"


def _worker() -> Worker:
    process = current()
    assert isinstance(process, Worker)
    return process
