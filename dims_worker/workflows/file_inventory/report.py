"""FILE_INVENTORY.md: one line a file that begins with its path, so that it can be counted and compared."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import groupby
from typing import Any

from dims_worker.workflows.file_inventory.kinds import CATEGORIES
from dims_worker.workflows.markdown import code_span, escape_markdown, escape_prose, format_bytes, markdown_table

Told = Mapping[str, Any]


def markdown(result: Told) -> str:
    """The report of a result: what needs a person, totals, then each file under its category and folder."""
    if not result["reached"]:
        return "The tree was not reached: there is no inventory.\n"
    lines = [*_attention(result), *_summary(result), *_totals(result)]
    for category, heading in CATEGORIES.items():
        files = [file for file in result["files"] if file["category"] == category]
        if files:
            lines += [f"## {heading} ({len(files):,})", ""]
            for folder, there in groupby(files, key=_folder):
                lines += [f"### {code_span(f'{folder}/') if folder else 'At the top'}", ""]
                lines += [line for file in there for line in _file(file)]
                lines.append("")
    return "\n".join(lines)


def _attention(result: Told) -> list[str]:
    # "*": only a file's line begins with "-"
    return (
        ["## Needs a look", "", *(f"* {escape_markdown(said)}" for said in result["attention"]), ""]
        if result["attention"]
        else []
    )


def _summary(result: Told) -> list[str]:
    totals = result["totals"]
    lines = [
        f"{totals['files']:,} files, {totals['lines']:,} lines, {format_bytes(totals['bytes'])}. "
        f"The inventory is stale after {result['stale_after']}.",
        "",
    ]
    if result["others"]:
        lines += [f"{result['others']:,} files of other kinds (data, pictures, archives) are not told here.", ""]
    if result["dates"]:
        lines += [f"Dates are the files' own, not those of commits: {escape_markdown(result['dates'])}.", ""]
    return lines


def _totals(result: Told) -> list[str]:
    def rows(part: Told, heading: Mapping[str, str]) -> list[list[object]]:
        return [
            [escape_markdown(heading.get(name, name)), each["files"], each["lines"], format_bytes(each["bytes"])]
            for name, each in part.items()
        ]

    numbers = (1, 2, 3)
    whole = result["totals"]
    end: list[list[object]] = [["**All**", whole["files"], whole["lines"], format_bytes(whole["bytes"])]]
    return [
        *("## Totals", ""),
        *markdown_table(("category", "files", "lines", "size"), rows(result["categories"], CATEGORIES) + end, numbers),
        "",
        *markdown_table(("kind", "files", "lines", "size"), rows(result["kinds"], {}) + end, numbers),
        "",
    ]


def _folder(file: Told) -> str:
    folder: str = file["path"].rpartition("/")[0]
    return folder


def _file(file: Told) -> Iterator[str]:
    purpose = f" {escape_prose(file['purpose'])}" if file["purpose"] else ""
    lines = f"{file['lines']:,} lines" if file["lines"] is not None else "lines unknown"
    if file["lines"] == 1:
        lines = "1 line"
    yield f"- {code_span(file['path'])}{purpose} ({file['kind']}, {lines}, {format_bytes(file['bytes'])}, {file['changed']})"
    if file["names"]:
        more = f" and {file['more_names']:,} more" if file["more_names"] else ""
        yield f"  * defines {', '.join(map(code_span, file['names']))}{more}"
    imports = file["imports"]
    if imports.get("packages"):
        yield f"  * uses {', '.join(map(code_span, imports['packages']))}"
    if imports.get("standard"):
        yield f"  * standard library: {', '.join(imports['standard'])}"
    if imports.get("local"):
        yield f"  * of the project: {', '.join(map(code_span, imports['local']))}"
    for note in file["notes"]:
        yield f"  * **note:** {escape_markdown(note)}"
