"""Measure how soon a change of fast sources is recorded, by each host."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import suppress

from redis.exceptions import RedisError
from sqlalchemy import text
from sqlalchemy.exc import SQLAlchemyError

from dims_producers.publish import publish
from dims_worker.errors import BrokerUnreachable
from tests.chaos.cluster import Cluster
from tests.chaos.workload import PROBE, PROBES


class Probe:
    """Changes the fast sources, sends an event, and waits until their new values are recorded."""

    def __init__(self, cluster: Cluster, stopped: Callable[[], bool]) -> None:
        self._cluster, self._stopped = cluster, stopped
        self._number = 0
        self.missing: list[str] = []
        """The sources that were not recorded in time, of the last measurement."""

    def measure(self, limit: float, sources: Sequence[str] = tuple(PROBES)) -> float:
        """Return the seconds until the event was accepted and all the sources recorded. Raises TimeoutError."""
        began = time.monotonic()
        world = self._cluster.world
        self._number += 1
        for name in PROBES:
            (world.folder / name / f"{self._number}").touch()
        event = world.sent_by_fault(PROBE)
        accepted = False
        self.missing = list(sources)
        while time.monotonic() - began < limit:
            if not accepted:
                with suppress(BrokerUnreachable, RedisError):
                    publish([event], self._cluster.broker.url)
                    accepted = True
            if accepted and not (missing := self._missing(sources)):
                return time.monotonic() - began
            if accepted:
                self.missing = missing
            if self._stopped():
                break
            time.sleep(0.1)
        if not accepted:
            world.give_up(event)
            raise TimeoutError(f"the broker accepted no event within {limit:g} s")
        raise TimeoutError(f"{', '.join(self.missing)} not recorded within {limit:g} s")

    def _missing(self, sources: Sequence[str]) -> list[str]:
        query = text("SELECT metric FROM dims_metrics WHERE metric = ANY(:names) AND value = to_jsonb(CAST(:n AS int))")
        try:
            with self._cluster.engine.connect() as connection:
                rows = connection.execute(query, {"names": [f"{name}.files" for name in sources], "n": self._number})
                recorded = {row.metric for row in rows}
        except SQLAlchemyError:
            return list(sources)
        return [name for name in sources if f"{name}.files" not in recorded]
