"""Metrics for Prometheus: what the inventory holds and how the machine does, asked anew at each scrape.

Names and units follow https://prometheus.io/docs/practices/naming/. A part that is away (database, broker) is told by
`dims_up` and takes its own metrics with it: a scrape never fails, and no number is made up. Counters begin at zero when
the exporter starts, as Prometheus expects of a process.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector
from redis.exceptions import RedisError
from sqlalchemy import text
from sqlalchemy.exc import SQLAlchemyError

from dims_producers.publish import connect
from dims_worker.broker.queues import queue_names
from dims_worker.config import Config
from dims_worker.config.units import AGES
from dims_worker.domain.decide import age_of
from dims_worker.errors import DimsError
from dims_worker.events import OWN_TYPES, STREAM
from dims_worker.formatting import display_unit
from dims_worker.store import metric_states
from dims_worker.store.approval_requests import open_requests
from dims_worker.store.counters import count_events, count_runs
from dims_worker.store.engine import clock, engine, transaction

log = logging.getLogger(__name__)

BOUND = 4.0
"""Seconds that database and broker together have to answer. Prometheus waits for ten by default, and two of them may
ask at once, one after the other."""
TYPES = 100
"""So many types of events beside the known ones are told apart; anybody may publish, and each is a time series."""
OTHER = "other"
STATUSES = ("ok", "partial", "superseded")
"""Of runs."""


@dataclass(eq=False)  # a registry keeps its collectors by who they are
class PrometheusCollector(Collector):
    """What Prometheus collects. One scrape at a time asks."""

    config: Config
    database_url: str
    broker_url: str
    _lock: threading.Lock = field(default_factory=threading.Lock, init=False)

    def __post_init__(self) -> None:
        self._events, self._runs = count_events(), count_runs()
        rules = self.config.rules
        self._known = {"", *OWN_TYPES, *rules, *(kind for rule in rules.values() for kind in rule.on)}
        self._types: set[str] = set()
        self._asking: dict[str, threading.Thread] = {}

    def describe(self) -> Iterable[Metric]:
        """Nothing: what there is needs a scrape to know."""
        return []

    def collect(self) -> Iterator[Metric]:
        with self._lock:
            up = GaugeMetricFamily("dims_up", "Whether a part answers: database, broker.", labels=["part"])
            parts = (("database", self._database), ("broker", self._broker))
            asked = [(part, self._ask(part, ask)) for part, ask in parts]  # at once: their bounds must not add up
            end = time.monotonic() + BOUND
            for part, (thread, answer) in asked:
                thread.join(max(0.0, end - time.monotonic()))
                found = [] if thread.is_alive() else answer
                up.add_metric([part], float(bool(found)))
                yield from found
            yield up

    def _ask(self, part: str, ask: Callable[[], list[Metric]]) -> tuple[threading.Thread, list[Metric]]:
        """The thread in which a part is asked, and where its answer will be. A server that takes connections and falls
        silent cannot be given up from within; while one thread waits for it, no second is sent after it."""
        if (last := self._asking.get(part)) is not None and last.is_alive():
            return last, []
        found: list[Metric] = []

        def run() -> None:
            try:
                found.extend(ask())
            except (DimsError, RedisError, SQLAlchemyError, OSError) as error:
                log.warning("the %s does not answer: %s", part, error)

        thread = self._asking[part] = threading.Thread(target=run, name=f"ask {part}", daemon=True)
        thread.start()
        return thread, found

    def _database(self) -> list[Metric]:
        with transaction(engine(self.database_url)) as connection:
            connection.execute(text(f"SET TRANSACTION READ ONLY; SET LOCAL statement_timeout = {int(BOUND * 1000)}"))
            known = list(metric_states.states_of(connection, self.config.metrics).values())
            waiting, now = len(open_requests(connection)), clock(connection)
            events, runs = self._events.count(connection), self._runs.count(connection)
        oldest = max((now - one.due_since for one in known if one.due and one.due_since), default=timedelta(0))
        return [
            *self._values(known, now),
            self._counted(
                "dims_events", "Events stored.", ["type", "outcome"], self._bounded(events), [("", "rejected")]
            ),
            self._counted("dims_runs", "Runs recorded.", ["status"], runs, [(one,) for one in STATUSES]),
            GaugeMetricFamily(
                "dims_event_lag_seconds",
                "How long the oldest event has waited for its reading.",
                oldest.total_seconds(),
            ),
            GaugeMetricFamily("dims_approvals_pending", "Values that wait for a person.", waiting),
        ]

    def _values(self, known: Iterable[metric_states.MetricState], now: datetime) -> list[Metric]:
        value = GaugeMetricFamily(
            "dims_metric_value", "The last good reading, in its unit; an age as it is now.", labels=["metric", "unit"]
        )
        baseline = GaugeMetricFamily("dims_metric_baseline", "The last accepted value.", labels=["metric", "unit"])
        measured = GaugeMetricFamily(
            "dims_metric_measured_timestamp_seconds", "When the last good reading was measured.", labels=["metric"]
        )
        stale = GaugeMetricFamily("dims_metric_stale", "Unmeasured for longer than stale_after.", labels=["metric"])
        failed = GaugeMetricFamily("dims_metric_failed", "Whether the last attempt failed.", labels=["metric"])
        for one in known:
            declared = self.config.metrics[one.metric]
            if not declared.enabled and one.as_of is None:
                continue
            labels = [one.metric, display_unit(declared, one.unit)]
            for family, there, of in ((value, one.as_of, one.value), (baseline, one.baseline_as_of, one.baseline)):
                number = self._number(one.metric, of, now) if there else None
                if number is not None:
                    family.add_metric(labels, number)
            after = self.config.policy_of(one.metric).stale_after
            if one.as_of:
                measured.add_metric([one.metric], one.as_of.timestamp())
                stale.add_metric([one.metric], float(bool(after and now - one.as_of > after)))
            failed.add_metric([one.metric], float(one.error is not None))
        return [value, baseline, measured, stale, failed]

    def _number(self, name: str, value: object, now: datetime) -> float | None:
        """A number or a truth as a float, an age in its unit; None for what is no number."""
        declared = self.config.metrics[name]
        try:
            if declared.is_age:
                seconds = age_of(value if isinstance(value, str) else None, now)
                return None if seconds is None else seconds / AGES[declared.shown_unit]
            return float(value) if isinstance(value, int | float) else None
        except (OverflowError, ValueError):  # an integer that no float holds, a text that is no instant
            return None

    def _bounded(self, events: Counter[tuple[str, ...]]) -> Counter[tuple[str, ...]]:
        """The events with the types that came beyond the bound under one name. Which those are stays; ours, and those
        that the configuration names, are never among them."""
        told: Counter[tuple[str, ...]] = Counter()
        for (kind, outcome), number in sorted(events.items()):
            if kind not in self._known and len(self._types) < TYPES:
                self._types.add(kind)
            told[kind if kind in self._known | self._types else OTHER, outcome] += number
        return told

    def _counted(
        self,
        name: str,
        about: str,
        labels: list[str],
        counted: Counter[tuple[str, ...]],
        known: Iterable[tuple[str, ...]],
    ) -> Metric:
        """A counter; those that are `known` are told at zero, too: of a series that begins at 50 nothing increases."""
        family = CounterMetricFamily(name, about, labels=labels)
        for values, number in sorted({**dict.fromkeys(known, 0), **counted}.items()):
            family.add_metric(list(values), number)
        return family

    def _broker(self) -> list[Metric]:
        names = queue_names(self.config)
        length = GaugeMetricFamily(
            "dims_queue_length", f"What waits: events in the stream {STREAM}, bells in the queues.", labels=["queue"]
        )
        with connect(self.broker_url, timeout=BOUND) as client, client.pipeline(transaction=False) as pipe:
            pipe.xlen(STREAM)
            for name in names:
                pipe.llen(name)
            for name, number in zip([STREAM, *names], pipe.execute(), strict=True):
                length.add_metric([name], number)
        return [length]
