"""Kill processes at random times, preferably while they measure or ingest.

Now and then, pause one for longer than its lease, so that it continues after another worker has taken over.
"""

from __future__ import annotations

import random
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing, suppress
from functools import partial
from typing import Any

import psutil
import psycopg2
import redis

from dims_worker.events import STREAM
from tests.chaos.stack import Program, Server, send, wait_until
from tests.chaos.workload import SLOW

SHARES = {"main": 25, "child": 30, "broker": 20, "database": 25}
"""Kills of each kind in a hundred."""
PAUSE = 4.5
"""Seconds: longer than a lease (`workload.LEASE`), and longer than the `orphan` setting."""
SEARCH = 1.5
"""Seconds to look for a busy process."""
PATIENCE = 60.0
"""Seconds within which there must be a process to kill."""


class FaultInjector(threading.Thread):
    """Kills a number of times, with random pauses of `gap` seconds on average."""

    def __init__(
        self, rng: random.Random, kills: int, gap: float, database: Server, broker: Server, workers: Sequence[Program]
    ) -> None:
        super().__init__(name="fault injector", daemon=True)
        self.problem: Exception | None = None
        self.killed: Counter[str] = Counter()
        self.targeted: Counter[str] = Counter()
        """Children that were killed while they held a lease, or unacknowledged stream entries."""
        self.paused: dict[int, threading.Timer] = {}
        self.stopped = threading.Event()
        self._rng, self._gap = rng, gap
        self._database, self._broker, self._workers = database, broker, workers
        self._plan = [kind for kind, share in SHARES.items() for _ in range(max(1, kills * share // 100))]
        self._plan += rng.choices(list(SHARES), list(SHARES.values()), k=max(0, kills - len(self._plan)))
        rng.shuffle(self._plan)
        self._last = time.monotonic()
        self._last_source = ""

    @property
    def progress(self) -> float:
        """The fraction of the kills that are done. It exceeds 1 after the last kill."""
        between = min(1.0, (time.monotonic() - self._last) / self._gap)
        return (self.killed.total() + between) / len(self._plan)

    def run(self) -> None:
        try:
            for kind in self._plan:
                if self.stopped.wait(min(self._rng.expovariate(1 / self._gap), 4 * self._gap)):
                    return
                wait_until(partial(self._try_kill, kind), PATIENCE, f"a {kind} to kill")
                self.killed[kind] += 1
                self._last = time.monotonic()
                if self._rng.random() < 0.15:
                    self._pause()
        except Exception as error:  # the run reports it
            self.problem = error

    def stop(self) -> None:
        self.stopped.set()
        self.join(PATIENCE)
        for pid, resume in self.paused.items():
            resume.cancel()
            send(pid, signal.SIGCONT)

    def _try_kill(self, kind: str) -> bool:
        return self.stopped.is_set() or self._kill(kind)

    def _kill(self, kind: str) -> bool:
        """Kill one process of a kind. False if none is alive now."""
        if kind == "broker":
            return any(send(pid, signal.SIGKILL) for pid in self._broker.family())
        if kind == "database":
            return self._kill_database()
        alive = [worker for worker in self._workers if worker.alive()]
        if not alive:
            return False
        if kind == "main":
            self._rng.choice(alive).kill(whole=self._rng.random() < 0.3)
            return True
        return self._kill_child([pid for worker in alive for pid in worker.children()])

    def _kill_database(self) -> bool:
        """Kill its main process, all its processes, or one of its children, which makes it restart."""
        main, *children = self._database.family() or [0]
        if not main:
            return False
        how = self._rng.random()
        if how < 0.4 and (candidates := [pid for pid in children if _may_be_killed(pid)]):
            return send(self._rng.choice(candidates), signal.SIGKILL)
        killed = send(main, signal.SIGKILL)
        if how > 0.7:
            for child in children:
                send(child, signal.SIGKILL)
        return killed

    def _kill_child(self, children: list[int]) -> bool:
        if not children:
            return False
        if self._rng.random() < 0.8:
            for activity in self._rng.sample(["measuring", "ingesting"], 2):
                victim = self._find_busy(self._measuring if activity == "measuring" else self._ingesting, children)
                if victim and send(victim, signal.SIGKILL):
                    self.targeted[activity] += 1
                    return True
        return send(self._rng.choice(children), signal.SIGKILL)

    def _pause(self) -> None:
        """Pause a child that measures the slow source, until another worker has measured that source."""
        pid = self._find_busy(
            self._measuring_slow_source, [pid for worker in self._workers for pid in worker.children()]
        )
        if pid and pid not in self.paused and send(pid, signal.SIGSTOP):
            self.paused[pid] = threading.Timer(PAUSE, send, (pid, signal.SIGCONT))
            self.paused[pid].start()

    def _find_busy(self, find: Callable[[Sequence[int]], int | None], children: Sequence[int]) -> int | None:
        """Look for a busy child, for a moment."""
        end = time.monotonic() + SEARCH
        while time.monotonic() < end and not self.stopped.is_set():
            if pid := find(children):
                return pid
            time.sleep(0.03)
        return None

    def _measuring(self, children: Sequence[int]) -> int | None:
        """Return a child that holds a lease. Never twice in a row of one source, which DIMS would then quarantine."""
        for pid, source in self._holders().items():
            if pid in children and source != self._last_source:
                self._last_source = source
                return pid
        return None

    def _measuring_slow_source(self, children: Sequence[int]) -> int | None:
        return next((pid for pid, source in self._holders().items() if pid in children and source == SLOW), None)

    def _ingesting(self, children: Sequence[int]) -> int | None:
        """Return a child that has read stream entries and not acknowledged them."""
        with suppress(redis.RedisError), redis.Redis.from_url(self._broker.url, socket_timeout=1) as client:
            consumers: Any = client.xinfo_consumers(STREAM, "dims")
            readers = [int(entry["name"].decode().rpartition(":")[2]) for entry in consumers if entry["pending"]]
            return next((pid for pid in readers if pid in children), None)
        return None

    def _holders(self) -> Mapping[int, str]:
        """Return the pid of each lease holder, and the source of its lease."""
        url = self._database.url.replace("+psycopg2", "")  # the form of libpq
        with (
            suppress(psycopg2.Error),
            closing(psycopg2.connect(url, connect_timeout=2, options="-c statement_timeout=1000")) as connection,
            connection.cursor() as cursor,
        ):
            cursor.execute("SELECT lease_holder, source FROM dims_sources WHERE lease_until > clock_timestamp()")
            return {int(holder.rpartition(":")[2]): source for holder, source in cursor.fetchall()}
        return {}


def _may_be_killed(pid: int) -> bool:
    """Return whether PostgreSQL survives the death of this child. Version 18.4 does not survive the death of its
    startup process just after a crash: its main process says "in recovery mode" for ever."""
    try:
        title = " ".join(psutil.Process(pid).cmdline())
    except psutil.Error:
        return False
    return (
        title.startswith("postgres: ") and "startup" not in title
    )  # a process without a title may become the startup process
