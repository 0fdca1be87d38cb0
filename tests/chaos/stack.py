"""The servers and programs that the chaos test kills. A thread for each of them starts it again."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Protocol

import psutil

from dims_worker import local
from dims_worker.local.home import DataDirectory
from dims_worker.local.process import Identity, log_tail
from dims_worker.local.servers import start_servers


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


class Server:
    """A durable PostgreSQL (`database`) or Valkey (`broker`) in its own data directory, so that both start at once."""

    def __init__(self, home: Path, name: str) -> None:
        self.name = name
        self.url = ""
        self.identity: Identity | None = None
        self._home = DataDirectory(home / name)
        self.log = self._home.logs / f"{'postgres' if name == 'database' else 'valkey'}.log"

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


class Program:
    """A process that the test starts: a worker, beat or the watcher."""

    def __init__(self, name: str, command: Sequence[str], folder: Path, env: Mapping[str, str], log: Path) -> None:
        self.name, self.log = name, log
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
                self.process.wait(15)
            except subprocess.TimeoutExpired:
                self.kill(whole=True)
                self.process.wait(10)
        for pid in self.leftovers():
            send(pid, signal.SIGKILL)


class Restarter(threading.Thread):
    """Starts a target again whenever it has ended, after a short random time, until `stop` is called."""

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
                    self.target.start()
                    self.starts += 1
        except Exception as error:  # the run reports it
            self.problem = error

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


def ends_of_logs(targets: Sequence[Restartable], lines: int = 25) -> str:
    return "\n".join(f"--- end of {target.log.name}\n{log_tail(target.log, lines)}" for target in targets)
