"""docs/architecture.md against the code: the diagram of folders, the floors, and the paths that it names."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

REPO = Path(__file__).parents[2]
PAGE = (REPO / "docs" / "architecture.md").read_text(encoding="utf-8")
FOLDERS = {path.parent.name for path in (REPO / "dims_worker").glob("*/__init__.py")}


def floors_of_the_diagram() -> list[set[str]]:
    """The folders of each floor, from the top down."""
    (diagram,) = (body for body in re.findall(r"^```mermaid\n(.*?)^```", PAGE, re.M | re.S) if "subgraph" in body)
    return [set(re.findall(r'\["<b>(\w+)/</b>', part)) for part in re.split(r"^ +subgraph ", diagram, flags=re.M)[1:]]


def floors_of_the_contract() -> list[set[str]]:
    """The folders of each layer of the import contract, from the top down, without modules and empty layers."""
    pyproject = tomllib.loads((REPO / "pyproject.toml").read_text(encoding="utf-8"))
    (layers,) = (
        contract["layers"]
        for contract in pyproject["tool"]["importlinter"]["contracts"]
        if contract["type"] == "layers"
    )
    floors = [set(re.findall(r"\w+", layer)) & FOLDERS for layer in layers]
    return [floor for floor in floors if floor]


def test_the_diagram_shows_every_folder_of_the_package_and_no_other() -> None:
    shown = [name for floor in floors_of_the_diagram() for name in sorted(floor)]
    assert sorted(shown) == sorted(FOLDERS)


def test_the_floors_of_the_diagram_are_those_of_the_import_contract() -> None:
    assert floors_of_the_diagram() == floors_of_the_contract()


def test_every_path_that_the_page_names_exists() -> None:
    package = ("", "dims_worker/")
    named = set(re.findall(r"`([a-z_]+/[\w/]*(?:\.\w+)?|[a-z_]+\.py)`", PAGE))
    assert len(named) > 30
    assert [name for name in sorted(named) if not any((REPO / root / name).exists() for root in package)] == []


def test_the_invariants_are_numbered_without_a_gap() -> None:
    section = PAGE.partition("\n## Invariants\n")[2].partition("\n## ")[0]
    numbers = [int(number) for number in re.findall(r"^(\d+)\. \*\*", section, re.M)]
    assert numbers == list(range(1, len(numbers) + 1))
    assert len(numbers) > 10
