"""Links, pictures and anchors resolve; the index and the navigation list every page; pages render on the site too."""

from __future__ import annotations

import re
import tomllib
from typing import Any

from tests.docs.pages import DOCS, FENCE, LINK, REPO, TEXTS, anchors, each_page, prose

SITE = tomllib.loads((REPO / "zensical.toml").read_text(encoding="utf-8"))["project"]
KINDS = ["Tutorial", "How-to guides", "Reference", "Explanation"]
FLAT = {page.name for page in DOCS if page.parent.name == "docs"}


@each_page
def test_links_pictures_and_anchors_resolve(page: str) -> None:
    broken = []
    for target in LINK.findall(prose(TEXTS[page])):
        if re.match(r"[a-z]+:", target):
            continue
        name, _, anchor = target.partition("#")
        file = ((REPO / page).parent / name).resolve() if name else REPO / page
        there = file.is_relative_to(REPO) and file.exists()
        if not there or (anchor and anchor not in anchors(file.read_text(encoding="utf-8"))):
            broken.append(target)
    assert not broken


@each_page
def test_a_page_of_the_site_links_only_to_files_of_the_site(page: str) -> None:
    targets = [
        target.partition("#")[0] for target in LINK.findall(prose(TEXTS[page])) if not re.match("[a-z]+:", target)
    ]
    outside = [t for t in targets if not ((REPO / page).parent / t).resolve().is_relative_to(REPO / "docs")]
    assert not (page.startswith("docs/") and outside)


def test_the_index_lists_every_guide() -> None:
    listed = set(re.findall(r"\]\((\w+\.md)\)", TEXTS["docs/index.md"]))
    assert listed == FLAT - {"index.md"}
    assert re.search(r"\]\(decisions/", TEXTS["docs/index.md"])


def test_the_readme_links_five_guides() -> None:
    linked = {link.partition("#")[0] for link in LINK.findall(TEXTS["README.md"])}
    assert len({link for link in linked if link.startswith("docs/") and link.endswith(".md")}) == 5


def _pages_of(nav: Any) -> list[str]:
    if isinstance(nav, str):
        return [nav]
    return [page for entry in (nav.values() if isinstance(nav, dict) else nav) for page in _pages_of(entry)]


def test_the_navigation_of_the_site_lists_every_guide_once() -> None:
    listed = [page for page in _pages_of(SITE["nav"]) if "/" not in page]
    assert sorted(listed) == sorted(FLAT)


def test_the_navigation_of_the_site_is_by_diataxis() -> None:
    assert [title for entry in SITE["nav"][1:] for title in entry] == KINDS
    assert SITE["theme"]["font"] is False  # fonts would be fetched from the network


@each_page
def test_a_list_begins_after_a_blank_line(page: str) -> None:
    """Python-Markdown, unlike GitHub, would make it a part of the paragraph."""
    wrong = []
    before = ""
    for line in FENCE.sub("", TEXTS[page]).splitlines():
        item = re.match(r"([-*]|\d+\.) ", line)
        if item and before.strip() and not re.match(r"([-*]|\d+\.) |\s", before):
            wrong.append(line)
        before = line
    assert not (page.startswith("docs/") and wrong)


@each_page
def test_no_page_names_a_place_of_one_machine_or_a_registry(page: str) -> None:
    assert not re.findall(r"(?<![\w.])/(?:root|home|work|tmp|Users)\b[^\s`]*", TEXTS[page])
    assert not re.findall(r"pypi\.|pythonhosted|npmjs|proxy\.golang", TEXTS[page])
