"""FILE_INVENTORY.md: one line for each file, which starts with its path, so that you can count and diff files."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from typing import Any

from dims_worker.formatting import format_bytes, pluralize
from dims_worker.workflows.file_inventory.kinds import CATEGORIES
from dims_worker.workflows.markdown import attention_section, code_span, escape_markdown, escape_prose, markdown_table

Document = Mapping[str, Any]


def markdown(result: Document) -> str:
    """Return the report of a result: what needs attention, totals, then the files by category and folder."""
    if not result["reached"]:
        return "There is no inventory, because the source was not reached.\n"
    attention = attention_section(result["attention"], "*")  # "*", because only the lines of files start with "-"
    lines = [*attention, *_summary(result), *_totals(result), *_left_out(result["left_out"])]
    for category, heading in CATEGORIES.items():
        files = [file for file in result["files"] if file["category"] == category]
        if files:
            lines += [f"## {heading} ({len(files):,})", ""]
            for folder, group in groupby(files, key=_folder):
                lines += [f"### {code_span(f'{folder}/') if folder else 'Top folder'}", ""]
                lines += [line for file in group for line in _file(file)]
                lines.append("")
    return "\n".join(lines)


def _summary(result: Document) -> list[str]:
    totals = result["totals"]
    lines = [
        f"{pluralize(totals['files'], 'file')}, {pluralize(totals['lines'], 'line')}, {format_bytes(totals['bytes'])}. "
        f"The inventory is stale after {result['stale_after']}.",
        "",
    ]
    if result["others"]:
        lines += [f"{result['others']:,} files of other kinds (data, pictures, archives) are not listed.", ""]
    if result["dates"]:
        lines += [f"Dates are modification times, not dates of commits: {escape_markdown(result['dates'])}.", ""]
    return lines


def _totals(result: Document) -> list[str]:
    def rows(part: Document, heading: Mapping[str, str]) -> list[list[object]]:
        return [
            [escape_markdown(heading.get(name, name)), each["files"], each["lines"], format_bytes(each["bytes"])]
            for name, each in part.items()
        ]

    numbers = (1, 2, 3)
    whole = result["totals"]
    end: list[list[object]] = [["**All**", whole["files"], whole["lines"], format_bytes(whole["bytes"])]]
    return [
        "## Totals",
        "",
        *markdown_table(("category", "files", "lines", "size"), rows(result["categories"], CATEGORIES) + end, numbers),
        "",
        *markdown_table(("kind", "files", "lines", "size"), rows(result["kinds"], {}) + end, numbers),
        "",
    ]


def _left_out(left_out: Document) -> list[str]:
    """Return the section about files that are not listed. Its lines start with "*", like all but those of files."""
    lines = [_pattern(each) for each in left_out["patterns"]]
    if left_out["source_exclude"]:
        lines.append(f"what the source excludes: {', '.join(map(code_span, left_out['source_exclude']))}")
    if count := left_out["ignored_by_git"]["paths"]:
        lines.append(f"what git ignores: {_names(left_out['ignored_by_git']['names'], count)}")
    if count := left_out["symbolic_links"]:
        lines.append(f"{pluralize(count, 'symbolic link')} out of the tree")
    if count := left_out["not_checked_out"]:
        lines.append(f"{pluralize(count, 'file')} that a sparse checkout leaves out")
    lines += [
        f"{code_span(path)}, a submodule that is not initialized. Run git submodule update --init"
        for path in left_out["submodules_not_initialized"]
    ]
    lines.append("this report")
    return ["## Left out", "", *(f"* {line}" for line in lines), ""]


def _pattern(left_out: Document) -> str:
    line = f"{code_span(left_out['pattern'])}: {pluralize(left_out['files'], 'file')}"
    if not left_out["scripts"]:
        return line
    names = _names(left_out["names"], left_out["scripts"])
    return f"{line}, of which {left_out['scripts']:,} scripts, tests or SQL: {names}"


def _names(names: Sequence[str], count: int) -> str:
    more = count - len(names)
    return ", ".join(map(code_span, names)) + (f" and {more:,} more" if more else "")


def _folder(file: Document) -> str:
    folder: str = file["path"].rpartition("/")[0]
    return folder


def _file(file: Document) -> Iterator[str]:
    purpose = f" {escape_prose(file['purpose'])}" if file["purpose"] else ""
    lines = "lines unknown" if file["lines"] is None else pluralize(file["lines"], "line")
    facts = f"{file['kind']}, {lines}, {format_bytes(file['bytes'])}, {file['changed']}"
    yield f"- {code_span(file['path'])}{purpose} ({facts})"
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
