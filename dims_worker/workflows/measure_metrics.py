"""The metrics that a workflow looks at: measured source by source, side by side, one pass a source."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import timedelta

from dims_worker.config import Metric
from dims_worker.probes.base import Deadline, Reading, ScanResult, readings_by_name
from dims_worker.probes.scan import Scan
from dims_worker.workflows.base import WorkflowContext

Metrics = Mapping[str, Metric]


def measure_metrics(
    bench: WorkflowContext,
    patterns: Iterable[str],
    beside: Mapping[str, Metrics] | None = None,
    *,
    kinds: Iterable[str] = (),
) -> dict[str, Reading]:
    """Measure the metrics that the patterns name, and what they derive from; their readings go to the bench.

    `beside` are metrics of the workflow's own, by source and by a name that no metric has: they are measured in
    the same pass, and their readings are returned and not recorded. `kinds`: only sources of these types are
    scanned; none says all. A source that cannot be reached is noted on the bench, with a failed reading for each
    of its metrics.
    """
    own = beside or {}
    named = bench.config.with_inputs(bench.config.select(patterns))
    allowed = frozenset(kinds)
    passes: dict[str, dict[str, Metric]] = {}
    for source, declared in bench.config.sources.items():
        if allowed and declared.type not in allowed:
            continue
        wanted = {name: bench.config.metrics[name] for name in bench.config.metrics_by_source[source] if name in named}
        if together := {**wanted, **own.get(source, {})}:
            passes[source] = together
    if not passes:
        return {}
    bench.progress(f"measuring {', '.join(passes)}")
    begun = {source: _begin(bench, source, metrics) for source, metrics in passes.items()}
    scans = {source: scan.result() for source, scan in begun.items()}
    for source, scan in begun.items():
        if scan.error is not None:
            bench.miss(source, str(scan.error))
    return _noted(bench, scans, named)


def _noted(bench: WorkflowContext, scans: Mapping[str, ScanResult], named: frozenset[str]) -> dict[str, Reading]:
    """Put the readings of the named metrics on the bench, and give the others."""
    others: dict[str, Reading] = {}
    for scanned in scans.values():
        bench.api_calls += scanned.api_calls
        for name, reading in readings_by_name(scanned.readings).items():
            if name in named:
                bench.readings.append(reading)
            else:
                others[name] = reading
    return others


def _begin(bench: WorkflowContext, source: str, metrics: Metrics) -> Scan:
    """A pass over a source, which ends by the source's timeout and by the workflow's."""
    declared = bench.config.sources[source]
    deadline = Deadline.after(min(declared.timeout, timedelta(seconds=bench.deadline.left)))
    return Scan(source, declared, metrics, bench.around, deadline)
