"""A pass over a source, limited in time whatever the source does."""

from __future__ import annotations

import importlib
import logging
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from datetime import timedelta

from dims_worker.config import Config, Metric
from dims_worker.errors import MeasureError
from dims_worker.probes import probe_for
from dims_worker.probes.base import Deadline, Reading, ScanContext, ScanResult, readings_by_name
from dims_worker.probes.scan_process.pool import ProcessCall, never, pool_for
from dims_worker.probes.settled_scan import SettledScan

log = logging.getLogger(__name__)


class Scan:
    """One pass over a source, in a scan process that is killed if it does not end in time.

    A probe checks its own deadline. It cannot do so while a pattern computes, because that holds Python's lock, or
    while a blocking call waits for a dead mount. So another process has the last word about the time.

    `extra` are metrics that are not configured. A workflow measures them in the same pass. `known` are states from
    which some metrics were measured. Those get no reading if that is still their state.
    """

    def __init__(
        self,
        config: Config,
        name: str,
        metrics: Iterable[str],
        extra: Mapping[str, Metric] | None = None,
        timeout: timedelta | None = None,
        known: Mapping[str, str] | None = None,
    ) -> None:
        declared = config.sources[name]
        self.error: MeasureError | None = None
        """The reason why the source as a whole could not be measured."""
        self._names = tuple(metrics)
        self._metrics = {**{each: config.metrics[each] for each in self._names}, **(extra or {})}
        load_drivers(declared.type)
        limit = timeout or declared.timeout
        arguments = (name, self._names, dict(extra or {}), dict(known or {}), limit)
        self._pool = pool_for(config)
        self._call = ProcessCall(f"the scan of {name}", _scan_in_process, arguments, limit.total_seconds())
        self._pool.start(self._call)

    def result(self, stop: Callable[[], bool] = never) -> ScanResult:
        """Wait for the readings, one for every metric. Raises ScanStopped if `stop` returns True first."""
        self._pool.wait(self._call, stop)
        if failure := self._call.failure:
            self.error = MeasureError(failure.reason)
            return failed_result(self._metrics, failure.reason, crashed=failure.crashed)
        scanned, error = self._call.result
        if error is not None:
            self.error = MeasureError(error)
        return scanned  # type: ignore[no-any-return]


def _scan_in_process(
    config: Config,
    progress: Callable[[str], None],
    name: str,
    names: tuple[str, ...],
    extra: Mapping[str, Metric],
    known: Mapping[str, str],
    timeout: timedelta,
) -> tuple[ScanResult, str | None]:
    """Scan a source, in a scan process. Returns the readings, and why the source as a whole could not be measured."""
    metrics = {**{each: config.metrics[each] for each in names}, **extra}
    return scan_source(config, name, metrics, Deadline.after(timeout), known)


def scan_source(
    config: Config,
    name: str,
    metrics: Mapping[str, Metric],
    deadline: Deadline,
    known: Mapping[str, str] | None = None,
) -> tuple[ScanResult, str | None]:
    """Scan a source in this process. A probe that fails gives failed readings, and the reason is returned too.

    A metric whose state is the `known` one gets no reading.
    """
    source = config.sources[name]
    context = ScanContext(config.project, config.home, config.sources, config.prices)
    try:
        probe = probe_for(source.type)
        if probe.follows_state:
            scanned = SettledScan(probe, source, context, deadline).run(metrics, known or {})
        else:
            scanned = probe.scan(source, metrics, context, deadline)
    except MeasureError as error:
        return failed_result(metrics, str(error)), str(error)
    except Exception as error:
        # A bug in one probe fails its readings, not the run
        log.exception("the probe of source %s failed with an unexpected error", name)
        reason = f"internal error in the {source.type} probe: {error!r}"
        return failed_result(metrics, reason), reason
    measured = readings_by_name(scanned.readings)
    answered = measured.keys() | scanned.unchanged
    missing = {name: metric for name, metric in metrics.items() if name not in answered}
    failed = failed_result(missing, "internal error: the probe returned no reading")
    return replace(scanned, readings=(*scanned.readings, *failed.readings)), None


def failed_result(metrics: Mapping[str, Metric], error: str, *, crashed: bool = False) -> ScanResult:
    """Return failed readings of all metrics, with one reason."""
    readings = tuple(Reading.failed(name, metric.shown_unit, error) for name, metric in metrics.items())
    return ScanResult(readings, crashed=crashed)


_DRIVERS: Mapping[str, tuple[str, ...]] = {"s3": ("boto3", "botocore.config"), "aws": ("boto3", "botocore.config")}


def load_drivers(kind: str) -> None:
    """Import the large libraries of a type of source, so that scan processes inherit them.

    Otherwise each one would spend half a second on that.
    """
    for module in _DRIVERS.get(kind, ()):
        try:
            importlib.import_module(module)
        except ImportError:
            return  # the probe says so, with the fix
