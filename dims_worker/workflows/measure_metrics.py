"""Measure the metrics of a workflow: one pass for each source, in parallel."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import timedelta

from dims_worker.config import Metric
from dims_worker.probes.base import Deadline, Reading, ScanResult, readings_by_name
from dims_worker.probes.scan import Scan
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

    `extra` are additional metrics of the workflow, by source and by a name that no configured metric has. They are
    measured in the same passes. Their readings are returned and not recorded. `kinds` limits the scan to sources
    of these types. The context records a source that cannot be reached, and its metrics get failed readings.
    """
    extra = extra or {}
    named = context.config.with_inputs(context.config.select(patterns))
    allowed = frozenset(kinds)
    passes: dict[str, dict[str, Metric]] = {}
    for source, declared in context.config.sources.items():
        if allowed and declared.type not in allowed:
            continue
        wanted = {
            name: context.config.metrics[name] for name in context.config.metrics_by_source[source] if name in named
        }
        if together := {**wanted, **extra.get(source, {})}:
            passes[source] = together
    if not passes:
        return {}
    context.progress(f"measuring {', '.join(passes)}")
    started = {source: _start(context, source, metrics) for source, metrics in passes.items()}
    scans = {source: scan.result() for source, scan in started.items()}
    for source, scan in started.items():
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


def _start(context: WorkflowContext, source: str, metrics: Metrics) -> Scan:
    """Start a pass over a source, limited by the timeouts of the source and the workflow."""
    declared = context.config.sources[source]
    deadline = Deadline.after(min(declared.timeout, timedelta(seconds=context.deadline.left)))
    return Scan(source, declared, metrics, context.scan_context, deadline)
