"""Test `dims report` as a user runs it."""

from __future__ import annotations

import json
import stat
from pathlib import Path
from typing import Any

import openpyxl
import pytest
from sqlalchemy import Engine, text

from tests.conftest import Project

CONFIG = """
sources: {project: {type: files, path: data}}
metrics: {lake: {files: {source: project, measure: count, critical: true, unit: files}}}
"""


@pytest.fixture
def measured(project: Project) -> Project:
    """Return a project with ten measured files, and a held reading of fifteen."""
    project.write({"dims.yaml": CONFIG, **{f"data/{n}": "" for n in range(10)}})
    project.dims("verify", "--update", check=True)
    project.write({f"data/more{n}": "" for n in range(5)})
    assert project.dims("verify", "--update").returncode == 1
    return project


def latest_row(path: Path) -> dict[str, Any]:
    head, row = openpyxl.load_workbook(path)["latest"].iter_rows(values_only=True)
    return dict(zip(head, row, strict=True))


def test_an_approved_integer_is_an_integer_in_table_json_and_excel(measured: Project) -> None:
    measured.dims("approvals", "approve", "lake.files", "--version", "1", check=True)
    assert "15 files" in measured.dims("metrics", check=True).stdout
    (listed,) = json.loads(measured.dims("metrics", "--json", check=True).stdout)["metrics"]
    measured.dims("report", "excel", "-o", "out.xlsx", check=True)
    reported = json.loads(measured.dims("report", "json", check=True).stdout)["categories"][0]["metrics"][0]
    for row in (listed, reported, latest_row(measured.folder / "out.xlsx")):
        assert (row["value"], type(row["value"])) == (15, int)
        assert (row["baseline"], type(row["baseline"])) == (15, int)


LOSSES = """
sources: {project: {type: files, path: data}}
metrics: {lake: {files: {source: project, measure: count, unit: files}}}
"""


def test_a_loss_is_in_every_format_until_the_value_is_back(project: Project) -> None:
    project.write({"dims.yaml": LOSSES, **{f"data/{n}": "" for n in range(40)}})
    project.dims("verify", "--update", check=True)
    for n in range(1, 40):
        (project.folder / f"data/{n}").unlink()
    for _ in range(3):  # later readings without drift change nothing
        project.dims("verify", "--update")
    page = project.dims("report", "html", check=True).stdout
    assert "1 incident is open. 1 metric is lost or drifted." in page and "40 -&gt; 1 file, -97.5 %" in page
    document = project.dims("report", "markdown", check=True).stdout
    assert "# Data inventory\n\n1 incident is open. " in document and "40 -\\> 1 file, -97.5 %" in document
    reported = json.loads(project.dims("report", "json", check=True).stdout)
    (incident,), (change,) = reported["incidents"], reported["changes"]
    assert (incident["label"], incident["anchor"], incident["value"]) == ("lost", 40, 1)
    assert (change["before"], change["after"], change["incident"]["id"]) == (40, 1, incident["id"])
    assert project.dims("report", "csv", check=True).stdout.splitlines()[1].split(",")[12] == "lost"
    project.dims("report", "excel", "-o", "out.xlsx", check=True)
    book = openpyxl.load_workbook(project.folder / "out.xlsx")
    for sheet, values in (("incidents", {"lost", 40, 1}), ("changes", {40, 1, "by policy"}), ("latest", {"lost"})):
        assert values <= {cell.value for cell in book[sheet][2]}, sheet
    project.write({f"data/{n}": "" for n in range(1, 40)})
    project.dims("verify", "--update")
    back = json.loads(project.dims("report", "json", check=True).stdout)
    assert back["verdict"].startswith("No incident is open.")
    assert [each["resolution"] for each in back["incidents"]] == ["recovered"]


def test_each_format_is_written_to_its_output(measured: Project) -> None:
    first = measured.dims("report", "markdown", "-o", "docs", check=True)
    again = measured.dims("report", "markdown", "-o", "docs", check=True)
    assert (first.stdout, first.stderr) == ("", "docs/MASTER_DATA_INVENTORY.md written\n")
    assert again.stderr == "docs/MASTER_DATA_INVENTORY.md unchanged\n"
    assert measured.dims("report", "csv", check=True).stdout.startswith("metric,category,")
    page = measured.dims("report", "html", check=True).stdout
    assert page.startswith("<!doctype html>") and "dims approvals approve" in page
    measured.dims("report", "html", "--since", "2026-01-01", "-o", "deep/er/page.html", check=True)
    assert (measured.folder / "deep/er/page.html").is_file()
    assert [file.name for file in (measured.folder / "deep/er").iterdir()] == ["page.html"]  # no temporary file remains


def test_wrong_arguments_are_reported(measured: Project) -> None:
    expected = {
        ("excel",): "an Excel workbook cannot be printed. Name a file: -o inventory.xlsx",
        ("html", "-o", "data"): "it is a folder. Name a file in it.",
        ("html", "-o", "dims.yaml/x.html"): "the report cannot be written to",
        ("json", "--since", "soon"): "'soon' is neither a span, such as 7d or 48h, nor a date, such as 2026-11-01",
        ("json", "--since", "2999-01-01"): "2999-01-01 is in the future",
        ("pdf",): "'pdf' is not one of",
    }
    for arguments, reason in expected.items():
        done = measured.dims("report", *arguments)
        assert done.returncode == 2, arguments
        assert reason in done.stderr, arguments
        assert "Traceback" not in done.stderr


def test_a_read_only_database_user_sees_everything_and_changes_nothing(measured: Project, engine: Engine) -> None:
    name = f"reader_{engine.url.database}"
    with engine.begin() as connection:
        connection.execute(text(f"CREATE ROLE {name} LOGIN PASSWORD 'a long one' IN ROLE dims_reader"))
    try:
        reader = engine.url.set(username=name, password="a long one").render_as_string(hide_password=False)
        before = _counts(engine)
        measured.env |= {"DIMS_DATABASE_URL": reader}
        for kind in ("markdown", "json", "csv", "html", "excel"):
            measured.dims("report", kind, "-o", f"out.{kind}", check=True)
            assert (measured.folder / f"out.{kind}").exists()
        for words in (
            ["history", "lake.files"],
            ["history", "lake.files", "--chart"],
            ["diff", "--since", "1d"],
            ["suggest", "lake.*"],
            ["snapshot", "list"],
            ["metrics"],
            ["explain", "lake.files"],
            ["approvals", "list"],
        ):
            measured.dims(*words, check=True)
        assert _counts(engine) == before
        assert measured.dims("snapshot", "take", "mine").returncode != 0
        assert _counts(engine) == before
        assert not (measured.folder / "out.json").stat().st_mode & stat.S_IWOTH
    finally:
        with engine.begin() as connection:
            connection.execute(text(f"DROP ROLE {name}"))


def _counts(engine: Engine) -> dict[str, int]:
    listed = "SELECT relname FROM pg_class WHERE relkind = 'r' AND relname LIKE 'dims\\_%'"
    with engine.connect() as connection:
        names = connection.execute(text(listed)).scalars().all()
        return {name: connection.execute(text(f"SELECT count(*) FROM {name}")).scalar_one() for name in names}
