"""`dims report`: everything that is known, to be read, kept or taken away."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import click

from dims_worker.cli.session import Session, pass_session
from dims_worker.config.units import parse_since as since_of
from dims_worker.errors import UsageError
from dims_worker.formatting import escape_control
from dims_worker.reports import html, json_csv, markdown
from dims_worker.reports.files import write_atomically, write_text_atomically
from dims_worker.reports.inventory import InventoryReport, gather_report
from dims_worker.store.engine import transaction

FORMATS = ("markdown", "json", "csv", "excel", "html")
TEXTS: dict[str, Callable[[InventoryReport], str]] = {
    "json": json_csv.render_json,
    "csv": json_csv.render_csv,
    "html": html.render_page,
}
LONGEST = timedelta(days=36_500)


def since_when(context: click.Context, parameter: click.Parameter, written: str) -> timedelta | datetime:
    """A span or an instant that a report can begin with."""
    try:
        begin = since_of(written)
    except ValueError:
        raise click.BadParameter(
            f"{written!r} is neither a span, such as 7d or 48h, nor a date, such as 2026-11-01"
        ) from None
    if isinstance(begin, datetime) and begin > datetime.now(UTC):
        raise click.BadParameter(f"{written} has not come yet")
    if isinstance(begin, timedelta) and not timedelta(0) < begin <= LONGEST:
        raise click.BadParameter(f"{written} is no span that can be told of")
    return begin


@click.command()
@click.argument("format", type=click.Choice(FORMATS))
@click.option("--since", callback=since_when, default="7d", show_default=True,
              help="What is told of the past begins here: a span, such as 30d, or a date.")  # fmt: skip
@click.option("-o", "--output", type=click.Path(path_type=Path), metavar="FILE",
              help="Where it goes, else standard output; of markdown a folder for both documents.")  # fmt: skip
@pass_session
def report(session: Session, format: str, since: timedelta | datetime, output: Path | None) -> None:
    """Everything that is known in one document: metrics by category, health, trends, drift, requests, gaps.

    \b
    Examples:
      dims report html -o inventory.html              one page, to look at or to send
      dims report markdown -o docs                    two documents, to be kept in git
      dims report excel --since 90d -o inventory.xlsx
      dims report json | jq .health
      dims report csv --since 2026-11-01 > metrics.csv
    """
    path = session.cwd / output.expanduser() if output else None
    if format == "excel":
        if path is None:
            raise UsageError("a workbook is nothing for a terminal: name its file, -o inventory.xlsx")
        _excel(session, since, path)
        return
    with session.database() as engine, transaction(engine) as connection:
        found = gather_report(connection, session.config, since, from_newest=format == "markdown")
    if format == "markdown":
        _markdown(session, found, path)
        return
    text = TEXTS[format](found)
    if path is None:
        click.echo(text, nl=False)
    else:
        _say(session, path, write_text_atomically(path, text))


def _markdown(session: Session, found: InventoryReport, path: Path | None) -> None:
    if path is None:
        click.echo(markdown.render_master(found), nl=False)
    elif path.suffix == ".md":
        _say(session, path, write_text_atomically(path, markdown.render_master(found)))
    else:
        for name, text in markdown.render_documents(found).items():
            _say(session, path / name, write_text_atomically(path / name, text))


def _excel(session: Session, since: timedelta | datetime, path: Path) -> None:
    from dims_worker.reports import excel  # the library that it needs may not be here

    with session.database() as engine, transaction(engine) as connection:
        found = gather_report(connection, session.config, since)
        _say(session, path, write_atomically(path, lambda draft: excel.write_workbook(connection, found, draft)))


def _say(session: Session, path: Path, written: bool) -> None:
    """To standard error: standard output is for what was asked for."""
    name = path.relative_to(session.cwd) if path.is_relative_to(session.cwd) else path
    session.err.print(f"{escape_control(name)} {'written' if written else 'unchanged'}", soft_wrap=True, markup=False)
