"""One chaos run: start everything, inject faults, let it recover, and check the result."""

from __future__ import annotations

import os
import random
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from redis import Redis
from sqlalchemy import create_engine
from sqlalchemy.pool import NullPool

from dims_producers.spool import Spool
from dims_worker.store.migrations import migrate
from tests.chaos.checker import Checker, Delays
from tests.chaos.fault_injector import FaultInjector
from tests.chaos.stack import Program, Restarter, Server, ends_of_logs, wait_until
from tests.chaos.workload import HOSTS, LAKES, Sender, World

CHILDREN = 3
"""The child processes of each worker."""


@dataclass(frozen=True, slots=True)
class Size:
    """The number of events and kills, the average seconds between two kills, and the seconds to recover afterwards."""

    events: int
    kills: int
    gap: float
    settle: float = 90.0

    @property
    def longest(self) -> float:
        """The most seconds that the faults may take."""
        return 60 + self.kills * (self.gap + 3)


WHOLE = Size(events=5000, kills=100, gap=3.0)
SHORT = Size(events=500, kills=12, gap=1.0)


@dataclass
class Report:
    """The result of a run."""

    seed: int
    seconds: float = 0.0
    faults_seconds: float = 0.0
    settle_seconds: float = 0.0
    killed: Counter[str] = field(default_factory=Counter)
    targeted: Counter[str] = field(default_factory=Counter)
    paused: int = 0
    events: int = 0
    duplicates: int = 0
    runs: int = 0
    superseded: int = 0
    failed: int = 0
    delays: Delays | None = None
    problems: list[str] = field(default_factory=list)
    logs: str = ""

    def __str__(self) -> str:
        kinds = ", ".join(f"{kind} {number}" for kind, number in sorted(self.killed.items()))
        targeted = ", ".join(f"{number} while {what}" for what, number in sorted(self.targeted.items())) or "none"
        lines = [
            f"seed {self.seed}",
            f"kills {self.killed.total()}: {kinds} (children targeted: {targeted}); paused {self.paused}",
            f"events {self.events}, of which {self.duplicates} were sent twice",
            f"runs {self.runs}, of which {self.superseded} had lost their lease; readings that failed: {self.failed}",
            f"seconds {self.seconds:.0f}: {self.faults_seconds:.0f} with faults, {self.settle_seconds:.1f} to settle",
        ]
        if self.delays:
            lines.append(
                f"longest recovery: an event was stored after {self.delays.stored:.1f} s, "
                f"served after {self.delays.served:.1f} s"
            )
        lines += [f"PROBLEM: {problem}" for problem in self.problems]
        return "\n".join(lines + ([self.logs] if self.problems else []))


class ChaosRun:
    """One run in its own folder. It always stops every process that it started."""

    def __init__(self, folder: Path, seed: int, size: Size, say: Callable[[str], None] = lambda _: None) -> None:
        self.size, self.say = size, say
        self.report = Report(seed)
        self._folder = folder
        self._rng = random.Random(seed)
        self._database, self._broker = Server(folder, "database"), Server(folder, "broker")
        self._world = World(folder / "project")
        self._programs: list[Program] = []
        self._restarters: list[Restarter] = []

    def run(self) -> Report:
        began = time.monotonic()
        try:
            with self._running():
                self._inject_faults()
                with Redis.from_url(self._broker.url, socket_timeout=5) as redis:
                    checker = Checker(self._world, create_engine(self._database.url, poolclass=NullPool), redis)
                    self._recover(checker)
                    self._check(checker)
        except Exception as error:
            self.report.problems.append(f"{type(error).__name__}: {error}")
        finally:
            self.report.seconds = time.monotonic() - began
            self.report.logs = ends_of_logs([self._database, self._broker, *self._programs])
        return self.report

    @contextmanager
    def _running(self) -> Iterator[None]:
        """Run servers, workers and beat, each with its restarter. Stop them at the end in reverse order."""
        try:
            for server in (self._database, self._broker):
                server.start()
                self._supervise(server)
            engine = create_engine(self._database.url)
            migrate(engine)
            engine.dispose()
            self._world.make()
            for program in self._make_programs():
                self._programs.append(program)
                self._supervise(program)
            for worker in self._workers:
                wait_until(partial(_ready, worker), 60, worker.name)
            yield
        finally:
            for restarter in reversed(self._restarters):
                restarter.stop()

    @property
    def _workers(self) -> list[Program]:
        return [program for program in self._programs if program.name != "beat"]

    def _supervise(self, target: Server | Program) -> None:
        restarter = Restarter(target, random.Random(self._rng.random()), longest=1.0)
        self._restarters.append(restarter)
        restarter.start()

    def _make_programs(self) -> list[Program]:
        env = {
            **os.environ,
            "DIMS_DATABASE_URL": self._database.url,
            "DIMS_BROKER_URL": self._broker.url,
            "DIMS_HOME": str(self._folder / "home"),
            "TMPDIR": str(self._folder),  # a killed process leaves a folder behind
        }
        celery = [sys.executable, "-m", "celery", "-A", "dims_worker.tasks"]
        made = {
            f"worker-{host}": [
                *celery,
                "worker",
                "-l",
                "INFO",
                "-n",
                f"{host}@%h",
                "-Q",
                f"dims.ingest,dims.verify,{host}",
                "-c",
                str(CHILDREN),
                "--without-gossip",
                "--without-mingle",
            ]
            for host in HOSTS
        }
        made["beat"] = [*celery, "beat", "-l", "INFO", "-s", str(self._folder / "beat"), "--pidfile="]
        return [
            Program(name, command, self._world.folder, env, self._folder / f"{name}.log")
            for name, command in made.items()
        ]

    # --- faults -----------------------------------------------------------------------------------

    def _inject_faults(self) -> None:
        began = time.monotonic()
        rng = random.Random(self._rng.random())
        injector = FaultInjector(rng, self.size.kills, self.size.gap, self._database, self._broker, self._workers)
        senders = [self._sender(number, injector) for number in range(len(LAKES))]
        threads: list[FaultInjector | Sender] = [injector, *senders]
        for thread in threads:
            thread.start()
        end = began + self.size.longest
        try:
            while any(thread.is_alive() for thread in threads):
                if time.monotonic() > end:
                    raise TimeoutError(
                        f"{injector.killed.total()} kills and {len(self._world.sent)} events in {self.size.longest:g} s"
                    )
                running: tuple[FaultInjector | Sender | Restarter, ...] = (*threads, *self._restarters)
                for member in running:
                    if member.problem:
                        raise RuntimeError(f"the {member.name}: {member.problem!r}") from member.problem
                time.sleep(0.2)
        finally:
            injector.stop()
            for sender in senders:
                sender.join(10)
            self.report.paused = len(injector.paused)
            self.report.killed, self.report.targeted = injector.killed, injector.targeted
            self.report.events, self.report.duplicates = len(self._world.sent), self._world.duplicates
            self.report.faults_seconds = time.monotonic() - began
        self.say(
            f"{self.report.killed.total()} kills and {self.report.events} events in {self.report.faults_seconds:.0f} s"
        )

    def _sender(self, number: int, injector: FaultInjector) -> Sender:
        """Create one of four senders: two use a spool, two plain XADDs. Two change a host's source, too."""
        share = self.size.events // len(LAKES) + (number < self.size.events % len(LAKES))
        return Sender(
            self._world,
            self._broker.url,
            [LAKES[number], *HOSTS[number : number + 1]],
            random.Random(self._rng.random()),
            spool=Spool(self._folder / "spool" / str(number)) if number % 2 == 0 else None,
            turns=_turns(share, injector),
            stopped=injector.stopped,
        )

    # --- afterwards -----------------------------------------------------------------------------------

    def _recover(self, checker: Checker) -> None:
        """Wait until no work is left, every worker has all its children, and no process is orphaned."""
        began = time.monotonic()
        remaining: list[str] = []

        def settled() -> bool:
            remaining[:] = [*checker.unsettled(), *self._worker_problems()]
            return not remaining

        try:
            wait_until(settled, self.size.settle, "everything to settle", period=0.3)
        except TimeoutError as error:
            self.report.problems.append(f"{error}: {'; '.join(remaining)}")
        self.report.settle_seconds = time.monotonic() - began

    def _worker_problems(self) -> list[str]:
        problems = []
        for worker in self._workers:
            if (number := len(worker.children())) != CHILDREN:
                problems.append(f"{worker.name} has {number} children")
            if leftovers := worker.leftovers():
                problems.append(f"{worker.name} left processes behind: {leftovers}")
        return problems

    def _check(self, checker: Checker) -> None:
        problems = checker.problems()
        self.report.problems += problems
        self.report.runs, self.report.superseded, self.report.failed = checker.runs()
        if not problems:
            self.report.delays = checker.delays()
        self.say(f"starts: { ({restarter.target.name: restarter.starts for restarter in self._restarters}) }")


def _ready(worker: Program) -> bool:
    return worker.alive() and " ready." in worker.log_since_start()


def _turns(number: int, injector: FaultInjector) -> Iterator[None]:
    """Yield `number` turns, spread evenly over the faults."""
    for turn in range(number):
        while injector.progress < turn / number and not injector.stopped.wait(0.02):
            pass
        if injector.stopped.is_set():
            return
        yield
