"""audit: every other configured workflow in one result and one report."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dims_worker.workflows import registry
from dims_worker.workflows.base import WorkflowContext
from dims_worker.workflows.markdown import escape_markdown, markdown_table
from dims_worker.workflows.measure_metrics import measure_metrics

NAME = "audit"


class AuditWorkflow:
    """See `dims_worker.workflows.base.Workflow`."""

    def examine(self, bench: WorkflowContext) -> dict[str, Any]:
        """The result: `sections`, the whole result of each workflow in their order. One that breaks down or
        reaches nothing keeps none of the others from being run."""
        sections = []
        for name in bench.config.configured_workflows:
            if name == NAME:
                continue
            outcome = registry.run_workflow(
                bench.config,
                name,
                quick=bench.quick,
                options=bench.options,
                progress=lambda said, name=name: bench.progress(f"{name}: {said}"),  # type: ignore[misc]
                deadline=bench.deadline,
            )
            bench.readings += outcome.scanned.readings
            bench.api_calls += outcome.scanned.api_calls
            for source, reason in outcome.unreached.items():
                bench.miss(source, reason)
            sections.append(dict(outcome.result))
        declared = bench.config.workflows.audit
        measure_metrics(bench, declared.metrics)
        return {
            "sections": sections,
            "summary": [[each["workflow"], _said(each)] for each in sections],
            "attention": [f"{each['workflow']}: {one}" for each in sections for one in each.get("attention", ())],
        }

    def markdown(self, result: Mapping[str, Any]) -> str:
        """The summary on top, then each workflow's own report, its headings one step lower."""
        rows = [
            [
                escape_markdown(each["workflow"]),
                registry.result_status(each),
                escape_markdown(", ".join(f"{k}: {v}" for k, v in told)),
            ]
            for each in result["sections"]
            for told in [registry.result_summary(each)]
        ]
        lines = ["## Summary", "", *markdown_table(["workflow", "status", "figures"], rows), ""]
        lines += [*(f"- {escape_markdown(one)}" for one in result["attention"]), ""] if result["attention"] else []
        for each in result["sections"]:
            unreached = [
                f"- **{escape_markdown(s)}** was not reached: {escape_markdown(why)}"
                for s, why in sorted(each["unreached"].items())
            ]
            lines += [f"## {each['workflow']}", "", *unreached, *([""] if unreached else [])]
            lines += [_lower(registry.report_body(each)), ""]
        return "\n".join(lines)


WORKFLOW = AuditWorkflow()


def _said(section: Mapping[str, Any]) -> str:
    status = registry.result_status(section)
    if status == "failed":
        return f"failed: {', '.join(sorted(section['unreached']))} not reached"
    number = len(section.get("attention", ()))
    return f"{number:,} to look at" if number else "ok"


def _lower(told: str) -> str:
    """Headings one step lower, but for what stands in a block of code."""
    lines, fence = [], ""
    for line in told.split("\n"):
        mark = line[: len(line) - len(line.lstrip("`"))]
        if len(mark) >= 3 and (not fence or (len(mark) >= len(fence) and line == mark)):
            fence = "" if fence else mark
        lines.append(f"#{line}" if line.startswith("#") and not fence else line)
    return "\n".join(lines)
