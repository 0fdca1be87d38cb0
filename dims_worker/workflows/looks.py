"""The metrics that a workflow looks at: measured source by source, side by side, one pass a source."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

from dims_worker.config import Metric
from dims_worker.errors import MeasureError
from dims_worker.probes import probe_for
from dims_worker.probes.base import Deadline, Reading, Scanned, by_name
from dims_worker.workflows.base import Workbench

log = logging.getLogger(__name__)

Metrics = Mapping[str, Metric]


def look_at(
    bench: Workbench,
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
        wanted = {name: bench.config.metrics[name] for name in bench.config.of_source[source] if name in named}
        if together := {**wanted, **own.get(source, {})}:
            passes[source] = together
    if not passes:
        return {}
    bench.progress(f"measuring {', '.join(passes)}")
    with ThreadPoolExecutor(len(passes), thread_name_prefix="look") as pool:
        scans = dict(zip(passes, pool.map(lambda source: _scan(bench, source, passes[source]), passes), strict=True))
    return _noted(bench, scans, named)


def _noted(bench: Workbench, scans: Mapping[str, Scanned], named: frozenset[str]) -> dict[str, Reading]:
    """Put the readings of the named metrics on the bench, and give the others."""
    others: dict[str, Reading] = {}
    for scanned in scans.values():
        bench.requests += scanned.requests
        for name, reading in by_name(scanned.readings).items():
            if name in named:
                bench.readings.append(reading)
            else:
                others[name] = reading
    return others


def _scan(bench: Workbench, source: str, metrics: Metrics) -> Scanned:
    """One pass over a source: a reading for every metric, failed ones where it cannot be reached."""
    declared = bench.config.sources[source]
    deadline = Deadline.after(min(declared.timeout, timedelta(seconds=bench.deadline.left)))
    try:
        scanned = probe_for(declared.type).scan(declared, metrics, bench.around, deadline)
    except MeasureError as error:
        bench.miss(source, str(error))
        return _all_failed(metrics, str(error))
    except Exception as error:
        log.exception("the probe of %s broke down", source)
        reason = f"internal error in the {declared.type} probe: {error!r}"
        bench.miss(source, reason)
        return _all_failed(metrics, reason)
    lacking = {name: metric for name, metric in metrics.items() if name not in by_name(scanned.readings)}
    more = _all_failed(lacking, "the probe gave no reading").readings
    return Scanned((*scanned.readings, *more), scanned.requests)


def _all_failed(metrics: Metrics, error: str) -> Scanned:
    return Scanned(tuple(Reading.failed(name, metric.shown_unit, error) for name, metric in metrics.items()))
