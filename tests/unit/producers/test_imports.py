"""A hook and a Lambda start fast: no producer loads an engine."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
MODULES = sorted(path.stem for path in (ROOT / "producers" / "dims_producers").glob("*.py") if path.stem != "__init__")
EAGER = {"s3_lambda": {"redis"}}  # a Lambda loads it while it starts, and not when its first event waits
HEAVY = {"celery", "sqlalchemy", "pydantic", "boto3", "kombu", "yaml", "click", "rich", "redis", "watchdog"}


@pytest.mark.parametrize("module", MODULES)
def test_import_loads_nothing_heavy(module: str) -> None:
    code = f"import sys, dims_producers.{module}; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    loaded = set(done.stdout.split())
    assert loaded & HEAVY == EAGER.get(module, set())
    rooms = {name for name in loaded if name.startswith("dims_worker.")}
    assert rooms <= {"dims_worker.events", "dims_worker.errors"}
