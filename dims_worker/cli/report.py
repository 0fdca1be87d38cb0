"""Define `dims report`: the whole inventory in one document."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path

import click

from dims_worker.cli.session import Session, examples, pass_session
from dims_worker.cli.since_option import parse_since_option
from dims_worker.errors import UsageError
from dims_worker.formatting import escape_control
from dims_worker.reports import html, json_csv, markdown
from dims_worker.reports.files import write_atomically, write_text_atomically
from dims_worker.reports.inventory import InventoryReport, gather_report
from dims_worker.store.engine import transaction
from dims_worker.store.sessions import allow_pauses

FORMATS = ("markdown", "json", "csv", "excel", "html")
RENDERERS: dict[str, Callable[[InventoryReport], str]] = {
    "json": json_csv.render_json,
    "csv": json_csv.render_csv,
    "html": html.render_page,
}
SINCE_HELP = "Report the past from here: a span, such as 30d, or a date."
OUTPUT_HELP = "Write to this file, or for markdown to this folder. Default: standard output."


@click.command()
@examples(
    "dims report html -o inventory.html           a page to read or to send",
    "dims report markdown -o docs                 two documents to keep in git",
    "dims report excel --since 90d -o inventory.xlsx",
    "dims report json | jq .health",
    "dims report csv --since 2026-11-01 > metrics.csv",
)
@click.argument("format", type=click.Choice(FORMATS))
@click.option("--since", callback=parse_since_option, default="7d", show_default=True, help=SINCE_HELP)
@click.option("-o", "--output", type=click.Path(path_type=Path), metavar="FILE", help=OUTPUT_HELP)
@pass_session
def report(session: Session, format: str, since: timedelta | datetime, output: Path | None) -> None:
    """Write the whole inventory as one document.

    It contains incidents, what changed, the metrics by category, their health and trends, approval requests and gaps.
    """
    path = session.cwd / output.expanduser() if output else None
    if format == "excel":
        if path is None:
            raise UsageError("an Excel workbook cannot be printed. Name a file: -o inventory.xlsx")
        _write_excel(session, since, path)
        return
    with session.database() as engine, transaction(engine) as connection:
        inventory = gather_report(connection, session.config, since, from_newest=format == "markdown")
    if format == "markdown":
        _write_markdown(session, inventory, path)
        return
    text = RENDERERS[format](inventory)
    if path is None:
        click.echo(text, nl=False)
    else:
        _print_result(session, path, write_text_atomically(path, text))


def _write_markdown(session: Session, inventory: InventoryReport, path: Path | None) -> None:
    if path is None:
        click.echo(markdown.render_master(inventory), nl=False)
    elif path.suffix == ".md":
        _print_result(session, path, write_text_atomically(path, markdown.render_master(inventory)))
    else:
        for name, text in markdown.render_documents(inventory).items():
            _print_result(session, path / name, write_text_atomically(path / name, text))


def _write_excel(session: Session, since: timedelta | datetime, path: Path) -> None:
    from dims_worker.reports import excel  # its library is optional

    with session.database() as engine, transaction(engine) as connection:
        inventory = gather_report(connection, session.config, since)
        allow_pauses(connection)  # a workbook of a million rows takes a while to compress
        _print_result(
            session, path, write_atomically(path, lambda draft: excel.write_workbook(connection, inventory, draft))
        )


def _print_result(session: Session, path: Path, written: bool) -> None:
    """Print to standard error whether the file changed. Standard output is for documents."""
    name = path.relative_to(session.cwd) if path.is_relative_to(session.cwd) else path
    session.err.print(f"{escape_control(name)} {'written' if written else 'unchanged'}", soft_wrap=True, markup=False)
