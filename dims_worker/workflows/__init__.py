"""Workflows: a question about the whole inventory, answered with names; each a result, kept as JSON, and a report.

A workflow scans, and writes nothing but its report: what it found is recorded by the room above, with its
run, so that reports and notebooks read it and scan nothing again.
"""

from dims_worker.workflows.base import Progress, Workflow, WorkflowOutcome, no_progress
from dims_worker.workflows.registry import render_report, result_status, result_summary, run_workflow, write_report

__all__ = [
    "Progress",
    "Workflow",
    "WorkflowOutcome",
    "no_progress",
    "render_report",
    "result_status",
    "result_summary",
    "run_workflow",
    "write_report",
]
