"""The notebook that comes with DIMS: where it is, run without a browser, and made a page."""

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
"""The variable that says where the last cell writes its workbook."""
RENDERER = "plotly_mimetype+notebook"
"""Each chart twice: its object, and HTML that needs no network."""
CELL_SECONDS = 600
MISSING = "needs what is not installed ({}): pip install 'dims-worker[notebook]'"

Progress = Callable[[int, int], None]
"""Called with the cells that are done, and all."""


class CellFailed(DimsError):
    """A cell of the notebook ended with an error."""

    exit_code = 4


def notebook_path() -> Path:
    """The notebook, in the wheel or in the repository."""
    package = Path(__file__).parents[1]
    found = next((one for one in (package / NAME, package.parent / "notebooks" / NAME) if one.is_file()), None)
    if found is None:
        raise DimsError(f"{NAME} is not where it was installed: install DIMS again")
    return found


def run_notebook(
    notebook: Path, folder: Path, env: Mapping[str, str], progress: Progress = lambda done, all: None
) -> Document:
    """Run every cell in a kernel of its own, in `folder`, with these variables; the notebook with its outputs.

    Raises:
        UsageError: what runs it is not installed.
        CellFailed: which cell ended with an error, under which heading, and the error.
    """
    try:
        import ipykernel  # noqa: F401 - the kernel itself
        import nbformat
        from nbclient import NotebookClient
        from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError
    except ImportError as error:
        raise UsageError(f"the notebook {MISSING.format(error.name)}") from None
    document: Document = nbformat.read(notebook, as_version=4)  # type: ignore[no-untyped-call]
    client = NotebookClient(
        document, timeout=CELL_SECONDS, kernel_name="python3",
        extra_arguments=["--IPKernelApp.log_level=ERROR"],  # it warns of plain TCP, but stays on loopback
        resources={"metadata": {"path": str(folder)}},
        on_cell_start=lambda cell, cell_index: progress(cell_index, len(document.cells)),
    )  # fmt: skip
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
    """Where it ended: the last cell that was begun, under its heading."""
    begun = [number for number, cell in enumerate(document.cells) if cell.get("execution_count")] or [0]
    failed = [
        number
        for number, cell in enumerate(document.cells)
        if any(output.output_type == "error" for output in cell.get("outputs", ()))
    ]
    number = failed[0] if failed else begun[-1]
    headings = [
        line.lstrip("# ")
        for cell in document.cells[: number + 1]
        if cell.cell_type == "markdown"
        for line in cell.source.splitlines()
        if line.startswith("## ")
    ]
    return f"cell {number + 1} of {len(document.cells)}" + (f" ({headings[-1]})" if headings else "")


def as_html(document: Document) -> str:
    """The notebook as one page that is read without a network: nothing is loaded from elsewhere."""
    try:
        from nbconvert import HTMLExporter
    except ImportError as error:
        raise UsageError(f"the notebook {MISSING.format(error.name)}") from None
    exporter: Any = HTMLExporter(exclude_input_prompt=True, exclude_output_prompt=True)  # type: ignore[no-untyped-call]
    for name in ("mathjax_url", "require_js_url", "jquery_url", "mermaid_js_url", "jupyter_widgets_base_url"):
        setattr(exporter, name, "")
    body, _ = exporter.from_notebook_node(document)
    # What the template would load from elsewhere (widgets, mathematics, diagrams) is not in this notebook
    body = re.sub(r"<script[^>]*\ssrc=[^>]*>\s*</script>", "", body)
    return re.sub(
        r'<script type="module">(?:(?!</script>).)*mermaid(?:(?!</script>).)*</script>', "", body, flags=re.DOTALL
    )
