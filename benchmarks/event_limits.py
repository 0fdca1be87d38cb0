"""The largest events that DIMS accepts, against the worst patterns: how long one keeps ingest busy.

The time is that of the process (CPU) to read, plan and serialize one event, so other programs do not count. The ratio
compares it with an ordinary event: one path and the same configuration.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from pathlib import Path

from dims_worker.config import Config, load_config
from dims_worker.domain.plan import Planner
from dims_worker.events import MAX_BYTES, MAX_PATH, MAX_PATHS
from dims_worker.pipeline.ingest import ReceivedEnvelope, prepare_rows
from dims_worker.store.bulk import rows_as_json

LIMIT = 0.050
"""The most seconds that an event may take."""

PATTERNS = (
    "data/**/raw/**/2024/*.csv",
    "**/" + "a/" * 30 + "b/**",
    "**/" + "*a*/" * 30 + "b/**",
    "*a" * 30 + "*b",
    "**/*" + "a" * 1000 + "b*/**",
    "**/*" + "?" * 50 + "b*/**",
    "**/[a-z]*[0-9]*[a-z]*[0-9]*/x/**",
)
UNITS = ("raw/", "a/", "aa/", "xxxxxxxxa/", "a", "a1b2/", "a" * 250 + "/")


def main() -> None:
    """Print the worst time of each case, and how many times that of an ordinary event it is."""
    folder = Path(os.environ.get("TMPDIR", "/tmp"))
    base = time_of(planner_of(folder, ("**/*.csv",)), envelope_of(["data/2024/x.csv"]))
    print(f"an ordinary event: {base * 1000:.2f} ms")
    print(f"{'the largest event with':<44}{'ms':>8}{'ratio':>8}")
    worst = 0.0
    for name, measure in cases(folder).items():
        seconds = measure()
        worst = max(worst, seconds)
        print(f"{name:<44}{seconds * 1000:>8.1f}{seconds / base:>8.0f}")
    print(f"worst: {worst * 1000:.1f} ms of {LIMIT * 1000:.0f} ms: {'passed' if worst <= LIMIT else 'FAILED'}")


def cases(folder: Path) -> dict[str, Callable[[], float]]:
    """Return what to measure, by name: each pattern with its worst paths, all of them at once, and large data."""
    each = {
        pattern[:36]: lambda pattern=pattern: max(
            time_of(planner_of(folder, (pattern,)), envelope_of(paths_of(unit))) for unit in UNITS
        )
        for pattern in PATTERNS
    }
    every = planner_of(folder, PATTERNS * 20)
    short = [f"{number:x}" for number in range(MAX_PATHS)]
    return {
        **each,
        f"{len(PATTERNS) * 20} metrics with these patterns": lambda: max(
            time_of(every, envelope_of(paths_of(unit))) for unit in UNITS
        ),
        f"{MAX_PATHS:,} short paths, the same metrics": lambda: time_of(every, envelope_of(short)),
        "more paths than DIMS compares": lambda: time_of(every, envelope_of(["a"] * 60_000)),
        **{name: lambda text=text: time_of(every, envelope(text)) for name, text in large_data().items()},
    }


def large_data() -> dict[str, str]:
    """Return values as JSON that take long to parse, to hash or to write."""
    room = MAX_BYTES - 300
    values = {
        "integers of 4,300 digits": "9" * 4300,
        "decimals": "0.1",
        "large decimals": "1e300",
        "nested lists": "[" * 60 + "]" * 60,
        "empty objects": "{}",
        "strings": '"\\u00e9"',
    }
    filled = {name: f'{{"x":[{",".join([value] * (room // (len(value) + 1)))}]}}' for name, value in values.items()}
    keys = ",".join(f'"{number:x}":1' for number in range(24_000))
    return {**filled, "keys": f"{{{keys}}}", "a string that does not end": '{"x":"' + '\\"' * (room // 2)}


def paths_of(unit: str) -> list[str]:
    """Return as many of the longest paths as fit into an event."""
    path = (unit * MAX_PATH)[: MAX_PATH - 5]
    number = (MAX_BYTES - 300) // (MAX_PATH + 3)
    return [f"{path}/{index:03}b.csv"[-MAX_PATH:] for index in range(number)]


def planner_of(folder: Path, patterns: tuple[str, ...]) -> Planner:
    return Planner(config_of(folder, patterns))


def config_of(folder: Path, patterns: tuple[str, ...]) -> Config:
    """Return a configuration with a metric for each pattern."""
    file = folder / f"dims-limits-{os.getpid()}.yaml"
    metrics = {
        f"m{number}": {"source": "p", "measure": "count", "paths": [pattern, f"only{number}"]}
        for number, pattern in enumerate(patterns)
    }
    content = {
        "sources": {"p": {"type": "files", "path": str(folder), "ignore": "gitignore"}},
        "metrics": {"m": metrics},
        "rules": {"changed": {"on": "dims.files.changed"}},
    }
    file.write_text(json.dumps(content))
    try:
        return load_config(file, {}, folder)
    finally:
        file.unlink()


def envelope_of(paths: list[str]) -> bytes:
    root = os.path.realpath(os.environ.get("TMPDIR", "/tmp"))
    return envelope(json.dumps({"root": root, "paths": paths}, separators=(",", ":")))


def envelope(data: str) -> bytes:
    head = '{"specversion":"1.0","id":"1","source":"s","type":"dims.files.changed","time":"2026-11-22T09:00:00Z",'
    text = f'{head}"data":{data}}}'.encode()
    assert len(text) <= MAX_BYTES, len(text)
    return text


def time_of(planner: Planner, raw: bytes) -> float:
    """Return the seconds of CPU that reading, planning and serializing an event takes: the best of three."""
    best = float("inf")
    for _ in range(3):
        started = time.process_time()
        rows_as_json(prepare_rows(planner, [ReceivedEnvelope("1-0", raw)]))
        best = min(best, time.process_time() - started)
    return best
