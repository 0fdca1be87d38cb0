"""What is said about a reading beside its value."""

from __future__ import annotations

from typing import Any

import pytest

from dims_worker.probes.reading_notes import left_out, reading_doubts


@pytest.mark.parametrize(
    ("method", "details", "doubts"),
    [
        ("exact", None, []),
        (None, {}, []),
        ("exact", {"rows_total": 3, "names": ["a"]}, []),
        ("approximate", {"changed_while_measured": True}, ["approximate: the source changed while DIMS measured it"]),
        ("approximate", None, ["approximate: the source changed while DIMS measured it"]),
        ("exact", {"in_progress": "a rebase is in progress"}, ["measured while a rebase is in progress"]),
        ("exact", {"absent": "the folder does not exist"}, ["absent: the folder does not exist"]),
    ],
)
def test_doubts(method: str | None, details: dict[str, Any] | None, doubts: list[str]) -> None:
    assert reading_doubts(method, details) == doubts


def test_what_a_reading_leaves_out() -> None:
    details = {"vanished": 1, "symbolic_links": 1234, "lfs_pointers": 0, "other": 5, "not_counted": "old versions"}
    assert left_out(details) == ["1 file that vanished meanwhile", "1,234 symbolic links", "old versions"]
    assert left_out({"not_counted": ["/srv/a.git"], "vanished": True}) == left_out(None) == []
