"""Processes that stop without ending, for longer than a lease."""

from __future__ import annotations

import random
import signal
from typing import ClassVar

from tests.chaos.cluster import PLAIN, SUPERVISED, Cluster
from tests.chaos.faults.base import Fault, Timing, problem, warning
from tests.chaos.stack import send, wait_until


class Stall(Fault):
    """Stops processes with SIGSTOP, and continues them with SIGCONT."""

    def __init__(self, cluster: Cluster, rng: random.Random, timing: Timing) -> None:
        super().__init__(cluster, rng, timing)
        self.pids: list[int] = []

    def choose(self) -> list[int]:
        """Return the processes to stop."""
        raise NotImplementedError

    def inject(self) -> None:
        wait_until(self.choose, 60, f"processes for the fault {self.name}")
        self.pids = self.choose()
        for pid in self.pids:
            send(pid, signal.SIGSTOP)

    def end(self) -> None:
        for pid in self.pids:
            send(pid, signal.SIGCONT)
        self.pids = []


def _some(pid: int | None) -> list[int]:
    return [pid] if pid else []


class StallWorker(Stall):
    """The main process of a worker: its children work on, but get nothing to do."""

    name = "stall: worker"
    expected = problem("worker")

    def choose(self) -> list[int]:
        return _some(self.cluster.workers[f"worker-{PLAIN}"].main())


class StallIngest(Stall):
    name = "stall: ingest"
    expected = warning("ingest")

    def choose(self) -> list[int]:
        name = f"ingest-{PLAIN}"
        return _some(self.cluster.workers[name].main())


class StallChildren(Stall):
    """All children of a worker: it takes work and does none of it."""

    name = "stall: children"
    expected = problem(f"worker|{PLAIN}|due|measure")

    def choose(self) -> list[int]:
        return self.cluster.workers[f"worker-{PLAIN}"].children()


class StallBroker(Stall):
    name = "stall: broker"
    expected = problem("broker")

    def choose(self) -> list[int]:
        return self.cluster.broker.family()


class StallDatabase(Stall):
    name = "stall: database"
    expected = problem("database")

    def choose(self) -> list[int]:
        return self.cluster.database.family()


class StallBeat(Stall):
    name = "stall: beat"
    expected = problem("beat")

    def choose(self) -> list[int]:
        return _some(self.cluster.programs["beat"].main())


class StallForEver(Stall):
    """No SIGCONT comes: the watchdog of the supervisor must end the process and start it again."""

    watchdog_seconds: ClassVar[float] = 90.0
    holds = False

    def inject(self) -> None:
        super().inject()
        stopped = self.pids[0]
        try:
            wait_until(lambda: self._is_replaced(stopped), self.watchdog_seconds, "the watchdog to restart the process")
        except TimeoutError as error:
            self.problems.append(str(error))

    def _is_replaced(self, stopped: int) -> bool:
        return self.replacement() not in (None, stopped)

    def replacement(self) -> int | None:
        raise NotImplementedError


class StallWorkerForEver(StallForEver):
    name = "stall without end: supervised worker"

    def choose(self) -> list[int]:
        return _some(self.replacement())

    def replacement(self) -> int | None:
        return self.cluster.workers[f"worker-{SUPERVISED}"].main()


class StallIngestForEver(StallForEver):
    name = "stall without end: supervised ingest"

    def choose(self) -> list[int]:
        return _some(self.replacement())

    def replacement(self) -> int | None:
        return self.cluster.workers[f"ingest-{SUPERVISED}"].main()


class StallChildrenForEver(StallForEver):
    """The children stop for ever: the main process is alive, but nothing is measured."""

    name = "stall without end: children of the supervised worker"

    def choose(self) -> list[int]:
        return self.cluster.workers[f"worker-{SUPERVISED}"].children()

    def _is_replaced(self, stopped: int) -> bool:
        children = self.cluster.workers[f"worker-{SUPERVISED}"].children()
        return bool(children) and not set(children) & set(self.pids)

    def replacement(self) -> int | None:
        return None
