"""The report of a sync-status, in words."""

from __future__ import annotations

from dims_worker.workflows.sync_status.report import drift


def test_one_file_of_many_is_not_no_drift_and_a_status_is_not_shown_as_its_limit() -> None:
    assert [drift(pct) for pct in (0.0, 100 / 28_114, 4.98, 5.0, 14.96, 31.0)] == [
        *("0.0 %", "0.004 %", "4.98 %", "5.0 %", "14.96 %", "31.0 %"),
    ]
