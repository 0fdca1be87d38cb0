"""The workload: folders that senders change, an event for each change, and the true value of each metric."""

from __future__ import annotations

import contextlib
import random
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import yaml

from dims_producers.publish import publish
from dims_producers.spool import Spool
from dims_producers.spool import spool_and_send as send_with_spool
from dims_worker.config.settings import Settings
from dims_worker.errors import BrokerUnreachable
from dims_worker.events import FILES_CHANGED, SCRAPER_COMPLETE, Event

LAKES = ("lake0", "lake1", "lake2", "lake3")
HOSTS = ("host0", "host1")
"""Sources with their own queue. Only one of the two workers serves each, so it shows if that worker hangs."""
FILES = (*LAKES, *HOSTS)
SLOW = "slow"
"""A source whose measurement takes half a second, so that many are killed during it."""
BASE = "base"
"""A file that never changes."""

PROBES = {"probe": None, **{f"probe_{host}": host for host in HOSTS}}
"""Fast sources, and the queue of each. Their events measure how soon the service is back after a fault."""
PROBE, SLOW_SCAN, LONG_SCAN, STARVE, GIL = "chaos.probe", "chaos.slow", "chaos.long", "chaos.starve", "chaos.gil"
"""The types of events that concern only the sources for certain faults."""
STARVING = tuple(f"starve{number}" for number in range(8))
"""More sources with slow scans than both workers have children."""
LONG = "long"
"""A source whose scan takes longer than the grace of an operator's stop."""
PATTERN = "pattern"
"""A source with a pattern that takes an exponential time on `EVIL` with a backtracking engine."""
EVIL = "a" * 40 + "b\n"
HARMLESS = "aaa\n"

LEASE = "3s"
COUNTED: dict[str, dict[str, Any]] = {
    "files": {"measure": "count"},
    "lines": {"measure": "lines", "paths": "text/**"},
    "bytes": {"measure": "bytes", "paths": "blobs/**", "critical": True},
}
"""The metrics of each folder."""


@dataclass(frozen=True, slots=True)
class ScanSeconds:
    """How long the scans of slow sources take."""

    starve: float = 6.0
    long: float = 15.0


SCANS = ScanSeconds()


def configuration(seconds: ScanSeconds) -> dict[str, Any]:
    """Return the content of `dims.yaml`."""
    trees = {name: {"type": "files", "path": name} for name in FILES}
    trees["lake3"] |= {"cooldown": "1500ms"}
    for name in HOSTS:
        trees[name] |= {"queue": name}
    command = "sleep {seconds}; find {name} -type f | wc -l"
    scans = {SLOW: 0.4, LONG: seconds.long, **dict.fromkeys(STARVING, seconds.starve)}
    for name, queue in PROBES.items():
        trees[name] = {"type": "files", "path": name} | ({"queue": queue} if queue else {})
    entries = {"source": PATTERN, "measure": "entries", "entry": "^(a+)+$", "paths": "re.txt"}
    return {
        "settings": {"lease": LEASE, "sweep": "1s"} | ({"orphan": "3s"} if "orphan" in Settings.model_fields else {}),
        "sources": {
            **trees,
            **{name: {"type": "command"} for name in scans},
            PATTERN: {"type": "files", "path": PATTERN, "timeout": "2s"},
        },
        "metrics": {
            **{name: {what: {"source": name, **options} for what, options in COUNTED.items()} for name in FILES},
            **{
                name: {"files": {"source": name, "command": command.format(seconds=time, name=name), "shell": True}}
                for name, time in scans.items()
            },
            **{name: {"files": {"source": name, "measure": "count"}} for name in PROBES},
            PATTERN: {"entries": entries},
            "all": {
                "files": {"derive": " + ".join(f"{name}.files" for name in FILES)},
                "lines": {"derive": " + ".join(f"{name}.lines" for name in FILES)},
                "both": {"derive": "all.files + 2 * all.lines"},
            },
        },
        "rules": {
            "changed": {"on": FILES_CHANGED},
            "scraped": {"on": SCRAPER_COMPLETE, "metrics": [f"{SLOW}.*", "lake*.*"]},
            # It makes beat necessary, and never fires during a run
            "yearly": {"schedule": "0 0 1 1 *", "metrics": ["probe.*"]},
            **{
                event_type.replace(".", "_"): {"on": event_type, "metrics": sorted(metrics)}
                for event_type, metrics in CONCERNED.items()
            },
        },
    }


CONCERNED: dict[str, frozenset[str]] = {
    PROBE: frozenset(f"{name}.files" for name in PROBES),
    SLOW_SCAN: frozenset({f"{SLOW}.files"}),
    LONG_SCAN: frozenset({f"{LONG}.files"}),
    STARVE: frozenset(f"{name}.files" for name in STARVING),
    GIL: frozenset({f"{PATTERN}.entries"}),
}
"""The metrics of each type of event that a fault sends."""

SCRAPED = frozenset({f"{SLOW}.files", *(f"{name}.{what}" for name in LAKES for what in COUNTED)})
"""The metrics of the rule `scraped`."""


@dataclass(frozen=True, slots=True)
class SentEvent:
    """An event, the metrics that it concerns, and when its change was done."""

    event: Event
    metrics: frozenset[str]
    done: datetime


@dataclass
class World:
    """A project's folder, and the events that were sent about it."""

    folder: Path
    seconds: ScanSeconds = SCANS
    sent: list[SentEvent] = field(default_factory=list)
    duplicates: int = 0
    """Events that were sent a second time on purpose."""
    unsure: list[SentEvent] = field(default_factory=list)
    """Events that the broker did not confirm, so they may be stored or not."""

    def make(self) -> None:
        for name in FILES:
            for kind in ("text", "blobs"):
                (self.folder / name / kind).mkdir(parents=True)
            # Large, so that the critical bytes drift slowly at first and are held later
            (self.folder / name / "blobs" / BASE).write_bytes(b"x" * 20_000)
        for name in (SLOW, LONG, *STARVING, *PROBES, PATTERN):
            (self.folder / name).mkdir()
        self.write_pattern(HARMLESS)
        (self.folder / "dims.yaml").write_text(yaml.safe_dump(configuration(self.seconds)), encoding="utf-8")

    def count(self, source: str) -> int:
        """Return the number of files in the folder of a source."""
        return len(list((self.folder / source).iterdir()))

    def write_pattern(self, text: str) -> None:
        """Write the file that the pattern reads, at once."""
        draft = self.folder / "re.new"
        draft.write_text(text, encoding="utf-8")
        draft.replace(self.folder / PATTERN / "re.txt")

    def give_up(self, event: Event) -> None:
        """Note that the broker did not confirm an event, and that no program tries again."""
        self.unsure += [entry for entry in self.sent if entry.event.id == event.id]
        self.sent = [entry for entry in self.sent if entry.event.id != event.id]

    def sent_by_fault(self, event_type: str) -> Event:
        """Return a new event of a type in `CONCERNED`, and note it as sent."""
        done = datetime.now(UTC)
        event = Event.new(event_type, "chaos", now=done, id=f"fault {len(self.sent)}")
        self.sent.append(SentEvent(event, CONCERNED[event_type], done))
        return event

    def truth(self) -> dict[str, int]:
        """Return the value of every metric, counted by a simple loop."""
        values = {}
        for name in FILES:
            text, blobs = (list((self.folder / name / kind).iterdir()) for kind in ("text", "blobs"))
            values[f"{name}.files"] = len(text) + len(blobs)
            values[f"{name}.lines"] = sum(path.read_bytes().count(b"\n") for path in text)
            values[f"{name}.bytes"] = sum(len(path.read_bytes()) for path in blobs)
        for name in (SLOW, LONG, *STARVING, *PROBES):
            values[f"{name}.files"] = self.count(name)
        lines = (self.folder / PATTERN / "re.txt").read_text(encoding="utf-8").splitlines()
        values[f"{PATTERN}.entries"] = sum(bool(line) and not line.strip("a") for line in lines)
        values["all.files"] = sum(values[f"{name}.files"] for name in FILES)
        values["all.lines"] = sum(values[f"{name}.lines"] for name in FILES)
        values["all.both"] = values["all.files"] + 2 * values["all.lines"]
        return values


class Sender(threading.Thread):
    """Changes its own folders and sends an event for each, with a spool or plain XADDs, until all have arrived."""

    def __init__(
        self,
        world: World,
        url: str,
        sources: Sequence[str],
        rng: random.Random,
        *,
        spool: Spool | None,
        turns: Iterator[None],
        stopped: threading.Event,
    ) -> None:
        super().__init__(name=f"sender of {sources[0]}", daemon=True)
        self.problem: Exception | None = None
        self._world, self._url, self._sources, self._rng = world, url, sources, rng
        self._spool, self._turns, self._stopped = spool, turns, stopped
        self._number = 0

    def run(self) -> None:
        try:
            for _ in self._turns:
                self._number += 1
                change = self._change(self._rng.choice(self._sources))
                self._world.sent.append(change)
                self._send(change.event)
                if self._rng.random() < 0.1:
                    with contextlib.suppress(BrokerUnreachable):
                        publish([change.event], self._url)
                        self._world.duplicates += 1
            self._flush()
        except Exception as error:  # the run reports it
            self.problem = error

    def _change(self, source: str) -> SentEvent:
        """Write, rewrite or remove a file. Return an event that names its path, no path, or a rule."""
        kind = self._rng.choice(("text", "blobs"))
        folder = self._world.folder / source
        path = folder / kind / f"{self._number}"
        chance = self._rng.random()
        if chance < 0.4 and (known := sorted(p for p in (folder / kind).iterdir() if p.name != BASE)):
            path = self._rng.choice(known)
        if chance < 0.15:
            path.unlink(missing_ok=True)
        else:
            path.write_text("line\n" * self._rng.randrange(1, 30), encoding="utf-8")
        done = datetime.now(UTC)
        data: dict[str, object] = {"root": str(folder), "paths": [f"{kind}/{path.name}"]}
        metrics = {f"{source}.files", f"{source}.{'lines' if kind == 'text' else 'bytes'}"}
        choice, event_type = self._rng.random(), FILES_CHANGED
        if choice < 0.05 and source in LAKES:
            (self._world.folder / SLOW / f"{source} {self._number}").touch()
            done = datetime.now(UTC)
            event_type, data, metrics = SCRAPER_COMPLETE, {}, set(SCRAPED)
        elif choice < 0.15:
            data["paths"], metrics = [], {f"{source}.{what}" for what in COUNTED}
        name = f"{self.name} {self._number}"
        return SentEvent(Event.new(event_type, "chaos", now=done, id=name, data=data), frozenset(metrics), done)

    def _send(self, event: Event) -> None:
        if self._spool:
            send_with_spool(event, self._spool, self._url)  # if the broker is down, a later call sends it
            return
        while not self._stopped.is_set():  # the same event, until the broker confirms it
            try:
                publish([event], self._url)
                return
            except BrokerUnreachable:
                self._stopped.wait(0.1)

    def _flush(self) -> None:
        while self._spool and len(self._spool) and not self._stopped.is_set():
            with contextlib.suppress(BrokerUnreachable):
                self._spool.flush(lambda events: publish(events, self._url))
            self._stopped.wait(0.1)
