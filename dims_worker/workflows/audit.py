"""audit: run all other configured workflows, with one result and one report."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dims_worker.config.workflows import AUDIT
from dims_worker.workflows import registry
from dims_worker.workflows.base import Workflow, WorkflowContext
from dims_worker.workflows.markdown import escape_markdown, markdown_table
from dims_worker.workflows.measure_metrics import measure_metrics


def run(context: WorkflowContext) -> dict[str, Any]:
    """Return `sections`: the result of each workflow in order. A workflow that fails does not stop the others."""
    sections = []
    for name in context.config.configured_workflows:
        if name == AUDIT:
            continue
        outcome = registry.run_workflow(
            context.config,
            name,
            quick=context.quick,
            options=context.options,
            progress=lambda text, name=name: context.progress(f"{name}: {text}"),  # type: ignore[misc]
            deadline=context.deadline,
            with_metrics=context.with_metrics,
        )
        context.readings += outcome.scanned.readings
        context.api_calls += outcome.scanned.api_calls
        for source, reason in outcome.unreached.items():
            context.mark_unreached(source, reason)
        sections.append(dict(outcome.result))
    declared = context.config.workflows.audit
    measure_metrics(context, declared.metrics)
    return {
        "sections": sections,
        "summary": [[each["workflow"], _summary(each)] for each in sections],
        "attention": [f"{each['workflow']}: {text}" for each in sections for text in each.get("attention", ())],
    }


def markdown(result: Mapping[str, Any]) -> str:
    """Return the summary, then the report of each workflow with its headings one level lower."""
    rows = [
        [
            escape_markdown(each["workflow"]),
            registry.result_status(each),
            escape_markdown(", ".join(f"{k}: {v}" for k, v in summary)),
        ]
        for each in result["sections"]
        for summary in [registry.result_summary(each)]
    ]
    lines = ["## Summary", "", *markdown_table(["workflow", "status", "figures"], rows), ""]
    lines += [*(f"- {escape_markdown(text)}" for text in result["attention"]), ""] if result["attention"] else []
    for each in result["sections"]:
        unreached = [
            f"- **{escape_markdown(s)}** was not reached: {escape_markdown(why)}"
            for s, why in sorted(each["unreached"].items())
        ]
        lines += [f"## {each['workflow']}", "", *unreached, *([""] if unreached else [])]
        lines += [_lower_headings(registry.report_body(each)), ""]
    return "\n".join(lines)


WORKFLOW = Workflow(run, markdown)


def _summary(section: Mapping[str, Any]) -> str:
    status = registry.result_status(section)
    if status == "failed":
        return f"failed: {', '.join(sorted(section['unreached']))} not reached"
    number = len(section.get("attention", ()))
    return f"attention: {number:,}" if number else "ok"


def _lower_headings(markdown: str) -> str:
    """Lower all headings by one level, except in blocks of code."""
    lines, fence = [], ""
    for line in markdown.split("\n"):
        mark = line[: len(line) - len(line.lstrip("`"))]
        if len(mark) >= 3 and (not fence or (len(mark) >= len(fence) and line == mark)):
            fence = "" if fence else mark
        lines.append(f"#{line}" if line.startswith("#") and not fence else line)
    return "\n".join(lines)
