"""The workflows by name: run one, tell its report, write it where it changed."""

from __future__ import annotations

import importlib
import json
import os
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from dims_worker.config import Config, WorkflowName
from dims_worker.config.config import WORKFLOW
from dims_worker.errors import NotFound
from dims_worker.probes.base import Deadline, Reading, Scanned
from dims_worker.workflows.base import Outcome, Progress, Workbench, Workflow, quiet

GENERATED = "Generated: "
"""The line of a report that says when; two reports that differ in nothing else are the same report."""


def _workflow(name: str) -> Workflow:
    module = importlib.import_module(f"dims_worker.workflows.{name.replace('-', '_')}")
    found: Workflow = module.WORKFLOW
    return found


def run(
    config: Config,
    name: str,
    *,
    quick: bool = False,
    options: frozenset[str] = frozenset(),
    progress: Progress = quiet,
) -> Outcome:
    """Run a workflow by its name (`gap-analysis`, or as a source: `workflow.gap-analysis`).

    Raises NotFound where it is not configured. A source that cannot be reached does not raise: it is named in
    the result, and the workflow's own reading is a failed one.
    """
    short = _configured(config, name.removeprefix(WORKFLOW))
    declared = config.workflows.named(short)
    assert declared is not None
    now = datetime.now(UTC)
    bench = Workbench(config, now, Deadline.after(declared.timeout), quick, options, progress)
    parts = _workflow(short).examine(bench)
    result = {
        "workflow": short,
        "generated_at": now.isoformat(timespec="seconds"),
        "quick": quick,
        "unreached": bench.unreached,
        **parts,
    }
    own = _own_reading(f"{WORKFLOW}{short}", bench.unreached, bool(parts.get("attention")))
    return Outcome(result, Scanned((own, *bench.readings), bench.requests))


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


def markdown(result: Mapping[str, Any]) -> str:
    """The report of a stored result: a title, when it was made, what was not reached, then its parts."""
    unreached = [f"- **{source}** was not reached: {reason}" for source, reason in sorted(result["unreached"].items())]
    head = [f"# {result['workflow']}", "", f"{GENERATED}{result['generated_at']}", ""]
    if unreached:
        head += ["What is missing here was not measured; it is not zero.", "", *unreached, ""]
    return "\n".join(head) + _workflow(result["workflow"]).markdown(result).rstrip() + "\n"


def write_report(path: Path, result: Mapping[str, Any]) -> bool:
    """Write a result's report: Markdown, or JSON where the name ends so. False: it says what it said before.

    An unchanged report is not rewritten; its file's time moves, because it was proven right again.
    """
    text = json.dumps(result, indent=2, ensure_ascii=False) + "\n" if path.suffix == ".json" else markdown(result)
    if path.is_file() and _same(path.read_text(encoding="utf-8", errors="replace"), text):
        os.utime(path)
        return False
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    draft.write_text(text, encoding="utf-8")
    draft.replace(path)
    return True


def _same(before: str, after: str) -> bool:
    def essence(text: str) -> list[str]:
        return [line for line in text.splitlines() if not line.startswith((GENERATED, '  "generated_at"'))]

    return essence(before) == essence(after)
