"""Fixtures for the producers' unit tests: a spool, a fake broker and git repositories."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import fakeredis
import pytest

from dims_producers.spool import Spool
from dims_worker.events import STREAM, Event

Git = Callable[..., str]


@pytest.fixture(autouse=True)
def _git_without_a_user(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith(("GIT_", "DIMS_"))]:
        monkeypatch.delenv(name)
    identity = {"NAME": "Ada Test", "EMAIL": "ada@example.org"}
    for key, value in identity.items():
        monkeypatch.setenv(f"GIT_AUTHOR_{key}", value)
        monkeypatch.setenv(f"GIT_COMMITTER_{key}", value)
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", "/dev/null")
    monkeypatch.setenv("GIT_CONFIG_NOSYSTEM", "1")
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[3]))


@pytest.fixture
def home(tmp_path: Path) -> Path:
    folder = tmp_path / "home of 'dims'" / ".dims"
    folder.mkdir(parents=True)
    return folder


@pytest.fixture
def spool(home: Path) -> Spool:
    return Spool(home / "spool")


@pytest.fixture
def git() -> Git:
    def run(repo: Path, *args: str) -> str:
        done = subprocess.run(["git", "-C", str(repo), *args], capture_output=True, check=True)
        return os.fsdecode(done.stdout).removesuffix("\n")

    return run


@pytest.fixture
def repo(tmp_path: Path, git: Git) -> Path:
    folder = tmp_path / 'a repo\'s "top"'
    folder.mkdir()
    git(folder, "init", "-q", "-b", "main")
    return folder


@pytest.fixture
def watched(spool: Spool) -> Spool:
    """A spool whose watcher seems to be alive: it is this process."""
    spool.make()
    (spool.folder / "watcher.pid").write_text(f"{os.getpid()}\n")
    return spool


def commit(git: Git, repo: Path, name: str = "a", *options: str) -> str:
    """Write a file, commit everything, and return the commit."""
    (repo / name).write_text(str(time.time_ns()))
    git(repo, "add", "-A")
    git(repo, "commit", "-q", "-m", name, *options)
    return git(repo, "rev-parse", "HEAD")


ABOUT_COMMITS = ("dims.git.commit", "dims.git.merge", "dims.git.rewrite")


def sent(spool: Spool) -> list[Event]:
    """Return all events that the hooks have reported since the last call."""
    events: list[Event] = []
    spool.flush(events.extend)
    assert len(spool) == 0 and not spool.bad.exists()
    return events


def about_commits(spool: Spool) -> list[Event]:
    """Return the events of commits, merges and rewrites since the last call."""
    return [event for event in sent(spool) if event.type in ABOUT_COMMITS]


def reported(spool: Spool) -> list[tuple[str, str, list[str]]]:
    """Return which commits, merges and rewrites the hooks have reported since the last call: kind, commit, paths."""
    events = about_commits(spool)
    return [(event.type.removeprefix("dims.git."), event.data["commit"], event.data["paths"]) for event in events]


class FakeBroker:
    """A broker inside this process. `events()` returns what was published."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.server = fakeredis.FakeServer()
        self.url = "redis://:secret@broker.test:6390/0"
        self.trips = 0
        self.client = fakeredis.FakeRedis(server=self.server)

        def connect(url: str, timeout: float) -> fakeredis.FakeRedis:
            self.trips += 1
            return fakeredis.FakeRedis(server=self.server)

        monkeypatch.setattr("dims_producers.publish.connect", connect)

    def set_unreachable(self, is_unreachable: bool = True) -> None:
        self.server.connected = not is_unreachable

    def events(self) -> list[Event]:
        return [Event.from_json(fields[b"event"]) for _, fields in self.client.xrange(STREAM)]


@pytest.fixture
def broker(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeBroker]:
    fake = FakeBroker(monkeypatch)
    yield fake
    fake.client.close()
