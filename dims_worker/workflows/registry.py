"""Run a workflow by name, format its report, and write it if it changed."""

from __future__ import annotations

import importlib
import logging
from collections.abc import Mapping
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

from dims_worker.config import Config, WorkflowName
from dims_worker.config.runtime import WORKFLOW
from dims_worker.config.workflows import AUDIT
from dims_worker.errors import MeasureError, NotFound
from dims_worker.numbers import dumps
from dims_worker.probes.base import Deadline, Reading, ScanResult
from dims_worker.workflows.base import Progress, Workflow, WorkflowContext, WorkflowOutcome, no_progress, write_changed
from dims_worker.workflows.markdown import escape_markdown

log = logging.getLogger(__name__)

GENERATED = "Generated: "
"""The line with the time of a report. Reports that differ only in this line are equal."""
HEAD = ("workflow", "generated_at", "quick", "unreached", "attention", "summary")
"""The keys that every result has. All others are the parts of the workflow."""


def _workflow(name: str) -> Workflow:
    place = "audit" if name == AUDIT else f"{name.replace('-', '_')}.workflow"
    module = importlib.import_module(f"dims_worker.workflows.{place}")
    workflow: Workflow = module.WORKFLOW
    return workflow


def run_workflow(
    config: Config,
    name: str,
    *,
    quick: bool = False,
    options: frozenset[str] = frozenset(),
    progress: Progress = no_progress,
    deadline: Deadline | None = None,
    with_metrics: bool = True,
) -> WorkflowOutcome:
    """Run a workflow by its name (`gap-analysis`, or `workflow.gap-analysis`), limited by its own timeout and the
    optional deadline. Unless `with_metrics`, it leaves its metrics to the workers that measure their sources.

    Raises NotFound if it is not configured. A source that cannot be reached does not raise. The result names it,
    and the reading of the workflow is failed.
    """
    short = _configured(config, name.removeprefix(WORKFLOW))
    declared = config.workflows.find(short)
    assert declared is not None
    now = datetime.now(UTC)
    own = Deadline.after(declared.timeout)
    until = deadline if deadline is not None and deadline.at < own.at else own
    context = WorkflowContext(config, now, until, quick, options, progress, with_metrics)
    parts = _run(short, context)
    result = {**_head(short, now, context.unreached, quick=quick), **parts}
    outcome = _own_reading(f"{WORKFLOW}{short}", context.unreached, bool(parts.get("attention")))
    return WorkflowOutcome(result, ScanResult((outcome, *context.readings), context.api_calls))


def failed_outcome(config: Config, name: str, reason: str, *, quick: bool, crashed: bool) -> WorkflowOutcome:
    """Return the outcome of a workflow that was ended from outside, for this reason. It has no parts."""
    short: str = _configured(config, name.removeprefix(WORKFLOW))
    unreached: dict[str, str] = {short: reason}
    reading = _own_reading(f"{WORKFLOW}{short}", unreached, attention=False)
    result = _head(short, datetime.now(UTC), unreached, quick=quick)
    return WorkflowOutcome(result, ScanResult((reading,), crashed=crashed))


def _head(name: str, now: datetime, unreached: Mapping[str, str], *, quick: bool) -> dict[str, Any]:
    return {
        "workflow": name,
        "generated_at": now.isoformat(timespec="seconds"),
        "quick": quick,
        "unreached": unreached,
    }


def _run(name: str, context: WorkflowContext) -> dict[str, Any]:
    """Return the parts of the workflow. If it fails, record the reason and return none."""
    try:
        return _workflow(name).run(context)
    except MeasureError as error:
        context.mark_unreached(name, str(error))
    except Exception as error:
        log.exception("the workflow %s failed with an unexpected error", name)
        context.mark_unreached(name, f"internal error: {error!r}")
    return {}


def _own_reading(name: str, unreached: Mapping[str, str], attention: bool) -> Reading:
    if unreached:
        reasons = "; ".join(f"{source}: {reason}" for source, reason in sorted(unreached.items()))
        return Reading.failed(name, "", f"not reached: {reasons}")
    return Reading(name, "attention" if attention else "ok", "", "exact")


def _configured(config: Config, name: str) -> WorkflowName:
    for known in config.configured_workflows:
        if known == name:
            return known
    configured = ", ".join(config.configured_workflows) or "none"
    raise NotFound(f"the workflow {name} is not configured in {config.file}. Configured are: {configured}")


def render_report(result: Mapping[str, Any]) -> str:
    """Return the report of a stored result: title, time, sources that were not reached, then its parts."""
    unreached = [
        f"- **{escape_markdown(source)}** was not reached: {escape_markdown(reason)}"
        for source, reason in sorted(result["unreached"].items())
    ]
    head = [f"# {result['workflow']}", "", f"{GENERATED}{result['generated_at']}", ""]
    if unreached:
        head += ["Values that are missing here were not measured. They are not zero.", "", *unreached, ""]
    return "\n".join([*head, report_body(result)]).rstrip() + "\n"


def report_body(result: Mapping[str, Any]) -> str:
    """Return the report after its head. It is empty if the workflow failed."""
    whole = result.keys() - set(HEAD)
    return _workflow(result["workflow"]).markdown(result).rstrip() + "\n" if whole else ""


def write_report(path: Path, result: Mapping[str, Any]) -> bool:
    """Write the report of a result: JSON if the name ends in `.json`, otherwise Markdown. Return False if the report
    has not changed: only the modification time of the file is updated then."""
    if path.suffix == ".json":
        return write_changed(path, dumps(result, indent=2, ensure_ascii=False, sort_keys=True) + "\n", _same)
    return write_changed(path, render_report(result), _same)


def result_summary(result: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return the main figures of a stored result as pairs of label and value: its `summary`, or its `totals`."""
    if "summary" in result:
        return [(str(label), str(value)) for label, value in result["summary"]]
    totals = result.get("totals", {})
    plain = {key: totals[key] for key in sorted(totals) if isinstance(totals[key], int | float | Decimal | str)}
    return [(key.replace("_", " "), value if isinstance(value, str) else f"{value:,}") for key, value in plain.items()]


def result_status(result: Mapping[str, Any]) -> str:
    """Return the status of a stored result: `failed` (a source was not reached), `attention`, or `ok`."""
    if result["unreached"]:
        return "failed"
    return "attention" if result.get("attention") else "ok"


def _same(before: str, after: str) -> bool:
    def without_time(text: str) -> list[str]:
        return [line for line in text.splitlines() if not line.startswith((GENERATED, '  "generated_at"'))]

    return without_time(before) == without_time(after)
