"""One pass over 20,000 files for 30 metrics, in turns with one `find -printf` plus one `wc -l` over the same tree."""

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

FILES = 20_000
TURNS = 7
BAR = 2.0
SEED = 2013
AREAS = ("scripts/ml", "scripts/pbp_to_boxscore", "scripts/etl", "sql", "docs", "tests", "src/nba")
SUFFIXES = (".py", ".py", ".py", ".md", ".md", ".sql", ".sh", ".json", ".txt")


def make_tree(root: Path) -> None:
    """20,000 small files of code and documents in some 700 folders."""
    chance = random.Random(SEED)
    line = "some code, or some words of a document\n"
    for number in range(FILES):
        area = AREAS[number % len(AREAS)]
        folder = root / area / f"part{chance.randrange(10)}" / f"sub{chance.randrange(10)}"
        folder.mkdir(parents=True, exist_ok=True)
        name = f"{chance.choice(('test_', ''))}file{number}{chance.choice(SUFFIXES)}"
        (folder / name).write_text(line * chance.randrange(120))


def metrics() -> dict[str, FilesMetric]:
    """30 metrics: lines of everything, so that every file is read, as `wc` reads it; and what people count."""
    found = [
        FilesMetric(source="tree", measure="lines"),
        FilesMetric(source="tree", measure="bytes"),
        FilesMetric(source="tree", measure="count"),
        FilesMetric(source="tree", measure="newest_age"),
        FilesMetric(source="tree", measure="oldest_age", paths=("docs/**",)),
        FilesMetric(source="tree", measure="count", paths=("**/test_*.py", "**/*_test.py")),
    ]
    for area in AREAS:
        found.append(FilesMetric(source="tree", measure="count", paths=(f"{area}/**/*.py",)))
        found.append(FilesMetric(source="tree", measure="lines", paths=(f"{area}/**/*.py",)))
        found.append(FilesMetric(source="tree", measure="bytes", paths=(f"{area}/**",)))
    found += [FilesMetric(source="tree", measure="lines", paths=(f"**/*{end}",)) for end in (".py", ".md", ".sql")]
    assert len(found) == 30
    return {f"bench.m{number:02}": metric for number, metric in enumerate(found)}


def walk(root: Path) -> int:
    """The lines of the tree, by one pass of the probe."""
    return _pass(root, FilesSource(type="files", path="."))


def ask_git(root: Path) -> int:
    """The same with `ignore: gitignore`: git says which files there are."""
    return _pass(root, FilesSource(type="files", path=".", ignore="gitignore"))


def _pass(root: Path, source: FilesSource) -> int:
    around = ScanContext(root, root / ".dims")
    deadline = Deadline.after(timedelta(minutes=5))
    scanned = FilesProbe().scan(source, metrics(), around, deadline)
    assert all(reading.method == "exact" for reading in scanned.readings)
    return int(str(scanned.readings[0].value))


def tools(root: Path) -> int:
    """The lines of the tree, by one `find -printf` for names, sizes and times, and one `wc -l` over all files.

    The names that `wc` reads were written before the clock ran: the bar is one `find` and one `wc`.
    """
    subprocess.run([*_find(root), "-printf", "%p %s %T@\n"], check=True, stdout=subprocess.DEVNULL)
    done = subprocess.run(["wc", "-l", f"--files0-from={_names(root)}"], check=True, capture_output=True)
    return int(done.stdout.splitlines()[-1].split()[0])


def _find(root: Path) -> list[str]:
    return ["find", str(root), "-type", "f", "-not", "-name", ".git"]


def _names(root: Path) -> Path:
    return root.with_suffix(".names")


def _seconds(what: Callable[[Path], int], root: Path, lines: int) -> float:
    begun = time.perf_counter()
    if what(root) != lines:
        raise AssertionError(f"{what.__name__} counts other lines than there are")
    return time.perf_counter() - begun


def compare(root: Path, way: Callable[[Path], int], lines: int) -> str:
    """The median of the ratios of neighbouring turns, each way first in every other one."""
    pairs = []
    for turn in range(TURNS):
        times = {}
        for each in (tools, way) if turn % 2 else (way, tools):
            times[each] = _seconds(each, root, lines)
        pairs.append((times[tools], times[way]))
    ratio = statistics.median(probe / plain for plain, probe in pairs)
    plain, probe = (statistics.median(each) for each in zip(*pairs, strict=True))
    verdict = "within" if ratio <= BAR else "OVER"
    return (
        f"{FILES:,} of them, 30 metrics: {FILES / probe:,.0f} files/s in one pass ({probe:.2f} s), {ratio:.2f} times "
        f"`find -printf` and `wc -l` ({plain:.2f} s; medians of {TURNS}); {verdict} the {BAR:g} times"
    )


def main() -> None:
    """A tree that is walked, and the same one where git is asked what counts."""
    with tempfile.TemporaryDirectory() as scratch:
        root = Path(scratch) / "tree"
        make_tree(root)
        lines = sum(path.read_bytes().count(b"\n") for path in root.rglob("*") if path.is_file())
        for command in (("init", "-q", "--separate-git-dir", f"{scratch}/git"), ("add", "-A")):
            subprocess.run(["git", "-C", str(root), *command], check=True)
        names = subprocess.run([*_find(root), "-print0"], check=True, capture_output=True).stdout
        _names(root).write_bytes(names)
        print(f"files, walked, {compare(root, walk, lines)}")
        print(f"files, ignore: gitignore, {compare(root, ask_git, lines)}")
