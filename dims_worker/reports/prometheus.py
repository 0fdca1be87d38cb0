"""Metrics for Prometheus: the values of the inventory and the state of the local stack, read at each scrape.

Names and units follow https://prometheus.io/docs/practices/naming/. `dims_up` says whether the database and the broker
answer. The metrics of one that does not answer are missing from the scrape, which itself never fails. Counters start at
zero with the exporter, as Prometheus expects of a process.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from itertools import product

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector
from redis.exceptions import RedisError
from sqlalchemy import text
from sqlalchemy.exc import SQLAlchemyError

from dims_producers.publish import connect
from dims_worker.broker.queues import queue_names
from dims_worker.checks.bounded import BoundedCalls
from dims_worker.checks.system import check_services
from dims_worker.config import Config
from dims_worker.domain.decide import SEVERITIES, age_of
from dims_worker.domain.health import metric_health
from dims_worker.errors import DimsError
from dims_worker.events import OWN_TYPES, STREAM
from dims_worker.formatting import display_unit
from dims_worker.local import ServerUrls
from dims_worker.probes.base import IN_PROGRESS
from dims_worker.store import metric_states
from dims_worker.store.counters import count_events, count_runs, count_waiting
from dims_worker.store.engine import engine, transaction
from dims_worker.store.incidents import KINDS, Incident, open_incidents

log = logging.getLogger(__name__)

TIMEOUT = 4.0
"""Seconds that the database and the broker have together. Prometheus waits ten seconds by default, and a second scrape
may have to wait for the first."""
CHECKS = "checks"
CHECK_MARGIN = 0.5
"""The checks have this many seconds less, so that a server that hangs is reported within the scrape."""
PROCESS_LABELS = ("process", "role", "host")
MAX_TYPES = 100
"""Each event type is a time series, and anyone may publish. Beyond this many unknown types, all others share one."""
OTHER = "other"
RUN_STATUSES = ("ok", "partial", "superseded")
HEALTH_LABELS = ("metric", "flag", "label", "severity")


@dataclass(eq=False)  # a registry identifies its collectors by identity
class PrometheusCollector(Collector):
    """The collector of all metrics. It answers one scrape at a time."""

    config: Config
    database_url: str
    broker_url: str
    _lock: threading.Lock = field(default_factory=threading.Lock, init=False)

    def __post_init__(self) -> None:
        self._events, self._runs = count_events(), count_runs()
        rules = self.config.rules
        self._known = {"", *OWN_TYPES, *rules, *(kind for rule in rules.values() for kind in rule.on)}
        self._types: set[str] = set()
        self._threads: dict[str, threading.Thread] = {}
        self._calls = BoundedCalls()

    def describe(self) -> Iterable[Metric]:
        """Return nothing: only a scrape knows the metrics."""
        return []

    def collect(self) -> Iterator[Metric]:
        with self._lock:
            up = _gauge("dims_up", "Whether a part answers: database, broker.", "part")
            parts = (("database", self._database), ("broker", self._broker), (CHECKS, self._checks))
            queries = [(part, self._start(part, query)) for part, query in parts]  # parallel: timeouts must not add up
            end = time.monotonic() + TIMEOUT
            for part, (thread, answer) in queries:
                thread.join(max(0.0, end - time.monotonic()))
                metrics = [] if thread.is_alive() else answer
                if part != CHECKS:
                    up.add_metric([part], float(bool(metrics)))
                yield from metrics
            yield up

    def _start(self, part: str, query: Callable[[], list[Metric]]) -> tuple[threading.Thread, list[Metric]]:
        """Query a part in a thread. Return the thread and the list that it fills.

        A server that accepts connections and never answers cannot be interrupted. While one thread waits for it, the
        part gets no second one.
        """
        if (last := self._threads.get(part)) is not None and last.is_alive():
            return last, []
        metrics: list[Metric] = []

        def run() -> None:
            try:
                metrics.extend(query())
            except (DimsError, RedisError, SQLAlchemyError, OSError) as error:
                log.warning("the %s does not answer: %s", part, error)

        thread = self._threads[part] = threading.Thread(target=run, name=f"query {part}", daemon=True)
        thread.start()
        return thread, metrics

    def _database(self) -> list[Metric]:
        with transaction(engine(self.database_url)) as connection:
            connection.execute(text(f"SET TRANSACTION READ ONLY; SET LOCAL statement_timeout = {int(TIMEOUT * 1000)}"))
            states = list(metric_states.states_of(connection, self.config.definitions).values())
            (waiting, now), incidents = count_waiting(connection), open_incidents(connection)
            events, runs = self._events.count(connection), self._runs.count(connection)
        lag = max((now - state.due_since for state in states if state.due and state.due_since), default=timedelta(0))
        event_counts = self._limit_types(events)
        metrics = [state for state in states if state.metric in self.config.metrics]
        return [
            *self._values(metrics, now),
            *self._health(metrics, incidents, now),
            *_incident_counts(incidents),
            *_totals(self.config),
            _counter("dims_events", "Events stored.", ["type", "outcome"], event_counts, [("", "rejected")]),
            _counter("dims_runs", "Runs recorded.", ["status"], runs, [(status,) for status in RUN_STATUSES]),
            GaugeMetricFamily(
                "dims_event_lag_seconds", "How long the oldest event waits for its measurement.", lag.total_seconds()
            ),
            GaugeMetricFamily("dims_approvals_pending", "Values that wait for approval.", waiting),
        ]

    def _checks(self) -> list[Metric]:
        """Return what the checks of `dims status` find that a service on any host can check."""
        ok = _gauge("dims_check_ok", "Whether a check of dims status finds no problem. A warning is fine.", "check")
        seen = _gauge("dims_process_last_seen_seconds", "How long ago a process gave a sign of life.", *PROCESS_LABELS)
        offset = _gauge("dims_process_clock_offset_seconds", "By how much a clock is ahead.", *PROCESS_LABELS)
        servers, now = ServerUrls(self.database_url, self.broker_url), datetime.now(UTC)
        seconds = max(0.1, TIMEOUT - CHECK_MARGIN)
        state = check_services(self.config, servers, self._calls, now, seconds)
        for check in state.checks:
            ok.add_metric([check.name], float(check.state != "problem"))
        now = (state.database and state.database.now) or now
        for member in state.fleet:
            labels = [member.process, member.role, member.host]
            if member.seen_at is not None:
                seen.add_metric(labels, max(0.0, (now - member.seen_at).total_seconds()))
            if member.clock_offset is not None:
                offset.add_metric(labels, member.clock_offset)
        return [ok, seen, offset]

    def _values(self, states: Iterable[metric_states.MetricState], now: datetime) -> list[Metric]:
        value = _gauge(
            "dims_metric_value",
            "The last good value in its unit; an age as it is now.",
            "metric",
            "unit",
        )
        baseline = _gauge("dims_metric_baseline", "The last accepted value.", "metric", "unit")
        measured = _gauge("dims_metric_measured_timestamp_seconds", "When the last good value was measured.", "metric")
        for state in states:
            declared = self.config.metrics[state.metric]
            labels = [state.metric, display_unit(declared, state.unit)]
            if state.as_of:
                measured.add_metric([state.metric], state.as_of.timestamp())
                if (number := self._number(state.metric, state.value, now)) is not None:
                    value.add_metric(labels, number)
            if state.baseline_as_of and (number := self._number(state.metric, state.baseline, now)) is not None:
                baseline.add_metric(labels, number)
        return [value, baseline, measured]

    def _health(
        self, states: Iterable[metric_states.MetricState], incidents: Iterable[Incident], now: datetime
    ) -> list[Metric]:
        """Return the health of each metric. A disabled metric has no series at 0 or 1, so that no sum counts it."""
        health = _gauge("dims_metric_health", "The worst state of a metric now, always 1.", *HEALTH_LABELS)
        stale = _gauge("dims_metric_stale", "Unmeasured for longer than stale_after.", "metric")
        failed = _gauge("dims_metric_failed", "Whether the last attempt failed.", "metric")
        beyond = _gauge("dims_metric_beyond_limit", "Beyond min, max or max_age, or in the future.", "metric")
        about = "Approximate, or measured during an operation such as a rebase."
        approximate = _gauge("dims_metric_approximate", about, "metric")
        by_metric: defaultdict[str, list[Incident]] = defaultdict(list)
        for incident in incidents:
            by_metric[incident.metric].append(incident)
        for state in states:
            found = metric_health(self.config, state, by_metric[state.metric], now)
            health.add_metric([state.metric, found.worst, found.label, found.severity], 1.0)
            if not self.config.metrics[state.metric].enabled:
                continue
            failed.add_metric([state.metric], float("failing" in found.flags))
            if state.as_of:
                stale.add_metric([state.metric], float("stale" in found.flags))
                beyond.add_metric([state.metric], float("limit" in found.flags))
                unsettled = state.method == "approximate" or IN_PROGRESS in (state.details or {})
                approximate.add_metric([state.metric], float(unsettled))
        return [health, stale, failed, beyond, approximate]

    def _number(self, name: str, value: object, now: datetime) -> float | None:
        """Return a number or a boolean as a float and an age in its unit; None for every other value."""
        declared = self.config.metrics[name]
        try:
            if declared.is_age:
                return age_of(value if isinstance(value, str) else None, now, declared.shown_unit)
            return float(value) if isinstance(value, int | float | Decimal) else None
        except (OverflowError, ValueError):  # an integer too large for a float, or a text that is not a time
            return None

    def _limit_types(self, events: Counter[tuple[str, ...]]) -> Counter[tuple[str, ...]]:
        """Count the event types beyond the limit together.

        A type keeps its own series once it has one. DIMS's own types, and those in the configuration, always have one.
        """
        counts: Counter[tuple[str, ...]] = Counter()
        for (kind, outcome), number in sorted(events.items()):
            if kind not in self._known and len(self._types) < MAX_TYPES:
                self._types.add(kind)
            counts[kind if kind in self._known | self._types else OTHER, outcome] += number
        return counts

    def _broker(self) -> list[Metric]:
        names = queue_names(self.config)
        help_text = f"Waiting entries: events in the stream {STREAM}, wake-ups in the queues."
        length = _gauge("dims_queue_length", help_text, "queue")
        with connect(self.broker_url, timeout=TIMEOUT) as client, client.pipeline(transaction=False) as pipe:
            pipe.xlen(STREAM)
            for name in names:
                pipe.llen(name)
            for name, number in zip([STREAM, *names], pipe.execute(), strict=True):
                length.add_metric([name], number)
        return [length]


def _totals(config: Config) -> list[Metric]:
    numbers = _gauge("dims_metrics", "Configured metrics. DIMS measures a disabled one only by name.", "state")
    numbers.add_metric(["enabled"], len(config.enabled_metrics))
    numbers.add_metric(["disabled"], len(config.disabled_metrics))
    return [numbers]


def _incident_counts(incidents: Iterable[Incident]) -> list[Metric]:
    """Count the incidents that are not closed, and those of them that a person has acknowledged.

    Every kind and severity has a series at 0, because a rule cannot compare a number with a series that has ended.
    """
    active, acknowledged = Counter[tuple[str, str]](), Counter[tuple[str, str]]()
    for incident in incidents:
        active[incident.kind, incident.severity] += 1
        acknowledged[incident.kind, incident.severity] += incident.state == "acknowledged"
    families: list[Metric] = []
    for name, documentation, counts in (
        ("dims_incidents_open", "Incidents that are not closed.", active),
        ("dims_incidents_acknowledged", "Open incidents that a person has acknowledged.", acknowledged),
    ):
        family = _gauge(name, documentation, "kind", "severity")
        for kind, severity in sorted({*product(KINDS, SEVERITIES[1:]), *active}):
            family.add_metric([kind, severity], counts[kind, severity])
        families.append(family)
    return families


def _gauge(name: str, documentation: str, *labels: str) -> GaugeMetricFamily:
    return GaugeMetricFamily(name, documentation, labels=labels)


def _counter(
    name: str,
    documentation: str,
    labels: list[str],
    counts: Counter[tuple[str, ...]],
    always: Iterable[tuple[str, ...]],
) -> Metric:
    """Return a counter. The series in `always` exist at zero, as Prometheus sees no increase in a series that starts
    above zero."""
    family = CounterMetricFamily(name, documentation, labels=labels)
    for values, number in sorted({**dict.fromkeys(always, 0), **counts}.items()):
        family.add_metric(list(values), number)
    return family
