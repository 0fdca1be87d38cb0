"""`dims notebook`: everything that is known, to be looked at in JupyterLab, or run without a browser."""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import click
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from dims_worker.cli.main import exit_with
from dims_worker.cli.session import Session, pass_session
from dims_worker.errors import UsageError
from dims_worker.notebook import runner


@click.group(invoke_without_command=True)
@click.pass_context
def notebook(ctx: click.Context) -> None:
    """Open the notebook in JupyterLab: twelve sections of charts and tables on all that is known.

    It is copied to notebooks/ of this folder at first, and yours from then on.

    \b
    Examples:
      dims notebook
      dims notebook export -o today.html
    """
    if ctx.invoked_subcommand is not None:
        return
    session = ctx.find_object(Session)
    assert session is not None
    if importlib.util.find_spec("jupyterlab") is None:
        raise UsageError("JupyterLab is not installed: pip install 'dims-worker[notebook]'; "
                         "without it: dims notebook export")  # fmt: skip
    config = session.config  # its errors are said here, and not in a cell
    mine = session.cwd / "notebooks" / runner.NAME
    if not mine.exists():
        mine.parent.mkdir(exist_ok=True)
        shutil.copyfile(runner.notebook_path(), mine)
        session.tell(f"{mine.relative_to(session.cwd)} is made; it is yours")
    command = [sys.executable, "-P", "-m", "jupyterlab", "--ip=127.0.0.1", str(mine)]
    exit_with(subprocess.call(command, cwd=session.cwd, env={**session.env, "DIMS_CONFIG": str(config.file)}))


@notebook.command()
@click.option("--html", "form", flag_value="html", default="html", help="One page that is read offline (the default).")
@click.option("--excel", "form", flag_value="excel", help="The workbook of its last cell, a sheet for each result.")
@click.option("--notebook", "path", type=click.Path(path_type=Path, exists=True, dir_okay=False), metavar="FILE",
              help="Run this one (else notebooks/dims_explorer.ipynb, else the one that comes with DIMS).")  # fmt: skip
@click.option("-o", "--output", type=click.Path(path_type=Path, dir_okay=False), metavar="FILE",
              help="Write here (else dims_explorer.html or .xlsx).")  # fmt: skip
@pass_session
def export(session: Session, form: str, path: Path | None, output: Path | None) -> None:
    """Run every cell without a browser, and write a page or a workbook.

    A cell that fails is named, and nothing is written.

    \b
    Examples:
      dims notebook export
      dims notebook export --excel -o inventory.xlsx
    """
    mine = session.cwd / "notebooks" / runner.NAME
    source = path or (mine if mine.is_file() else runner.notebook_path())
    target = session.cwd / (output or Path(runner.NAME).with_suffix(".xlsx" if form == "excel" else ".html"))
    if not target.parent.is_dir():
        raise UsageError(f"there is no folder {target.parent}")
    with tempfile.TemporaryDirectory(prefix="dims-notebook-") as scratch, session.database() as engine:
        workbook = Path(scratch) / "workbook.xlsx"
        env = {
            **session.env,
            "DIMS_CONFIG": str(session.config.file),
            "DIMS_DATABASE_URL": engine.url.render_as_string(hide_password=False),
            runner.WORKBOOK: str(workbook),
        }
        document = _run(session, source, env)
        if form == "html":
            target.write_text(runner.as_html(document), encoding="utf-8")
        elif workbook.is_file():
            shutil.copyfile(workbook, target)
        else:
            raise UsageError(f"{source} writes no workbook where {runner.WORKBOOK} says")
    session.tell(f"{target.name}: {target.stat().st_size / 1e6:.1f} MB, {len(document.cells)} cells run")


def _run(session: Session, source: Path, env: dict[str, str]) -> runner.Document:
    columns = (TextColumn("cells"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=session.err, transient=True, disable=not session.err.is_terminal) as shown:
        task = shown.add_task("cells", total=None)
        return runner.run_notebook(
            source, session.cwd, env, lambda done, all: shown.update(task, completed=done, total=all)
        )
