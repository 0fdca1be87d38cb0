"""Running workflows by name, their reports, and the status of a result."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from dims_worker import workflows
from dims_worker.config import Config, load_config
from dims_worker.errors import NotFound
from dims_worker.workflows import audit
from dims_worker.workflows.base import write_changed

CONFIG = """
sources: {lake: {type: s3, bucket: lake}}
metrics: {s: {sync: {source: lake, measure: sync_status, local: nowhere, pairs: [{folder: a, prefix: a/}]}}}
workflows: {sync_status: {metric: s.sync}}
"""


@pytest.fixture
def config(tmp_path: Path) -> Config:
    (tmp_path / "dims.yaml").write_text(CONFIG)
    return load_config(None, {}, tmp_path)


def result(**more: Any) -> dict[str, Any]:
    parts = {"metric": "s.sync", "bucket": "lake", "status": None, "synced": False, "attention": [], "summary": []}
    head = {"workflow": "sync-status", "generated_at": "2026-11-22T09:00:00+00:00", "quick": False, "unreached": {}}
    return {**head, **parts, **more}


def test_an_unconfigured_workflow_is_an_error(config: Config) -> None:
    for name in ("gap-analysis", "nonsense", "workflow.gap-analysis"):
        with pytest.raises(NotFound, match="Configured are: sync-status, audit"):
            workflows.run_workflow(config, name)


def test_the_name_of_the_source_is_accepted(config: Config) -> None:
    outcome = workflows.run_workflow(config, "workflow.sync-status")
    assert outcome.result["workflow"] == "sync-status"
    assert "does not exist" in outcome.unreached["local folders"]
    assert outcome.scanned.readings[0].metric == "workflow.sync-status"


@pytest.mark.parametrize("name", ["report.md", "report.json"])
def test_an_unchanged_report_is_not_rewritten(tmp_path: Path, name: str) -> None:
    path = tmp_path / "deep" / name
    assert workflows.write_report(path, result())
    inode = path.stat().st_ino
    os.utime(path, (1, 1))
    assert not workflows.write_report(path, result(generated_at="2026-11-23T09:00:00+00:00"))
    assert path.stat().st_ino == inode and path.stat().st_mtime > 1  # updated, because the report is current
    assert workflows.write_report(path, result(unreached={"lake": "gone"}))
    assert [file.name for file in path.parent.iterdir()] == [name]


def test_a_report_that_cannot_replace_its_target(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OSError):
        write_changed(tmp_path / "file" / "x", "text")


def test_the_head_names_unreached_sources() -> None:
    text = workflows.render_report(result(unreached={"lake": "gone\n# for good", "a": "b"}))
    lines = text.split("\n")
    assert lines[:3] == ["# sync-status", "", "Generated: 2026-11-22T09:00:00+00:00"]
    assert [line for line in lines if line.startswith("- ")] == [
        "- **a** was not reached: b",
        "- **lake** was not reached: gone\\\\n# for good",
    ]


def test_the_report_of_a_failed_workflow_has_only_a_head() -> None:
    bare = {key: value for key, value in result().items() if key in ("workflow", "generated_at", "quick")}
    text = workflows.render_report({**bare, "unreached": {"sync-status": "internal error"}})
    assert text.endswith("**sync-status** was not reached: internal error\n")


def test_the_status_of_a_result() -> None:
    assert workflows.result_status(result()) == "ok"
    assert workflows.result_status(result(attention=["x"])) == "attention"
    assert workflows.result_status(result(attention=["x"], unreached={"lake": "gone"})) == "failed"
    assert workflows.result_summary(result(summary=[["a", "1"]])) == [("a", "1")]
    assert workflows.result_summary({"totals": {"lines": 1200, "files": 3}}) == [("files", "3"), ("lines", "1,200")]


def test_headings_in_code_are_not_changed() -> None:
    text = audit._lower_headings("# a\n```sh\n# no heading\n```\n## b\n````\n```\n# no\n````\n# c")
    assert text == "## a\n```sh\n# no heading\n```\n### b\n````\n```\n# no\n````\n## c"
