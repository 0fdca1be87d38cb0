"""Every example of a configuration loads, every JSON document parses, and every kind has an example."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from dims_worker.config import WORKFLOW_NAMES, Config, load_config, metrics, sources
from tests.docs.pages import REPO, SPAN, TEXTS, blocks, rows, sections

CONFIGURATIONS = [(page, number, text) for page in TEXTS for number, text in enumerate(blocks(TEXTS[page], "yaml"))]
JSON = [(page, number, text) for page in TEXTS for number, text in enumerate(blocks(TEXTS[page], "json"))]
KIND_OF_SECTION = {
    "Files": "files",
    "Commits": "git",
    "Objects": "s3",
    "Databases": "sql",
    "AWS": "aws",
    "Programs": "command",
}


def loaded(text: str, folder: Path) -> Config:
    (folder / "dims.yaml").write_text(text, encoding="utf-8")
    return load_config(None, {}, folder)


@pytest.mark.parametrize(("page", "number", "text"), CONFIGURATIONS, ids=[f"{p}-{n}" for p, n, _ in CONFIGURATIONS])
def test_each_configuration_passes_the_check(page: str, number: int, text: str, tmp_path: Path) -> None:
    loaded(text, tmp_path)  # raises with every problem: file, line, key


def test_the_guide_to_the_configuration_has_whole_examples() -> None:
    assert len(blocks(TEXTS["docs/configuration.md"], "yaml")) >= 3
    assert blocks(TEXTS["README.md"], "yaml")


@pytest.mark.parametrize("title", KIND_OF_SECTION)
def test_each_kind_has_an_example_that_measures_it(title: str, tmp_path: Path) -> None:
    section = sections(TEXTS["docs/metrics.md"], 2)[title]
    examples = [loaded(text, tmp_path) for text in blocks(section, "yaml")]
    assert examples
    for config in examples:
        kinds = {config.sources[source].type for source, read in config.metrics_by_source.items() if read}
        assert KIND_OF_SECTION[title] in kinds


def test_every_kind_and_the_derived_have_a_section(tmp_path: Path) -> None:
    assert set(KIND_OF_SECTION.values()) == set(sources.SOURCES) == set(metrics.METRICS)
    (text,) = blocks(sections(TEXTS["docs/metrics.md"], 2)["Derived"], "yaml")
    assert loaded(text, tmp_path).derived


@pytest.mark.parametrize("measure", ["missing_days", "completeness", "sync_status"])
def test_the_measures_of_objects_with_keys_of_their_own_have_examples(measure: str, tmp_path: Path) -> None:
    (text,) = blocks(sections(TEXTS["docs/metrics.md"], 3)[measure], "yaml")
    assert {getattr(metric, "measure", None) for metric in loaded(text, tmp_path).metrics.values()} == {measure}


@pytest.mark.parametrize("name", WORKFLOW_NAMES)
def test_each_workflow_has_an_example_that_configures_it(name: str, tmp_path: Path) -> None:
    examples = blocks(sections(TEXTS["docs/workflows.md"], 2)[name], "yaml")
    assert any(name in loaded(text, tmp_path).configured_workflows for text in examples)


@pytest.mark.parametrize(("page", "number", "text"), JSON, ids=[f"{p}-{n}" for p, n, _ in JSON])
def test_each_document_in_json_is_json(page: str, number: int, text: str) -> None:
    assert isinstance(json.loads(text), dict)


def test_every_message_that_a_symptom_quotes_is_one_of_the_code() -> None:
    code = "\n".join(
        re.sub(r'"\s*\n\s*f?"', "", file.read_text(encoding="utf-8"))
        for package in ("dims_worker", "producers")
        for file in sorted((REPO / package).rglob("*.py"))
    )
    symptoms = [row[0] for row in rows(TEXTS["docs/operations.md"], "symptom")]
    assert len(symptoms) > 40
    quoted = [span for symptom in symptoms for span in SPAN.findall(symptom)]
    assert [span for span in quoted if not _is_message(code, span)] == []


def _is_message(code: str, span: str) -> bool:
    """Whether the code contains this message. Numbers are filled in at run time."""
    parts = [re.escape(part) for part in re.split(r"\b\d+\b", span) if part.strip()]
    return re.search(r"[^\n]*".join(parts), code) is not None
