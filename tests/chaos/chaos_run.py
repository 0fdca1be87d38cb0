"""The fire: everything is started, set on fire, given time to recover, and judged."""

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
from tests.chaos.checker import Judge, Waits
from tests.chaos.fault_injector import Arsonist
from tests.chaos.stack import Keeper, Program, Server, ends_of_logs, wait_until
from tests.chaos.workload import HOSTS, LAKES, Sender, World

CHILDREN = 3
"""Children of each worker."""


@dataclass(frozen=True, slots=True)
class Size:
    """So many events and kills, `gap` seconds between two kills on average; then `settle` seconds to recover."""

    events: int
    kills: int
    gap: float
    settle: float = 90.0

    @property
    def longest(self) -> float:
        """Seconds after which it has been going on for too long."""
        return 60 + self.kills * (self.gap + 3)


WHOLE = Size(events=5000, kills=100, gap=3.0)
SHORT = Size(events=500, kills=12, gap=1.0)


@dataclass
class Report:
    """What happened."""

    seed: int
    seconds: float = 0.0
    burnt: float = 0.0
    settled: float = 0.0
    killed: Counter[str] = field(default_factory=Counter)
    aimed: Counter[str] = field(default_factory=Counter)
    frozen: int = 0
    events: int = 0
    again: int = 0
    runs: int = 0
    superseded: int = 0
    failed: int = 0
    waits: Waits | None = None
    problems: list[str] = field(default_factory=list)
    logs: str = ""

    def __str__(self) -> str:
        kinds = ", ".join(f"{kind} {number}" for kind, number in sorted(self.killed.items()))
        aimed = ", ".join(f"{number} while {what}" for what, number in sorted(self.aimed.items())) or "none"
        lines = [
            f"seed {self.seed}",
            f"kills {self.killed.total()}: {kinds} (children aimed at: {aimed}); frozen for a while {self.frozen}",
            f"events {self.events}, of which {self.again} were sent twice on purpose",
            f"runs {self.runs}, of which {self.superseded} had lost their lease; readings that failed: {self.failed}",
            f"seconds {self.seconds:.0f}: {self.burnt:.0f} under fire, then {self.settled:.1f} until all was settled",
        ]
        if self.waits:
            lines.append(
                f"longest recovery: an event was stored after {self.waits.stored:.1f} s, "
                f"served after {self.waits.served:.1f} s"
            )
        lines += [f"PROBLEM: {problem}" for problem in self.problems]
        return "\n".join(lines + ([self.logs] if self.problems else []))


class Fire:
    """One fire in a folder of its own. What runs of it is ended with it, whatever happens."""

    def __init__(self, folder: Path, seed: int, size: Size, say: Callable[[str], None] = lambda _: None) -> None:
        self.size, self.say = size, say
        self.report = Report(seed)
        self._folder = folder
        self._rng = random.Random(seed)
        self._database, self._broker = Server(folder, "database"), Server(folder, "broker")
        self._world = World(folder / "project")
        self._programs: list[Program] = []
        self._keepers: list[Keeper] = []

    def run(self) -> Report:
        began = time.monotonic()
        try:
            with self._running():
                self._burn()
                with Redis.from_url(self._broker.url, socket_timeout=5) as redis:
                    judge = Judge(self._world, create_engine(self._database.url, poolclass=NullPool), redis)
                    self._recover(judge)
                    self._sum_up(judge)
        except Exception as error:
            self.report.problems.append(f"{type(error).__name__}: {error}")
        finally:
            self.report.seconds = time.monotonic() - began
            self.report.logs = ends_of_logs([self._database, self._broker, *self._programs])
        return self.report

    @contextmanager
    def _running(self) -> Iterator[None]:
        """Servers, workers and beat, each with its keeper; in the end all are stopped, the last one first."""
        try:
            for server in (self._database, self._broker):
                server.start()
                self._keep(server)
            engine = create_engine(self._database.url)
            migrate(engine)
            engine.dispose()
            self._world.make()
            for program in self._make_programs():
                self._programs.append(program)
                self._keep(program)
            for worker in self._workers:
                wait_until(partial(_ready, worker), 60, worker.name)
            yield
        finally:
            for keeper in reversed(self._keepers):
                keeper.stop()

    @property
    def _workers(self) -> list[Program]:
        return [program for program in self._programs if program.name != "beat"]

    def _keep(self, kept: Server | Program) -> None:
        keeper = Keeper(kept, random.Random(self._rng.random()), longest=1.0)
        self._keepers.append(keeper)
        keeper.start()

    def _make_programs(self) -> list[Program]:
        env = {
            **os.environ,
            "DIMS_DATABASE_URL": self._database.url,
            "DIMS_BROKER_URL": self._broker.url,
            "DIMS_HOME": str(self._folder / "home"),
            "TMPDIR": str(self._folder),  # who is killed leaves a folder behind
        }
        celery = [sys.executable, "-m", "celery", "-A", "dims_worker.tasks"]
        made = {
            f"worker-{host}": [
                *(*celery, "worker", "-l", "INFO", "-n", f"{host}@%h", "-Q", f"dims.ingest,dims.verify,{host}"),
                *("-c", str(CHILDREN), "--without-gossip", "--without-mingle"),
            ]
            for host in HOSTS
        }
        made["beat"] = [*celery, "beat", "-l", "INFO", "-s", str(self._folder / "beat"), "--pidfile="]
        return [
            Program(name, command, self._world.folder, env, self._folder / f"{name}.log")
            for name, command in made.items()
        ]

    # --- under fire -----------------------------------------------------------------------------------

    def _burn(self) -> None:
        began = time.monotonic()
        rng = random.Random(self._rng.random())
        arsonist = Arsonist(rng, self.size.kills, self.size.gap, self._database, self._broker, self._workers)
        senders = [self._sender(number, arsonist) for number in range(len(LAKES))]
        threads: list[Arsonist | Sender] = [arsonist, *senders]
        for thread in threads:
            thread.start()
        end = began + self.size.longest
        try:
            while any(thread.is_alive() for thread in threads):
                if time.monotonic() > end:
                    raise TimeoutError(
                        f"{arsonist.killed.total()} kills and {len(self._world.told)} events in {self.size.longest:g} s"
                    )
                for one in (*threads, *self._keepers):
                    if one.trouble:
                        raise RuntimeError(f"the {one.name}: {one.trouble!r}") from one.trouble
                time.sleep(0.2)
        finally:
            arsonist.stop()
            for sender in senders:
                sender.join(10)
            self.report.frozen = len(arsonist.frozen)
            self.report.killed, self.report.aimed = arsonist.killed, arsonist.aimed
            self.report.events, self.report.again = len(self._world.told), self._world.again
            self.report.burnt = time.monotonic() - began
        self.say(f"{self.report.killed.total()} kills and {self.report.events} events in {self.report.burnt:.0f} s")

    def _sender(self, number: int, arsonist: Arsonist) -> Sender:
        """One of four: two send by a spool, two by plain XADDs; two have a second source, of one host's queue."""
        share = self.size.events // len(LAKES) + (number < self.size.events % len(LAKES))
        return Sender(
            self._world,
            self._broker.url,
            [LAKES[number], *HOSTS[number : number + 1]],
            random.Random(self._rng.random()),
            spool=Spool(self._folder / "spool" / str(number)) if number % 2 == 0 else None,
            turns=_turns(share, arsonist),
            stopped=arsonist.stopped,
        )

    # --- afterwards -----------------------------------------------------------------------------------

    def _recover(self, judge: Judge) -> None:
        """Until nothing waits anywhere, every worker has all its children, and no process is left over."""
        began = time.monotonic()
        left: list[str] = []

        def settled() -> bool:
            left[:] = [*judge.unsettled(), *self._unwell()]
            return not left

        try:
            wait_until(settled, self.size.settle, "all to be settled", period=0.3)
        except TimeoutError as error:
            self.report.problems.append(f"{error}: {'; '.join(left)}")
        self.report.settled = time.monotonic() - began

    def _unwell(self) -> list[str]:
        found = []
        for worker in self._workers:
            if (number := len(worker.children())) != CHILDREN:
                found.append(f"{worker.name} has {number} children")
            if leftovers := worker.leftovers():
                found.append(f"{worker.name} left processes behind: {leftovers}")
        return found

    def _sum_up(self, judge: Judge) -> None:
        problems = judge.problems()
        self.report.problems += problems
        self.report.runs, self.report.superseded, self.report.failed = judge.runs()
        if not problems:
            self.report.waits = judge.waits()
        self.say(f"starts: { ({keeper.kept.name: keeper.starts for keeper in self._keepers}) }")


def _ready(worker: Program) -> bool:
    return worker.alive() and " ready." in worker.told()


def _turns(number: int, arsonist: Arsonist) -> Iterator[None]:
    """So many turns, spread over the fire: as much has been sent as has burnt."""
    for turn in range(number):
        while arsonist.heat < turn / number and not arsonist.stopped.wait(0.02):
            pass
        if arsonist.stopped.is_set():
            return
        yield
