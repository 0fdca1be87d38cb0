"""The report of sync-status."""

from __future__ import annotations

from dims_worker.workflows.sync_status.report import drift


def test_a_drift_is_not_rounded_to_0_or_to_a_limit() -> None:
    assert [drift(pct) for pct in (0.0, 100 / 28_114, 4.98, 5.0, 14.96, 31.0)] == [
        *("0.0 %", "0.004 %", "4.98 %", "5.0 %", "14.96 %", "31.0 %"),
    ]
