"""Test reading baselines from YAML, JSON and CSV files. A problem is reported with its place."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from dims_worker.approvals.decisions import BaselineInput
from dims_worker.cli.baseline import read_baselines, scalar
from dims_worker.errors import UsageError


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("172726", 172_726),
        ("-3", -3),
        ("0.25", 0.25),
        ("1e3", 1000.0),
        ("true", True),
        ("null", None),
        ("synced", "synced"),
        ("172,726", "172,726"),
        ('"17"', '"17"'),
        ("[1]", "[1]"),
        ("", ""),
    ],
)
def test_a_value_on_the_command_line_is_parsed_as_json_or_else_as_text(text: str, value: Any):
    assert scalar(text) == value
    assert type(scalar(text)) is type(value)


YAML = """
s3_storage:
  total_objects: 172726
  total_size_gb: {value: 119.5, note: counted by hand}
sync_status.local_s3_sync_status: synced
"""
JSON = """{"s3_storage": {"total_objects": 172726, "total_size_gb": {"value": 119.5, "note": "counted by hand"}},
           "sync_status.local_s3_sync_status": "synced"}"""
CSV = (
    "\ufeffmetric,value,note\ns3_storage.total_objects,172726,\ns3_storage.total_size_gb,119.5,counted by hand\n"
    "sync_status.local_s3_sync_status,synced,\n"
)
EXPECTED = [
    BaselineInput("s3_storage.total_objects", 172_726, "from the old inventory"),
    BaselineInput("s3_storage.total_size_gb", 119.5, "counted by hand"),
    BaselineInput("sync_status.local_s3_sync_status", "synced", "from the old inventory"),
]


@pytest.mark.parametrize(("name", "content"), [("a.yaml", YAML), ("a.yml", YAML), ("a.json", JSON), ("a.CSV", CSV)])
def test_the_three_formats_give_the_same_baselines(tmp_path: Path, name: str, content: str):
    file = tmp_path / name
    file.write_text(content, encoding="utf-8")
    baselines = read_baselines(file, "from the old inventory")
    assert baselines == EXPECTED
    assert [type(baseline.value) for baseline in baselines] == [int, float, str]


@pytest.mark.parametrize(
    ("name", "content", "problem"),
    [
        ("a.txt", "x", "a.txt: cannot be read. Use a .yaml, .json or .csv file."),
        (
            "a.csv",
            "name,count\nx,1\n",
            "a.csv:1: the first line must name the columns metric, value and optionally note",
        ),
        ("a.csv", "metric,value\ns3.a\n", "a.csv:2: the metric or the value is missing"),
        ("a.csv", "metric,value\n,3\n", "a.csv:2: the metric or the value is missing"),
        ("a.json", "[1]", "a.json: the document must be a mapping"),
        ("a.json", "{", "a.json cannot be read"),
        ("a.yaml", "s3: {a: [1]}", "a.yaml: s3.a: a value must be a number, a text, a boolean or null, not list"),
        ("a.yaml", "s3: {a: {b: 1}}", "a.yaml: s3.a: a value must be a number, a text, a boolean or null, not dict"),
        ("a.yaml", "s3: {a: 2026-01-01}", "not date"),
        ("a.yaml", "s3.a: 1\ns3: {a: 2}", "a.yaml: s3.a appears twice"),
        ("a.yaml", "{}", "a.yaml: contains no value"),
        ("a.yaml", "!!python/object:os.system {}", "a.yaml cannot be read"),
    ],
)
def test_an_error_names_the_place_of_the_problem(tmp_path: Path, name: str, content: str, problem: str):
    file = tmp_path / name
    file.write_text(content)
    with pytest.raises(UsageError) as raised:
        read_baselines(file, None)
    assert problem in str(raised.value)
