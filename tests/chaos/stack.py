"""What is killed and comes back: two servers of the test's own, and programs; each kept by a thread of its own."""

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


def wait_until(true: Callable[[], object], seconds: float, what: str, period: float = 0.05) -> None:
    """Wait for a condition, or raise TimeoutError, which says what was waited for."""
    end = time.monotonic() + seconds
    while not true():
        if time.monotonic() > end:
            raise TimeoutError(f"waited {seconds:g} s in vain for {what}")
        time.sleep(period)


class Kept(Protocol):
    """A server or a program, as its keeper sees it."""

    name: str
    log: Path

    def start(self) -> None: ...
    def alive(self) -> bool: ...
    def stop(self) -> None: ...


class Server:
    """A PostgreSQL (`database`) or a Valkey (`broker`), honestly durable, in a home of its own: so that each is
    started while the other one is being started."""

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
        if self.url not in ("", server.url):  # its port was taken meanwhile; the programs know the old one
            raise RuntimeError(f"the {self.name} has moved to another port")
        self.url, self.identity = server.url, server.identity

    def alive(self) -> bool:
        return self.identity is not None and self.identity.alive()

    def family(self) -> list[int]:
        """The main process, and then those that it started."""
        return family(self.identity.pid) if self.identity else []

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to all of it, as when the machine stops (SIGSTOP) or goes on (SIGCONT)."""
        for pid in self.family():
            send(pid, number)

    def stop(self) -> None:
        self.signal(signal.SIGCONT)
        local.stop(self._home.path)


class Program:
    """A process that the test starts: a worker, beat, the watcher."""

    def __init__(self, name: str, command: Sequence[str], folder: Path, env: Mapping[str, str], log: Path) -> None:
        self.name, self.log = name, log
        self._command, self._folder, self._env = command, folder, env
        self._began_at = 0
        self.process: subprocess.Popen[bytes] | None = None
        self.leaders: list[int] = []
        """The pid of every process that was started: the leader of a session, and so the mark of its children."""

    def start(self) -> None:
        self._began_at = self.log.stat().st_size if self.log.exists() else 0
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
        """The processes that the main process started itself: of a worker, its pool."""
        return family(self.process.pid, recursive=False)[1:] if self.process and self.alive() else []

    def told(self) -> str:
        """What it wrote into its log since it was last started."""
        with self.log.open("rb") as file:
            file.seek(self._began_at)
            return file.read().decode("utf-8", "replace")

    def kill(self, *, whole: bool = False) -> None:
        """kill -9 of the main process; `whole`: of its children too, as when the machine loses its power."""
        if self.process and self.alive():
            (os.killpg if whole else os.kill)(self.process.pid, signal.SIGKILL)

    def leftovers(self) -> list[int]:
        """Processes of earlier starts whose main process is gone."""
        now = self.process.pid if self.process and self.alive() else None
        gone = {pid for pid in self.leaders if pid != now}
        return [pid for pid in psutil.pids() if _session(pid) in gone and Identity.of(pid)]

    def stop(self) -> None:
        """Let it end, and kill what does not."""
        if self.process and self.alive():
            self.process.terminate()
            try:
                self.process.wait(15)
            except subprocess.TimeoutExpired:
                self.kill(whole=True)
                self.process.wait(10)
        for pid in self.leftovers():
            send(pid, signal.SIGKILL)


class Keeper(threading.Thread):
    """Starts one of them again, after a short random time, whenever it has ended, until it is told to stop."""

    def __init__(self, kept: Kept, rng: random.Random, longest: float) -> None:
        super().__init__(name=f"keeper of {kept.name}", daemon=True)
        self.kept = kept
        self.starts = 0
        self.trouble: Exception | None = None
        self._rng, self._longest = rng, longest
        self._stopped = threading.Event()

    def run(self) -> None:
        try:
            while not self._stopped.wait(0.03):
                if not self.kept.alive():
                    if self.starts and self._stopped.wait(self._rng.uniform(0, self._longest)):
                        return
                    self.kept.start()
                    self.starts += 1
        except Exception as error:  # told by the judge
            self.trouble = error

    def stop(self) -> None:
        self._stopped.set()
        self.join(200)
        self.kept.stop()


def family(pid: int, *, recursive: bool = True) -> list[int]:
    """A living process, and then all that stems from it, or only its own children."""
    try:
        return [pid, *(child.pid for child in psutil.Process(pid).children(recursive=recursive))]
    except psutil.NoSuchProcess:
        return []


def send(pid: int, number: signal.Signals) -> bool:
    """Send a signal to a living process; False: there is none (or only its zombie)."""
    identity = Identity.of(pid)
    return identity is not None and identity.send(number)


def _session(pid: int) -> int | None:
    try:
        return os.getsid(pid)
    except OSError:
        return None


def ends_of_logs(kept: Sequence[Kept], lines: int = 25) -> str:
    return "\n".join(f"--- the end of {one.log.name}\n{log_tail(one.log, lines)}" for one in kept)
