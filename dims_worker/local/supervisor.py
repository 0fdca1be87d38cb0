"""The foreground of `dims up`: runs the Procfile's processes and the servers, each again when it ends.

Nothing it knows is lost with it: `run/processes.json` says whom it started, so that after a `kill -9` the
next `dims up` or `dims down` ends them.
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
from dims_worker.local.managed_process import RUNNING, WAITING, ManagedProcess
from dims_worker.local.process import MARK, Identity
from dims_worker.local.procfile import Backoff, parse
from dims_worker.local.servers import RunningServers, ServerUrls, start_servers, stop_servers

TICK = 0.2
"""Seconds between two looks at the processes."""

GRACE = 20.0
"""Seconds that a process has to end after SIGTERM: a Celery worker finishes its tasks first."""


@dataclass(slots=True)
class ServerWatch:
    """One of the servers, watched. Times are monotonic seconds."""

    key: str
    title: str
    identity: Identity | None = None
    began: float = 0.0
    due: float | None = None
    failures: int = 0
    restarts: int = -1

    def found(self, identity: Identity, now: float) -> None:
        """It runs, as this process."""
        self.due = None
        if identity != self.identity:
            self.identity, self.began = identity, now
            self.restarts += 1


class Supervisor:
    """Runs what a Procfile names, and the servers that nobody else provides, until it is told to stop.

    Args:
        home: `$DIMS_HOME`; the caller has it (`hold`).
        procfile_text: lines of `name: command`.
        env: the environment of the processes; variables of the Procfile come from it, and PATH begins with
            the folder of this Python. DIMS_HOME, and the URLs of the servers that run here, are set in it.
        cwd: the folder that the processes run in.
        say: is given one plain sentence for all that happens.
        database, broker: run a PostgreSQL, a Valkey here (False where a managed one is used).
        changed: asked again and again; where it gives a sentence, all processes are started anew.
        fast: for tests; see `start`.
        backoff, grace: the waits before a restart; the seconds that a process has to end.

    Raises:
        ConfigError: the Procfile is not valid.
    """

    def __init__(
        self,
        home: Path,
        procfile_text: str,
        env: Mapping[str, str],
        cwd: Path,
        say: Callable[[str], None],
        *,
        database: bool = True,
        broker: bool = True,
        changed: Callable[[], str | None] = lambda: None,
        fast: bool = False,
        backoff: Backoff | None = None,
        grace: float = GRACE,
    ) -> None:
        self._home = DataDirectory.at(home)
        self._cwd = cwd
        self._say = say
        self._changed = changed
        self._database, self._broker, self._fast = database, broker, fast
        self._backoff = backoff or Backoff()
        self._grace = grace
        path = os.pathsep.join(filter(None, [str(Path(sys.executable).parent), env.get("PATH", os.defpath)]))
        self._env = {**env, "PATH": path, "DIMS_HOME": str(self._home.path), MARK: str(self._home.path)}
        self._children = [
            ManagedProcess(entry, self._backoff, self._home.logs / f"{entry.name}.log")
            for entry in parse(procfile_text)
        ]
        self._postgres = ServerWatch("postgres", postgres.NAME)
        self._valkey = ServerWatch("valkey", valkey.NAME)
        self._guards = [guard for guard, wanted in ((self._postgres, database), (self._valkey, broker)) if wanted]
        self._servers = ServerUrls(None, None)

    def run(self, stop_event: threading.Event) -> None:
        """Start all, keep it running until the event is set, then stop all in reverse order.

        Raises:
            ServiceError: a server does not start at the beginning, or does not stop at the end.
            ConfigError: a variable of the Procfile is not set.
        """
        self._home.make()
        try:
            for sentence in end_orphans(self._home, self._grace):
                self._say(sentence)
            self._take(self._start_servers())
            for child in self._children:
                self._launch(child)
            while not stop_event.wait(TICK):
                self._watch_servers()
                self._watch_children()
                if why := self._changed():
                    self._restart_children(why)
        finally:
            self._stop()

    def _start_servers(self) -> RunningServers:
        if not self._guards:
            return RunningServers(None, None)
        return start_servers(self._home, database=self._database, broker=self._broker, fast=self._fast)

    def _take(self, up: RunningServers) -> None:
        """Take note of the servers; processes whose URLs have changed are started anew."""
        now = time.monotonic()
        for guard, server in ((self._postgres, up.postgres), (self._valkey, up.valkey)):
            if server is not None:
                guard.found(server.identity, now)
        moved = up.servers != self._servers
        self._servers = up.servers
        urls = {
            "DIMS_DATABASE_URL": up.servers.database_url,
            "DIMS_BROKER_URL": up.servers.broker_url,
            "DIMS_PRODUCER_URL": up.servers.producer_url,
        }
        self._env |= {name: url for name, url in urls.items() if url}
        if moved:
            self._restart_children("A server has another address now")
        self._save()

    def _restart_children(self, why: str) -> None:
        """All are stopped before the first is started: none works by what was before beside one that knows."""
        running = [child for child in self._children if child.state == RUNNING]
        if running:
            self._say(f"{why}, so all processes are started anew.")
        for child in reversed(running):
            self._tell(child.stop(self._grace))
        for child in running:
            self._launch(child)

    def _launch(self, child: ManagedProcess) -> None:
        self._home.log(child.name)  # sets a log aside that has grown too long
        now = time.monotonic()
        try:
            sentence = child.start(self._env, self._cwd, now)
        except ServiceError as error:
            child.failures, wait = self._backoff.after(child.failures, 0.0)
            child.state, child.due = WAITING, now + wait
            sentence = f"{error} It is tried again in {wait:g} s."
        self._save()
        self._say(sentence)

    def _watch_children(self) -> None:
        for child in self._children:
            sentence = child.ended(time.monotonic())
            if sentence:
                self._save()
                self._say(sentence)
            if child.state == WAITING and time.monotonic() >= child.due:
                self._launch(child)

    def _watch_servers(self) -> None:
        now = time.monotonic()
        for guard in self._guards:
            if guard.due is None and guard.identity is not None and not guard.identity.alive():
                guard.failures, wait = self._backoff.after(guard.failures, now - guard.began)
                guard.due = now + wait
                log = self._home.logs / f"{guard.key}.log"
                self._save()
                self._say(
                    f"{guard.title} (pid {guard.identity.pid}) has ended; its log is {log}; "
                    f"it is started again in {wait:g} s."
                )
        late = [guard for guard in self._guards if guard.due is not None and now >= guard.due]
        if late:
            self._restart_servers(late)

    def _restart_servers(self, late: list[ServerWatch]) -> None:
        try:
            self._take(self._start_servers())
        except ServiceError as error:
            now = time.monotonic()
            for guard in late:
                guard.failures, wait = self._backoff.after(guard.failures, 0.0)
                guard.due = now + wait
            self._say(f"{error}\nIt is tried again in {wait:g} s.")
            return
        for guard in late:
            if guard.identity is not None:
                self._say(f"{guard.title} runs again (pid {guard.identity.pid}).")

    def _stop(self) -> None:
        """End the processes, the Procfile's last one first, then the servers, whatever goes wrong."""
        failures = []
        for child in reversed(self._children):
            try:
                self._tell(child.stop(self._grace))
            except DimsError as error:
                failures.append(str(error))
            self._save()
        try:
            if self._guards:
                stopped = stop_servers(self._home, database=self._database, broker=self._broker)
                for sentence in stopped:
                    self._say(sentence)
            for guard in self._guards:
                guard.identity = None
            self._save()
        except DimsError as error:
            failures.append(str(error))
        if failures:
            raise ServiceError(" ".join(failures))

    def _tell(self, sentence: str | None) -> None:
        if sentence:
            self._say(sentence)

    def _save(self) -> None:
        """Write run/processes.json: who runs, in the order of the start."""
        guards = [
            {
                "name": guard.key,
                "state": "stopped" if not guard.identity else RUNNING if guard.due is None else WAITING,
                "restarts": max(0, guard.restarts),
                **(guard.identity.to_json() if guard.identity else {"pid": None}),
            }
            for guard in self._guards
        ]
        me = Identity.of(os.getpid())
        value = {
            "supervisor": me.to_json() if me else None,
            "servers": guards,
            "processes": [child.note() for child in self._children],
        }
        write_json(self._home.processes_json, value)


def end_orphans(home: DataDirectory, grace: float) -> list[str]:
    """End the processes of a dead supervisor, the last of its Procfile first; a sentence for each.

    The caller has the home (`hold`): with a living supervisor these are no orphans.
    """
    sentences = []
    notes = read_json(home.processes_json)
    for note in reversed(notes.get("processes", [])):
        leader = Identity.from_json(note)
        if leader is None or not process.family(leader):
            continue
        process.end_family(leader, grace)
        sentences.append(f"{note['name']} (pid {leader.pid}), left by an earlier run, was ended.")
    # One that was started in the instant before the supervisor's death is in no notes.
    for stray in process.marked(home.path):
        if stray.alive():
            process.end_family(stray, grace)
            sentences.append(f"A process (pid {stray.pid}), left by an earlier run, was ended.")
    return sentences
