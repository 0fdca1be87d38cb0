"""Compare one pass over 20,000 files for 30 metrics with `find -printf` and `wc -l` over the same tree, in turns.

The time of a pass includes the second walk, which proves that no file changed meanwhile.
"""

from __future__ import annotations

import random
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

from dims_worker.config import FilesMetric, FilesSource
from dims_worker.probes.base import Deadline, ScanContext
from dims_worker.probes.files.probe import FilesProbe
from dims_worker.probes.settled_scan import SettledScan

FILES = 20_000
TURNS = 7
MAX_RATIO = 2.0
SEED = 2013
AREAS = ("scripts/ml", "scripts/pbp_to_boxscore", "scripts/etl", "sql", "docs", "tests", "src/nba")
SUFFIXES = (".py", ".py", ".py", ".md", ".md", ".sql", ".sh", ".json", ".txt")


def make_tree(root: Path) -> None:
    """Create 20,000 small files of code and documents in about 700 folders."""
    chance = random.Random(SEED)
    line = "some code, or some words of a document\n"
    for number in range(FILES):
        area = AREAS[number % len(AREAS)]
        folder = root / area / f"part{chance.randrange(10)}" / f"sub{chance.randrange(10)}"
        folder.mkdir(parents=True, exist_ok=True)
        name = f"{chance.choice(('test_', ''))}file{number}{chance.choice(SUFFIXES)}"
        (folder / name).write_text(line * chance.randrange(120))


def metrics() -> dict[str, FilesMetric]:
    """Return 30 typical metrics. One counts the lines of all files, so that DIMS reads every file, as `wc` does."""
    chosen = [
        FilesMetric(source="tree", measure="lines"),
        FilesMetric(source="tree", measure="bytes"),
        FilesMetric(source="tree", measure="count"),
        FilesMetric(source="tree", measure="newest_age"),
        FilesMetric(source="tree", measure="oldest_age", paths=("docs/**",)),
        FilesMetric(source="tree", measure="count", paths=("**/test_*.py", "**/*_test.py")),
    ]
    for area in AREAS:
        chosen.append(FilesMetric(source="tree", measure="count", paths=(f"{area}/**/*.py",)))
        chosen.append(FilesMetric(source="tree", measure="lines", paths=(f"{area}/**/*.py",)))
        chosen.append(FilesMetric(source="tree", measure="bytes", paths=(f"{area}/**",)))
    chosen += [FilesMetric(source="tree", measure="lines", paths=(f"**/*{end}",)) for end in (".py", ".md", ".sql")]
    assert len(chosen) == 30
    return {f"bench.m{number:02}": metric for number, metric in enumerate(chosen)}


def walk(root: Path) -> int:
    """Return the lines of the tree, counted in one pass of the probe."""
    return _pass(root, FilesSource(type="files", path="."))


def walk_gitignore(root: Path) -> int:
    """Do the same with `ignore: gitignore`, where git lists the files."""
    return _pass(root, FilesSource(type="files", path=".", ignore="gitignore"))


def _pass(root: Path, source: FilesSource) -> int:
    context = ScanContext(root, root / ".dims")
    deadline = Deadline.after(timedelta(minutes=5))
    scanned = SettledScan(FilesProbe(), source, context, deadline).run(metrics(), {})
    assert all(reading.method == "exact" for reading in scanned.readings)
    return int(str(scanned.readings[0].value))


def tools(root: Path) -> int:
    """Return the lines of the tree, by `find -printf` for names, sizes and times, and `wc -l` over all files.

    The file of names that `wc` reads exists already, so its creation is not timed.
    """
    subprocess.run([*_find(root), "-printf", "%p %s %T@\n"], check=True, stdout=subprocess.DEVNULL)
    done = subprocess.run(["wc", "-l", f"--files0-from={_names(root)}"], check=True, capture_output=True)
    return int(done.stdout.splitlines()[-1].split()[0])


def _find(root: Path) -> list[str]:
    return ["find", str(root), "-type", "f", "-not", "-name", ".git"]


def _names(root: Path) -> Path:
    return root.with_suffix(".names")


def _seconds(count_lines: Callable[[Path], int], root: Path, lines: int) -> float:
    begun = time.perf_counter()
    if count_lines(root) != lines:
        raise AssertionError(f"{count_lines.__name__} returns a wrong number of lines")
    return time.perf_counter() - begun


def compare(root: Path, way: Callable[[Path], int], lines: int) -> str:
    """Compare `way` with the tools in turns, alternating which is first, and return the result as a sentence."""
    pairs = []
    for turn in range(TURNS):
        times = {}
        for function in (tools, way) if turn % 2 else (way, tools):
            times[function] = _seconds(function, root, lines)
        pairs.append((times[tools], times[way]))
    ratio = statistics.median(probe / plain for plain, probe in pairs)
    plain, probe = (statistics.median(times) for times in zip(*pairs, strict=True))
    verdict = "within" if ratio <= MAX_RATIO else "OVER"
    return (
        f"{FILES:,} files, 30 metrics: {FILES / probe:,.0f} files/s in one pass ({probe:.2f} s), {ratio:.2f} times "
        f"`find -printf` and `wc -l` ({plain:.2f} s; medians of {TURNS}); {verdict} the limit of {MAX_RATIO:g} times"
    )


def main() -> None:
    """Measure a tree without and with `ignore: gitignore`, and print both results."""
    with tempfile.TemporaryDirectory() as scratch:
        root = Path(scratch) / "tree"
        make_tree(root)
        lines = sum(path.read_bytes().count(b"\n") for path in root.rglob("*") if path.is_file())
        for command in (("init", "-q", "--separate-git-dir", f"{scratch}/git"), ("add", "-A")):
            subprocess.run(["git", "-C", str(root), *command], check=True)
        names = subprocess.run([*_find(root), "-print0"], check=True, capture_output=True).stdout
        _names(root).write_bytes(names)
        print(f"file walk, all files: {compare(root, walk, lines)}")
        print(f"file walk, ignore: gitignore: {compare(root, walk_gitignore, lines)}")
