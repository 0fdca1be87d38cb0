"""Measure what is due: claim a source, scan it once, record the run. `check_now` measures without a claim."""

from __future__ import annotations

import logging
import os
import socket
import threading
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError

from dims_worker import workflows
from dims_worker.broker.outage_log import DATABASE, outages
from dims_worker.broker.queues import VERIFY
from dims_worker.config import WORKFLOW_OPTIONS, Config
from dims_worker.config.runtime import WORKFLOW
from dims_worker.domain.backoff import BACKOFF_MAX
from dims_worker.domain.run import Run
from dims_worker.errors import DimsError, ScanStopped
from dims_worker.events import WORKFLOW_REQUESTED
from dims_worker.pipeline.record import Measurement, prepare_record, record_run
from dims_worker.probes.base import Reading, ScanResult, readings_by_name
from dims_worker.probes.scan import Scan
from dims_worker.probes.scan_process.pool import never
from dims_worker.store import leases
from dims_worker.store.engine import clock, transaction
from dims_worker.store.events import RunRequest, waiting_requests
from dims_worker.store.leases import Claim
from dims_worker.store.runs import result_of

log = logging.getLogger(__name__)


def worker_name() -> str:
    """Return the name of this process in runs and leases."""
    return f"{socket.gethostname()}:{os.getpid()}"


@dataclass(frozen=True, slots=True)
class WorkflowOptions:
    """How to run a workflow: quickly or not, with which options, and what receives its progress.

    `with_metrics` is for a run by hand, which measures the metrics of the workflow as a check. After an event they are
    due with the workflow, so their sources' claims measure and judge them.
    """

    quick: bool = False
    options: frozenset[str] = frozenset()
    progress: workflows.Progress = workflows.no_progress
    with_metrics: bool = False

    def with_requests(self, requests: Collection[RunRequest]) -> WorkflowOptions:
        """Return these options with those of the events that the run serves.

        A retry, or another worker, has only the events. A run is quick if every event wants that.
        """
        by_hand = [each for each in requests if each.type == WORKFLOW_REQUESTED]
        options = {option for option in WORKFLOW_OPTIONS if any(option in (each.options or ()) for each in by_hand)}
        quick = bool(requests) and all(each in by_hand and each.quick is True for each in requests)
        with_metrics = any(each.check is True for each in by_hand)
        return replace(
            self,
            quick=self.quick or quick,
            options=self.options | options,
            with_metrics=self.with_metrics or with_metrics,
        )

    def start(self, config: Config, workflow: str) -> workflows.RunningWorkflow:
        return workflows.RunningWorkflow(
            config,
            workflow,
            quick=self.quick,
            options=self.options,
            progress=self.progress,
            with_metrics=self.with_metrics,
        )


AS_CONFIGURED = WorkflowOptions()


def measure_due(
    engine: Engine,
    config: Config,
    source: str,
    *,
    at_once: bool = False,
    options: WorkflowOptions = AS_CONFIGURED,
    claimed: Callable[[], None] = lambda: None,
    stop: Callable[[], bool] = never,
) -> Run | None:
    """Claim the due metrics of a source, measure them and record the run. None if there was nothing to claim.

    The run has no readings and no number if nothing had changed. `at_once` ignores cooldown and back-off, for a person
    who asks for it. `options` are for a workflow, beside those of the events that it serves. `claimed` is called once a
    claim is committed. `stop` is called while a scan runs. Once it returns True, or you press Ctrl-C, the scan is
    killed and the claim is returned uncounted, so that the metrics are due at once for another worker. `stop` raises
    ScanStopped.
    """
    lease = config.settings.lease
    with transaction(engine) as connection:
        definitions = {name: config.definitions[name] for name in config.scans[source]}
        claim = leases.claim_source(connection, source, definitions, worker_name(), lease, at_once=at_once)
        if claim is not None and source.startswith(WORKFLOW):
            options = options.with_requests(waiting_requests(connection, source))
    if claim is None:
        return None
    claimed()
    try:
        measure = _start_measuring(config, claim, options)  # before the thread that renews, because this may fork
        with _renewed(engine, claim, lease):
            measured = measure(stop)
            if any(reading.method == "failed" for reading in measured.readings.values()) and stop():
                raise ScanStopped  # a stop of the whole service may have ended the programs that the scan had started
            with transaction(engine) as connection:
                prepare_record(connection, config, measured)
            with transaction(engine) as connection:
                return record_run(connection, config, measured)
    except (ScanStopped, KeyboardInterrupt, SystemExit, DimsError, SQLAlchemyError):
        _return_claim(engine, claim)  # a database that refuses the record says nothing about the metrics
        raise


def _return_claim(engine: Engine, claim: Claim) -> None:
    """Return a claim uncounted. Without a database, its lease expires, and the attempt counts."""
    try:
        with transaction(engine) as connection:
            returned = leases.return_claim(connection, claim)
    except (DimsError, SQLAlchemyError) as error:
        log.warning("cannot return the claim of %s, so its lease has to expire: %s", claim.source, error)
        return
    if returned:
        log.info("the scan of %s was stopped before its end, and its metrics are due again at once", claim.source)


def _start_measuring(
    config: Config, claim: Claim, options: WorkflowOptions
) -> Callable[[Callable[[], bool]], Measurement]:
    """Start the scan or the workflow of a claim. Return a function that waits for its end, or until `stop`."""
    if claim.quarantined:
        quarantined = _quarantine(config, claim)
        return lambda _: _measured(claim, quarantined)
    if claim.source.startswith(WORKFLOW):
        running = options.start(config, claim.source)

        def measure_workflow(stop: Callable[[], bool]) -> Measurement:
            outcome = running.outcome(stop)
            return _measured(claim, outcome.scanned, outcome.result)

        return measure_workflow
    scan = start_scan(config, claim.source, claim.generations, claim.states)
    return lambda stop: _measured(claim, scan.result(stop))


def _measured(claim: Claim, scanned: ScanResult, result: Mapping[str, Any] | None = None) -> Measurement:
    return Measurement(
        readings=readings_by_name(scanned.readings),
        as_of=claim.as_of,
        trigger="workflow" if result is not None else "event",
        worker=worker_name(),
        source=claim.source,
        api_calls=scanned.api_calls,
        claim=claim,
        result=result,
        crashed=scanned.crashed,
        states=scanned.states,
        unchanged=scanned.unchanged,
    )


def _quarantine(config: Config, claim: Claim) -> ScanResult:
    """Return failed readings instead of measuring what has crashed its process too often."""
    minutes = BACKOFF_MAX // timedelta(minutes=1)
    reason = (
        f"quarantined: this measurement blocked its process or crashed its worker {leases.MAX_ALONE_LOSSES} times. "
        f"DIMS tries it again every {minutes} minutes"
    )
    readings = (Reading.failed(name, config.metric_of(name).shown_unit, reason) for name in claim.generations)
    return ScanResult(tuple(readings))


def write_workflow_report(engine: Engine, config: Config, run: Run) -> Path | None:
    """Write the configured report of a workflow's run from its stored result. Return its path, or None without one.

    A run whose lease was lost writes no report. Raises OSError.
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
    """Measure the named metrics and their inputs now, without a claim, all sources in parallel. Record the run.

    A check sets the first baseline of a metric, and changes no other baseline.
    """
    wanted = config.with_inputs(names)
    by_source = {
        source: chosen
        for source, metrics in config.metrics_by_source.items()
        if (chosen := [name for name in metrics if name in wanted])
    }
    with transaction(engine) as connection:
        as_of = clock(connection)
    running = [start_scan(config, source, metrics) for source, metrics in by_source.items()]
    scans = [scan.result() for scan in running]
    measured = Measurement(
        readings={name: reading for scan in scans for name, reading in readings_by_name(scan.readings).items()},
        as_of=as_of,
        trigger="verify",
        worker=worker_name(),
        source=next(iter(by_source)) if len(by_source) == 1 else None,
        api_calls=sum(scan.api_calls for scan in scans),
    )
    with transaction(engine) as connection:
        prepare_record(connection, config, measured)
    with transaction(engine) as connection:
        return record_run(connection, config, measured)


def start_scan(config: Config, source: str, names: Iterable[str], known: Mapping[str, str] | None = None) -> Scan:
    """Start to scan a source in a scan process. Every name gets a reading, a failed one if it cannot be measured.

    A metric whose state is the `known` one gets none: nothing has changed since it was measured.
    """
    return Scan(config, source, names, known=known)


@contextmanager
def _renewed(engine: Engine, claim: Claim, lease: timedelta) -> Iterator[None]:
    """Renew the lease of a claim from a thread while the block runs."""
    done = threading.Event()

    def renew() -> None:
        while not done.wait(lease.total_seconds() / 3):
            try:
                with transaction(engine) as connection:
                    if not leases.renew_lease(connection, claim, lease):
                        return  # lost: the record transaction notices, and changes nothing
            except (DimsError, SQLAlchemyError) as error:  # the task itself notices that the database is back
                reason = " ".join(str(error).split())
                outages.failed(DATABASE, VERIFY, f"cannot renew the lease of {claim.source}: {reason}")

    thread = threading.Thread(target=renew, name=f"lease of {claim.source}", daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
