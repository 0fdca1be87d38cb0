"""The servers and programs that the chaos test kills. A thread for each of them starts it again."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol
from unittest.mock import patch

import psutil

from dims_worker import local
from dims_worker.errors import ServiceError
from dims_worker.local import postgres, valkey
from dims_worker.local.home import DataDirectory, read_json
from dims_worker.local.process import Identity, log_tail
from dims_worker.local.servers import start_servers

PATIENCE = 90.0
"""Seconds for which a restarter tries to start its target."""


def wait_until(condition: Callable[[], object], seconds: float, what: str, period: float = 0.05) -> None:
    """Wait for a condition, or raise TimeoutError that names it."""
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            raise TimeoutError(f"waited {seconds:g} s for {what}")
        time.sleep(period)


class Restartable(Protocol):
    """A server or a program that a `Restarter` starts again."""

    name: str
    log: Path

    def start(self) -> None: ...
    def alive(self) -> bool: ...
    def stop(self) -> None: ...


@dataclass(frozen=True, slots=True)
class ServerOptions:
    """What differs from a server of `dims up`."""

    settings: Mapping[str, str]
    """Settings of PostgreSQL."""
    lines: str
    """Lines for the configuration of Valkey."""

    @contextmanager
    def applied(self) -> Iterator[None]:
        with (
            patch.dict(postgres.SETTINGS, self.settings),
            patch.object(valkey, "CONFIGURATION", valkey.CONFIGURATION + self.lines),
        ):
            yield


class Server:
    """A durable PostgreSQL (`database`) or Valkey (`broker`) in its own data directory, so that both start at once."""

    def __init__(self, home: Path, name: str) -> None:
        self.name = name
        self.url = ""
        self.identity: Identity | None = None
        self._home = DataDirectory(home / name)
        self.log = self._home.logs / f"{'postgres' if name == 'database' else 'valkey'}.log"
        self.folder = self._home.pg if name == "database" else self._home.valkey
        """Where its data is."""

    def start(self) -> None:
        up = start_servers(self._home, database=self.name == "database", broker=self.name == "broker")
        server = up.postgres or up.valkey
        assert server is not None
        if self.url not in ("", server.url):  # another process took its port, and the programs know only the old one
            raise RuntimeError(f"the {self.name} moved to another port")
        self.url, self.identity = server.url, server.identity

    def alive(self) -> bool:
        return self.identity is not None and self.identity.alive()

    def family(self) -> list[int]:
        """Return the pid of the main process, then of the processes that it started."""
        return family(self.identity.pid) if self.identity else []

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to all its processes, as if the computer stops (SIGSTOP) or continues (SIGCONT)."""
        for pid in self.family():
            send(pid, number)

    def stop(self) -> None:
        self.signal(signal.SIGCONT)
        local.stop(self._home.path)


class Worker(Protocol):
    """A Celery worker, of either host."""

    name: str
    log: Path

    def main(self) -> int | None: ...
    def children(self) -> list[int]: ...
    def kill(self, *, whole: bool = False) -> None: ...


class Program:
    """A process that the test starts: a worker, beat, the watcher or `dims up`."""

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        folder: Path,
        env: Mapping[str, str],
        log: Path,
        *,
        grace: float = 15.0,
    ) -> None:
        self.name, self.log, self._grace = name, log, grace
        self._command, self._folder, self._env = command, folder, env
        self._log_start = 0
        self.process: subprocess.Popen[bytes] | None = None
        self.leaders: list[int] = []
        """The pid of every process that was started. Each leads a session, which identifies its children."""

    def start(self) -> None:
        self._log_start = self.log.stat().st_size if self.log.exists() else 0
        with self.log.open("ab") as output:
            self.process = subprocess.Popen(
                self._command,
                cwd=self._folder,
                env=dict(self._env),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        self.leaders.append(self.process.pid)

    def alive(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def main(self) -> int | None:
        """Return the pid of the main process, or None if it does not run."""
        return self.process.pid if self.process and self.alive() else None

    def children(self) -> list[int]:
        """Return the direct children of the main process: the pool of a worker."""
        return family(self.process.pid, recursive=False)[1:] if self.process and self.alive() else []

    def log_since_start(self) -> str:
        """Return what it has written to its log since its last start."""
        with self.log.open("rb") as file:
            file.seek(self._log_start)
            return file.read().decode("utf-8", "replace")

    def kill(self, *, whole: bool = False) -> None:
        """Kill the main process with -9. `whole`: kill its children too, as in a power failure."""
        if self.process and self.alive():
            (os.killpg if whole else os.kill)(self.process.pid, signal.SIGKILL)

    def leftovers(self) -> list[int]:
        """Return the processes of earlier starts whose main process is gone."""
        now = self.process.pid if self.process and self.alive() else None
        gone = {pid for pid in self.leaders if pid != now}
        return [pid for pid in psutil.pids() if _session(pid) in gone and Identity.of(pid)]

    def stop(self) -> None:
        """Stop it gracefully, and kill what remains."""
        if self.process and self.alive():
            self.process.terminate()
            try:
                self.process.wait(self._grace)
            except subprocess.TimeoutExpired:
                self.kill(whole=True)
                self.process.wait(10)
        for pid in self.leftovers():
            send(pid, signal.SIGKILL)


class SupervisedWorker:
    """A worker that `dims up` starts and starts again."""

    def __init__(self, name: str, process: str, home: Path) -> None:
        self.name = name
        self._process, self._file = process, DataDirectory(home).processes_json
        self.log = DataDirectory(home).logs / f"{process}.log"

    def main(self) -> int | None:
        entries = read_json(self._file).get("processes", [])
        identity = next((Identity.from_json(entry) for entry in entries if entry["name"] == self._process), None)
        return identity.pid if identity and identity.alive() else None

    def children(self) -> list[int]:
        return family(pid, recursive=False)[1:] if (pid := self.main()) else []

    def kill(self, *, whole: bool = False) -> None:
        if pid := self.main():
            for member in family(pid) if whole else [pid]:
                send(member, signal.SIGKILL)


class Restarter(threading.Thread):
    """Starts a target again whenever it has ended, after a short random time, until `stop` is called.

    A server that does not start, because its disk is full for example, is tried again for `PATIENCE` seconds.
    """

    def __init__(self, target: Restartable, rng: random.Random, longest: float) -> None:
        super().__init__(name=f"restarter of {target.name}", daemon=True)
        self.target = target
        self.starts = 0
        self.problem: Exception | None = None
        self._rng, self._longest = rng, longest
        self._stopped = threading.Event()

    def run(self) -> None:
        try:
            while not self._stopped.wait(0.03):
                if not self.target.alive():
                    if self.starts and self._stopped.wait(self._rng.uniform(0, self._longest)):
                        return
                    self._start()
                    self.starts += 1
        except Exception as error:  # the run reports it
            self.problem = error

    def _start(self) -> None:
        end = time.monotonic() + PATIENCE
        while True:
            try:
                self.target.start()
                return
            except (ServiceError, OSError):
                if time.monotonic() > end or self._stopped.wait(0.5):
                    raise

    def stop(self) -> None:
        self._stopped.set()
        self.join(200)
        self.target.stop()


def family(pid: int, *, recursive: bool = True) -> list[int]:
    """Return the pid of a living process, then of all its descendants, or only of its children."""
    try:
        return [pid, *(child.pid for child in psutil.Process(pid).children(recursive=recursive))]
    except psutil.NoSuchProcess:
        return []


def send(pid: int, number: signal.Signals) -> bool:
    """Send a signal to a living process. False if it is gone or a zombie."""
    identity = Identity.of(pid)
    return identity is not None and identity.send(number)


def _session(pid: int) -> int | None:
    try:
        return os.getsid(pid)
    except OSError:
        return None


def ends_of_logs(logs: Sequence[Path], lines: int = 25) -> str:
    return "\n".join(f"--- end of {log}\n{log_tail(log, lines)}" for log in logs)
