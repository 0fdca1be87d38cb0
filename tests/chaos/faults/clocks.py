"""Clocks that are ten minutes wrong."""

from __future__ import annotations

from tests.chaos.cluster import SUPERVISED
from tests.chaos.faults.base import Fault, problem

MINUTES = 10


class WrongTime(Fault):
    """Moves the clock of some processes while they run, and moves it back at the end."""

    needs = "clock"
    expected = problem("clock")
    clock: str
    minutes: int

    def inject(self) -> None:
        self.cluster.clocks[self.clock].move(self.minutes * 60)

    def end(self) -> None:
        self.cluster.clocks[self.clock].move(0)


class HostAhead(WrongTime):
    name = f"clock: a host {MINUTES} minutes ahead"
    clock, minutes = SUPERVISED, MINUTES


class HostBehind(WrongTime):
    name = f"clock: a host {MINUTES} minutes behind"
    clock, minutes = SUPERVISED, -MINUTES


class BeatAhead(WrongTime):
    name = f"clock: beat {MINUTES} minutes ahead"
    clock, minutes = "beat", MINUTES


class BeatBehind(WrongTime):
    name = f"clock: beat {MINUTES} minutes behind"
    clock, minutes = "beat", -MINUTES
