"""Workflows: a question about the whole inventory, answered with names; each a result, kept as JSON, and a report.

A workflow scans, and writes nothing but its report: what it found is recorded by the room above, with its
run, so that reports and notebooks read it and scan nothing again.
"""

from dims_worker.workflows.base import Outcome, Progress, Workflow, quiet
from dims_worker.workflows.catalogue import markdown, run, status, summary, write_report

__all__ = ["Outcome", "Progress", "Workflow", "markdown", "quiet", "run", "status", "summary", "write_report"]
