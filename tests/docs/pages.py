"""The pages of the documentation, and how tests read them."""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from dims_worker.cli.events import events
from dims_worker.cli.main import OLD_COMMANDS, cli

REPO = Path(__file__).parents[2]
DOCS = sorted((REPO / "docs").rglob("*.md"))
PAGES = [REPO / name for name in ("README.md", "CHANGELOG.md", "CONTRIBUTING.md")] + DOCS
TEXTS = {page.relative_to(REPO).as_posix(): page.read_text(encoding="utf-8") for page in PAGES}
each_page = pytest.mark.parametrize("page", TEXTS)

FENCE = re.compile(r"^```([^\n]*)\n(.*?)^```[ ]*$", re.MULTILINE | re.DOTALL)
SPAN = re.compile(r"`([^`]+)`")
HEADING = re.compile(r"^(#+) +(.+?) *$", re.MULTILINE)
LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")
OPTION = re.compile(r"(?<![\w-])--?[a-z][a-z-]*")
GENERATED = re.compile(r"<!-- generated: (.+?) -->\n(.*?)<!-- end of generated part -->", re.DOTALL)

_spec = importlib.util.spec_from_file_location("generate", REPO / "docs" / "generate.py")
assert _spec and _spec.loader
generate = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(generate)


def blocks(text: str, *languages: str) -> list[str]:
    """Return the fenced blocks of these languages. A fragment has another language: `yaml fragment`."""
    return [body for language, body in FENCE.findall(text) if language.strip() in languages]


def prose(text: str) -> str:
    return FENCE.sub("", text)


def spans(text: str) -> list[str]:
    return [" ".join(span.split()) for span in SPAN.findall(prose(text))]


def code(text: str) -> list[str]:
    """Return everything that is set as code: spans and blocks, except YAML and JSON."""
    return [*spans(text), *(body for language, body in FENCE.findall(text) if language[:4] not in ("yaml", "json"))]


def anchors(text: str) -> set[str]:
    """Return the anchors that GitHub gives to the headings."""
    titles = [title for _, title in HEADING.findall(prose(text))]
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def sections(text: str, level: int) -> dict[str, str]:
    """Return the text of each heading of this level, by title. A deeper heading belongs to its section."""
    named: dict[str, str] = {}
    title = ""
    fenced = False
    for line in text.splitlines():
        fenced ^= line.startswith("```")
        heading = None if fenced else HEADING.match(line)
        if heading and len(heading[1]) <= level:
            title = heading[2] if len(heading[1]) == level else ""
        if title:
            named[title] = f"{named.get(title, '')}{line}\n"
    return named


def rows(section: str, header: str) -> list[list[str]]:
    """Return the rows, as cells, of the tables whose first column is called `header`."""
    found, here = [], False
    for line in section.splitlines():
        cells = [cell.strip() for cell in re.split(r"(?<!\\)\|", line.strip("|"))] if line.startswith("|") else []
        here = bool(cells) and (here or cells[0] == header)
        if here and cells[0] != header and not cells[0].startswith("---"):
            found.append(cells)
    return found


def generated(text: str) -> dict[str, str]:
    """Return the generated parts of a page by what they are made from."""
    return dict(GENERATED.findall(text))


def command_tree() -> dict[str, click.Command]:
    """Return every command by its full name, such as `approvals list`. The root is the empty name."""
    named: dict[str, click.Command] = {}

    def walk(command: click.Command, name: str) -> None:
        named[name] = command
        if isinstance(command, click.Group):
            context = click.Context(command)
            for child in command.list_commands(context):
                subcommand = command.get_command(context, child)
                assert subcommand is not None
                if not subcommand.hidden:
                    walk(subcommand, f"{name} {child}".strip())

    walk(cli, "")
    return named


def old_commands() -> dict[str, click.Command]:
    """Return the commands that work under a name of the original DIMS. Only the quick reference lists them."""
    context = click.Context(cli)
    old = {name: cli.get_command(context, name) for name in OLD_COMMANDS}
    return {name: command for name, command in old.items() if command} | {"events trigger": events.commands["trigger"]}


TREE = command_tree()
OLD = old_commands()


def needs_subcommand(name: str) -> bool:
    command = TREE[name]
    return isinstance(command, click.Group) and not command.invoke_without_command


def calls(text: str) -> Iterator[str]:
    """Yield what follows `dims ` wherever it is set as code."""
    for each in code(text):
        yield from (call.strip() for call in re.findall(r"(?<![\w.\-/:])dims ([^\n&|#;`]*)", each))


def resolve(words: str) -> str | None:
    """Return the command that a line begins with: `events show ID` -> `events show`. None: there is none."""
    for old in OLD:
        if f"{words} ".startswith(f"{old} "):
            return old
    name = ""
    for word in words.split():
        longer = f"{name} {word}".strip()
        if longer not in TREE:
            if default := getattr(
                TREE[name], "default_command", None
            ):  # `mute lake.objects` is `mute add lake.objects`
                return f"{name} {default}"
            placeholder = not re.fullmatch(r"[a-z]+", word)
            return name if placeholder or (name and not needs_subcommand(name)) else None
        name = longer
    return name
