"""sync-status: local folders against the lake, every difference by name, and the commands that would mend it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from dims_worker.config import S3Metric, S3Source
from dims_worker.errors import MeasureError
from dims_worker.probes.base import Reading, printable_path
from dims_worker.probes.s3.listing import Entry
from dims_worker.probes.s3.sync import KINDS, KeyDifference, SyncComparison, unfit
from dims_worker.workflows.base import WorkflowContext
from dims_worker.workflows.measure_metrics import measure_metrics
from dims_worker.workflows.sync_status import commands as sync_status_commands
from dims_worker.workflows.sync_status import report as sync_status_report

LOCAL = "local folders"
"""What was not reached where a folder of the local side is not there."""


class SyncStatusWorkflow:
    """See `dims_worker.workflows.base.Workflow`."""

    def examine(self, bench: WorkflowContext) -> dict[str, Any]:
        """The result: `metric`, `bucket`, whether it is `synced`, `status`, `drift_pct`, counts, `pairs`, each
        difference by name, and `commands`; status None and nothing compared where a side was not reached."""
        declared = bench.config.workflows.sync_status
        assert declared is not None
        metric = bench.config.metrics[declared.metric]
        assert isinstance(metric, S3Metric)
        source = bench.config.sources[metric.source]
        assert isinstance(source, S3Source)
        bench.progress(f"comparing {metric.local} with {source.bucket}")
        comparison = _compared(bench, declared.metric, metric)
        measure_metrics(bench, [name for name in declared.metrics if name != declared.metric])
        head = {"metric": declared.metric, "bucket": source.bucket}
        if comparison is None:
            return {**head, "status": None, "synced": False, "summary": [["status", "unavailable"]], "attention": []}
        reading = comparison.reading(declared.metric)
        bench.readings.append(reading)
        return {**head, **_parts(source, reading, comparison.differences)}

    def markdown(self, result: Mapping[str, Any]) -> str:
        return sync_status_report.markdown(result)


WORKFLOW = SyncStatusWorkflow()


class _SyncListing:
    """A comparison while the bucket is listed."""

    def __init__(self, bench: WorkflowContext, metric: S3Metric) -> None:
        self.comparison = SyncComparison(metric, bench.around, bench.deadline, math.inf)
        self._merges = self.comparison.merges()

    def add(self, entries: list[Entry], /) -> None:
        for merge in self._merges:
            merge.add(entries)

    def finish(self) -> None:
        """The listing is over. Raises MeasureError where a pair could not be compared."""
        for merge in self._merges:
            merge.finish()
        failures = [merge.failure for merge in self._merges if merge.failure]
        if failures:
            raise MeasureError("; ".join(dict.fromkeys(failures)))


def _compared(bench: WorkflowContext, name: str, metric: S3Metric) -> SyncComparison | None:
    """All pairs compared, out of one listing; None, a failed reading, and noted, where a side is not reached."""
    around = bench.around
    obstacle = unfit(name, metric, around)
    if obstacle is not None:
        bench.miss(LOCAL, obstacle.error or str(obstacle.details.get("absent", "absent")))
        bench.readings.append(obstacle)
        return None

    def ask() -> SyncComparison:
        taken = bench.listed(metric.source, metric.listed, lambda: _SyncListing(bench, metric))
        taken.finish()
        return taken.comparison

    found = bench.reach(metric.source, ask)
    if found is None:
        bench.readings.append(Reading.failed(name, metric.shown_unit, bench.unreached[metric.source]))
    return found


def _parts(source: S3Source, reading: Reading, differences: list[KeyDifference]) -> dict[str, Any]:
    details = reading.details
    found: dict[str, list[dict[str, Any]]] = {
        kind: [_told(each) for each in differences if each.kind == kind] for kind in KINDS
    }
    parts = {
        **{"status": reading.value, "synced": reading.value == "synced", "drift_pct": details["sync_drift_pct"]},
        **{"same": details["same"], "union": details["union"], "pairs": details["pairs"], **found},
        **sync_status_commands.commands(source, differences),
    }
    differing = sum(len(names) for names in found.values())
    drift = sync_status_report.drift(parts["drift_pct"])
    said = f"{differing:,} of {parts['union']:,} files differ ({drift}): {parts['status']}"
    attention = [] if parts["synced"] else [said]
    return {**parts, "summary": sync_status_report.summary(parts), "attention": attention}


def _told(difference: KeyDifference) -> dict[str, Any]:
    return {
        **{"key": printable_path(difference.key), "path": printable_path(difference.path)},
        **{"local_bytes": difference.local, "s3_bytes": difference.s3},
    }
