"""One server as its supervisor sees it. Threads test whether it answers, and start it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from dims_worker.local import postgres, valkey
from dims_worker.local.home import DataDirectory
from dims_worker.local.managed_process import RUNNING, STOPPED, WAITING
from dims_worker.local.process import Identity
from dims_worker.local.servers import RunningServers
from dims_worker.local.stall import StallDetector

PROBE_PERIOD = 2.0
"""Seconds between two tests of a server."""

Server = postgres.PostgresServer | valkey.ValkeyServer


@dataclass(slots=True)
class ServerWatch:
    """One server that the supervisor watches. Times are monotonic seconds."""

    key: str
    title: str
    server: Server | None = None
    began: float = 0.0
    due: float | None = None
    failures: int = 0
    restarts: int = -1
    reason: str | None = None
    """Why the supervisor last restarted it."""
    problem: str | None = None
    """Why it did not start. None once it runs."""
    starting: ServerStart | None = None
    probe: ServerProbe = field(init=False)

    def __post_init__(self) -> None:
        self.probe = ServerProbe(self.key, lambda: self.server if self.due is None else None)

    @property
    def identity(self) -> Identity | None:
        return self.server.identity if self.server else None

    def update(self, server: Server, now: float) -> None:
        """Note that the server runs, as this process."""
        self.due = self.problem = None
        if server.identity != self.identity:
            self.began = now
            self.restarts += 1
        self.server = server

    def to_json(self) -> dict[str, Any]:
        """Return the entry of this server in processes.json."""
        return {
            "name": self.key,
            "state": STOPPED if not self.identity else RUNNING if self.due is None else WAITING,
            "restarts": max(0, self.restarts),
            "reason": self.reason,
            **(self.identity.to_json() if self.identity else {"pid": None}),
        }


class ServerProbe(threading.Thread):
    """Tests a server every few seconds. `hung` says that it does not answer although its process lives, and why."""

    def __init__(self, key: str, current: Callable[[], Server | None]) -> None:
        super().__init__(name=f"probe of {key}", daemon=True)
        self.hung: tuple[Identity, str] | None = None
        self._current = current
        self._detector = StallDetector(PROBE_PERIOD)
        self._stopped = threading.Event()

    def run(self) -> None:
        while not self._stopped.wait(PROBE_PERIOD):
            server = self._current()
            if server is None:
                continue
            silence = self._test(server)
            reason, patience = silence or (None, 0.0)
            if self._detector.observe(time.monotonic(), reason, server.identity.started, patience):
                self.hung = (server.identity, str(reason))
            elif reason is None:
                self.hung = None

    def stop(self) -> None:
        self._stopped.set()

    @staticmethod
    def _test(server: Server) -> tuple[str, float] | None:
        """Return why the server does not answer. None if it answers, or if this process cannot test it now."""
        try:
            return postgres.silence(server) if isinstance(server, postgres.PostgresServer) else valkey.silence(server)
        except Exception:  # noqa: BLE001 - too few files or memory here say nothing about the server
            return None


class ServerStart(threading.Thread):
    """Starts a server in a thread, after ending one that hangs. Then `result` or `error` is set."""

    def __init__(
        self, watch: ServerWatch, start: Callable[[], RunningServers], home: DataDirectory, hung: Identity | None
    ) -> None:
        super().__init__(name=f"start of {watch.key}", daemon=True)
        self.result: RunningServers | None = None
        self.error: Exception | None = None
        self._is_postgres = watch.key == "postgres"
        self._again = watch.problem is not None
        self._start_server, self._home, self._hung = start, home, hung

    def run(self) -> None:
        try:
            hung = self._hung or (self._left_by_last_attempt() if self._again else None)
            if hung is not None:
                (postgres if self._is_postgres else valkey).end_silent(hung)
            self.result = self._start_server()
        except Exception as error:  # noqa: BLE001 - the supervisor reports it and tries again
            self.error = error

    def _left_by_last_attempt(self) -> Identity | None:
        """Return a server that runs, but was not ready in time. A database that still recovers keeps running."""
        if not self._is_postgres:
            return valkey.main_process(self._home)
        identity = postgres.main_process(self._home)
        return None if identity is None or postgres.recovers(identity) else identity
