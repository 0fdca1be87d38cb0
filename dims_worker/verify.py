"""Measuring what is due: claim a source, make one pass over it, record the run. And looks, which claim nothing."""

from __future__ import annotations

import logging
import os
import socket
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import timedelta

from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError

from dims_worker.config import Config, Metric
from dims_worker.errors import DimsError, MeasureError
from dims_worker.probes import probe_for
from dims_worker.probes.base import Deadline, Reading, Scanned, Surroundings, by_name
from dims_worker.record import Measured, Run, record
from dims_worker.store import leases
from dims_worker.store.engine import clock, transaction
from dims_worker.store.leases import Claim

log = logging.getLogger(__name__)

GRACE = 3.0
"""Seconds past its timeout after which a scan that does not end is abandoned."""


def worker_name() -> str:
    """Who measures, as runs and leases name it."""
    return f"{socket.gethostname()}:{os.getpid()}"


def serve(engine: Engine, config: Config, source: str, *, at_once: bool = False) -> Run | None:
    """Claim what is due of a source, measure and record it.

    None: there was nothing to claim. `at_once` waits for no cooldown and no back-off: a person asked.
    """
    lease = config.settings.lease
    with transaction(engine) as connection:
        names = config.of_source[source]
        claim = leases.claim(connection, source, names, worker_name(), lease, at_once=at_once)
    if claim is None:
        return None
    with _renewed(engine, claim, lease):
        scanned = measure(config, source, claim.generations)
        measured = Measured(
            readings=by_name(scanned.readings),
            as_of=claim.as_of,
            trigger="event",
            worker=worker_name(),
            source=source,
            requests=scanned.requests,
            claim=claim,
        )
        with transaction(engine) as connection:
            return record(connection, config, measured)


def look(engine: Engine, config: Config, names: Iterable[str]) -> Run:
    """Measure the named metrics now, and record a look: it gives a first baseline and changes no other.

    Sources are scanned side by side; a derived metric brings its inputs with it.
    """
    wanted = config.with_inputs(names)
    by_source = {source: [name for name in measured if name in wanted] for source, measured in config.of_source.items()}
    by_source = {source: measured for source, measured in by_source.items() if measured}
    with transaction(engine) as connection:
        as_of = clock(connection)
    begun = [Scan(config, source, names_) for source, names_ in by_source.items()]
    scans = [scan.result() for scan in begun]
    measured = Measured(
        readings={name: reading for scan in scans for name, reading in by_name(scan.readings).items()},
        as_of=as_of,
        trigger="verify",
        worker=worker_name(),
        source=next(iter(by_source)) if len(by_source) == 1 else None,
        requests=sum(scan.requests for scan in scans),
    )
    with transaction(engine) as connection:
        return record(connection, config, measured)


def measure(config: Config, source: str, names: Iterable[str]) -> Scanned:
    """One pass over a source: a reading for every name. What cannot be measured is a failed reading."""
    return Scan(config, source, names).result()


class Scan:
    """One pass over a source, in a thread that is left behind where it does not end in time.

    A probe watches its own deadline; what blocks beneath it (a server that answers a byte a second, a dead
    mount) cannot be interrupted, only abandoned: the reading fails, and the lease comes free.
    """

    def __init__(self, config: Config, source: str, names: Iterable[str]) -> None:
        self.metrics = {name: config.metrics[name] for name in names}
        self.source, self.declared = source, config.sources[source]
        self.around = Surroundings(config.project, config.home)
        self.deadline = Deadline.after(self.declared.timeout)
        self._scanned: Scanned | None = None
        self._thread = threading.Thread(target=self._run, name=f"scan of {source}", daemon=True)
        self._thread.start()

    def result(self) -> Scanned:
        """A reading for every name, at the latest `GRACE` seconds after the source's timeout."""
        end = self.deadline.at + GRACE
        while self._thread.is_alive() and time.monotonic() < end:
            self._thread.join(0.2)  # short, so that Ctrl-C is heard
        scanned = self._scanned
        if scanned is None:
            late = f"took longer than its timeout of {self.declared.timeout.total_seconds():g} s, and was abandoned"
            return _all_failed(self.metrics, late)
        given = by_name(scanned.readings)
        missing = {name: metric for name, metric in self.metrics.items() if name not in given}
        if not missing:
            return scanned
        unsaid = _all_failed(missing, "the probe gave no reading")
        return Scanned((*scanned.readings, *unsaid.readings), scanned.requests)

    def _run(self) -> None:
        kind = self.declared.type
        try:
            self._scanned = probe_for(kind).scan(self.declared, self.metrics, self.around, self.deadline)
        except MeasureError as error:
            self._scanned = _all_failed(self.metrics, str(error))
        except Exception as error:
            # A defect in one probe is a failed reading, not a lost run
            log.exception("the probe of %s broke down", self.source)
            self._scanned = _all_failed(self.metrics, f"internal error in the {kind} probe: {error!r}")


def _all_failed(metrics: dict[str, Metric], error: str) -> Scanned:
    return Scanned(tuple(Reading.failed(name, metric.shown_unit, error) for name, metric in metrics.items()))


@contextmanager
def _renewed(engine: Engine, claim: Claim, lease: timedelta) -> Iterator[None]:
    """Renew the claim's lease from a thread of its own while the block runs."""
    done = threading.Event()

    def renew() -> None:
        while not done.wait(lease.total_seconds() / 3):
            try:
                with transaction(engine) as connection:
                    if not leases.renew(connection, claim, lease):
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
