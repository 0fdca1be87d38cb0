"""The files of a public project against each other: version, changelog, Python versions, decisions."""

from __future__ import annotations

import re
import tomllib
from datetime import date
from pathlib import Path
from typing import Any

import pytest
import yaml

from dims_worker import __version__

REPO = Path(__file__).parents[2]
PROJECT: dict[str, Any] = tomllib.loads((REPO / "pyproject.toml").read_text(encoding="utf-8"))["project"]
DECISIONS = sorted((REPO / "docs" / "decisions").glob("[0-9]*.md"))


def test_the_version_is_in_one_place() -> None:
    assert "version" not in PROJECT
    assert PROJECT["dynamic"] == ["version"]
    files = [REPO / "pyproject.toml", *(REPO / "dims_worker").rglob("*.py")]
    assert [file.name for file in files if f'"{__version__}"' in file.read_text(encoding="utf-8")] == ["__init__.py"]


def test_extras_that_name_the_distribution_use_its_name() -> None:
    needed = [line for extra in PROJECT["optional-dependencies"].values() for line in extra]
    named = {line.partition("[")[0] for line in needed if line.startswith("dims")}
    assert named == {PROJECT["name"]} == {"dims-worker"}
    assert PROJECT["scripts"]["dims"] == "dims_worker.cli:main"


def test_the_changelog_has_this_version_and_dates_that_fall() -> None:
    text = (REPO / "CHANGELOG.md").read_text(encoding="utf-8")
    titles = re.findall(r"^## (.+)$", text, re.M)
    assert titles[0] == "Unreleased"
    versions = dict(title.split(" - ") for title in titles[1:])
    assert next(iter(versions)) == __version__
    dates = [date.fromisoformat(day) for day in versions.values()]
    assert dates == sorted(dates, reverse=True)
    kinds = {"Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"}
    assert set(re.findall(r"^### (.+)$", text, re.M)) <= kinds


def test_ci_runs_every_python_that_the_project_names_on_linux_and_macos() -> None:
    ci = yaml.safe_load((REPO / ".github" / "workflows" / "ci.yml").read_text(encoding="utf-8"))
    named = {match[1] for line in PROJECT["classifiers"] if (match := re.search(r"Python :: (3\.\d+)$", line))}
    for job in ("check", "test"):
        assert set(ci["jobs"][job]["strategy"]["matrix"]["python"]) == named
    assert set(ci["jobs"]["test"]["strategy"]["matrix"]["os"]) == {"ubuntu-latest", "macos-latest"}


@pytest.mark.parametrize("name", ["bug", "feature"])
def test_an_issue_form_has_what_github_asks_for(name: str) -> None:
    form = yaml.safe_load((REPO / ".github" / "ISSUE_TEMPLATE" / f"{name}.yml").read_text(encoding="utf-8"))
    assert form.keys() >= {"name", "description", "body"}
    fields = [field for field in form["body"] if field["type"] != "markdown"]
    assert len({field["id"] for field in fields}) == len(fields)
    assert all(field["attributes"]["label"] for field in fields)


def test_the_hooks_of_pre_commit_are_local() -> None:
    repos = yaml.safe_load((REPO / ".pre-commit-config.yaml").read_text(encoding="utf-8"))["repos"]
    assert [repo["repo"] for repo in repos] == ["local"]
    hooks = [hook for repo in repos for hook in repo["hooks"]]
    assert {hook["language"] for hook in hooks} == {"system"}
    assert all(hook["entry"].startswith(".venv/bin/") for hook in hooks)


def test_the_pins_name_versions_and_no_address() -> None:
    pins = (REPO / "constraints.txt").read_text(encoding="utf-8").splitlines()
    assert all(re.fullmatch(r"[\w.-]+==[\w.!+]+", pin) for pin in pins)
    assert pins == sorted(pins, key=str.lower)


@pytest.mark.parametrize("file", DECISIONS, ids=lambda file: file.stem)
def test_a_decision_has_its_parts_and_its_row_in_the_index(file: Path) -> None:
    text = file.read_text(encoding="utf-8")
    title = re.match(rf"# {file.stem[:4]}: (.+)\n\nDate: (\d{{4}}-\d\d-\d\d)\n", text)
    assert title
    assert re.findall(r"^## (.+)$", text, re.M) == ["Context", "Decision", "Consequences", "Alternatives"]
    index = (file.parent / "README.md").read_text(encoding="utf-8")
    assert f"| [{file.stem[:4]}]({file.name}) | {title[1]} | {title[2]} |" in index


def test_the_decisions_are_numbered_without_a_gap() -> None:
    assert [int(file.stem[:4]) for file in DECISIONS] == list(range(1, len(DECISIONS) + 1))
