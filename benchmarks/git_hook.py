"""Measure what the git hook adds to `git commit`: medians of commits with and without it, in turns."""

from __future__ import annotations

import os
import statistics
import subprocess
import tempfile
import threading
import time
from pathlib import Path

from dims_producers import git_hook
from dims_producers.publish import broker_url
from dims_producers.spool import Spool
from dims_producers.watch_files import FolderWatcher
from dims_worker import local

COMMITS = 50
PAUSE = 0.3
MAX_MS = 6.0
ENV = {
    **{name: value for name, value in os.environ.items() if not name.startswith(("GIT_", "DIMS_"))},
    "GIT_CONFIG_GLOBAL": os.devnull,
    "GIT_CONFIG_SYSTEM": os.devnull,
    "GIT_AUTHOR_NAME": "bench",
    "GIT_AUTHOR_EMAIL": "bench",
    "GIT_COMMITTER_NAME": "bench",
    "GIT_COMMITTER_EMAIL": "bench",
}


def _git(repo: Path, *arguments: str) -> None:
    subprocess.run(["git", "-C", str(repo), *arguments], env=ENV, check=True, capture_output=True)


def _repository(folder: Path) -> Path:
    folder.mkdir()
    _git(folder, "init", "-q")
    return folder


def _commit_ms(repo: Path) -> float:
    begun = time.perf_counter()
    _git(repo, "commit", "-q", "--allow-empty", "-m", "x")
    return (time.perf_counter() - begun) * 1000


def added_ms(home: Path, folder: Path) -> tuple[float, float, float]:
    """Return medians in ms: a commit without the hook, with the hook, and the difference within each pair."""
    plain, hooked = _repository(folder / "plain"), _repository(folder / "hooked")
    git_hook.install(hooked, home)
    pairs = []
    for number in range(COMMITS):
        order = (plain, hooked) if number % 2 else (hooked, plain)
        times = {}
        for repo in order:
            times[repo] = _commit_ms(repo)
            time.sleep(PAUSE)
        pairs.append((times[plain], times[hooked]))
    without, with_hook = zip(*pairs, strict=True)
    added = statistics.median(hooked_ms - plain_ms for plain_ms, hooked_ms in pairs)
    return statistics.median(without), statistics.median(with_hook), added


def main() -> None:
    """Measure with a watcher (as under `dims up`), without one, and with the broker down."""
    for name, broker, watcher in (
        ("watcher, broker up", True, True),
        ("no watcher, broker up", True, False),
        ("no watcher, broker down", False, False),
    ):
        with tempfile.TemporaryDirectory() as scratch:
            home = Path(scratch) / "home"
            if broker:
                local.start(home, database=False, fast=True)
            stop = threading.Event()
            spool = Spool(home / "spool")
            spool.make()
            folder_watcher = FolderWatcher(
                {}, spool, lambda home=home: broker_url({}, home), ignored=lambda path: False, stop=stop
            )
            thread = threading.Thread(target=folder_watcher.run)
            if watcher:
                thread.start()
                time.sleep(1)
            try:
                without, with_hook, added = added_ms(home, Path(scratch))
            finally:
                stop.set()
                if watcher:
                    thread.join()
                local.stop(home)
            verdict = "within" if added <= MAX_MS else "OVER"
            print(
                f"git hook, {name}: a commit takes {without:.1f} ms without and {with_hook:.1f} ms with it (medians "
                f"of {COMMITS}); it adds {added:.1f} ms ({with_hook / without:.2f} times); "
                f"{verdict} the limit of {MAX_MS:g} ms"
            )
