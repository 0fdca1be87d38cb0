"""What is measured, and the truth of it: folders that senders change, and the events that tell of each change."""

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
from dims_producers.spool import spool_and_send as send_by_spool
from dims_worker.config.settings import Settings
from dims_worker.errors import BrokerUnreachable
from dims_worker.events import FILES_CHANGED, SCRAPER_COMPLETE, Event

LAKES = ("lake0", "lake1", "lake2", "lake3")
HOSTS = ("host0", "host1")
"""Sources with a queue of their own: only one of the two workers serves each, so it shows if that one has fallen
silent while the other does the work."""
FILES = (*LAKES, *HOSTS)
SLOW = "slow"
"""A source whose measurement takes half a second, so that many are struck in the middle of it."""
BASE = "base"
"""A file that stays as it is."""

LEASE = "3s"
COUNTED: dict[str, dict[str, Any]] = {
    "files": {"measure": "count"},
    "lines": {"measure": "lines", "paths": "text/**"},
    "bytes": {"measure": "bytes", "paths": "blobs/**", "critical": True},
}
"""What is measured of each tree of files."""


def configuration() -> dict[str, Any]:
    """What stands in `dims.yaml`."""
    trees = {name: {"type": "files", "path": name} for name in FILES}
    trees["lake3"] |= {"cooldown": "1500ms"}
    for name in HOSTS:
        trees[name] |= {"queue": name}
    command = f"sleep 0.4; find {SLOW} -type f | wc -l"
    return {
        "settings": {"lease": LEASE, "sweep": "1s"} | ({"orphan": "3s"} if "orphan" in Settings.model_fields else {}),
        "sources": {**trees, SLOW: {"type": "command"}},
        "metrics": {
            **{name: {what: {"source": name, **how} for what, how in COUNTED.items()} for name in FILES},
            SLOW: {"files": {"source": SLOW, "command": command, "shell": True}},
            "all": {
                "files": {"derive": " + ".join(f"{name}.files" for name in FILES)},
                "lines": {"derive": " + ".join(f"{name}.lines" for name in FILES)},
                "both": {"derive": "all.files + 2 * all.lines"},
            },
        },
        "rules": {
            "changed": {"on": FILES_CHANGED},
            "scraped": {"on": SCRAPER_COMPLETE, "metrics": [f"{SLOW}.*", "lake*.*"]},
        },
    }


SCRAPED = frozenset({f"{SLOW}.files", *(f"{name}.{what}" for name in LAKES for what in COUNTED)})
"""What the rule `scraped` concerns."""


@dataclass(frozen=True, slots=True)
class Told:
    """An event, the metrics that it concerns, and when what it tells of had been done."""

    event: Event
    metrics: frozenset[str]
    done: datetime


@dataclass
class World:
    """A project's folder, and all that was told of it."""

    folder: Path
    told: list[Told] = field(default_factory=list)
    again: int = 0
    """Events that were sent a second time on purpose."""

    def make(self) -> None:
        for name in FILES:
            for kind in ("text", "blobs"):
                (self.folder / name / kind).mkdir(parents=True)
            # So large that the critical bytes drift slowly at first, and are held later on
            (self.folder / name / "blobs" / BASE).write_bytes(b"x" * 20_000)
        (self.folder / SLOW).mkdir()
        (self.folder / "dims.yaml").write_text(yaml.safe_dump(configuration()), encoding="utf-8")

    def truth(self) -> dict[str, int]:
        """The value of every metric, counted by a plain loop."""
        found = {}
        for name in FILES:
            text, blobs = (list((self.folder / name / kind).iterdir()) for kind in ("text", "blobs"))
            found[f"{name}.files"] = len(text) + len(blobs)
            found[f"{name}.lines"] = sum(path.read_bytes().count(b"\n") for path in text)
            found[f"{name}.bytes"] = sum(len(path.read_bytes()) for path in blobs)
        found[f"{SLOW}.files"] = len(list((self.folder / SLOW).iterdir()))
        found["all.files"] = sum(found[f"{name}.files"] for name in FILES)
        found["all.lines"] = sum(found[f"{name}.lines"] for name in FILES)
        found["all.both"] = found["all.files"] + 2 * found["all.lines"]
        return found


class Sender(threading.Thread):
    """Changes its own folders and tells of each change, by the spool or by plain XADDs, until all has arrived."""

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
        self.trouble: Exception | None = None
        self._world, self._url, self._sources, self._rng = world, url, sources, rng
        self._spool, self._turns, self._stopped = spool, turns, stopped
        self._number = 0

    def run(self) -> None:
        try:
            for _ in self._turns:
                self._number += 1
                told = self._change(self._rng.choice(self._sources))
                self._world.told.append(told)
                self._send(told.event)
                if self._rng.random() < 0.1:
                    with contextlib.suppress(BrokerUnreachable):
                        publish([told.event], self._url)
                        self._world.again += 1
            self._flush()
        except Exception as error:  # told by the judge
            self.trouble = error

    def _change(self, source: str) -> Told:
        """Write, rewrite or remove a file, and the event that says so: by its path, as unknown, or by a rule."""
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
        how, event_type = self._rng.random(), FILES_CHANGED
        if how < 0.05 and source in LAKES:
            (self._world.folder / SLOW / f"{source} {self._number}").touch()
            done = datetime.now(UTC)
            event_type, data, metrics = SCRAPER_COMPLETE, {}, set(SCRAPED)
        elif how < 0.15:
            data["paths"], metrics = [], {f"{source}.{what}" for what in COUNTED}
        name = f"{self.name} {self._number}"
        return Told(Event.new(event_type, "fire", now=done, id=name, data=data), frozenset(metrics), done)

    def _send(self, event: Event) -> None:
        if self._spool:
            send_by_spool(event, self._spool, self._url)  # else it waits there, and leaves with a later one
            return
        while not self._stopped.is_set():  # the same event, until the broker has said that it has it
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
