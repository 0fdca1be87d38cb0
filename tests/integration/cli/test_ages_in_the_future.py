"""An instant in the future is never fresh: in no output, from no kind of source, with and without a limit."""

from __future__ import annotations

import csv
import io
import json
import os
import re
from datetime import UTC, datetime

import openpyxl
import pytest

from tests.conftest import Lake, Project

DIMS = """
sources:
  here: {type: files, path: feed}
  repo: {type: git, path: "."}
  wh: {type: sql, url: "${DIMS_DATABASE_URL}"}
  lake: {type: s3, bucket: lake}
metrics:
  age:
    file: {source: here, measure: newest_age, unit: days}
    commit: {source: repo, measure: newest_age, unit: days, max_age: 2d}
    object: {source: lake, measure: newest_age, max_age: 2d, critical: true}
    local_time: {source: wh, query: "SELECT (now() + interval '9 hours')::timestamp", measure: age, max_age: 3h}
    last_day: {source: wh, query: "SELECT '9999-12-31 12:00+00'::timestamptz", measure: age, unit: weeks}
    epoch: {source: here, measure: oldest_age, unit: days}
    skewed: {source: wh, query: "SELECT now() + interval '4 minutes'", measure: age, max_age: 3h}
"""
AHEAD = ("age.file", "age.commit", "age.object", "age.local_time", "age.last_day")
FINE = ("age.epoch", "age.skewed")
NONSENSE = re.compile(r"\de[+-]\d|-\d[\d.,]* (?:second|minute|hour|day|week|year)|in -")
"""A number with an exponent, or a negative age."""


@pytest.fixture
def ahead(project: Project, lake: Lake) -> Project:
    """A project whose newest file, commit, object and row are in the future."""
    from moto.s3.models import s3_backends

    project.env |= lake.env
    lake.put("lake", {"a": b"x"})
    s3_backends["123456789012"]["aws"].buckets["lake"].keys["a"].last_modified = datetime(
        2031, 1, 1, tzinfo=UTC
    ).replace(tzinfo=None)
    project.write({"dims.yaml": DIMS, "feed/a.csv": "", "feed/b.csv": ""})
    project.env["GIT_COMMITTER_DATE"] = "2085-01-01T00:00:00Z"
    project.git("add", "-A")
    project.git("commit", "-q", "-m", "x")
    os.utime(project.folder / "feed/a.csv", (2_000_000_000, datetime(2031, 1, 1, tzinfo=UTC).timestamp()))
    os.utime(project.folder / "feed/b.csv", (0, 0))
    return project


def test_every_output_says_so(ahead: Project) -> None:
    first = ahead.dims("verify")
    assert first.returncode == 1, first.stderr
    assert "5 in the future, 2 new" in first.stdout
    for name in AHEAD:
        assert re.search(rf"{name} .*in the future: .* ahead when DIMS read it; .*; first baseline", first.stdout)
    build = ahead.dims("verify", "--format", "github")
    assert build.returncode == 1 and build.stdout.count("::error title=age.") == 5
    listed = ahead.dims("metrics", check=True).stdout
    explained = ahead.dims("explain", "age.commit", check=True).stdout
    history = ahead.dims("history", "age.commit", "--chart", check=True).stdout
    assert listed.count("in the future: ") == 5 and "in 58.1 years, in the future\n" in explained
    assert "readings not drawn: absent, or in the future" in history
    status = json.loads(ahead.dims("status", "--json").stdout)
    assert set(status["numbers"]["beyond_limits"]) == set(AHEAD)
    for text in (first.stdout, build.stdout, listed, explained, history):
        assert not NONSENSE.search(text), NONSENSE.search(text)


def test_no_document_has_a_negative_age(ahead: Project) -> None:
    readings = {row["metric"]: row for row in json.loads(ahead.dims("verify", "--json").stdout)["metrics"]}
    states = {row["metric"]: row for row in json.loads(ahead.dims("metrics", "--json", check=True).stdout)["metrics"]}
    for name in AHEAD:
        assert readings[name]["value"] is states[name]["value"] is None
        assert readings[name]["instant"] and states[name]["instant"]
        assert (readings[name]["severity"], readings[name]["tier"]) == ("high", "notify")
        assert states[name]["beyond"].startswith("in the future: ")
    for name in FINE:
        assert readings[name]["value"] >= 0 and states[name]["beyond"] is None

    ahead.dims("report", "csv", "-o", "r.csv", check=True)
    rows = list(csv.DictReader(io.StringIO((ahead.folder / "r.csv").read_text())))
    assert [row["metric"] for row in rows if row["state"] == "in the future"] == list(AHEAD)
    assert all(not row["value"].startswith("-") for row in rows)

    ahead.dims("report", "markdown", "-o", "md", check=True)
    markdown = (ahead.folder / "md" / "MASTER_DATA_INVENTORY.md").read_text()
    assert markdown.count("| in the future |") == 5 and "at 2031-01-01 00:00 UTC" in markdown
    ahead.dims("report", "html", "-o", "r.html", check=True)
    page = re.sub(r"<style.*?</style>|<[^>]+>", " ", (ahead.folder / "r.html").read_text(), flags=re.DOTALL)
    assert "in the future" in page and "in 58.1 years" in page
    assert not NONSENSE.search(markdown) and not NONSENSE.search(page)

    ahead.dims("report", "excel", "-o", "r.xlsx", check=True)
    book = openpyxl.load_workbook(ahead.folder / "r.xlsx")
    cells = [cell for sheet in book for row in sheet.iter_rows() for cell in row]
    assert not [cell.value for cell in cells if cell.data_type == "e"]
    latest = list(book["latest"].iter_rows(min_row=2, max_col=4, values_only=True))
    assert {row[0]: row[3] for row in latest if row[0] in AHEAD} == dict.fromkeys(AHEAD)
