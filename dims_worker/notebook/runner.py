"""Find the notebook that comes with DIMS, run it without a browser, and turn it into an HTML page."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from dims_worker.errors import DimsError, UsageError

Document = Any
"""A notebook as nbformat reads it: `cells`, each with `cell_type`, `source` and, of code, `outputs`."""

NAME = "dims_explorer.ipynb"
WORKBOOK = "DIMS_WORKBOOK"
"""The environment variable with the path of the workbook that the last cell writes."""
RENDERER = "plotly_mimetype+notebook"
"""Each chart is stored twice: as an object, and as HTML that needs no network."""
CELL_SECONDS = 600
MISSING = "the notebook needs {}, which is not installed. Run: pip install 'dims-worker[notebook]'"

OTHER_NAME = "dims_worker_explorer.ipynb"
"""The name of the copy in a folder that has a notebook of its own under `NAME`, such as that of the original DIMS."""
LIBRARY = "dims_worker.notebook"
"""The package that every copy of the notebook imports, so a notebook without it is not such a copy."""

Progress = Callable[[int, int], None]
"""A function that takes the number of finished cells and of all cells."""


class CellFailed(DimsError):
    """A cell of the notebook failed."""

    exit_code = 4


def notebook_path() -> Path:
    """Return the path of the notebook, in the wheel or in the repository."""
    package = Path(__file__).parents[1]
    for path in (package / NAME, package.parent / "notebooks" / NAME):
        if path.is_file():
            return path
    raise DimsError(f"{NAME} is missing from {package}. Install DIMS again.")


def own_copy(folder: Path) -> Path:
    """Return the path of the copy that belongs to a project, in its folder of notebooks. It may not exist yet.

    A notebook that has the same name but is not a copy is left alone. Raises UsageError if both names are taken.
    """
    for path in (folder / NAME, folder / OTHER_NAME):
        if not path.exists() or _is_copy(path):
            return path
    raise UsageError(
        f"{folder / NAME} and {folder / OTHER_NAME} are not copies of the notebook of DIMS. Rename one of them."
    )


def _is_copy(path: Path) -> bool:
    return path.is_file() and LIBRARY.encode() in path.read_bytes()


def run_notebook(
    notebook: Path, folder: Path, env: Mapping[str, str], progress: Progress = lambda done, all: None
) -> Document:
    """Run every cell in a new kernel in `folder` with these variables. Return the notebook with its outputs.

    Raises:
        UsageError: a package that runs notebooks is not installed.
        CellFailed: a cell failed. The message has its number, its heading and the error.
    """
    try:
        import ipykernel  # noqa: F401 - the client starts it as a process
        import nbformat
        from nbclient import NotebookClient
        from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError
    except ImportError as error:
        raise UsageError(MISSING.format(error.name)) from None
    document: Document = nbformat.read(notebook, as_version=4)  # type: ignore[no-untyped-call]
    client = NotebookClient(
        document,
        timeout=CELL_SECONDS,
        kernel_name="python3",
        # Hide the warning about TCP, which stays on loopback. Import nothing from the project's folder.
        extra_arguments=["--IPKernelApp.log_level=ERROR", "--InteractiveShellApp.ignore_cwd=True"],
        resources={"metadata": {"path": str(folder)}},
        on_cell_start=lambda cell, cell_index: progress(cell_index, len(document.cells)),
    )
    variables = {**os.environ, "PYDEVD_DISABLE_FILE_VALIDATION": "1", **env, "PLOTLY_RENDERER": RENDERER}
    try:
        client.execute(env=variables)
    except CellExecutionError as error:
        raise CellFailed(f"{_place(document)}: {error.ename}: {error.evalue}") from None
    except (CellTimeoutError, DeadKernelError) as error:
        raise CellFailed(f"{_place(document)}: {type(error).__name__}: {str(error).splitlines()[0]}") from None
    progress(len(document.cells), len(document.cells))
    return document


def _place(document: Document) -> str:
    """Return where a run ended: the failed cell, or the last one that started, and its heading."""
    cells = list(enumerate(document.cells))
    started = [number for number, cell in cells if cell.get("execution_count")] or [0]
    failed = [number for number, cell in cells if any(out.output_type == "error" for out in cell.get("outputs", ()))]
    number = failed[0] if failed else started[-1]
    sources = [cell.source for cell in document.cells[: number + 1] if cell.cell_type == "markdown"]
    headings = [line.lstrip("# ") for source in sources for line in source.splitlines() if line.startswith("## ")]
    return f"cell {number + 1} of {len(document.cells)}" + (f" ({headings[-1]})" if headings else "")


def as_html(document: Document) -> str:
    """Return the notebook as one page that loads nothing from a network."""
    try:
        from nbconvert import HTMLExporter
    except ImportError as error:
        raise UsageError(MISSING.format(error.name)) from None
    exporter: Any = HTMLExporter(exclude_input_prompt=True, exclude_output_prompt=True)  # type: ignore[no-untyped-call]
    for name in ("mathjax_url", "require_js_url", "jquery_url", "mermaid_js_url", "jupyter_widgets_base_url"):
        setattr(exporter, name, "")
    body, _ = exporter.from_notebook_node(document)
    # The template loads scripts for widgets, mathematics and diagrams, which this notebook does not use
    body = re.sub(r"<script[^>]*\ssrc=[^>]*>\s*</script>", "", body)
    return re.sub(
        r'<script type="module">(?:(?!</script>).)*mermaid(?:(?!</script>).)*</script>', "", body, flags=re.DOTALL
    )
