"""Run the tests of sampled mutants in a temporary copy of the checkout, which itself stays as it is."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.mutation.mutants import Mutant, find_mutants

PIPELINE_TESTS = (
    "tests/integration/pipeline/test_record.py",
    "tests/integration/pipeline/test_ingest.py",
    "tests/integration/store/test_leases.py",
    "tests/integration/pipeline",
)
TESTS: Mapping[str, Sequence[str]] = {
    "dims_worker/domain": ("tests/unit/domain",),
    "dims_worker/pipeline": PIPELINE_TESTS,
    "dims_worker/store/leases.py": PIPELINE_TESTS,
}
"""The tests of each module or folder. pytest stops at the first failure, so the fastest come first."""
MIN_TIMEOUT = 60.0


class FailingBaseline(Exception):
    """The tests fail before anything is changed."""


@dataclass(frozen=True, slots=True)
class Sample:
    """A mutant of a file and the tests that should notice it."""

    file: str
    mutant: Mutant
    tests: tuple[str, ...]

    def __str__(self) -> str:
        change = f"{self.mutant.before[:70]}  ->  {self.mutant.after[:70]}"
        return f"{self.file}:{self.mutant.line}  {self.mutant.kind}  {change}"


def choose(root: Path, tests: Mapping[str, Sequence[str]], seed: int, count: int, only: str = "") -> list[Sample]:
    """Return at most `count` mutants of the files below `tests`, the same for the same seed and code."""
    samples = [
        Sample(str(file.relative_to(root)), mutant, tuple(names))
        for target, names in tests.items()
        for file in (sorted((root / target).rglob("*.py")) if (root / target).is_dir() else [root / target])
        if str(file.relative_to(root)).startswith(only)
        for mutant in find_mutants(file.read_text(encoding="utf-8"))
    ]
    return random.Random(seed).sample(samples, min(count, len(samples)))


@contextmanager
def copy_of(root: Path) -> Iterator[Path]:
    """Copy the files that git does not ignore to a temporary folder, and yield it."""
    command = ["git", "-C", str(root), "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(command, check=True, capture_output=True).stdout.decode().split("\0")
    with tempfile.TemporaryDirectory(prefix="dims-mutation-") as folder:
        copy = Path(folder).resolve() / "checkout"
        for name in filter(None, names):
            if (root / name).is_file():
                (copy / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(root / name, copy / name)
        yield copy


def run_tests(copy: Path, tests: Sequence[str], timeout: float) -> bool:
    """Return whether the tests pass in the copy. Tests that take longer than `timeout` seconds fail."""
    path = os.pathsep.join(map(str, (copy, copy / "producers")))
    process = subprocess.Popen(
        [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", *tests],
        cwd=copy,
        env={**os.environ, "PYTHONPATH": path, "PYTHONDONTWRITEBYTECODE": "1"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        return process.wait(timeout) == 0
    except subprocess.TimeoutExpired:
        return False
    finally:
        _end(process)


def _end(process: subprocess.Popen[bytes]) -> None:
    """Interrupt pytest, so that its fixtures stop their servers. After 30 seconds, kill it."""
    if process.poll() is None:
        process.send_signal(signal.SIGINT)
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def run(root: Path, samples: Sequence[Sample], report: Callable[[str], object]) -> list[Sample]:
    """Run the tests of each mutant, report the progress, and return the survivors. Raises FailingBaseline."""
    survivors = []
    with copy_of(root) as copy:
        timeouts = {}
        for tests in sorted({sample.tests for sample in samples}):
            begin = time.monotonic()
            if not run_tests(copy, tests, timeout=1800):
                raise FailingBaseline(f"the tests fail without a mutant: {' '.join(tests)}. Fix them first.")
            timeouts[tests] = max(MIN_TIMEOUT, 3 * (time.monotonic() - begin))
            report(f"{' '.join(tests)}: passed in {time.monotonic() - begin:.0f} s without a mutant")
        for number, sample in enumerate(samples, 1):
            file = copy / sample.file
            original = file.read_text(encoding="utf-8")
            file.write_text(sample.mutant.source, encoding="utf-8")
            survived = run_tests(copy, sample.tests, timeouts[sample.tests])
            file.write_text(original, encoding="utf-8")
            report(f"{number}/{len(samples)} {'SURVIVED' if survived else 'killed  '} {sample}")
            if survived:
                survivors.append(sample)
    return survivors
