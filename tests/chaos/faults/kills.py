"""Processes that are killed with -9, preferably while they measure or ingest."""

from __future__ import annotations

import random
import signal
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from typing import Any

import psutil
import redis

from dims_worker.events import STREAM
from tests.chaos.cluster import SUPERVISED, Cluster
from tests.chaos.faults.base import Fault, Timing
from tests.chaos.faults.lease_holders import lease_holders
from tests.chaos.stack import Worker, send, wait_until
from tests.chaos.workload import LEASE, SLOW, SLOW_SCAN

SHARES = {"main": 25, "child": 30, "broker": 20, "database": 25}
"""Kills of each kind in a hundred."""
SEARCH = 1.5
"""Seconds to look for a busy process."""
PATIENCE = 60.0
"""Seconds within which there must be a process to kill."""
GAP = 2.0
"""Seconds between two kills of a burst, on average."""


class Kill(Fault):
    """Kills one process of a kind."""

    holds = False
    weight = 3
    kind: str

    def inject(self) -> None:
        self.kill(self.kind)

    def kill(self, kind: str) -> None:
        wait_until(partial(self._kill, kind), PATIENCE, f"a {kind} to kill")

    @property
    def _workers(self) -> list[Worker]:
        return list(self.cluster.workers.values())

    def _kill(self, kind: str) -> bool:
        """Kill one process of a kind. False if none is alive now."""
        if kind == "broker":
            return any(send(pid, signal.SIGKILL) for pid in self.cluster.broker.family())
        if kind == "database":
            return self._kill_database()
        alive = [worker for worker in self._workers if worker.main()]
        if not alive:
            return False
        if kind == "main":
            self.rng.choice(alive).kill(whole=self.rng.random() < 0.3)
            return True
        return self._kill_child([pid for worker in alive for pid in worker.children()])

    def _kill_database(self) -> bool:
        """Kill its main process, all its processes, or one of its children, which makes it restart."""
        main, *children = self.cluster.database.family() or [0]
        if not main:
            return False
        how = self.rng.random()
        if how < 0.4 and (candidates := [pid for pid in children if _may_be_killed(pid)]):
            return send(self.rng.choice(candidates), signal.SIGKILL)
        killed = send(main, signal.SIGKILL)
        if how > 0.7:
            for child in children:
                send(child, signal.SIGKILL)
        return killed

    def _kill_child(self, children: list[int]) -> bool:
        if not children:
            return False
        if self.rng.random() < 0.8:
            for activity in self.rng.sample(["measuring", "ingesting"], 2):
                victim = self._find_busy(self._measuring if activity == "measuring" else self._ingesting, children)
                if victim and send(victim, signal.SIGKILL):
                    self.cluster.busy_kills[activity] += 1
                    return True
        return send(self.rng.choice(children), signal.SIGKILL)

    def _find_busy(self, find: Callable[[Sequence[int]], int | None], children: Sequence[int]) -> int | None:
        """Look for a busy child, for a moment."""
        end = time.monotonic() + SEARCH
        while time.monotonic() < end:
            if pid := find(children):
                return pid
            time.sleep(0.03)
        return None

    def _measuring(self, children: Sequence[int]) -> int | None:
        """Return a child that holds a lease. Never twice in a row of one source, which DIMS would then quarantine."""
        for pid, source in lease_holders(self.cluster.database.url).items():
            if pid in children and source != self.cluster.last_killed:
                self.cluster.last_killed = source
                return pid
        return None

    def _ingesting(self, children: Sequence[int]) -> int | None:
        """Return a child that has read stream entries and not acknowledged them."""
        with suppress(redis.RedisError), redis.Redis.from_url(self.cluster.broker.url, socket_timeout=1) as client:
            consumers: Any = client.xinfo_consumers(STREAM, "dims")
            readers = [int(entry["name"].decode().rpartition(":")[2]) for entry in consumers if entry["pending"]]
            return next((pid for pid in readers if pid in children), None)
        return None


class KillMain(Kill):
    name = "kill: main process of a worker"
    kind = "main"


class KillChild(Kill):
    name = "kill: child of a worker"
    kind = "child"


class KillBroker(Kill):
    name = "kill: broker"
    kind = "broker"


class KillDatabase(Kill):
    name = "kill: database"
    kind = "database"


class KillBeat(Kill):
    name = "kill: beat"
    weight = 1

    def inject(self) -> None:
        wait_until(self.cluster.programs["beat"].alive, PATIENCE, "beat to kill")
        self.cluster.programs["beat"].kill()


class KillSupervisor(Kill):
    """Its processes live on. The next supervisor ends them first."""

    name = "kill: supervisor"
    weight = 1

    def inject(self) -> None:
        up = self.cluster.programs[f"up-{SUPERVISED}"]
        wait_until(up.alive, PATIENCE, "a supervisor to kill")
        up.kill()


class KillBurst(Kill):
    """Several random kills, at random times, without waiting for the service in between."""

    name = "kills: several at random"
    weight = 2
    number = 5

    def inject(self) -> None:
        kinds = self.rng.choices(list(SHARES), list(SHARES.values()), k=self.number)
        for kind in kinds:
            time.sleep(min(self.rng.expovariate(1 / GAP), 4 * GAP))
            self.kill(kind)
        self.detail = ", ".join(kinds)


class PausedScan(Kill):
    """A child pauses in the middle of a scan, until another worker has taken over. Then it continues."""

    name = "stall: a child in a scan"
    weight = 1
    paused = float(LEASE.rstrip("s")) + 1.5

    def __init__(self, cluster: Cluster, rng: random.Random, timing: Timing) -> None:
        super().__init__(cluster, rng, timing)
        self._pid: int | None = None

    def inject(self) -> None:
        self.send(SLOW_SCAN)
        children = [pid for worker in self._workers for pid in worker.children()]
        self._pid = self._find_busy(self._measuring_slow_source, children)
        if self._pid and send(self._pid, signal.SIGSTOP):
            self.detail = f"pid {self._pid}"
            time.sleep(self.paused)

    def end(self) -> None:
        if self._pid:
            send(self._pid, signal.SIGCONT)

    def _measuring_slow_source(self, children: Sequence[int]) -> int | None:
        holders = lease_holders(self.cluster.database.url)
        return next((pid for pid, source in holders.items() if pid in children and source == SLOW), None)


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
