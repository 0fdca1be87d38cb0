"""The generated parts of the pages are what docs/generate.py writes now."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import BaseModel

from tests.docs.pages import DOCS, FENCE, GENERATED, TEXTS, TREE, generate, generated

GENERATED_PAGES = [page for page in TEXTS if GENERATED.search(TEXTS[page])]


@pytest.mark.parametrize("page", GENERATED_PAGES)
def test_each_generated_part_is_up_to_date(page: str) -> None:
    assert generate.refresh(TEXTS[page]) == TEXTS[page], f"{page} is out of date: run `{generate.REFRESH}`"


def test_commands_configuration_and_metrics_are_generated() -> None:
    assert {"docs/commands.md", "docs/configuration.md", "docs/metrics.md"} <= set(GENERATED_PAGES)


def test_every_command_is_generated_once() -> None:
    parts = [part for part, _ in GENERATED.findall(TEXTS["docs/commands.md"])]
    assert sorted(part for part in parts if part.startswith("command ")) == sorted(
        f"command dims {n}" for n in TREE if n
    )
    assert {"list of commands", "options of dims"} <= set(parts)


def test_every_option_has_a_meaning() -> None:
    options = {(name, each.opts[-1]): each.help for name in TREE for each in generate.visible_options(TREE[name])}
    assert [option for option, meaning in options.items() if not meaning] == []


def test_every_key_has_a_meaning() -> None:
    without_table = {"PriceTable"}
    keys = {
        (name, key): field.description
        for name, model in generate.models().items()
        for key, field in generate.own_fields(model).items()
        if name not in without_table
    }
    assert [key for key, meaning in keys.items() if not meaning] == []


def test_a_page_that_is_out_of_date_is_written_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = tmp_path / "docs" / "a.md"
    page.parent.mkdir()
    page.write_text("# A\n\n<!-- generated: keys of Pair -->\nOUT OF DATE\n<!-- end of generated part -->\n\nText.\n")
    monkeypatch.setattr(generate, "DOCS", page.parent)
    generate.main([])
    text = page.read_text()
    assert "OUT OF DATE" not in text and text.startswith("# A\n") and text.endswith("\n\nText.\n")
    assert "`prefix`" in generated(text)["keys of Pair"]


def test_the_copy_for_the_site_has_pages_and_pictures_only(tmp_path: Path) -> None:
    generate.copy_for_site(tmp_path / "site")
    assert not list((tmp_path / "site").rglob("*.py"))
    pages = list((tmp_path / "site").rglob("*.md"))
    assert len(pages) == len(DOCS)
    assert not [page for page in pages for language, _ in FENCE.findall(page.read_text()) if " " in language.strip()]


def test_what_a_part_is_made_from_must_exist() -> None:
    with pytest.raises(KeyError):
        generate.generate("keys of Nothing")
    with pytest.raises(KeyError):
        generate.generate("command dims nothing")


def test_types_and_defaults_are_plain_words() -> None:
    models: dict[str, type[BaseModel]] = generate.models()
    types = {key: generate.type_of(f.annotation, f.metadata) for key, f in models["S3Metric"].model_fields.items()}
    assert types["prefix"] == "text or list"
    assert types["smaller_than"] == "size"
    assert types["date"] == "regular expression"
    assert types["stale_after"] == "duration"
    assert types["direction"] == "`up`, `down` or `both`"
    assert types["checksum"] == "`true` or `false`"
    assert types["pairs"] == "list of mappings"
    assert generate.default_of(models["Source"].model_fields["timeout"]) == "`5m`"
    assert generate.default_of(models["FilesMetric"].model_fields["paths"]) == '`"**"`'
    assert generate.default_of(models["GitSource"].model_fields["path"]) == "required"
    assert generate.default_of(models["Rule"].model_fields["schedule"]) == "none"
