"""Measuring what is due: claim a source, make one pass over it, record the run. And looks, which claim nothing."""

from __future__ import annotations

import logging
import os
import socket
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError

from dims_worker import workflows
from dims_worker.config import Config
from dims_worker.config.runtime import WORKFLOW
from dims_worker.domain.run import Run
from dims_worker.errors import DimsError
from dims_worker.pipeline.record import Measurement, record_run
from dims_worker.probes.base import Reading, ScanContext, ScanResult, readings_by_name
from dims_worker.probes.scan import Scan
from dims_worker.store import leases
from dims_worker.store.engine import clock, transaction
from dims_worker.store.leases import Claim
from dims_worker.store.runs import result_of

log = logging.getLogger(__name__)


def worker_name() -> str:
    """Who measures, as runs and leases name it."""
    return f"{socket.gethostname()}:{os.getpid()}"


@dataclass(frozen=True, slots=True)
class WorkflowOptions:
    """How a workflow is run: quickly, with which options, and who is told what it does."""

    quick: bool = False
    options: frozenset[str] = frozenset()
    progress: workflows.Progress = workflows.no_progress

    def run(self, config: Config, workflow: str) -> workflows.WorkflowOutcome:
        return workflows.run_workflow(config, workflow, quick=self.quick, options=self.options, progress=self.progress)


AS_CONFIGURED = WorkflowOptions()


def measure_due(
    engine: Engine, config: Config, source: str, *, at_once: bool = False, how: WorkflowOptions = AS_CONFIGURED
) -> Run | None:
    """Claim what is due of a source, measure and record it. Of a workflow, `how` to run it.

    None: there was nothing to claim. `at_once` waits for no cooldown and no back-off: a person asked.
    """
    lease = config.settings.lease
    with transaction(engine) as connection:
        definitions = {name: config.definitions[name] for name in config.scans[source]}
        claim = leases.claim_source(connection, source, definitions, worker_name(), lease, at_once=at_once)
    if claim is None:
        return None
    with _renewed(engine, claim, lease):
        measured = _measure_claimed(config, claim, how)
        with transaction(engine) as connection:
            return record_run(connection, config, measured)


def _measure_claimed(config: Config, claim: Claim, how: WorkflowOptions) -> Measurement:
    outcome = None
    if claim.quarantined:
        scanned = _set_aside(config, claim)
    elif claim.source.startswith(WORKFLOW):
        outcome = how.run(config, claim.source)
        scanned = outcome.scanned
    else:
        scanned = measure_source(config, claim.source, claim.generations)
    return Measurement(
        readings=readings_by_name(scanned.readings),
        as_of=claim.as_of,
        trigger="workflow" if outcome else "event",
        worker=worker_name(),
        source=claim.source,
        api_calls=scanned.api_calls,
        claim=claim,
        result=outcome.result if outcome else None,
    )


def _set_aside(config: Config, claim: Claim) -> ScanResult:
    """In the place of a measurement that has ended its worker again and again."""
    why = f"set aside: its measurement took its worker with it {leases.MAX_ALONE_LOSSES} times; it is tried again later"
    return ScanResult(tuple(Reading.failed(name, config.metric_of(name).shown_unit, why) for name in claim.generations))


def write_workflow_report(engine: Engine, config: Config, run: Run) -> Path | None:
    """Write the configured report of a workflow's run out of its stored result; the file, or None: there is none.

    Raises OSError. A run whose lease was lost tells nothing.
    """
    declared = config.workflow_of(run.source) if run.source and run.status != "superseded" else None
    if declared is None or declared.report is None:
        return None
    with transaction(engine) as connection:
        result = result_of(connection, run.run_id)
    if result is None:
        return None
    path = config.path_of(declared.report)
    workflows.write_report(path, result)
    return path


def check_now(engine: Engine, config: Config, names: Iterable[str]) -> Run:
    """Measure the named metrics now, and record a look: it gives a first baseline and changes no other.

    Sources are scanned side by side; a derived metric brings its inputs with it.
    """
    wanted = config.with_inputs(names)
    by_source = {
        source: [name for name in measured if name in wanted] for source, measured in config.metrics_by_source.items()
    }
    by_source = {source: measured for source, measured in by_source.items() if measured}
    with transaction(engine) as connection:
        as_of = clock(connection)
    begun = [start_scan(config, source, measured) for source, measured in by_source.items()]
    scans = [scan.result() for scan in begun]
    measured = Measurement(
        readings={name: reading for scan in scans for name, reading in readings_by_name(scan.readings).items()},
        as_of=as_of,
        trigger="verify",
        worker=worker_name(),
        source=next(iter(by_source)) if len(by_source) == 1 else None,
        api_calls=sum(scan.api_calls for scan in scans),
    )
    with transaction(engine) as connection:
        return record_run(connection, config, measured)


def measure_source(config: Config, source: str, names: Iterable[str]) -> ScanResult:
    """One pass over a source: a reading for every name. What cannot be measured is a failed reading."""
    return start_scan(config, source, names).result()


def start_scan(config: Config, source: str, names: Iterable[str]) -> Scan:
    """A pass over a source, begun beside others."""
    context = ScanContext(config.project, config.home, config.sources, config.prices)
    return Scan(source, config.sources[source], {name: config.metrics[name] for name in names}, context)


@contextmanager
def _renewed(engine: Engine, claim: Claim, lease: timedelta) -> Iterator[None]:
    """Renew the claim's lease from a thread of its own while the block runs."""
    done = threading.Event()

    def renew() -> None:
        while not done.wait(lease.total_seconds() / 3):
            try:
                with transaction(engine) as connection:
                    if not leases.renew_lease(connection, claim, lease):
                        return  # lost: recording will find out, and change nothing
            except (DimsError, SQLAlchemyError) as error:
                log.warning("the lease of %s was not renewed, trying again: %s", claim.source, error)

    thread = threading.Thread(target=renew, name=f"lease of {claim.source}", daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
