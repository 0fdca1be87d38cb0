"""The report of sync-status."""

from __future__ import annotations

from typing import Any

from dims_worker.workflows.sync_status.report import drift, markdown

RESULT: dict[str, Any] = {
    **{"metric": "copy.status", "bucket": "lake", "status": "synced", "drift_pct": 1.0, "union": 100, "pairs": []},
    **{"only_local": [], "only_s3": [], "different": [], "commands": [], "overwrite": [], "no_object": []},
}


def test_a_drift_is_not_rounded_to_0_or_to_a_limit() -> None:
    assert [drift(pct) for pct in (0.0, 100 / 28_114, 4.98, 5.0, 14.96, 31.0)] == [
        *("0.0 %", "0.004 %", "4.98 %", "5.0 %", "14.96 %", "31.0 %"),
    ]


def test_a_key_without_a_command_cannot_break_the_report() -> None:
    hostile = {"key": "d/a|b`c\n# x", "kind": "only_s3", "reason": "the symbolic link `/data/<b>|x` is in its way"}
    lines = markdown({**RESULT, "without_command": [hostile]}).split("\n")
    assert "## Without a command: 1" in lines
    (row,) = [line for line in lines if "symbolic link" in line]
    assert row == "| `` d/a\\|b`c\\n# x `` | only in S3 | the symbolic link `/data/<b>\\|x` is in its way |"


def test_a_result_of_an_older_version_has_a_report() -> None:
    assert "Without a command" not in markdown(RESULT)
