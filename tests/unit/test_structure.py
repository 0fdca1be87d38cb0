"""The structure of the code: few modules at the root, one meaning for a class name, the usual word in a file's path."""

from __future__ import annotations

import ast
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

from tests.conftest import REPO

PACKAGES = (REPO / "dims_worker", REPO / "producers" / "dims_producers")
ROOT_MODULES = {"__init__", "__main__", "errors", "events", "formatting", "numbers", "tasks"}
MAX_ROOMS = 28
"""Folders and root modules together. A folder counts once, with all that is in it."""

USUAL_WORDS = {
    "event deduplication": ("pipeline/ingest", "dedup"),
    "retry and back-off of a failed measurement": ("retry", "backoff"),
    "lease and fencing": ("lease",),
    "cooldown and debounce": ("cooldown", "debounce"),
    "sweep": ("sweep",),
    "rejected events (dead letters)": ("rejected_events",),
    "replay": ("replay",),
    "cron schedule": ("schedule",),
    "drift thresholds": ("drift", "threshold", "policy"),
    "approval": ("approval",),
    "notification transport": ("notifications/transport",),
    "outbox": ("outbox",),
    "trend chart": ("trend_chart",),
    "sign-in": ("sign_in",),
    "CSRF": ("csrf",),
    "server-sent events": ("sse", "server_sent_events", "live_updates"),
    "pagination of a listing": ("pages", "pagination"),
    "local supervisor": ("local/supervisor",),
    "retention": ("retention",),
    "Prometheus export": ("prometheus",),
}


def product_files() -> list[Path]:
    return sorted(path for package in PACKAGES for path in package.rglob("*.py"))


def classes() -> Iterator[tuple[str, str]]:
    """Each class of a module's own level, with the module's path."""
    for path in product_files():
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.ClassDef):
                yield node.name, path.relative_to(REPO).as_posix()


def test_the_package_has_five_modules_at_its_root() -> None:
    assert {path.stem for path in (REPO / "dims_worker").glob("*.py")} == ROOT_MODULES


def test_there_are_few_rooms() -> None:
    rooms = [path for path in (REPO / "dims_worker").iterdir() if path.is_dir() and (path / "__init__.py").exists()]
    assert 10 < len(rooms) + len(ROOT_MODULES) <= MAX_ROOMS


def test_no_class_name_means_two_things() -> None:
    places = defaultdict(list)
    for name, path in classes():
        places[name].append(path)
    assert len(places) > 200
    assert {name: found for name, found in places.items() if len(found) > 1} == {}


def test_formatting_is_never_switched_off() -> None:
    switch = "# fmt" + ":"
    files = [*product_files(), *(REPO / "tests").rglob("*.py"), *(REPO / "schema").rglob("*.py")]
    assert [str(path) for path in files if switch in path.read_text(encoding="utf-8")] == []


def test_a_path_contains_the_usual_word_of_nearly_every_behaviour() -> None:
    paths = [path.relative_to(REPO).as_posix() for path in product_files()]
    missing = [
        behaviour
        for behaviour, words in USUAL_WORDS.items()
        if not any(word in path for path in paths for word in words)
    ]
    assert len(USUAL_WORDS) == 20
    assert len(missing) <= 2, missing
