"""Workflows answer a question about the whole inventory, by name. Each has a JSON result and a Markdown report.

A workflow only scans and writes its report. The pipeline records the result with the run, so that reports and
notebooks can read it without another scan.
"""

from dims_worker.workflows.base import Progress, Workflow, WorkflowOutcome, no_progress
from dims_worker.workflows.registry import render_report, result_status, result_summary, run_workflow, write_report
from dims_worker.workflows.workflow_process import RunningWorkflow

__all__ = [
    "Progress",
    "RunningWorkflow",
    "Workflow",
    "WorkflowOutcome",
    "no_progress",
    "render_report",
    "result_status",
    "result_summary",
    "run_workflow",
    "write_report",
]
