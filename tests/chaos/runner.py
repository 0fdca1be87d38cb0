"""Inject the planned faults one by one, and measure what `dims status` says and how soon the service is back."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from tests.chaos.cluster import Cluster
from tests.chaos.faults import Fault, Timing
from tests.chaos.probe import Probe
from tests.chaos.status_check import StatusAnswer, run_status


@dataclass
class FaultResult:
    """What one fault did. Times are in seconds. `recovery` is None if the service did not come back by itself."""

    name: str
    expected: str = ""
    began: float = 0.0
    lasted: float = 0.0
    status: StatusAnswer | None = None
    status_right: bool | None = None
    earlier: list[str] = field(default_factory=list)
    """The wrong answers before the last one."""
    status_after: float | None = None
    """Until `dims status` named the fault, from its beginning."""
    recovery: float | None = None
    calm: StatusAnswer | None = None
    """The last answer of `dims status` after the recovery."""
    problems: list[str] = field(default_factory=list)
    detail: str = ""
    pattern: str = ""
    logs: str = ""
    """The ends of all logs, if the service did not come back."""

    def __str__(self) -> str:
        status = ""
        if self.status:
            right = {True: f"right after {self.status_after:.0f} s", False: "WRONG", None: "not judged"}
            status = f"; status {right[self.status_right]} (exit {self.status.code}: {self.status.named(self.pattern)})"
        back = f"back after {self.recovery:.1f} s" if self.recovery is not None else "NOT BACK"
        more = f"; {self.detail}" if self.detail else ""
        more += "".join(f"\n    status before, after {text}" for text in self.earlier)
        problems = "".join(f"\n    {problem}" for problem in self.problems)
        return f"{self.name}: lasted {self.lasted:.1f} s; {back}{status}{more}{problems}"


USUAL_SECONDS = 10.0
"""How long a fault and its recovery take, about. The senders spread their events over it."""


class FaultRunner(threading.Thread):
    """Runs the plan in a thread. `results` grows with each fault. `problem` ends the run."""

    def __init__(
        self,
        cluster: Cluster,
        plan: Sequence[type[Fault]],
        rng: random.Random,
        timing: Timing,
        *,
        gap: float,
        with_status: bool,
        say: Callable[[str], None],
    ) -> None:
        super().__init__(name="fault runner", daemon=True)
        self.problem: Exception | None = None
        self.results: list[FaultResult] = []
        self.restarts = 0
        """How often the run had to restart everything."""
        self.stopped = threading.Event()
        self._cluster, self._plan, self._rng, self._timing = cluster, plan, rng, timing
        self._gap, self._with_status, self._say = gap, with_status, say
        self._last = time.monotonic()
        self._probe = Probe(cluster, self.stopped.is_set)

    @property
    def progress(self) -> float:
        """The fraction of the plan that is done. It exceeds 1 after the last fault."""
        if not self.is_alive():
            return 2.0
        within = min(1.0, (time.monotonic() - self._last) / USUAL_SECONDS)
        return (len(self.results) + within) / len(self._plan)

    def run(self) -> None:
        try:
            self._probe.measure(self._timing.patience)
            for kind in self._plan:
                if self.stopped.wait(self._rng.uniform(0, 2 * self._gap)):
                    return
                result = self._run_fault(kind(self._cluster, random.Random(self._rng.random()), self._timing))
                self.results.append(result)
                self._last = time.monotonic()
                self._say(f"{len(self.results)}/{len(self._plan)} {result}")
        except Exception as error:  # the run reports it
            self.problem = error

    def stop(self) -> None:
        self.stopped.set()
        self.join(2 * self._timing.patience)

    def _run_fault(self, fault: Fault) -> FaultResult:
        result = FaultResult(fault.name, str(fault.expected or ""), problems=fault.problems)
        result.pattern = fault.expected.pattern if fault.expected else ""
        began = time.monotonic()
        try:
            fault.inject()
            fault.during(self._probe.measure)
            if fault.holds:
                self._watch_status(fault, result, began)
        except TimeoutError as error:  # the fault could not begin: say so, and go on
            result.problems.append(str(error))
        finally:
            fault.end()
        result.lasted = time.monotonic() - began
        result.detail = fault.detail
        self._measure_recovery(result)
        return result

    def _watch_status(self, fault: Fault, result: FaultResult, began: float) -> None:
        """Hold the fault for its time. Run `dims status` until it is right, or for its patience."""
        while self._with_status:
            result.status = run_status(self._cluster)
            result.status_after = time.monotonic() - began
            if fault.expected is None:
                break
            result.status_right = result.status.meets(fault.expected)
            if result.status_right or result.status_after > self._timing.hold + self._timing.status_patience:
                break
            answer = f"exit {result.status.code}, {result.status.named()}"
            if not result.earlier or not result.earlier[-1].endswith(answer):
                result.earlier.append(f"{result.status_after:.0f} s: {answer}")
            if self.stopped.wait(0.5):
                break
        self.stopped.wait(max(0.0, began + self._timing.hold - time.monotonic()))

    def _measure_recovery(self, result: FaultResult) -> None:
        try:
            result.recovery = self._probe.measure(self._timing.patience)
        except TimeoutError as error:
            result.logs = self._cluster.ends_of_logs()
            result.problems.append(f"not back within {self._timing.patience:g} s: {error}. Everything was restarted")
            self._restart_everything()
            return
        if result.recovery > self._timing.bar:
            result.problems.append(f"back only after {result.recovery:.1f} s; the bar is {self._timing.bar:g} s")
        if self._with_status:
            self._wait_for_calm(result, time.monotonic() + self._timing.bar)

    def _wait_for_calm(self, result: FaultResult, end: float) -> None:
        """Run `dims status` until it finds no problem any more."""
        while not self.stopped.is_set():
            result.calm = run_status(self._cluster)
            if result.calm.code == 0:
                return
            if time.monotonic() > end:
                result.problems.append(
                    f"{self._timing.bar:g} s after the recovery, dims status still reports: {result.calm.named()}"
                )
                return
            self.stopped.wait(1)

    def _restart_everything(self) -> None:
        """Restart all processes of DIMS, so that the next fault is measured from a working state."""
        if self.stopped.is_set():
            return
        self.restarts += 1
        self._cluster.restart_everything()
        self._probe.measure(2 * self._timing.patience)
