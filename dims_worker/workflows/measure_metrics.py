"""Measure the metrics of a workflow: one pass for each source, in parallel."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from datetime import timedelta

from dims_worker.config import Metric
from dims_worker.probes.base import Reading, ScanResult, readings_by_name
from dims_worker.probes.scan import Scan
from dims_worker.probes.scan_process.pool import GRACE
from dims_worker.workflows.base import WorkflowContext

Metrics = Mapping[str, Metric]


def measure_metrics(
    context: WorkflowContext,
    patterns: Iterable[str],
    extra: Mapping[str, Metrics] | None = None,
    *,
    kinds: Iterable[str] = (),
) -> dict[str, Reading]:
    """Measure the metrics that match the patterns, and their inputs. Their readings are added to the context.

    Metrics that have a reading in the context already are not measured again. In a context without metrics, none of
    them is measured.

    `extra` are additional metrics of the workflow, by source and by a name that no configured metric has. They are
    measured in the same passes. Their readings are returned and not recorded. `kinds` limits the scan to sources
    of these types. The context records a source that cannot be reached, and its metrics get failed readings.
    """
    return start_measuring(context, patterns, extra, kinds=kinds)()


def start_measuring(
    context: WorkflowContext,
    patterns: Iterable[str],
    extra: Mapping[str, Metrics] | None = None,
    *,
    kinds: Iterable[str] = (),
) -> Callable[[], dict[str, Reading]]:
    """Start what `measure_metrics` does, and return a function that waits for its result."""
    extra = extra or {}
    named = context.config.with_inputs(context.config.select(patterns)) if context.with_metrics else frozenset()
    named -= {reading.metric for reading in context.readings}
    allowed = frozenset(kinds)
    passes: dict[str, Scan] = {}
    for source, declared in context.config.sources.items():
        if allowed and declared.type not in allowed:
            continue
        wanted = [name for name in context.config.metrics_by_source[source] if name in named]
        if wanted or extra.get(source):
            timeout = min(declared.timeout, _time_for_scans(context))
            passes[source] = Scan(context.config, source, wanted, extra.get(source), timeout)
    if passes:
        context.progress(f"measuring {', '.join(passes)}")
    return lambda: _wait(context, passes, named)


def _time_for_scans(context: WorkflowContext) -> timedelta:
    """Return the longest timeout of a scan. A scan that has to be killed ends before the workflow is killed too."""
    left = context.deadline.left
    return timedelta(seconds=max(left - 2 * GRACE, left / 2))


def _wait(context: WorkflowContext, passes: Mapping[str, Scan], named: frozenset[str]) -> dict[str, Reading]:
    scans = {source: scan.result() for source, scan in passes.items()}
    for source, scan in passes.items():
        if scan.error is not None:
            context.mark_unreached(source, str(scan.error))
    return _add_readings(context, scans, named)


def _add_readings(
    context: WorkflowContext, scans: Mapping[str, ScanResult], named: frozenset[str]
) -> dict[str, Reading]:
    """Add the readings of the named metrics to the context, and return the others."""
    others: dict[str, Reading] = {}
    for scanned in scans.values():
        context.api_calls += scanned.api_calls
        for name, reading in readings_by_name(scanned.readings).items():
            if name in named:
                context.readings.append(reading)
            else:
                others[name] = reading
    return others
