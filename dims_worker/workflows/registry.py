"""The workflows by name: run one, tell its report, write it where it changed."""

from __future__ import annotations

import importlib
import json
import logging
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from dims_worker.config import Config, WorkflowName
from dims_worker.config.runtime import WORKFLOW
from dims_worker.errors import MeasureError, NotFound
from dims_worker.probes.base import Deadline, Reading, ScanResult
from dims_worker.workflows.base import Progress, Workflow, WorkflowContext, WorkflowOutcome, no_progress, write_changed
from dims_worker.workflows.markdown import escape_markdown

log = logging.getLogger(__name__)

GENERATED = "Generated: "
"""The line of a report that says when; two reports that differ in nothing else are the same report."""
HEAD = ("workflow", "generated_at", "quick", "unreached", "attention", "summary")
"""What every result has, beside its workflow's own parts."""


def _workflow(name: str) -> Workflow:
    place = "audit" if name == "audit" else f"{name.replace('-', '_')}.workflow"
    module = importlib.import_module(f"dims_worker.workflows.{place}")
    found: Workflow = module.WORKFLOW
    return found


def run_workflow(
    config: Config,
    name: str,
    *,
    quick: bool = False,
    options: frozenset[str] = frozenset(),
    progress: Progress = no_progress,
    deadline: Deadline | None = None,
) -> WorkflowOutcome:
    """Run a workflow by its name (`gap-analysis`, or as a source: `workflow.gap-analysis`), within its own
    timeout and the deadline, if there is one.

    Raises NotFound where it is not configured. A source that cannot be reached does not raise: it is named in
    the result, and the workflow's own reading is a failed one.
    """
    short = _configured(config, name.removeprefix(WORKFLOW))
    declared = config.workflows.find(short)
    assert declared is not None
    now = datetime.now(UTC)
    own = Deadline.after(declared.timeout)
    until = deadline if deadline is not None and deadline.at < own.at else own
    bench = WorkflowContext(config, now, until, quick, options, progress)
    parts = _examined(short, bench)
    result = {
        "workflow": short,
        "generated_at": now.isoformat(timespec="seconds"),
        "quick": quick,
        "unreached": bench.unreached,
        **parts,
    }
    outcome = _own_reading(f"{WORKFLOW}{short}", bench.unreached, bool(parts.get("attention")))
    return WorkflowOutcome(result, ScanResult((outcome, *bench.readings), bench.api_calls))


def _examined(name: str, bench: WorkflowContext) -> dict[str, Any]:
    """The workflow's own parts; none of them, and the reason noted, where it could not be brought to its end."""
    try:
        return _workflow(name).examine(bench)
    except MeasureError as error:
        bench.miss(name, str(error))
    except Exception as error:
        log.exception("the workflow %s broke down", name)
        bench.miss(name, f"internal error: {error!r}")
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
    there_are = ", ".join(config.configured_workflows) or "none"
    raise NotFound(f"the workflow {name} is not configured in {config.file}; there are {there_are}")


def render_report(result: Mapping[str, Any]) -> str:
    """The report of a stored result: a title, when it was made, what was not reached, then its parts."""
    unreached = [
        f"- **{escape_markdown(source)}** was not reached: {escape_markdown(reason)}"
        for source, reason in sorted(result["unreached"].items())
    ]
    head = [f"# {result['workflow']}", "", f"{GENERATED}{result['generated_at']}", ""]
    if unreached:
        head += ["What is missing here was not measured; it is not zero.", "", *unreached, ""]
    return "\n".join([*head, report_body(result)]).rstrip() + "\n"


def report_body(result: Mapping[str, Any]) -> str:
    """What a report tells after its head; nothing where the workflow was not brought to its end."""
    whole = result.keys() - set(HEAD)
    return _workflow(result["workflow"]).markdown(result).rstrip() + "\n" if whole else ""


def write_report(path: Path, result: Mapping[str, Any]) -> bool:
    """Write a result's report: Markdown, or JSON where the name ends so. False: it says what it said before.

    An unchanged report is not rewritten; its file's time moves, because it was proven right again.
    """
    if path.suffix == ".json":
        return write_changed(path, json.dumps(result, indent=2, ensure_ascii=False, sort_keys=True) + "\n", _same)
    return write_changed(path, render_report(result), _same)


def result_summary(result: Mapping[str, Any]) -> list[tuple[str, str]]:
    """The few figures of a stored result that a terminal shows: the result's own `summary`, as pairs of words,
    or else its `totals`."""
    if "summary" in result:
        return [(str(what), str(value)) for what, value in result["summary"]]
    totals = result.get("totals", {})
    plain = {key: totals[key] for key in sorted(totals) if isinstance(totals[key], int | float | str)}
    return [
        (what.replace("_", " "), value if isinstance(value, str) else f"{value:,}") for what, value in plain.items()
    ]


def result_status(result: Mapping[str, Any]) -> str:
    """What a stored result comes to: `failed` where a source was not reached, `attention`, or `ok`."""
    if result["unreached"]:
        return "failed"
    return "attention" if result.get("attention") else "ok"


def _same(before: str, after: str) -> bool:
    def essence(said: str) -> list[str]:
        return [line for line in said.splitlines() if not line.startswith((GENERATED, '  "generated_at"'))]

    return essence(before) == essence(after)
