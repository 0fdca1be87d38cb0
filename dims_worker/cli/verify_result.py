"""What `dims verify` found: the health of each metric that it measured, and why its exit code is not 0."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Literal

from sqlalchemy import Connection

from dims_worker.config import Config
from dims_worker.domain.decide import SEVERITIES, Severity, at_least
from dims_worker.domain.health import Health, incidents_by_metric, metric_health
from dims_worker.domain.run import Run, RunReading
from dims_worker.formatting import format_duration, pluralize
from dims_worker.store.engine import clock
from dims_worker.store.incidents import open_incidents
from dims_worker.store.metric_states import states_of
from dims_worker.text.json_documents import health_document
from dims_worker.text.readings import reading_json

Level = Literal["error", "failure", "drift", "fine"]
NAMED = 3
"""The summary names at most this many metrics."""


@dataclass(frozen=True, slots=True)
class VerifiedMetric:
    """A metric that was measured. `reading` is None if nothing had changed since its last reading."""

    metric: str
    health: Health
    reading: RunReading | None
    fail_on: Severity

    @property
    def failed(self) -> bool:
        return self.reading is not None and self.reading.method == "failed"

    @property
    def reasons(self) -> list[str]:
        """Return why the metric makes the exit code 1: `severity high`, `request 4`, `incident 7 is open`."""
        if self.failed:
            return []
        reasons = []
        if self.severity != "none" and at_least(self.severity, self.fail_on):
            reasons.append(f"severity {self.severity}")
        if (self.reading is not None and self.reading.outcome == "held") or "waiting" in self.health.flags:
            reasons.append(f"request {self.health.request}" if self.health.request else "held")
        for incident in self.health.incidents:
            severity: Severity = next((name for name in SEVERITIES if name == incident.severity), "high")
            if incident.kind != "approval" and not incident.calm and at_least(severity, self.fail_on):
                reasons.append(f"{severity} incident {incident.id} is {incident.state}")
        return reasons

    @property
    def severity(self) -> Severity:
        """The severity of the reading."""
        given = self.reading.severity if self.reading is not None else None
        return next((name for name in SEVERITIES if name == given), "none")

    @property
    def level(self) -> Level:
        """What the metric means for a build.

        `error`: it could not be measured. `failure`: it makes the exit code 1. `drift`: its severity is below
        `--fail-on`, or it has another problem.
        """
        if self.failed:
            return "error"
        if self.reasons:
            return "failure"
        return "fine" if self.severity == "none" and self.health.healthy else "drift"

    def why(self) -> str:
        """Return the label and why the metric makes the exit code not 0: `lost: severity high, incident 7 is open`."""
        reasons = ", ".join(self.reasons)
        return f"{self.health.label}: {reasons}" if reasons else self.health.label


@dataclass(frozen=True, slots=True)
class VerifyResult:
    """The metrics that one `dims verify` measured, in the order of the configuration, at `now`."""

    config: Config
    runs: Sequence[Run]
    metrics: Sequence[VerifiedMetric]
    fail_on: Severity
    now: datetime

    @classmethod
    def load(
        cls, connection: Connection, config: Config, runs: Sequence[Run], names: frozenset[str], fail_on: Severity
    ) -> VerifyResult:
        """Return the result of these runs for the metrics with these names, and those whose value was held."""
        readings = {item.metric: item for run in runs for item in run.items}
        held = {name for name, item in readings.items() if item.outcome == "held"}
        listed = [name for name in config.definitions if name in names | held]
        states, now = states_of(connection, listed), clock(connection)
        incidents = incidents_by_metric(open_incidents(connection, listed))
        metrics = [
            VerifiedMetric(
                name, metric_health(config, states[name], incidents.get(name, ()), now), readings.get(name), fail_on
            )
            for name in listed
        ]
        return cls(config, runs, metrics, fail_on, now)

    @property
    def measured(self) -> list[tuple[RunReading, Health]]:
        """The readings, each with the health of its metric."""
        return [(each.reading, each.health) for each in self.metrics if each.reading is not None]

    @property
    def exit_code(self) -> int:
        """3 if something could not be measured, 1 for what `VerifiedMetric.reasons` has, else 0."""
        if any(each.failed for each in self.metrics):
            return 3
        return int(any(each.reasons for each in self.metrics))

    @property
    def causes(self) -> list[VerifiedMetric]:
        """The metrics that make the exit code what it is."""
        code = self.exit_code
        return [each for each in self.metrics if (each.failed if code == 3 else each.reasons)]

    @property
    def status(self) -> str:
        return "partial" if any(run.status == "partial" for run in self.runs) else "ok"

    @property
    def duration(self) -> timedelta:
        return sum((run.finished_at - run.as_of for run in self.runs), timedelta(0))

    def exit_reason(self) -> str:
        """Return why the exit code is not 0, or an empty text: `exit code 1: lake.rows (lost: severity high)`."""
        causes = self.causes
        if not causes:
            return ""
        named = ", ".join(f"{each.metric} ({each.why()})" for each in causes[:NAMED])
        more = f" and {len(causes) - NAMED:,} more" if len(causes) > NAMED else ""
        return f"exit code {self.exit_code}: {named}{more}"

    def summary(self) -> str:
        """Return one line: `run 3 ok: 2 metrics in 230 ms: 1 ok, 1 lost; exit code 1: …`.

        It counts the labels of all metrics.
        """
        counts = Counter(each.health.label for each in self.metrics)
        results = ", ".join(f"{count:,} {label}" for label, count in counts.items()) or "nothing to measure"
        numbers = ", ".join(str(run.run_id) for run in self.runs)
        run = f"run {numbers} {self.status}" if numbers else "nothing has changed"
        line = f"{run}: {pluralize(len(self.metrics), 'metric')} in {format_duration(self.duration)}: {results}"
        return "; ".join(text for text in (line, self.exit_reason()) if text)

    def document(self) -> dict[str, Any]:
        """Return the JSON document."""
        return {
            "run": self.runs[0].run_id if len(self.runs) == 1 else None,
            "runs": [run.run_id for run in self.runs],
            "status": self.status,
            "exit_code": self.exit_code,
            "exit_reason": self.exit_reason() or None,
            "api_calls": sum(run.api_calls for run in self.runs),
            "metrics": [self._metric_document(each) for each in self.metrics if each.reading is not None],
            "unchanged": [
                {"metric": each.metric, "health": health_document(each.health), "reasons": each.reasons}
                for each in self.metrics
                if each.reading is None
            ],
        }

    def _metric_document(self, verified: VerifiedMetric) -> dict[str, Any]:
        assert verified.reading is not None
        document = reading_json(self.config, verified.reading)
        return {**document, "health": health_document(verified.health), "reasons": verified.reasons}
