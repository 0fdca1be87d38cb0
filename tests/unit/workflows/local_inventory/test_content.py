"""Which files have content: neither empty nor truncated, as far as their format shows."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest

from dims_worker.workflows.local_inventory.content import WHOLE, content_problem

JSON = b'{"plays": [{"id": 1}, {"id": 2}]}'
CSV = b"game_id,event,text\n1,2,3\n1,3,jump ball"
LARGE = b"[" + b'{"id": 1},\n' * (WHOLE // 10) + b"{}]\n"


@pytest.mark.parametrize(
    ("name", "content", "problem"),
    [
        ("1.json", JSON, None),
        ("1.JSON", b"\xef\xbb\xbf" + JSON + b"\n", None),
        ("1.json", JSON + b"\n" + JSON + b"\n", None),  # JSON Lines with another name
        *[("1.json", JSON[:length], "truncated") for length in range(1, len(JSON))],
        *[("1.json", each, "empty") for each in (b"", b" \n", b"\0" * 4096, b"{}", b"[]", b"null", b'""')],
        ("1.json", b"<html>Not found</html>", "an HTML or XML page"),
        ("1.html", b"<html>Box score</html>", None),
        ("1.json", LARGE, None),
        ("1.json", LARGE[:-3], "truncated"),
        ("1.json", b"x", None),  # another format: DIMS does not know its end
        ("1.jsonl", JSON + b"\n" + JSON, None),
        ("1.jsonl", JSON + b"\n" + JSON[:9], "truncated"),
        ("1.csv", CSV, None),
        ("1.csv", CSV + b"\n", None),
        ("1.csv", CSV[:-10], "truncated"),
        ("1.csv", b"game_id,event,text\n", "only a header"),
        ("1.csv", b"12", None),
        ("1.parquet", b"PAR1" + b"x" * 40 + b"PAR1", None),
        ("1.parquet", b"PAR1" + b"x" * 40, "truncated"),
        ("1.json.gz", gzip.compress(JSON), None),
        ("1.json.gz", gzip.compress(JSON)[:-5], "truncated"),
        ("1.json.gz", gzip.compress(JSON[:-1]), "truncated"),
        ("1.json.gz", gzip.compress(b""), "empty"),
        ("1.json.part", JSON, "a partial download"),
        ("1", JSON[:4], None),
    ],
    ids=lambda each: each if isinstance(each, str) else "",  # compressed content has a time in it
)
def test_content(tmp_path: Path, name: str, content: bytes, problem: str | None) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    assert content_problem(str(path), len(content), 1) == problem


def test_a_smallest_size(tmp_path: Path) -> None:
    path = tmp_path / "1.json"
    path.write_bytes(JSON)
    assert content_problem(str(path), len(JSON), 100) == "smaller than 100 B"
