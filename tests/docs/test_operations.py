"""docs/operations.md against the code: each message that a symptom quotes is one that DIMS prints."""

from __future__ import annotations

import re
from pathlib import Path

REPO = Path(__file__).parents[2]
PAGE = (REPO / "docs" / "operations.md").read_text(encoding="utf-8")
OTHERS = {"externally-managed-environment"}  # printed by pip


def symptoms() -> list[str]:
    """The first cell of each row of the tables under "Troubleshooting"."""
    section = PAGE.partition("\n## Troubleshooting\n")[2]
    rows = [line.strip("|").split("|")[0].strip() for line in section.splitlines() if line.startswith("| ")]
    return [row for row in rows if row != "symptom"]


def code() -> str:
    """All the source of both packages, with the parts of each string literal joined."""
    files = (file for folder in ("dims_worker", "producers") for file in sorted((REPO / folder).rglob("*.py")))
    return "\n".join(re.sub(r'"\s*\n\s*f?"', "", file.read_text(encoding="utf-8")) for file in files)


def is_in(source: str, message: str) -> bool:
    """Whether the source contains the message. Numbers in it stand for values that are filled in."""
    parts = [re.escape(part) for part in re.split(r"\b\d+\b", message) if part.strip()]
    return re.search(r"[^\n]*".join(parts), source) is not None


def test_every_message_that_a_symptom_quotes_is_in_the_code() -> None:
    assert len(symptoms()) > 40
    quoted = {span for symptom in symptoms() for span in re.findall(r"`([^`]+)`", symptom)}
    source = code()
    assert sorted(message for message in quoted - OTHERS if not is_in(source, message)) == []
