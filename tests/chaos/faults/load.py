"""Work that could keep everything else from being done: slow sources, a pattern without end, long scans."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable

from dims_worker.local.process import Identity
from tests.chaos.faults.base import Fault, no_problem
from tests.chaos.faults.lease_holders import lease_holders
from tests.chaos.stack import Worker, send, wait_until
from tests.chaos.workload import EVIL, GIL, HARMLESS, LONG, LONG_SCAN, STARVE, STARVING

FAST_SECONDS = 10.0
"""A fast source must be recorded within this while others are slow."""


class LoadFault(Fault):
    """Keeps workers busy, and measures how soon fast sources are recorded meanwhile."""

    def probe_fast(self, probe: Callable[[float], float], period: float) -> None:
        """Measure again and again, for `period` seconds, how soon fast sources are recorded."""
        seconds: list[float] = []
        end = time.monotonic() + period
        while time.monotonic() < end:
            try:
                seconds.append(probe(FAST_SECONDS))
            except TimeoutError as error:
                self.problems.append(f"during the fault, a fast source was slow: {error}")
                return
            self.detail = f"fast sources recorded {len(seconds)} times, within {max(seconds):.1f} s"
            time.sleep(0.3)


class Starvation(LoadFault):
    """More slow sources than all workers have children are due. Fast ones are still recorded."""

    name = "starvation: slow sources"
    expected = no_problem()

    def inject(self) -> None:
        self.send(STARVE)
        wait_until(self._is_full, 2 * self.cluster.world.seconds.starve + 60, "slow scans that run")

    def _is_full(self) -> bool:
        return any(source in STARVING for source in lease_holders(self.cluster.database.url).values())

    def during(self, probe: Callable[[float], float]) -> None:
        for _ in range(3):
            self.send(STARVE)  # due again, so that a next scan follows each
            self.probe_fast(probe, self.cluster.world.seconds.starve / 2)


class HeldGil(LoadFault):
    """A pattern takes an exponential time on a file, and a backtracking engine holds the GIL meanwhile."""

    name = "GIL: a pattern without end"
    expected = no_problem()

    def inject(self) -> None:
        self.cluster.world.write_pattern(EVIL)
        self.send(GIL)

    def during(self, probe: Callable[[float], float]) -> None:
        self.probe_fast(probe, 3)

    def end(self) -> None:
        if (self.cluster.world.folder / "pattern" / "re.txt").read_text(encoding="utf-8") != HARMLESS:
            self.cluster.world.write_pattern(HARMLESS)
            self.send(GIL)


class OperatorStops(LoadFault):
    """An operator stops the worker of a long scan again and again: SIGTERM, a grace, SIGKILL, as systemd and docker do.

    Each stop must return the claim uncounted, so that none of them brings the metric into quarantine.
    """

    name = "operator's stops during a long scan"
    holds = False

    def inject(self) -> None:
        for number in range(self.timing.stops):
            self.send(LONG_SCAN)
            wait_until(
                lambda: self._holder() is not None, 60 + 2 * self.cluster.world.seconds.long, "a long scan that runs"
            )
            if worker := self._holder():
                self._stop(worker)
                self.detail = f"{number + 1} stops"

    def _holder(self) -> Worker | None:
        """Return the worker that runs the long scan now."""
        holders = [pid for pid, source in lease_holders(self.cluster.database.url).items() if source == LONG]
        for worker in self.cluster.workers.values():
            if set(holders) & {*worker.children(), worker.main()}:
                return worker
        return None

    def _stop(self, worker: Worker) -> None:
        main = worker.main()
        identity = Identity.of(main) if main else None
        if identity is None:
            return
        identity.send(signal.SIGTERM)
        end = time.monotonic() + self.timing.grace
        while identity.alive() and time.monotonic() < end:
            time.sleep(0.1)
        if identity.alive():
            for pid in [*worker.children(), identity.pid]:
                send(pid, signal.SIGKILL)
