"""The producers start fast and fit into a small zip: no producer imports a large package."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
FILES = sorted((ROOT / "producers" / "dims_producers").glob("*.py"))
MODULES = [path.stem for path in FILES if path.stem != "__init__"]
EAGER = {"s3_lambda": {"redis"}}  # a Lambda imports it while it starts, and not for its first event
ALLOWED = {*sys.stdlib_module_names, "redis", "watchdog", "dims_producers"}
FROM_DIMS_WORKER = {"dims_worker.events", "dims_worker.errors"}


def imports(path: Path) -> Iterator[str]:
    """Yield the full name of each module that a file imports, anywhere in it."""
    for node in ast.walk(ast.parse(path.read_bytes())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path.name} has a relative import"
            yield str(node.module)


@pytest.mark.parametrize("path", FILES, ids=[path.stem for path in FILES])
def test_a_producer_imports_only_what_is_allowed(path: Path) -> None:
    # The zip builder also imports the package dims_worker itself, to find its files.
    allowed = FROM_DIMS_WORKER | ({"dims_worker"} if path.stem == "lambda_zip" else set())
    assert {name for name in imports(path) if name.split(".")[0] not in ALLOWED} <= allowed


@pytest.mark.parametrize("module", MODULES)
def test_importing_a_producer_loads_no_other_package(module: str) -> None:
    code = f"import sys; before = {{*sys.modules}}; import dims_producers.{module}; print(*({{*sys.modules}} - before))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    loaded = set(done.stdout.split())
    if module not in EAGER:
        assert {name.split(".")[0] for name in loaded} <= {*sys.stdlib_module_names, "dims_producers", "dims_worker"}
    assert loaded & {"redis", "watchdog"} == EAGER.get(module, set())
    assert {name for name in loaded if name.startswith("dims_worker.")} <= FROM_DIMS_WORKER
