"""Who kills: at random times, at random, but with an eye for those who are in the middle of something. Now and then
he only freezes one for longer than its lease, so that it goes on with what is another's by then."""

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
"""Of a hundred kills."""
FROZEN = 4.5
"""Seconds: longer than a lease (`world.CONFIG`), and than entries wait for one who has read them."""
AMBUSH = 1.5
"""Seconds for which a busy one is waited for."""
PATIENCE = 60.0
"""Seconds until there must be somebody to kill."""


class Arsonist(threading.Thread):
    """Kills so many times, with random pauses of `gap` seconds on average in between."""

    def __init__(
        self, rng: random.Random, kills: int, gap: float, database: Server, broker: Server, workers: Sequence[Program]
    ) -> None:
        super().__init__(name="arsonist", daemon=True)
        self.trouble: Exception | None = None
        self.killed: Counter[str] = Counter()
        self.aimed: Counter[str] = Counter()
        """Children that were killed while they held a lease, or had read from the stream and not acknowledged."""
        self.frozen: dict[int, threading.Timer] = {}
        self.stopped = threading.Event()
        self._rng, self._gap = rng, gap
        self._database, self._broker, self._workers = database, broker, workers
        self._plan = [kind for kind, share in SHARES.items() for _ in range(max(1, kills * share // 100))]
        self._plan += rng.choices(list(SHARES), list(SHARES.values()), k=max(0, kills - len(self._plan)))
        rng.shuffle(self._plan)
        self._last = time.monotonic()
        self._spared = ""

    @property
    def heat(self) -> float:
        """How much of the fire has burnt, from 0 to 1, and beyond where all are killed."""
        between = min(1.0, (time.monotonic() - self._last) / self._gap)
        return (self.killed.total() + between) / len(self._plan)

    def run(self) -> None:
        try:
            for kind in self._plan:
                if self.stopped.wait(min(self._rng.expovariate(1 / self._gap), 4 * self._gap)):
                    return
                wait_until(partial(self._strike, kind), PATIENCE, f"a {kind} to kill")
                self.killed[kind] += 1
                self._last = time.monotonic()
                if self._rng.random() < 0.15:
                    self._freeze()
        except Exception as error:  # told by the judge
            self.trouble = error

    def stop(self) -> None:
        self.stopped.set()
        self.join(PATIENCE)
        for pid, thaw in self.frozen.items():
            thaw.cancel()
            send(pid, signal.SIGCONT)

    def _strike(self, kind: str) -> bool:
        return self.stopped.is_set() or self._kill(kind)

    def _kill(self, kind: str) -> bool:
        """Kill one of a kind; False: none lives now."""
        if kind == "broker":
            return any(send(pid, signal.SIGKILL) for pid in self._broker.family())
        if kind == "database":
            return self._kill_of_database()
        alive = [worker for worker in self._workers if worker.alive()]
        if not alive:
            return False
        if kind == "main":
            self._rng.choice(alive).kill(whole=self._rng.random() < 0.3)
            return True
        return self._kill_child([pid for worker in alive for pid in worker.children()])

    def _kill_of_database(self) -> bool:
        """Its main process, all of it at once, or one of its children, which makes it start anew."""
        main, *children = self._database.family() or [0]
        if not main:
            return False
        how = self._rng.random()
        if how < 0.4 and (mortal := [pid for pid in children if _is_survived(pid)]):
            return send(self._rng.choice(mortal), signal.SIGKILL)
        killed = send(main, signal.SIGKILL)
        if how > 0.7:
            for child in children:
                send(child, signal.SIGKILL)
        return killed

    def _kill_child(self, children: list[int]) -> bool:
        if not children:
            return False
        if self._rng.random() < 0.8:
            for what in self._rng.sample(["measuring", "ingesting"], 2):
                victim = self._caught(self._measuring if what == "measuring" else self._ingesting, children)
                if victim and send(victim, signal.SIGKILL):
                    self.aimed[what] += 1
                    return True
        return send(self._rng.choice(children), signal.SIGKILL)

    def _freeze(self) -> None:
        """Stop a child in the middle of the slow source, and let it go on once somebody else has measured that."""
        pid = self._caught(self._at_the_slow_one, [pid for worker in self._workers for pid in worker.children()])
        if pid and pid not in self.frozen and send(pid, signal.SIGSTOP):
            self.frozen[pid] = threading.Timer(FROZEN, send, (pid, signal.SIGCONT))
            self.frozen[pid].start()

    def _caught(self, find: Callable[[Sequence[int]], int | None], children: Sequence[int]) -> int | None:
        """Lie in wait for a child that is busy, for a moment."""
        end = time.monotonic() + AMBUSH
        while time.monotonic() < end and not self.stopped.is_set():
            if found := find(children):
                return found
            time.sleep(0.03)
        return None

    def _measuring(self, children: Sequence[int]) -> int | None:
        """One that holds a lease; never twice in a row of the same source, which would come to look like its fault."""
        for pid, source in self._holders().items():
            if pid in children and source != self._spared:
                self._spared = source
                return pid
        return None

    def _at_the_slow_one(self, children: Sequence[int]) -> int | None:
        return next((pid for pid, source in self._holders().items() if pid in children and source == SLOW), None)

    def _ingesting(self, children: Sequence[int]) -> int | None:
        """One that has read from the stream and not acknowledged."""
        with suppress(redis.RedisError), redis.Redis.from_url(self._broker.url, socket_timeout=1) as client:
            consumers: Any = client.xinfo_consumers(STREAM, "dims")
            readers = [int(one["name"].decode().rpartition(":")[2]) for one in consumers if one["pending"]]
            return next((pid for pid in readers if pid in children), None)
        return None

    def _holders(self) -> Mapping[int, str]:
        """Who holds a lease, and of which source."""
        place = self._database.url.replace("+psycopg2", "")  # as libpq writes it
        with (
            suppress(psycopg2.Error),
            closing(psycopg2.connect(place, connect_timeout=2, options="-c statement_timeout=1000")) as connection,
            connection.cursor() as cursor,
        ):
            cursor.execute("SELECT lease_holder, source FROM dims_sources WHERE lease_until > clock_timestamp()")
            return {int(holder.rpartition(":")[2]): source for holder, source in cursor.fetchall()}
        return {}


def _is_survived(pid: int) -> bool:
    """Whether PostgreSQL survives the death of this child of its. 18.4 does not where that is the startup process, in
    the first moments of a start after a crash: its main process says "in recovery mode" for ever."""
    try:
        title = " ".join(psutil.Process(pid).cmdline())
    except psutil.Error:
        return False
    return title.startswith("postgres: ") and "startup" not in title  # without a title, it may be about to be that
