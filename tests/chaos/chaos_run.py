"""One chaos run: start everything, inject faults one by one, let it recover, and check the result."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from dims_producers.spool import Spool
from tests.chaos.checker import Checker
from tests.chaos.cluster import Cluster
from tests.chaos.faults import FAULTS, Fault, Timing
from tests.chaos.plan import make_plan, skipped_faults
from tests.chaos.report import Report
from tests.chaos.runner import FaultRunner
from tests.chaos.stack import Restarter, wait_until
from tests.chaos.workload import HOSTS, LAKES, SCANS, ScanSeconds, Sender


@dataclass(frozen=True, slots=True)
class Size:
    """The size of a run: numbers of faults and events, and times in seconds."""

    faults: int
    """0: each fault once."""
    events: int
    gap: float
    """Between two faults, on average."""
    timing: Timing
    settle: float = 120.0
    """To recover after the last fault."""
    longest: float = 4 * 3600.0
    """The most that the faults may take."""
    isolated: bool = True
    """Whether to use what needs root: a network namespace, and small disks."""
    scans: ScanSeconds = SCANS
    with_status: bool = True
    """Whether to check `dims status` during each fault."""


WHOLE = Size(faults=300, events=5000, gap=0.5, timing=Timing())
SHORT = Size(
    faults=0,
    events=300,
    gap=0.2,
    timing=Timing(hold=4.0, status_patience=0.0, patience=120.0, bar=120.0, grace=2.0, stops=2),
    longest=900.0,
    isolated=False,
    scans=ScanSeconds(starve=4.0, long=8.0),
    with_status=False,
)


class ChaosRun:
    """One run in its own folder. It always stops every process that it started."""

    def __init__(
        self,
        folder: Path,
        seed: int,
        size: Size,
        faults: Sequence[type[Fault]] = FAULTS,
        say: Callable[[str], None] = lambda _: None,
    ) -> None:
        self.size, self.say = size, say
        self.report = Report(seed)
        self._faults = faults
        self._rng = random.Random(seed)
        self._cluster = Cluster(folder, random.Random(self._rng.random()), size.isolated, size.scans)
        self._world = self._cluster.world
        self._folder = folder

    def run(self) -> Report:
        began = time.monotonic()
        try:
            with self._cluster.running():
                self._inject_faults()
                with self._cluster.redis() as redis:
                    checker = Checker(self._world, self._cluster.engine, redis)
                    self._recover(checker)
                    self._check(checker)
        except Exception as error:
            self.report.problems.append(f"{type(error).__name__}: {error}")
        finally:
            self.report.seconds = time.monotonic() - began
            self.report.logs = self._cluster.logs
        return self.report

    # --- faults -----------------------------------------------------------------------------------

    def _inject_faults(self) -> None:
        began = time.monotonic()
        self.report.skipped = skipped_faults(self._cluster, self._faults)
        possible = [fault for fault in self._faults if fault.name not in self.report.skipped]
        plan = make_plan(random.Random(self._rng.random()), possible, self.size.faults or len(possible))
        runner = FaultRunner(
            self._cluster,
            plan,
            random.Random(self._rng.random()),
            self.size.timing,
            gap=self.size.gap,
            with_status=self.size.with_status,
            say=self.say,
        )
        senders = [self._sender(number, runner) for number in range(len(LAKES))]
        threads: list[FaultRunner | Sender] = [runner, *senders]
        for thread in threads:
            thread.start()
        try:
            self._wait_for(threads, began + self.size.longest, runner)
        finally:
            runner.stop()
            for sender in senders:
                sender.join(10)
            self.report.results, self.report.restarts = runner.results, runner.restarts
            self.report.busy_kills = dict(self._cluster.busy_kills)
            self.report.events, self.report.duplicates = len(self._world.sent), self._world.duplicates
            self.report.faults_seconds = time.monotonic() - began

    def _wait_for(self, threads: Sequence[FaultRunner | Sender], end: float, runner: FaultRunner) -> None:
        """Wait until all faults are over and all events are sent. Raise the error of a thread."""
        while any(thread.is_alive() for thread in threads):
            if time.monotonic() > end:
                raise TimeoutError(f"only {len(runner.results)} faults in {self.size.longest:g} s")
            running: tuple[FaultRunner | Sender | Restarter, ...] = (*threads, *self._cluster.restarters)
            for member in running:
                if member.problem:
                    raise RuntimeError(f"the {member.name}: {member.problem!r}") from member.problem
            time.sleep(0.2)
        if runner.problem:
            raise RuntimeError(f"the {runner.name}: {runner.problem!r}") from runner.problem

    def _sender(self, number: int, runner: FaultRunner) -> Sender:
        """Create one of four senders: two use a spool, two plain XADDs. Two change a host's source, too."""
        share = self.size.events // len(LAKES) + (number < self.size.events % len(LAKES))
        return Sender(
            self._world,
            self._cluster.broker.url,
            [LAKES[number], *HOSTS[number : number + 1]],
            random.Random(self._rng.random()),
            spool=Spool(self._folder / "spool" / str(number)) if number % 2 == 0 else None,
            turns=_turns(share, runner),
            stopped=runner.stopped,
        )

    # --- afterwards -----------------------------------------------------------------------------------

    def _recover(self, checker: Checker) -> None:
        """Wait until no work is left, every worker has all its children, and no process is orphaned."""
        began = time.monotonic()
        remaining: list[str] = []

        def settled() -> bool:
            remaining[:] = [*checker.unsettled(), *self._cluster.worker_problems()]
            return not remaining

        try:
            wait_until(settled, self.size.settle, "everything to settle", period=0.3)
        except TimeoutError as error:
            self.report.problems.append(f"{error}: {'; '.join(remaining)}")
        self.report.settle_seconds = time.monotonic() - began

    def _check(self, checker: Checker) -> None:
        problems = checker.problems()
        self.report.problems += problems
        self.report.runs, self.report.superseded, self.report.failed = checker.runs()
        quarantined = sorted(checker.quarantined())
        self.report.quarantined = len(quarantined)
        if quarantined:
            self.report.problems.append(f"metrics that crash no worker were quarantined: {', '.join(quarantined)}")
        if not problems:
            self.report.delays = checker.delays()
        self.say(f"starts: { ({restarter.target.name: restarter.starts for restarter in self._cluster.restarters}) }")


def _turns(number: int, runner: FaultRunner) -> Iterator[None]:
    """Yield `number` turns, spread evenly over the faults."""
    for turn in range(number):
        while runner.progress < turn / number and not runner.stopped.wait(0.02):
            pass
        if runner.stopped.is_set():
            return
        yield
