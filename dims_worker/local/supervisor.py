"""The foreground of `dims up`. It runs the Procfile's processes and the servers, and restarts each one that ends.

`run/processes.json` says which processes it started. After a `kill -9`, the next `dims up` or `dims down` ends them.
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from datetime import timedelta
from functools import partial
from pathlib import Path

from dims_worker.errors import DimsError, ServiceError
from dims_worker.local import postgres, process, valkey
from dims_worker.local.home import DataDirectory, read_json, write_json
from dims_worker.local.log_rotation import LogRotation
from dims_worker.local.managed_process import RUNNING, WAITING, ManagedProcess
from dims_worker.local.process import SUPERVISED_BY, Identity
from dims_worker.local.process_signs import ProcessSigns
from dims_worker.local.procfile import Backoff, parse
from dims_worker.local.server_watch import ServerStart, ServerWatch
from dims_worker.local.servers import RunningServers, start_servers, stop

TICK = 0.2
"""Seconds between two checks of the processes."""

GRACE = 20.0
"""Seconds that a process has to end after SIGTERM. A Celery worker finishes its tasks first."""

HANG_GRACE = 5.0
"""Seconds that a process that hangs has to end after SIGTERM."""

START_AGAIN = 5.0
"""At most this many seconds between two attempts to start a server, or a process that the system cannot start."""

SAVE_AGAIN = 2.0
"""Seconds between two attempts to write run/processes.json."""


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
        sweep: returns the sweep period, in which each process reports itself.
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
        sweep: Callable[[], timedelta] = lambda: timedelta(seconds=5),
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
        self._signs = ProcessSigns(lambda: self._env.get("DIMS_DATABASE_URL"), sweep)
        self._up = RunningServers(None, None)
        self._unreported = 0
        self._unsaved = False
        self._save_again = 0.0
        self._log_rotation = LogRotation(self._home.logs, self._say)
        self._problems: dict[str, str] = {}
        """What the supervisor cannot do now, by the name of the step."""

    def run(self, stop_event: threading.Event) -> None:
        """Start everything, keep it running until the event is set, then stop everything in reverse order.

        Once everything has started, no error ends this: it reports what it cannot do, and tries again.

        Raises:
            ServiceError: a server does not start at the beginning, or does not stop at the end.
            ConfigError: a variable of the Procfile is not set.
        """
        self._home.make()
        try:
            for sentence in end_orphans(self._home, self._grace):
                self._say(sentence)
            if self._watches:
                up = start_servers(self._home, database=self._database, broker=self._broker, fast=self._fast)
                self._use(up)
            for managed in self._processes:
                self._launch(managed)
            for thread in (self._signs, *(watch.probe for watch in self._watches)):
                thread.start()
            while not stop_event.wait(TICK):
                self._check()
        finally:
            self._stop()

    def _check(self) -> None:
        """Check everything once. One part that fails does not keep the others from being checked."""
        for watch in self._watches:
            self._attempt(f"watch {watch.title}", partial(self._check_server, watch))
        for managed in self._processes:
            self._attempt(f"watch {managed.name}", partial(self._check_process, managed))
        self._attempt("read the configuration", self._check_configuration)
        self._attempt("rotate the logs", partial(self._log_rotation.check, time.monotonic()))
        if self._unsaved and time.monotonic() >= self._save_again:
            self._attempt(f"write {self._home.processes_json}", self._write_state)

    def _attempt(self, step: str, action: Callable[[], None]) -> None:
        """Do one step. Report an error once, such as a full disk, and that it is over. The next check tries again."""
        try:
            action()
        except Exception as error:  # noqa: BLE001 - the supervisor survives whatever its processes survive
            problem = describe_error(error)
            if self._problems.get(step) != problem:
                self._problems[step] = problem
                self._say(f"DIMS cannot {step}: {problem}. It tries again.")
        else:
            if self._problems.pop(step, None):
                self._say(f"DIMS can {step} again.")

    def _say(self, sentence: str) -> None:
        """Report a sentence. The terminal may be closed, and the disk of a log may be full: that ends nothing."""
        try:
            self._report(sentence)
        except Exception:  # noqa: BLE001 - there is no place left where the error could be reported
            self._unreported += 1
        else:
            lost, self._unreported = self._unreported, 0
            if lost:
                self._say(f"{lost} earlier lines could not be written here.")

    def _use(self, up: RunningServers) -> None:
        """Watch these servers. If a URL has changed, restart the processes."""
        now = time.monotonic()
        for watch, server in ((self._postgres, up.postgres), (self._valkey, up.valkey)):
            if server is not None:
                watch.update(server, now)
        moved = up.urls != self._up.urls
        self._up = up
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
            self._say(f"{reason}, so DIMS restarts all processes.")
        for managed in reversed(running):
            self._attempt(f"stop {managed.name}", partial(self._stop_process, managed))
            managed.start_again(reason, time.monotonic())
        for managed in running:
            self._launch(managed)

    def _launch(self, managed: ManagedProcess) -> None:
        """Start a process. If that fails, it is tried again later. Raises ConfigError."""
        try:
            self._home.log(managed.name)  # renames a log that has grown too long
            sentence = managed.start(self._env, self._cwd, time.monotonic())
        except (ServiceError, OSError, subprocess.SubprocessError) as error:
            problem = describe_error(error)
            known = managed.state == WAITING and managed.reason == problem
            wait = managed.postpone(problem, START_AGAIN, time.monotonic())
            sentence = "" if known else f"{managed.name} does not start: {problem}. DIMS tries again in {wait:g} s."
        self._save()
        if sentence:
            self._say(sentence)

    def _check_process(self, managed: ManagedProcess) -> None:
        now = time.monotonic()
        sentence = managed.check(now, self._signs.problems)
        silent = self._signs.silent.get(managed.popen.pid) if managed.popen else None
        if silent and now - managed.began > HANG_GRACE:
            sentence = managed.end_silent(silent, HANG_GRACE, now)
        if sentence:
            self._save()
            self._say(sentence)
        if managed.state == WAITING and time.monotonic() >= managed.due:
            self._launch(managed)

    def _check_configuration(self) -> None:
        if reason := self._changed():
            self._restart_processes(reason)

    def _check_server(self, watch: ServerWatch) -> None:
        now = time.monotonic()
        if watch.starting is not None:
            if not watch.starting.is_alive():
                self._finish_start(watch, watch.starting)
        elif watch.due is not None:
            if now >= watch.due:
                self._start_server(watch, None)
        elif watch.identity is not None and not watch.identity.alive():
            watch.failures, wait = self._backoff.after(watch.failures, now - watch.began)
            watch.due = now + min(wait, START_AGAIN)
            watch.reason = f"it has ended after {now - watch.began:.0f} s"
            log = self._home.logs / f"{watch.key}.log"
            self._save()
            self._say(
                f"{watch.title} (pid {watch.identity.pid}) has ended (log: {log}). "
                f"DIMS restarts it in {min(wait, START_AGAIN):g} s."
            )
        elif watch.probe.hung and watch.probe.hung[0] == watch.identity:
            identity, watch.reason = watch.probe.hung
            watch.due = now
            self._say(f"{watch.title} (pid {identity.pid}) hangs: {watch.reason}. DIMS ends it and starts it again.")
            self._start_server(watch, identity)

    def _start_server(self, watch: ServerWatch, hung: Identity | None) -> None:
        """Start a server in a thread: it may have to recover first, and the others need to be watched meanwhile."""
        database, broker = watch is self._postgres, watch is self._valkey
        start = partial(start_servers, self._home, database=database, broker=broker, fast=self._fast)
        watch.starting = ServerStart(watch, start, self._home, hung)
        try:
            watch.starting.start()
        except RuntimeError:  # no memory for a thread
            watch.starting = None
            raise
        self._save()

    def _finish_start(self, watch: ServerWatch, start: ServerStart) -> None:
        """Watch the server that a thread has started, or try again later."""
        watch.starting = None
        if start.result is None:
            watch.failures, wait = self._backoff.after(watch.failures, 0.0)
            wait = min(wait, START_AGAIN)
            watch.due = time.monotonic() + wait
            problem = describe_error(start.error)
            if watch.problem != (first := problem.partition("\n")[0]):
                watch.problem = first
                self._say(f"{watch.title} does not start: {problem}.\nDIMS tries again in {wait:g} s.")
            return
        up = start.result
        self._use(
            RunningServers(
                up.postgres or self._up.postgres,
                up.valkey or self._up.valkey,
            )
        )
        if watch.identity is not None:
            self._say(f"{watch.title} runs again (pid {watch.identity.pid}).")

    def _stop(self) -> None:
        """End the processes, the Procfile's last one first, then the servers. An error does not stop the rest."""
        failures = []
        self._signs.stop()
        for watch in self._watches:
            watch.probe.stop()
            if watch.starting is not None:
                watch.starting.join(postgres.READY_PATIENCE)  # or it would start a server after everything has ended
        for managed in reversed(self._processes):
            try:
                self._stop_process(managed)
            except (DimsError, OSError) as error:
                failures.append(describe_error(error))
            self._save()
        try:
            if self._watches:
                for sentence in stop(self._home.path, database=self._database, broker=self._broker):
                    self._say(sentence)
            for watch in self._watches:
                watch.server = None
            self._save()
        except (DimsError, OSError) as error:
            failures.append(describe_error(error))
        if failures:
            raise ServiceError(" ".join(failures))

    def _stop_process(self, managed: ManagedProcess) -> None:
        if sentence := managed.stop(self._grace):
            self._say(sentence)

    def _save(self) -> None:
        """Write run/processes.json now, or as soon as the disk has space again."""
        self._unsaved = True
        self._attempt(f"write {self._home.processes_json}", self._write_state)

    def _write_state(self) -> None:
        """Write run/processes.json: the processes, in the order of their start."""
        self._save_again = time.monotonic() + SAVE_AGAIN
        identity = Identity.of(os.getpid())
        value = {
            "supervisor": identity.to_json() if identity else None,
            "servers": [watch.to_json() for watch in self._watches],
            "processes": [managed.to_json() for managed in self._processes],
        }
        write_json(self._home.processes_json, value)
        self._unsaved = False


def describe_error(error: BaseException | None) -> str:
    """Return an error in words, without a final full stop: `No space left on device: '/data/run/x'`."""
    if isinstance(error, OSError) and error.strerror:
        return f"{error.strerror}: {error.filename}" if error.filename else error.strerror
    return str(error).strip().rstrip(".") or type(error).__name__


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
