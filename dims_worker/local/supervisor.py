"""The foreground of `dims up`. It runs the Procfile's processes and the servers, and restarts each one that ends.

`run/processes.json` says which processes it started. After a `kill -9`, the next `dims up` or `dims down` ends them.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from dims_worker.errors import DimsError, ServiceError
from dims_worker.local import postgres, process, valkey
from dims_worker.local.home import DataDirectory, read_json, write_json
from dims_worker.local.log_rotation import LogRotation
from dims_worker.local.managed_process import RUNNING, WAITING, ManagedProcess
from dims_worker.local.process import SUPERVISED_BY, Identity
from dims_worker.local.procfile import Backoff, parse
from dims_worker.local.servers import RunningServers, ServerUrls, start_servers, stop

TICK = 0.2
"""Seconds between two checks of the processes."""

GRACE = 20.0
"""Seconds that a process has to end after SIGTERM. A Celery worker finishes its tasks first."""


@dataclass(slots=True)
class ServerWatch:
    """One server that the supervisor watches. Times are monotonic seconds."""

    key: str
    title: str
    identity: Identity | None = None
    began: float = 0.0
    due: float | None = None
    failures: int = 0
    restarts: int = -1

    def update(self, identity: Identity, now: float) -> None:
        """Note that the server runs, as this process."""
        self.due = None
        if identity != self.identity:
            self.identity, self.began = identity, now
            self.restarts += 1


class Supervisor:
    """Runs the processes of a Procfile, and the servers that you do not provide, until it is stopped.

    Args:
        home: the data directory. The caller holds its lock (`hold_home`).
        procfile_text: lines of `name: command`.
        env: the environment of the processes, and the source of the Procfile's variables. The supervisor puts the
        folder
            of this Python first on PATH, and sets DIMS_HOME and the URLs of the servers that it runs.
        cwd: the working directory of the processes.
        report: called with one sentence for each thing that happens.
        database, broker: whether to run PostgreSQL, Valkey here. False where you use a managed one.
        changed: called at every check. If it returns a reason, the supervisor restarts all processes.
        fast: for tests, see `start`.
        backoff, grace: the waits before a restart, and the seconds that a process has to end.

    Raises:
        ConfigError: the Procfile is not valid.
    """

    def __init__(
        self,
        home: Path,
        procfile_text: str,
        env: Mapping[str, str],
        cwd: Path,
        report: Callable[[str], None],
        *,
        database: bool = True,
        broker: bool = True,
        changed: Callable[[], str | None] = lambda: None,
        fast: bool = False,
        backoff: Backoff | None = None,
        grace: float = GRACE,
    ) -> None:
        self._home = DataDirectory(home)
        self._cwd = cwd
        self._report = report
        self._changed = changed
        self._database, self._broker, self._fast = database, broker, fast
        self._backoff = backoff or Backoff()
        self._grace = grace
        path = os.pathsep.join(filter(None, [str(Path(sys.executable).parent), env.get("PATH", os.defpath)]))
        self._env = {**env, "PATH": path, "DIMS_HOME": str(self._home.path), SUPERVISED_BY: str(self._home.path)}
        self._processes = [
            ManagedProcess(entry, self._backoff, self._home.logs / f"{entry.name}.log")
            for entry in parse(procfile_text)
        ]
        self._postgres = ServerWatch("postgres", postgres.NAME)
        self._valkey = ServerWatch("valkey", valkey.NAME)
        self._watches = [watch for watch, wanted in ((self._postgres, database), (self._valkey, broker)) if wanted]
        self._urls = ServerUrls(None, None)
        self._log_rotation = LogRotation(self._home.logs, report)

    def run(self, stop_event: threading.Event) -> None:
        """Start everything, keep it running until the event is set, then stop everything in reverse order.

        Raises:
            ServiceError: a server does not start at the beginning, or does not stop at the end.
            ConfigError: a variable of the Procfile is not set.
        """
        self._home.make()
        try:
            for sentence in end_orphans(self._home, self._grace):
                self._report(sentence)
            self._use(self._start_servers())
            for managed in self._processes:
                self._launch(managed)
            while not stop_event.wait(TICK):
                self._check_servers()
                self._check_processes()
                self._log_rotation.check(time.monotonic())
                if reason := self._changed():
                    self._restart_processes(reason)
        finally:
            self._stop()

    def _start_servers(self) -> RunningServers:
        if not self._watches:
            return RunningServers(None, None)
        return start_servers(self._home, database=self._database, broker=self._broker, fast=self._fast)

    def _use(self, up: RunningServers) -> None:
        """Watch these servers. If a URL has changed, restart the processes."""
        now = time.monotonic()
        for watch, server in ((self._postgres, up.postgres), (self._valkey, up.valkey)):
            if server is not None:
                watch.update(server.identity, now)
        moved = up.urls != self._urls
        self._urls = up.urls
        urls = {
            "DIMS_DATABASE_URL": up.urls.database_url,
            "DIMS_BROKER_URL": up.urls.broker_url,
            "DIMS_PRODUCER_URL": up.urls.producer_url,
        }
        self._env |= {name: url for name, url in urls.items() if url}
        if moved:
            self._restart_processes("A server has a new address")
        self._save()

    def _restart_processes(self, reason: str) -> None:
        """Stop all processes before the first one starts, so that none with the old settings runs beside a new one."""
        running = [managed for managed in self._processes if managed.state == RUNNING]
        if running:
            self._report(f"{reason}, so DIMS restarts all processes.")
        for managed in reversed(running):
            self._stop_process(managed)
        for managed in running:
            self._launch(managed)

    def _launch(self, managed: ManagedProcess) -> None:
        self._home.log(managed.name)  # renames a log that has grown too long
        now = time.monotonic()
        try:
            sentence = managed.start(self._env, self._cwd, now)
        except ServiceError as error:
            managed.failures, wait = self._backoff.after(managed.failures, 0.0)
            managed.state, managed.due = WAITING, now + wait
            sentence = f"{error} DIMS tries again in {wait:g} s."
        self._save()
        self._report(sentence)

    def _check_processes(self) -> None:
        for managed in self._processes:
            if sentence := managed.check(time.monotonic()):
                self._save()
                self._report(sentence)
            if managed.state == WAITING and time.monotonic() >= managed.due:
                self._launch(managed)

    def _check_servers(self) -> None:
        now = time.monotonic()
        for watch in self._watches:
            if watch.due is None and watch.identity is not None and not watch.identity.alive():
                watch.failures, wait = self._backoff.after(watch.failures, now - watch.began)
                watch.due = now + wait
                log = self._home.logs / f"{watch.key}.log"
                self._save()
                self._report(
                    f"{watch.title} (pid {watch.identity.pid}) has ended (log: {log}). DIMS restarts it in {wait:g} s."
                )
        due = [watch for watch in self._watches if watch.due is not None and now >= watch.due]
        if due:
            self._restart_servers(due)

    def _restart_servers(self, due: list[ServerWatch]) -> None:
        try:
            self._use(self._start_servers())
        except ServiceError as error:
            now = time.monotonic()
            for watch in due:
                watch.failures, wait = self._backoff.after(watch.failures, 0.0)
                watch.due = now + wait
            self._report(f"{error}\nDIMS tries again in {wait:g} s.")
            return
        for watch in due:
            if watch.identity is not None:
                self._report(f"{watch.title} runs again (pid {watch.identity.pid}).")

    def _stop(self) -> None:
        """End the processes, the Procfile's last one first, then the servers. An error does not stop the rest."""
        failures = []
        for managed in reversed(self._processes):
            try:
                self._stop_process(managed)
            except DimsError as error:
                failures.append(str(error))
            self._save()
        try:
            if self._watches:
                for sentence in stop(self._home.path, database=self._database, broker=self._broker):
                    self._report(sentence)
            for watch in self._watches:
                watch.identity = None
            self._save()
        except DimsError as error:
            failures.append(str(error))
        if failures:
            raise ServiceError(" ".join(failures))

    def _stop_process(self, managed: ManagedProcess) -> None:
        if sentence := managed.stop(self._grace):
            self._report(sentence)

    def _save(self) -> None:
        """Write run/processes.json: the processes, in the order of their start."""
        servers = [
            {
                "name": watch.key,
                "state": "stopped" if not watch.identity else RUNNING if watch.due is None else WAITING,
                "restarts": max(0, watch.restarts),
                **(watch.identity.to_json() if watch.identity else {"pid": None}),
            }
            for watch in self._watches
        ]
        identity = Identity.of(os.getpid())
        value = {
            "supervisor": identity.to_json() if identity else None,
            "servers": servers,
            "processes": [managed.to_json() for managed in self._processes],
        }
        write_json(self._home.processes_json, value)


def end_orphans(home: DataDirectory, grace: float) -> list[str]:
    """End the processes of a dead supervisor, the Procfile's last one first. Return a sentence for each.

    The caller holds the lock of the data directory. Otherwise a living supervisor may own these processes.
    """
    sentences = []
    for entry in reversed(read_json(home.processes_json).get("processes", [])):
        leader = Identity.from_json(entry)
        if leader is None or not process.family(leader):
            continue
        process.end_family(leader, grace)
        sentences.append(f"{entry['name']} (pid {leader.pid}) was left by an earlier run and has been ended.")
    # The file lacks a process that was started in the instant before the supervisor died.
    for orphan in process.supervised(home.path):
        if orphan.alive():
            process.end_family(orphan, grace)
            sentences.append(f"A process (pid {orphan.pid}) was left by an earlier run and has been ended.")
    return sentences
