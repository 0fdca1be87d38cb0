"""audit: every other configured workflow in one result and one report."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dims_worker.workflows import catalogue
from dims_worker.workflows.base import Workbench
from dims_worker.workflows.looks import look_at
from dims_worker.workflows.tables import table, text

NAME = "audit"


class Audit:
    """See `dims_worker.workflows.base.Workflow`."""

    def examine(self, bench: Workbench) -> dict[str, Any]:
        """The result: `sections`, the whole result of each workflow in their order. One that breaks down or
        reaches nothing keeps none of the others from being run."""
        sections = []
        for name in bench.config.configured_workflows:
            if name == NAME:
                continue
            outcome = catalogue.run(
                bench.config,
                name,
                quick=bench.quick,
                options=bench.options,
                progress=lambda said, name=name: bench.progress(f"{name}: {said}"),  # type: ignore[misc]
                deadline=bench.deadline,
            )
            bench.readings += outcome.scanned.readings
            bench.requests += outcome.scanned.requests
            for source, reason in outcome.unreached.items():
                bench.miss(source, reason)
            sections.append(dict(outcome.result))
        declared = bench.config.workflows.audit
        look_at(bench, declared.metrics)
        return {
            "sections": sections,
            "summary": [[each["workflow"], _said(each)] for each in sections],
            "attention": [f"{each['workflow']}: {one}" for each in sections for one in each.get("attention", ())],
        }

    def markdown(self, result: Mapping[str, Any]) -> str:
        """The summary on top, then each workflow's own report, its headings one step lower."""
        rows = [
            [text(each["workflow"]), catalogue.status(each), text(", ".join(f"{k}: {v}" for k, v in told))]
            for each in result["sections"]
            for told in [catalogue.summary(each)]
        ]
        lines = ["## Summary", "", *table(["workflow", "status", "figures"], rows), ""]
        lines += [*(f"- {text(one)}" for one in result["attention"]), ""] if result["attention"] else []
        for each in result["sections"]:
            unreached = [
                f"- **{text(s)}** was not reached: {text(why)}" for s, why in sorted(each["unreached"].items())
            ]
            lines += [f"## {each['workflow']}", "", *unreached, *([""] if unreached else [])]
            lines += [_lower(catalogue.body(each)), ""]
        return "\n".join(lines)


WORKFLOW = Audit()


def _said(section: Mapping[str, Any]) -> str:
    status = catalogue.status(section)
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
