"""Test the help of every command: a summary on one line, and examples that parse."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from dims_worker.cli.main import cli

WIDTH = 80
Words = tuple[str, ...]


def walk(command: click.Command, path: Words) -> Iterator[tuple[Words, click.Command]]:
    yield path, command
    if isinstance(command, click.Group):
        context = click.Context(command, **cli.context_settings)
        for name in command.list_commands(context):
            child = command.get_command(context, name)
            assert child is not None
            if child.hidden:  # an old name of another command, which docs/quick_reference.md lists
                continue
            yield from walk(child, (*path, name))


COMMANDS = dict(walk(cli, ("dims",)))
each_command = pytest.mark.parametrize("path", COMMANDS, ids=" ".join)


def help_text(path: Words) -> str:
    context: click.Context | None = None
    for length in range(1, len(path) + 1):
        command, name = COMMANDS[path[:length]], path[length - 1]
        # At 80 columns, click formats help for 78
        context = click.Context(command, context, name, terminal_width=WIDTH - 2, **cli.context_settings)
    assert context is not None
    return context.command.get_help(context)


def examples(path: Words) -> list[str]:
    """Return the commands in the section with examples, without the comments beside them."""
    _, _, section = help_text(path).partition("\n  Examples:\n")
    lines = section.partition("\n\n")[0].splitlines()
    return [re.split(r" {2,}", line.strip())[0] for line in lines]


def test_every_command_is_walked() -> None:
    assert len(COMMANDS) >= 53


@each_command
def test_the_summary_is_one_sentence(path: Words) -> None:
    summary = COMMANDS[path].get_short_help_str(WIDTH)
    assert re.fullmatch(r"[A-Z].*[a-zA-Z.)]\.", summary), summary
    assert " " in summary and "..." not in summary
    first_line = (COMMANDS[path].help or "").splitlines()[0]
    assert first_line.startswith(summary)


@pytest.mark.parametrize("path", [path for path in COMMANDS if isinstance(COMMANDS[path], click.Group)], ids=" ".join)
def test_each_line_of_the_list_of_commands_fits(path: Words) -> None:
    lines = help_text(path).splitlines()
    children = [child for child in COMMANDS if child[:-1] == path]
    assert max(map(len, lines)) <= WIDTH
    for child in children:
        summary = COMMANDS[child].get_short_help_str(WIDTH)
        assert any(re.fullmatch(rf"  {child[-1]} +{re.escape(summary)}", line) for line in lines), child


@each_command
def test_no_line_of_the_help_is_too_wide(path: Words) -> None:
    assert [line for line in help_text(path).splitlines() if len(line) > WIDTH] == []


@each_command
def test_there_are_examples_that_parse(path: Words, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Options and commands in examples exist. The files in them are made here, as options check that they exist."""
    monkeypatch.chdir(tmp_path)
    commands = examples(path)
    assert commands
    for command in commands:
        name, *arguments = re.split(r" [|>] ", command)[0].split(maxsplit=1)
        assert name == "dims", command
        words = shlex.split(arguments[0])
        for word in words:
            if re.fullmatch(r"\w+\.\w+", word) and not word.startswith("dims."):
                (tmp_path / word).touch()
        parse(words)
    assert any(tuple(shlex.split(command)[: len(path)]) == path for command in commands) or path == ("dims", "hook")


def parse(words: list[str]) -> None:
    """Parse arguments as `dims` does, and run nothing. Raises click.UsageError."""
    context = cli.make_context("dims", list(words))
    while isinstance(context.command, click.Group) and context._protected_args + context.args:
        name, command, rest = context.command.resolve_command(context, context._protected_args + context.args)
        assert command is not None
        context = command.make_context(name, rest, parent=context)


@each_command
def test_every_option_has_a_help_text(path: Words) -> None:
    for option in COMMANDS[path].params:
        if isinstance(option, click.Option):
            assert re.fullmatch(r"[A-Z0`].*\.", option.help or ""), (option.name, option.help)
