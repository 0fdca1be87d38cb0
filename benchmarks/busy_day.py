"""Send events for minutes, faster than the sources can be measured, and show that the workers keep their speed.

`python -m benchmarks.busy_day --seconds 300 --rates 10,50,200,1000 --sources 16,100,1000` runs the long form: 12 cases
of 5 minutes. Each event concerns 16 sources. A round is the time in which the workers measure every source once.
"""

from __future__ import annotations

import argparse
import itertools
import random
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

import psutil

from benchmarks.local_stack import LocalStack, Worker, local_stack, wait_until
from dims_producers.publish import publish
from dims_worker.broker.queues import INGEST, VERIFY, VERIFY_SLOW
from dims_worker.events import STREAM, VERIFY_REQUESTED, Event

SECONDS, RATES, SOURCES = 20, (50, 1000), (16, 100)
"""The short form, which `make bench` runs."""
CONCERNED = 16
"""Each event concerns this many sources."""
SLICE = 0.05
"""Seconds between two calls of the sender. It sends a second's events in equal slices."""
SLOWEST = 0.8
"""The speed must never fall below this part of the first fifth's."""
ROUNDS = 1.5
"""A due source waits at most this many rounds."""
PATIENCE = 2.0
"""Seconds added to the limit of a wait, because a round of few sources is shorter than a sample."""

_DUE = "SELECT count(*) FROM dims_metrics WHERE requested_gen > measured_gen"
_RUNS = "SELECT count(*) FROM dims_verification_runs"
_OLDEST = (
    "SELECT coalesce(1000 * extract(epoch FROM max(clock_timestamp() - due_since)), 0)::bigint FROM dims_metrics "
    "WHERE requested_gen > measured_gen"
)


@dataclass
class Samples:
    """What was seen during one case, once a second."""

    times: list[float] = field(default_factory=list)
    runs: list[int] = field(default_factory=list)
    waiting: list[int] = field(default_factory=list)
    waits: list[float] = field(default_factory=list)
    megabytes: list[float] = field(default_factory=list)

    def speed(self, start: float, end: float) -> float:
        """Return the runs per second between two parts of the case, which are numbers from 0 to 1."""
        first, last = int(start * (len(self.times) - 1)), int(end * (len(self.times) - 1))
        return (self.runs[last] - self.runs[first]) / (self.times[last] - self.times[first])


def config(sources: int) -> str:
    """Return a configuration of tiny sources, each with one metric."""
    lines = ["sources:", *(f"  s{n}: {{type: files, path: d}}" for n in range(sources)), "metrics:", "  m:"]
    return "\n".join([*lines, *(f"    n{n}: {{source: s{n}, measure: count}}" for n in range(sources)), ""])


class Sender(threading.Thread):
    """Sends events at a rate until it is stopped. Each names random sources."""

    def __init__(self, url: str, rate: float, sources: int, seconds: float) -> None:
        super().__init__(name="sender", daemon=True)
        self.sent = 0
        self._url, self._rate, self._sources, self._seconds = url, rate, sources, seconds

    def run(self) -> None:
        chance, began = random.Random(7), time.monotonic()
        while (elapsed := time.monotonic() - began) < self._seconds:
            number = int(elapsed * self._rate) - self.sent
            publish([self._event(chance) for _ in range(number)], self._url, timeout=30)
            self.sent += number
            time.sleep(SLICE)

    def _event(self, chance: random.Random) -> Event:
        concerned = chance.sample(range(self._sources), min(CONCERNED, self._sources))
        metrics = [f"m.n{n}" for n in concerned]
        return Event.new(VERIFY_REQUESTED, "bench", now=datetime.now(UTC), data={"metrics": metrics})


def run_case(rate: int, sources: int, seconds: float) -> str:
    """Run one case. Return its line. It ends with PROBLEM and the reasons if a limit was exceeded."""
    files = {"dims.yaml": config(sources), "d/file.txt": "x"}
    with (
        local_stack(files) as stack,
        stack.dims(INGEST, concurrency=1) as ingest,
        stack.dims(VERIFY, concurrency=4) as worker,
    ):
        wait_until(lambda: not stack.scalar(_DUE) and stack.scalar(_RUNS) >= sources, 120, 0.1)
        sender = Sender(stack.broker_url, rate, sources, seconds)
        sender.start()
        samples = observe(stack, [ingest, worker], sender)
        ended = time.monotonic()
        wait_until(lambda: _is_settled(stack), 300, 0.05)
        settled = time.monotonic() - ended
        stored = stack.scalar("SELECT count(*) FROM dims_event_log")
    return summary(rate, sources, samples, settled, lost=sender.sent - stored)


def observe(stack: LocalStack, workers: Sequence[Worker], sender: Sender) -> Samples:
    """Sample the queues, the runs, the waits and the memory until the last event is sent."""
    samples, began = Samples(), time.monotonic()
    with stack.redis() as redis:
        while sender.is_alive():
            samples.times.append(time.monotonic() - began)
            samples.runs.append(stack.scalar(_RUNS))
            samples.waits.append(stack.scalar(_OLDEST) / 1000)
            samples.waiting.append(sum(int(redis.llen(queue)) for queue in (VERIFY, VERIFY_SLOW)))
            resident = sum(_resident(process) for worker in workers for process in worker.processes)
            samples.megabytes.append((resident + int(redis.info("memory")["used_memory"])) / 1e6)  # type: ignore[index]
            time.sleep(1)
    return samples


def summary(rate: int, sources: int, samples: Samples, settled: float, lost: int) -> str:
    """Return the line of a case, with each limit that was exceeded."""
    fifths = [samples.speed(part / 5, (part + 1) / 5) for part in range(5)]
    slowest = min(fifths[1:]) / fifths[0]
    one_round = sources / min(fifths)
    longest, waiting = max(samples.waits), max(samples.waiting)
    growth = samples.megabytes[-1] / samples.megabytes[len(samples.megabytes) // 5]
    limits = {
        f"the speed fell to {slowest:.0%}": slowest >= SLOWEST,
        f"a source waited {longest:.1f} s": longest <= ROUNDS * one_round + PATIENCE,
        f"{waiting} wake-ups waited": waiting <= 2 * sources,
        f"memory grew to {growth:.0%}": growth < 1.2,
        f"due for {settled:.1f} s after the last event": settled <= one_round + PATIENCE,
        f"{lost} events were lost": not lost,
    }
    problems = [problem for problem, is_met in limits.items() if not is_met]
    return (
        f"busy day: {rate:5,} events/s over {sources:5,} sources: {fifths[0]:6.1f} runs/s at first, "
        f"slowest fifth {slowest:4.0%}; longest wait {longest / one_round:4.2f} rounds of {one_round:.1f} s; "
        f"at most {waiting / sources:4.2f} wake-ups waiting per source; memory {growth:4.0%}; "
        f"measured {settled:.1f} s after the last event" + "".join(f"; PROBLEM: {problem}" for problem in problems)
    )


def _is_settled(stack: LocalStack) -> bool:
    with stack.redis() as redis:
        return not redis.xlen(STREAM) and not stack.scalar(_DUE)


def _resident(process: psutil.Process) -> int:
    try:
        return int(process.memory_info().rss)
    except psutil.NoSuchProcess:
        return 0


def main(seconds: float = SECONDS, rates: Sequence[int] = RATES, sources: Sequence[int] = SOURCES) -> None:
    """Run every combination of rates and sources, and print one line for each."""
    for number, rate in itertools.product(sources, rates):
        print(run_case(rate, number, seconds), flush=True)


def _numbers(value: str) -> list[int]:
    return [int(part) for part in value.split(",")]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m benchmarks.busy_day", description=__doc__)
    parser.add_argument("--seconds", type=float, default=SECONDS)
    parser.add_argument("--rates", type=_numbers, default=RATES)
    parser.add_argument("--sources", type=_numbers, default=SOURCES)
    options = parser.parse_args()
    main(options.seconds, options.rates, options.sources)
