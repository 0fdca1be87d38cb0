"""What every fault has: a name, how to begin and end it, and what `dims status` should say meanwhile."""

from __future__ import annotations

import random
import re
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

from dims_producers.publish import publish
from dims_worker.errors import BrokerUnreachable
from tests.chaos.cluster import Cluster


@dataclass(frozen=True, slots=True)
class Expectation:
    """What `dims status` should say during a fault: one of these exit codes, and a word in a problem or a warning.

    An empty `pattern` expects no word.
    """

    codes: tuple[int, ...]
    pattern: str

    def __str__(self) -> str:
        names = f", names {self.pattern.replace('|', ' or ')}" if self.pattern else ""
        return f"exit {' or '.join(map(str, self.codes))}{names}"

    def is_met(self, code: int, problems: list[str]) -> bool:
        named = not self.pattern or any(re.search(self.pattern, problem, re.IGNORECASE) for problem in problems)
        return code in self.codes and named


def problem(pattern: str) -> Expectation:
    """Expect the exit code 3: something that should run does not, and nothing else does its work."""
    return Expectation((3,), pattern)


def warning(pattern: str) -> Expectation:
    """Expect that it is named. The exit code may be 0, because another host does the work."""
    return Expectation((0, 3), pattern)


def no_problem() -> Expectation:
    """Expect the exit code 0: everything that should run does, and some of it takes long."""
    return Expectation((0,), "")


@dataclass(frozen=True, slots=True)
class Timing:
    """How long faults last, in seconds."""

    hold: float = 5.0
    """The shortest time of a fault: longer than a lease and than the `orphan` setting."""
    status_patience: float = 15.0
    """The time that `dims status` has to notice a fault, after `hold`."""
    bar: float = 20.0
    """The service must be back within this, after the fault ended."""
    patience: float = 60.0
    """The run waits this long for the service before it restarts everything."""
    grace: float = 10.0
    """The time between SIGTERM and SIGKILL of an operator's stop."""
    stops: int = 6
    """The operator's stops in a row: one more than the losses after which a metric is quarantined."""


class Fault(ABC):
    """One fault. `inject` begins it, `end` ends it and is called at least once, also after an error."""

    name: ClassVar[str]
    needs: ClassVar[str] = ""
    """The part of the cluster that it needs: `network`, `disk` or `clock`."""
    weight: ClassVar[int] = 1
    """How often a plan has this fault, compared with others."""
    holds: ClassVar[bool] = True
    """Whether it lasts until `end`. Otherwise it is over when `inject` returns."""
    expected: ClassVar[Expectation | None] = None
    """What `dims status` should say. None if it may say either."""

    def __init__(self, cluster: Cluster, rng: random.Random, timing: Timing) -> None:
        self.cluster, self.rng, self.timing = cluster, rng, timing
        self.problems: list[str] = []
        """What went wrong while it lasted."""
        self.detail = ""

    def send(self, event_type: str) -> None:
        """Send an event of a type in `workload.CONCERNED`, as soon as the broker accepts it."""
        event = self.cluster.world.sent_by_fault(event_type)
        keep_trying(lambda: publish([event], self.cluster.broker.url), 60, BrokerUnreachable)

    @classmethod
    def is_available(cls, cluster: Cluster) -> str:
        """Return why this computer cannot have this fault, or an empty text."""
        return cluster.unavailable.get(cls.needs, "")

    @abstractmethod
    def inject(self) -> None: ...

    def during(self, probe: Callable[[float], float]) -> None:  # noqa: B027 - most faults check nothing
        """Check something while the fault lasts. `probe(seconds)` measures how soon a fast source is recorded."""

    def end(self) -> None:  # noqa: B027 - some faults end by themselves
        """End the fault. Does nothing if it has ended."""


def keep_trying(action: Callable[[], object], seconds: float, errors: type[Exception]) -> None:
    """Repeat an action until it succeeds. A server may be starting just now."""
    end = time.monotonic() + seconds
    while True:
        try:
            action()
            return
        except errors:
            if time.monotonic() > end:
                raise
            time.sleep(0.2)
