"""The inventory as pandas DataFrames, for notebooks and scripts: `data = frames.open_data()`, then `data.latest()`.

Times are in UTC and timezone-aware. `value` and `baseline` have the type that was measured: an integer is an `int`, a
text a `str`. `number` and `baseline_number` are for calculations: Int64 where all numbers of a frame are whole, else
Float64. For an age they are its length at that time, in its unit. They are missing for texts and failures. An empty
frame has all its columns.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from decimal import Decimal
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import pandas as pd
from sqlalchemy import Connection, Engine, text

from dims_worker import local
from dims_worker.analysis.changes import AcceptedDrift, largest_drifts
from dims_worker.config import Config, load_config
from dims_worker.domain.decide import age_of, drift_pct
from dims_worker.domain.health import NOT_MEASURED, Health, incident_label, incidents_by_metric, metric_health
from dims_worker.formatting import pluralize
from dims_worker.notebook import queries, recommendations, workflow_frames
from dims_worker.store.engine import clock, engine, transaction
from dims_worker.store.history import daily_readings
from dims_worker.store.incidents import Incident, list_incidents, open_incidents
from dims_worker.store.metric_states import states_of
from dims_worker.store.migrations import migrate

_TIMES = {
    *("as_of", "baseline_as_of", "failed_at", "day", "started_at", "finished_at", "opened_at", "updated_at"),
    *("decided_at", "event_time", "received_at", "generated_at", "acknowledged_at", "closed_at"),
}
_INTEGERS = {
    *("request", "run_id", "failures", "readings", "failed", "held", "api_calls", "version", "seq", "events"),
    *("rejected", "unmatched", "incident", "story", "flaps"),
}
_FLOATS = {"drift_pct", "age_hours", "seconds", "hours", "lag_seconds", "lag_p50", "lag_max"}
_FLOATS |= {"expected_low", "expected_high", "band_widths"}
_NUMBERS = ("number", "baseline_number", "anchor_number")
_VALUES = ("value", "baseline", "anchor", "compared_with")
_MAX_ROWS = 1_000_000
"""`sql` refuses a query with more rows."""


def open_data(config: Path | None = None) -> NotebookData:
    """Open the database that `dims` uses in this folder.

    That is DIMS_DATABASE_URL, or the database of the data directory. If that one does not run, this function starts it,
    and it stops at `close()` or at the end of the process. The configuration is `config`, DIMS_CONFIG or ./dims.yaml.

    Raises:
        ConfigError, DatabaseUnreachable, ServiceError: with the fix.
    """
    loaded = load_config(config, os.environ, Path.cwd())
    if loaded.database_url:
        return NotebookData(loaded, engine(loaded.database_url))
    stack = ExitStack()
    local_engine = engine(stack.enter_context(local.temporary_database(loaded.home)))
    stack.callback(local_engine.dispose)
    migrate(local_engine)
    return NotebookData(loaded, local_engine, stack)


@dataclass
class NotebookData(AbstractContextManager["NotebookData"]):
    """The inventory. Each method is one read-only transaction."""

    config: Config
    engine: Engine = field(repr=False)
    stack: ExitStack = field(default_factory=ExitStack, repr=False)

    def close(self) -> None:
        """Release the database. One that `open_data` started stops."""
        self.stack.close()

    def __exit__(self, *error: object) -> None:
        self.close()

    # --- metrics --------------------------------------------------------------------------------------

    def latest(self, pattern: str = "*", state: str | None = None) -> pd.DataFrame:
        """Return a row per metric of the configuration, only those in `state` if it is given.

        These are the metrics that the dashboard counts: without workflows, and a disabled metric only by its full name.
        `state` is the health of a metric, in the words of every output: `lost`, `stale, acknowledged`, `ok`. `flag` is
        its worst problem: `failing`, `waiting`, `limit`, `drifted`, `stale`, `overdue`, `new`, `ok` or `off`. You can
        filter by both. `well` says that it has no problem and was measured, as on the dashboard.

        Columns: metric, category, name, value, number, unit, baseline, baseline_number, as_of, age_hours, status,
        severity, drift_pct, state, critical, failures, error, request, request_drift_pct (the drift that holds it),
        baseline_as_of, method (`exact`, `derived`, or `approximate`: the source changed while it was measured), beyond
        (the limit that the value breaks, as text, such as `in the future: …`), flag, well, sentence (what explains the
        state), incident (the number of the oldest one that is not closed).
        """
        names = sorted(self.config.select([pattern]))
        with transaction(self.engine) as connection:
            now = _begin(connection)
            known = {row["metric"]: row for row in _rows(connection, queries.LATEST, {})}
            states = states_of(connection, names)
            incidents = incidents_by_metric(open_incidents(connection, names))
        chosen = [known.get(name) or _never_registered(name) for name in names]
        for row in chosen:
            name = row["metric"]
            self._add_numbers(row, now)
            row["critical"] = self._policy(name, "critical") or False
            row.update(_health_columns(metric_health(self.config, states[name], incidents.get(name, ()), now)))
        return frame(
            [row for row in chosen if state in (None, row["state"], row["flag"])],
            recommendations.LATEST,
        )

    def history(self, pattern: str = "*", days: float = 90) -> pd.DataFrame:
        """Return a row per reading, oldest first, without superseded and provisional readings.

        Columns: metric, as_of, value, number, unit, outcome, shown (the outcome, with `accepted` also for approved
        readings), status, severity, drift_pct, baseline, baseline_number, run_id, reason, error.
        """
        with transaction(self.engine) as connection:
            _begin(connection)
            rows = _rows(connection, queries.HISTORY, {"days": days, "metrics": self._metrics(connection, pattern)})
        for row in rows:
            self._add_numbers(row, row["as_of"])
            row["shown"] = "accepted" if row["outcome"] == "approved" else row["outcome"]
        return frame(rows, queries.HISTORY_COLUMNS)

    def daily(self, pattern: str = "*", days: int = 90) -> pd.DataFrame:
        """Return a row per metric and day (UTC): the last judged reading of the day.

        Columns: metric, day, as_of, value, number, outcome, status, drift_pct, baseline.
        """
        with transaction(self.engine) as connection:
            _begin(connection)
            series = daily_readings(connection, self._metrics(connection, pattern), days)
        rows = [
            {"metric": metric, **{name: getattr(day, name) for name in day.__slots__}}
            for metric, listed in series.items()
            for day in listed
        ]
        for row in rows:
            self._add_numbers(row, row["as_of"])
        return frame(rows, queries.DAILY_COLUMNS)

    def drift(self, days: float = 30) -> pd.DataFrame:
        """Return the rows of `history` that differ from their baseline, the largest drift first."""
        history = self.history(days=days)
        return history[history["drift_pct"].fillna(0) > 0].sort_values("drift_pct", ascending=False, ignore_index=True)

    def volatility(self, days: int = 90) -> pd.DataFrame:
        """Return a row per metric with numbers, the most volatile first. See `recommendations.volatility`."""
        ages = [name for name, metric in self.config.metrics.items() if metric.is_age]
        daily = self.daily(days=days)
        return recommendations.volatility(daily[~daily["metric"].isin(ages)])

    def recommendations(self, days: int = 90) -> pd.DataFrame:
        """Return what to do, the most urgent first. See `recommendations.recommendations`."""
        return recommendations.recommendations(
            self.latest(), self.volatility(days), self.daily(days=days), self.incidents(days)
        )

    # --- incidents ------------------------------------------------------------------------------------

    def incidents(self, days: float = 90) -> pd.DataFrame:
        """Return a row per incident, oldest first: those that are open or acknowledged, and those closed since then.

        `label` is the word that every output shows. `anchor` is the value before the incident, and `drift_pct` is the
        drift of the latest value from it. `hours` is how long it lasted, or has lasted.

        Columns: incident, story (the same for incidents of one run), metric, kind, state (`open`, `acknowledged`,
        `closed`), label, severity, reason, value, number, unit, anchor, anchor_number, drift_pct, expected_low,
        expected_high, as_of, opened_at, hours, acknowledged_at, acknowledged_by, note, closed_at, resolution,
        closed_by, closing_reason, request, run_id, flaps.
        """
        with transaction(self.engine) as connection:
            now = _begin(connection)
            since = now - timedelta(days=days)
            closed = list_incidents(connection, limit=_MAX_ROWS, state="closed", since=since)
            listed = sorted([*open_incidents(connection), *closed], key=lambda incident: incident.id)
        return frame([self._incident_row(incident, now) for incident in listed], queries.INCIDENT_COLUMNS)

    def _incident_row(self, incident: Incident, now: datetime) -> dict[str, Any]:
        at = incident.as_of or incident.opened_at
        row = {name: getattr(incident, name) for name in Incident.__slots__}
        compared = incident.anchor_as_of is not None and incident.as_of is not None
        return row | {
            "incident": incident.id,
            "label": incident_label(self.config, incident),
            "number": self._number(incident.metric, incident.value, at),
            "anchor_number": self._number(incident.metric, incident.anchor, at),
            "drift_pct": drift_pct(incident.anchor, incident.value) if compared else None,
            "expected_low": incident.low,
            "expected_high": incident.high,
            "hours": ((incident.closed_at or now) - incident.opened_at).total_seconds() / 3600,
        }

    def changes(self, days: float = 30) -> pd.DataFrame:
        """Return a row per accepted drift, the largest first: a value that became the baseline although it differs
        notably from the one before it, its `baseline` here.

        Columns: metric, as_of, value, number, unit, baseline, baseline_number, drift_pct, expected_low, expected_high,
        band_widths (by how many band widths it lies outside the expected band), severity, accepted (`policy`,
        `approved`, `by hand`), decided_at, decided_by, note, reason, incident, request, run_id.
        """
        with transaction(self.engine) as connection:
            since = _begin(connection) - timedelta(days=days)
            drifts = largest_drifts(connection, self.config, since, _MAX_ROWS)
        rows = [_change_row(drift) for drift in drifts]
        for row in rows:
            self._add_numbers(row, row["as_of"])
        return frame(rows, queries.CHANGE_COLUMNS)

    # --- activity -------------------------------------------------------------------------------------

    def runs(self, days: float = 30) -> pd.DataFrame:
        """Return a row per run, oldest first.

        Columns: run_id, trigger, source, status, started_at, finished_at, seconds, readings, failed, held,
        api_calls (to the source).
        """
        return frame(self._read(queries.RUNS, days=days)[1], queries.RUN_COLUMNS)

    def requests(self) -> pd.DataFrame:
        """Return a row per approval request or baseline set by hand, oldest first.

        Columns: request, metric, kind, state, version, value, number, unit, baseline, baseline_number, drift_pct,
        compared_with (what this is the drift from: the baseline, or what a person last accepted), severity, reason,
        opened_at, decided_at, decided_by, note, hours (until it ended, or until now).
        """
        now, rows = self._read(queries.REQUESTS)
        for row in rows:
            self._add_numbers(row, now)
        return frame(rows, queries.REQUEST_COLUMNS)

    def events(self, days: float = 30) -> pd.DataFrame:
        """Return a row per event, oldest first.

        Columns: seq, producer, event_id, type, subject, event_time, received_at, lag_seconds, outcome (`planned`,
        `unmatched`, `rejected`), reason, rules (one text).
        """
        return frame(self._read(queries.EVENTS, days=days)[1], queries.EVENT_COLUMNS)

    def event_flow(self, days: float = 30) -> pd.DataFrame:
        """Return a row per day and producer.

        Columns: day, producer, events, rejected, unmatched, lag_p50, lag_max (seconds from an event to its receipt).
        """
        return frame(self._read(queries.FLOW, days=days)[1], queries.FLOW_COLUMNS)

    # --- workflows ------------------------------------------------------------------------------------

    def results(self) -> dict[str, Mapping[str, Any]]:
        """Return the newest result of each workflow by name, from its own runs and from audits."""
        with transaction(self.engine) as connection:
            _begin(connection)
            return workflow_frames.newest_results(connection)

    def workflows(self) -> pd.DataFrame:
        """Return a row per workflow: workflow, generated_at, status (`ok`, `attention`, `failed`), figures, to_do."""
        return frame(workflow_frames.overview_frame(self.results()), workflow_frames.OVERVIEW)

    def gaps(self) -> pd.DataFrame:
        """Return a row per season of gap-analysis, with the columns `workflow_frames.GAPS`."""
        return frame(workflow_frames.gaps_frame(self.results()), workflow_frames.GAPS)

    def local_and_lake(self) -> pd.DataFrame:
        """Return a row per folder of sync-status or local-inventory, with the columns `workflow_frames.SIDES`."""
        return frame(workflow_frames.sync_frame(self.results()), workflow_frames.SIDES)

    def costs(self) -> pd.DataFrame:
        """Return a row per part of the monthly estimate of aws-inventory, with the columns `workflow_frames.COSTS`."""
        return frame(workflow_frames.costs_frame(self.results()), workflow_frames.COSTS)

    def completeness(self) -> pd.DataFrame:
        """Return the share of the expected data in %: of each season in gap-analysis, and of each metric that measures
        completeness. The columns are `workflow_frames.COMPLETENESS`."""
        names = [
            name for name, metric in self.config.metrics.items() if getattr(metric, "measure", None) == "completeness"
        ]
        latest = self.latest()
        shares = latest[latest["metric"].isin(names) & latest["number"].notna()]
        rows = workflow_frames.completeness_frame(self.results(), zip(shares["metric"], shares["number"], strict=True))
        return frame(rows, workflow_frames.COMPLETENESS)

    # --- SQL ------------------------------------------------------------------------------------------

    def sql(self, query: str) -> pd.DataFrame:
        """Return the rows of one SELECT. docs/api.md lists the views and functions.

        A cursor in a read-only transaction runs the query. So it is one statement that changes nothing, even for the
        owner of the database.
        """
        with transaction(self.engine) as connection:
            _begin(connection)
            connection.execute(text("SET LOCAL statement_timeout = '60s'"))
            connection.execute(
                text("SELECT set_config('dims.query', :query, true)"), {"query": query.strip().rstrip(";")}
            )
            connection.exec_driver_sql(queries.OPEN)
            answer = connection.exec_driver_sql(f"FETCH FORWARD {_MAX_ROWS + 1} FROM dims_answer")
            columns, rows = list(answer.keys()), answer.fetchall()
        if len(rows) > _MAX_ROWS:
            raise ValueError(
                f"the query has more than {pluralize(_MAX_ROWS, 'row')}. Add a filter, or count and group in SQL."
            )
        return frame([dict(zip(columns, row, strict=True)) for row in rows], columns)

    # --- helpers --------------------------------------------------------------------------------------

    def _read(self, query: str, **values: Any) -> tuple[datetime, list[dict[str, Any]]]:
        with transaction(self.engine) as connection:
            return _begin(connection), _rows(connection, query, values)

    def _metrics(self, connection: Connection, pattern: str) -> list[str]:
        rows = _rows(connection, "SELECT metric FROM dims_metrics WHERE retired_at IS NULL ORDER BY metric", {})
        return [row["metric"] for row in rows if fnmatchcase(row["metric"], pattern)]

    def _policy(self, metric: str, key: str) -> Any:
        return getattr(self.config.policy_of(metric), key) if metric in self.config.metrics else None

    def _add_numbers(self, row: dict[str, Any], now: datetime) -> None:
        """Add `number` and `baseline_number`. An age is as long as it was at `now`."""
        for column, name in (("value", "number"), ("baseline", "baseline_number")):
            row[name] = self._number(row["metric"], row[column], now)

    def _number(self, name: str, value: Any, now: datetime) -> float | int | None:
        metric = self.config.metrics.get(name)
        if isinstance(value, int | float) and not isinstance(value, bool):
            return value
        if isinstance(value, Decimal):
            return float(value)  # to calculate with; `value` keeps all digits
        if not isinstance(value, str) or metric is None or not metric.is_age:
            return None
        return age_of(value, now, metric.shown_unit)


def _health_columns(health: Health) -> dict[str, Any]:
    return {
        "state": health.label,
        "beyond": health.broken,
        "flag": health.worst,
        "well": health.healthy and health.worst != "off" and NOT_MEASURED not in health.labels,
        "sentence": health.sentence,
        "incident": min((incident.id for incident in health.incidents), default=None),
    }


def _change_row(drift: AcceptedDrift) -> dict[str, Any]:
    accepted = drift.accepted
    columns = ("metric", "as_of", "unit", "drift_pct", "severity", "reason", "run_id")
    return {name: getattr(drift, name) for name in columns} | {
        "value": drift.after,
        "baseline": drift.before,
        "expected_low": drift.low,
        "expected_high": drift.high,
        "band_widths": drift.distance,
        "accepted": accepted.how,
        "decided_at": accepted.decided_at,
        "decided_by": accepted.decided_by,
        "note": accepted.note,
        "request": accepted.request,
        "incident": drift.incident.id if drift.incident else None,
    }


def _never_registered(name: str) -> dict[str, Any]:
    """Return the row of a metric that is configured and not in the database yet."""
    category, _, short = name.partition(".")
    unknown = dict.fromkeys(recommendations.LATEST)
    return {**unknown, "metric": name, "category": category, "name": short, "due": True, "failures": 0}


def frame(rows: Iterable[Mapping[str, Any]], columns: Sequence[str]) -> pd.DataFrame:
    """Return rows as a frame with these columns, in this order, and with the types of the module's docstring."""
    listed = list(rows)
    return pd.DataFrame(
        {name: _column(name, [row.get(name) for row in listed]) for name in columns}, columns=[*columns]
    )


def _column(name: str, values: list[Any]) -> pd.Series:
    known = [value for value in values if value is not None]
    if name in _TIMES or (known and all(isinstance(value, datetime) for value in known)):
        return pd.Series(pd.to_datetime(pd.Series(values, dtype=object), utc=True))
    if name in _FLOATS or name.endswith(("_pct", "_usd")):
        return pd.Series(values, dtype="Float64")
    if name in _INTEGERS or name in workflow_frames.COUNTS:
        return pd.Series(values, dtype="Int64")
    if name in _NUMBERS:
        return numbers(values)
    if _all_integers(known) and name not in _VALUES:
        return pd.Series(values, dtype="Int64")
    return pd.Series(values, dtype=object)


def numbers(values: Sequence[Any]) -> pd.Series:
    """Return an Int64 series where all known values are integers that fit, else a Float64 series."""
    if _all_integers([value for value in values if value is not None]):
        return pd.Series(values, dtype="Int64")
    return pd.Series([None if value is None else float(value) for value in values], dtype="Float64")


def _all_integers(known: Sequence[Any]) -> bool:
    return bool(known) and all(type(value) is int and abs(value) < 2**63 for value in known)


def _begin(connection: Connection) -> datetime:
    """Make the transaction read-only and return the database's time."""
    connection.execute(text("SET TRANSACTION READ ONLY"))
    return clock(connection)


def _rows(connection: Connection, query: str, values: Mapping[str, Any]) -> list[dict[str, Any]]:
    return [dict(row) for row in connection.execute(text(query), values).mappings()]
