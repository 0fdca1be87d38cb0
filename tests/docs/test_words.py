"""The glossary defines each term once, and no text or name uses a word that it retires."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

import click
import pytest

from tests.docs.pages import GENERATED, REPO, TEXTS, TREE, each_page, rows, sections

GLOSSARY = re.sub(r"\n  (?=\S)", " ", TEXTS["docs/glossary.md"])  # an item on one line
RETIRED = {
    word.strip(): row[1]
    for row in rows(sections(GLOSSARY, 2)["Retired words"], "retired word")
    for word in row[0].split(",")
}
TERM = re.compile(r"^- \*\*(.+?)\*\*: (.+)$", re.MULTILINE)

CODE = ("dims_worker", "producers", "schema", "notebooks", "config", "benchmarks", "tests")
TEXT_FILES = {".py", ".html", ".jinja", ".js", ".css", ".md", ".txt", ".yaml", ".toml", ".ipynb", ".sql"}
KEPT_NAMES = ('"nobody"', "`nobody`")
"""Names that contain a retired word and stay, such as a user of the operating system."""


def retired_words(text: str) -> list[str]:
    """Return the retired words in a text. Parts of names count too: `told_keys`, `UntoldChange`."""
    for name in KEPT_NAMES:
        text = text.replace(name, "")
    parts = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", " ", text).lower().replace("_", " ")
    return [word for word in RETIRED if re.search(rf"(?<![a-z]){re.escape(word)}(?![a-z])", " ".join(parts.split()))]


def files_of_code() -> list[Path]:
    """Return every text file of the code, except this one, which quotes retired words."""
    files = [file for folder in CODE for file in sorted((REPO / folder).rglob("*")) if file.suffix in TEXT_FILES]
    return [file for file in files if file != Path(__file__)]


def test_each_term_is_defined_once() -> None:
    terms = [term.lower() for term, _ in TERM.findall(GLOSSARY)]
    headings = [title.lower() for title in re.findall(r"^## (.+)$", GLOSSARY, re.MULTILINE)]
    assert len(terms) > 60
    assert [term for term, times in Counter(terms + headings).items() if times > 1] == []
    assert len(re.findall(r"\*\*", GLOSSARY)) == 2 * len(terms)  # nothing else is bold


@pytest.mark.parametrize(
    ("term", "definition"), TERM.findall(GLOSSARY), ids=[term for term, _ in TERM.findall(GLOSSARY)]
)
def test_a_definition_has_one_or_two_sentences(term: str, definition: str) -> None:
    assert definition[0].isupper() and definition[-1] in ".?"
    assert len(re.findall(r"[.?](?= [A-Z]|$)", definition)) <= 2


def test_each_retired_word_has_a_replacement_and_is_no_term() -> None:
    assert {"doorman", "bell", "courier", "told", "tell", "anew", "mended", "keep house"} <= set(RETIRED)
    assert all(replacement for replacement in RETIRED.values())
    assert not set(RETIRED) & {term.lower() for term, _ in TERM.findall(GLOSSARY)}


@each_page
def test_no_page_uses_a_retired_word(page: str) -> None:
    """The generated parts are the help, which has a test of its own."""
    text = GENERATED.sub("", TEXTS[page])
    if page == "docs/glossary.md":
        text = text.partition("## Retired words")[0]
    assert retired_words(text) == []


@pytest.mark.parametrize("name", TREE, ids=[name or "dims" for name in TREE])
def test_no_help_uses_a_retired_word(name: str) -> None:
    command = TREE[name]
    texts = [command.help or "", command.epilog or "", command.short_help or ""]
    texts += [option.help or "" for option in command.params if isinstance(option, click.Option)]
    assert retired_words("\n".join(texts)) == []


def test_no_code_uses_a_retired_word() -> None:
    used = {}
    for file in files_of_code():
        if words := retired_words(file.read_text(encoding="utf-8")):
            used[file.relative_to(REPO).as_posix()] = words
    assert used == {}


def test_retired_words_are_recognised_in_prose_and_in_names() -> None:
    assert retired_words("The doorman has a bell.") == ["bell", "doorman"]
    assert retired_words("def told_keys(): ...") == ["told"]
    assert retired_words("class UntoldChange: ...") == ["untold"]
    assert retired_words("in\n    vain") == ["in vain"]
    assert retired_words("labelled, recommended, stellar, teller") == []
