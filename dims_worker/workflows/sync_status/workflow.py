"""sync-status: compare local folders with the lake, name every difference, and list the commands that fix it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from dims_worker.config import S3Metric, S3Source
from dims_worker.errors import MeasureError
from dims_worker.formatting import pluralize
from dims_worker.probes.base import Reading, printable_path
from dims_worker.probes.s3.listing import Entry
from dims_worker.probes.s3.sync import KINDS, KeyDifference, SyncComparison, local_folder_problem
from dims_worker.workflows.base import Workflow, WorkflowContext
from dims_worker.workflows.measure_metrics import measure_metrics
from dims_worker.workflows.sync_status import report
from dims_worker.workflows.sync_status.archived import archived_keys
from dims_worker.workflows.sync_status.commands import commands
from dims_worker.workflows.sync_status.placement import refused_differences

LOCAL = "local folders"
"""The name of the unreached source if a local folder is missing."""


def run(context: WorkflowContext) -> dict[str, Any]:
    """Return `metric`, `bucket`, `synced`, `status`, `drift_pct`, counts, `pairs`, each difference by name, and
    `commands`. `without_command` has the differences that no command can fix safely. `status` is None if a side was not
    reached."""
    declared = context.config.workflows.sync_status
    assert declared is not None
    metric = context.config.metrics[declared.metric]
    assert isinstance(metric, S3Metric)
    source = context.config.sources[metric.source]
    assert isinstance(source, S3Source)
    context.progress(f"comparing {metric.local} with {source.bucket}")
    comparison = _compared(context, declared.metric, metric)
    measure_metrics(context, [name for name in declared.metrics if name != declared.metric])
    head = {"metric": declared.metric, "bucket": source.bucket}
    if comparison is None:
        return {**head, "status": None, "synced": False, "summary": [["status", "unavailable"]], "attention": []}
    reading = comparison.reading(declared.metric)
    context.add_reading(reading)
    archived = archived_keys(context, source, comparison.differences)
    refused = refused_differences(comparison.by_pair, archived, str(context.config.home), context.deadline)
    return {**head, **_parts(source, reading, comparison.differences, refused)}


WORKFLOW = Workflow(run, report.markdown)


class _SyncListing:
    """Feeds a comparison with the pages of a listing. With `sort`, the pages come in any order."""

    def __init__(self, context: WorkflowContext, metric: S3Metric, sort: bool = False) -> None:
        self.comparison = SyncComparison(metric, context.scan_context, context.deadline, math.inf)
        self._merges = self.comparison.merges(sort=sort)

    def add(self, entries: list[Entry], /) -> None:
        for merge in self._merges:
            merge.add(entries)

    def finish(self) -> None:
        """End the comparison. Raises MeasureError if a pair could not be compared."""
        for merge in self._merges:
            merge.finish()
        failures = [merge.failure for merge in self._merges if merge.failure]
        if failures:
            raise MeasureError("; ".join(dict.fromkeys(failures)))


def _compared(context: WorkflowContext, name: str, metric: S3Metric) -> SyncComparison | None:
    """Compare all pairs in one listing. If a side is not reached, record a failed reading and return None."""
    problem = local_folder_problem(name, metric, context.scan_context)
    if problem is not None:
        context.mark_unreached(LOCAL, problem.error or str(problem.details.get("absent", "absent")))
        context.add_reading(problem)
        return None

    def read() -> SyncComparison:
        listing = context.list_bucket(
            metric.source,
            metric.listed,
            lambda: _SyncListing(context, metric),
            lambda: _SyncListing(context, metric, sort=True),
        )
        listing.finish()
        return listing.comparison

    comparison = context.reach(metric.source, read)
    if comparison is None:
        context.add_reading(Reading.failed(name, metric.shown_unit, context.unreached[metric.source]))
    return comparison


def _parts(
    source: S3Source, reading: Reading, differences: list[KeyDifference], refused: Mapping[KeyDifference, str]
) -> dict[str, Any]:
    details = reading.details
    by_kind: dict[str, list[dict[str, Any]]] = {
        kind: [_to_json(each) for each in differences if each.kind == kind] for kind in KINDS
    }
    parts = {
        "status": reading.value,
        "synced": reading.value == "synced",
        "drift_pct": details["sync_drift_pct"],
        "same": details["same"],
        "union": details["union"],
        "pairs": details["pairs"],
        **by_kind,
        **commands(source, differences, refused),
    }
    differing = sum(len(names) for names in by_kind.values())
    drift = report.drift(parts["drift_pct"])
    text = f"{differing:,} of {parts['union']:,} files differ ({drift}): {parts['status']}"
    attention = [] if parts["synced"] else [text]
    attention += [
        f"nothing was compared: {pair['folder'] or 'the folder'} and the prefix {pair['prefix']!r} are both empty"
        for pair in parts["pairs"]
        if not pair["union"]
    ]
    if without := parts["without_command"]:
        attention.append(f"{pluralize(len(without), 'difference')} cannot be copied safely: the report says why")
    return {**parts, "summary": report.summary(parts), "attention": attention}


def _to_json(difference: KeyDifference) -> dict[str, Any]:
    return {
        "key": printable_path(difference.key),
        "path": printable_path(difference.path),
        "local_bytes": difference.local,
        "s3_bytes": difference.s3,
    }
