"""Hold what every command starts from: the call, the configuration, the database and the terminal."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

import click
from rich.console import Console
from rich.highlighter import RegexHighlighter

from dims_worker.config import Config, load_config
from dims_worker.errors import NotFound

if TYPE_CHECKING:
    from sqlalchemy import Engine


class _ActivityHighlighter(RegexHighlighter):
    """Colour the parts of an activity sentence that people look for."""

    highlights: ClassVar[list[str]] = [
        r"(?P<dim>^\d\d:\d\d:\d\d)",
        r"(?P<cyan>\b(event|events|run|incident) \d+( to \d+)?)",
        r"(?P<green>: (accepted|ok|new, the first baseline)$)",
        r"(?P<yellow>: held .*$)",
        r"(?P<yellow>^  (proposed) .*$)",
        r"(?P<magenta>is unavailable: .*$)",
        r"(?P<red>incident \d+ opened: .*$)",
        r"(?P<green>incident \d+ ended: .*$)",
        r"(?P<green>^ *approved: .*$)",
        r"(?P<dim>^ *left alone: .*$)",
        r"(?P<bold>[0-9,.]+ (ms|s)$)",
    ]


_HIGHLIGHT = _ActivityHighlighter()
PIPE_WIDTH = 220
"""Columns of a table that is written to a pipe, so that no line is folded."""


class _OutputConsole(Console):
    """Leaves it to the caller what happens when the reader of the output has ended. Rich would end with 1."""

    def on_broken_pipe(self) -> None:
        raise BrokenPipeError


def _console() -> Console:
    """Return a console for the terminal, or for plain wide text in a pipe."""
    console = _OutputConsole(highlight=False, markup=False)  # the subject of a commit can contain [/b]
    return console if console.is_terminal else _OutputConsole(highlight=False, markup=False, width=PIPE_WIDTH)


@dataclass
class Session:
    """One call of `dims`."""

    config_path: Path | None
    env: Mapping[str, str] = field(repr=False)  # contains passwords
    cwd: Path
    out: Console = field(default_factory=_console)
    err: Console = field(default_factory=lambda: Console(stderr=True, highlight=False))

    @cached_property
    def config(self) -> Config:
        return load_config(self.config_path, self.env, self.cwd)

    def select_metrics(self, patterns: Iterable[str]) -> frozenset[str]:
        """Return the metrics that match any of the patterns. Raises NotFound for a pattern without a match."""
        wanted = list(patterns)
        for pattern in wanted:
            if not self.config.select([pattern]):
                raise NotFound(f"no metric is called {pattern}. List the metrics with `dims metrics`.")
        return self.config.select(wanted)

    @contextmanager
    def database(self, *, check: bool = True) -> Iterator[Engine]:
        """Yield the database that DIMS_DATABASE_URL names, or else the one of the data directory.

        The database of the data directory is started if it does not run, stopped afterwards, and always migrated.
        Raises DatabaseRefused if the tables of the other one are of another version of DIMS, unless `check` is false.
        """
        # Imported here: `dims --version` and `dims plan` need no database, and SQLAlchemy takes half a second to import
        from dims_worker.store.engine import check_schema, engine

        if self.config.database_url:
            if check:
                check_schema(engine(self.config.database_url))
            yield engine(self.config.database_url)
            return
        from dims_worker import local
        from dims_worker.store.migrations import migrate

        with local.temporary_database(self.config.home) as url:
            local_engine = engine(url)
            migrate(local_engine)
            try:
                yield local_engine
            finally:
                local_engine.dispose()

    def print_text(self, text: str, style: str | None = None) -> None:
        """Print text whose long lines wrap in the terminal and stay whole in a pipe."""
        self.out.print(text, style=style, soft_wrap=True)

    def print_activity(self, sentence: str) -> None:
        """Print one sentence of activity, in colour on a terminal."""
        self.out.print(_HIGHLIGHT(sentence), soft_wrap=True)

    def print_json(self, document: Any) -> None:
        """Print one JSON document. Numbers keep their type, and times are ISO 8601 in UTC."""
        from dims_worker.text.json_documents import json_text  # it imports SQLAlchemy

        click.echo(json_text(document))


Function = TypeVar("Function", bound=Callable[..., Any])


def examples(*lines: str) -> Callable[[Function], Function]:
    """Add a section with examples to the help of a command. Apply it below `@click.command()`."""

    def add(function: Function) -> Function:
        section = "\n".join(["\b", "Examples:", *(f"  {line}" for line in lines)])
        function.__doc__ = f"{inspect.cleandoc(function.__doc__ or '')}\n\n{section}"
        return function

    return add


pass_session = click.make_pass_decorator(Session)
FILE = click.Path(path_type=Path, dir_okay=False)
EXISTING_FILE = click.Path(path_type=Path, dir_okay=False, exists=True)
json_option = click.option("--json", "as_json", is_flag=True, help="Print one JSON document instead of text.")


def limit_option(default: int = 20) -> Callable[[Function], Function]:
    """Return the option `--limit` of commands that list the latest rows."""
    number = click.IntRange(1, 10_000)
    return click.option("--limit", type=number, default=default, show_default=True, help="List at most this many.")
