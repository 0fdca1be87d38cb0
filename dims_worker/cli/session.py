"""What every command starts from: where it was called, the configuration, the database, the terminal."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import click
from rich.console import Console
from rich.highlighter import RegexHighlighter

from dims_worker.config import Config, load_config

if TYPE_CHECKING:
    from sqlalchemy import Engine


class _SentenceGroup(RegexHighlighter):
    """The words of a sentence that people look for."""

    highlights: ClassVar[list[str]] = [
        r"(?P<dim>^\d\d:\d\d:\d\d)",
        r"(?P<cyan>\b(event|events|run) \d+( to \d+)?)",
        r"(?P<green>: (accepted|ok|new, the first baseline)$)",
        r"(?P<yellow>: held .*$)",
        r"(?P<yellow>^  (proposed) .*$)",
        r"(?P<magenta>is unavailable: .*$)",
        r"(?P<green>^ *approved: .*$)",
        r"(?P<dim>^ *left alone: .*$)",
        r"(?P<bold>[0-9,]+ ms$)",
    ]


_HIGHLIGHT = _SentenceGroup()
PIPE_WIDTH = 220
"""Columns of a table that nobody watches: no line of it is folded."""


def _console() -> Console:
    """The terminal; in a pipe plain text, as wide as it needs to be."""
    console = Console(highlight=False, markup=False)  # a commit's subject may well say [/b]
    return console if console.is_terminal else Console(highlight=False, markup=False, width=PIPE_WIDTH)


@dataclass
class Session:
    """One call of `dims`."""

    config_path: Path | None
    env: Mapping[str, str] = field(repr=False)  # holds the passwords
    cwd: Path
    out: Console = field(default_factory=_console)
    err: Console = field(default_factory=lambda: Console(stderr=True, highlight=False))

    @cached_property
    def config(self) -> Config:
        return load_config(self.config_path, self.env, self.cwd)

    @contextmanager
    def database(self) -> Iterator[Engine]:
        """The database that DIMS_DATABASE_URL names, else this home's own: the running one, or one that is
        started for the command and stopped after. The home's own is migrated as a matter of course."""
        # Imported here: `dims --version` and `dims plan` need no database, and SQLAlchemy takes half a second
        from dims_worker.store.engine import engine

        if self.config.database_url:
            yield engine(self.config.database_url)
            return
        from dims_worker import local
        from dims_worker.store.migrations import migrate

        with local.temporary_database(self.config.home) as url:
            mine = engine(url)
            migrate(mine)
            try:
                yield mine
            finally:
                mine.dispose()

    def tell(self, line: str) -> None:
        """One sentence of what happens, in colour on a terminal; long ones run on."""
        self.out.print(_HIGHLIGHT(line), soft_wrap=True)

    def print_json(self, document: Any) -> None:
        """One JSON document on standard output; numbers keep their type, times are ISO 8601 in UTC."""
        click.echo(json.dumps(document, default=_plain, indent=2, ensure_ascii=False))


def _plain(value: Any) -> str:
    if isinstance(value, datetime):
        return value.isoformat()
    raise TypeError(f"{type(value).__name__} has no JSON form")


pass_session = click.make_pass_decorator(Session)
json_option = click.option("--json", "as_json", is_flag=True, help="One JSON document instead of a table.")
