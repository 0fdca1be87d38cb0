"""Define `dims notebook`: open the notebook in JupyterLab, or run it without a browser."""

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
from dims_worker.cli.session import EXISTING_FILE, FILE, Session, examples, pass_session
from dims_worker.errors import UsageError
from dims_worker.formatting import format_number, pluralize
from dims_worker.notebook import runner

FILE_HELP = "Run this notebook, such as your own copy. Default: the notebook that comes with DIMS."


@click.group(invoke_without_command=True)
@examples("dims notebook", "dims notebook export -o today.html")
@click.pass_context
def notebook(ctx: click.Context) -> None:
    """Open a notebook with charts and tables in JupyterLab.

    The first call copies the notebook to notebooks/ in the current folder. You can edit this copy. A notebook of your
    own that has the same name stays as it is: the copy gets another name.
    """
    if ctx.invoked_subcommand is not None:
        return
    session = ctx.find_object(Session)
    assert session is not None
    if importlib.util.find_spec("jupyterlab") is None:
        raise UsageError(
            "JupyterLab is not installed: pip install 'dims-worker[notebook]'. Or use `dims notebook export`."
        )
    config = session.config  # an error in the configuration appears here instead of in a cell
    own = runner.own_copy(session.cwd / "notebooks")
    if not own.exists():
        own.parent.mkdir(exist_ok=True)
        shutil.copyfile(runner.notebook_path(), own)
        session.print_text(f"wrote {own.relative_to(session.cwd)}, which you can edit")
    command = [sys.executable, "-P", "-m", "jupyterlab", "--ip=127.0.0.1", str(own)]
    exit_with(subprocess.call(command, cwd=session.cwd, env={**session.env, "DIMS_CONFIG": str(config.file)}))


@notebook.command()
@examples("dims notebook export", "dims notebook export --excel -o inventory.xlsx")
@click.option("--html", "form", flag_value="html", default="html", help="Write an HTML page. This is the default.")
@click.option("--excel", "form", flag_value="excel", help="Write the Excel workbook of the last cell.")
@click.option("--file", "--notebook", "path", type=EXISTING_FILE, help=FILE_HELP)
@click.option(
    "-o", "--output", type=FILE, help="Write to this file. Default: dims_explorer.html or dims_explorer.xlsx."
)
@pass_session
def export(session: Session, form: str, path: Path | None, output: Path | None) -> None:
    """Run the notebook without a browser and write a page or workbook.

    It runs the notebook that comes with DIMS. To run your own copy, name it with --file. If a cell fails, the error
    names it and no file is written.
    """
    source = path or runner.notebook_path()
    target = session.cwd / (output or Path(runner.NAME).with_suffix(".xlsx" if form == "excel" else ".html"))
    if not target.parent.is_dir():
        raise UsageError(f"the folder {target.parent} does not exist. Create it, or choose another --output.")
    if target.suffix == ".ipynb":
        raise UsageError(f"{target} is a notebook, which the export would replace. Choose another --output.")
    if path is None:
        _name_own(session)
    done = "replaced" if target.exists() else "wrote"
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
            raise UsageError(f"{source} wrote no workbook. A cell must write it to the path in {runner.WORKBOOK}.")
    megabytes = format_number(target.stat().st_size / 1e6, 1)
    session.print_text(f"{done} {target.name}: {megabytes} MB, {pluralize(len(document.cells), 'cell')} run")


def _name_own(session: Session) -> None:
    """Say that the notebooks of the project are not exported, and how to export one."""
    folder = session.cwd / "notebooks"
    for name in (runner.NAME, runner.OTHER_NAME):
        if (folder / name).exists():
            own = Path("notebooks") / name
            click.echo(f"dims: {own} is not exported. To export it: `dims notebook export --file {own}`", err=True)


def _run(session: Session, source: Path, env: dict[str, str]) -> runner.Document:
    columns = (TextColumn("cells"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=session.err, transient=True, disable=not session.err.is_terminal) as progress:
        task = progress.add_task("cells", total=None)

        def update(done: int, total: int) -> None:
            progress.update(task, completed=done, total=total)

        return runner.run_notebook(source, session.cwd, env, update)
