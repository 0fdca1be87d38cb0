"""What is known as pandas DataFrames, for notebooks and scripts: `known = frames.open()`, then `known.latest()`.

Times are UTC and timezone-aware. `value` and `baseline` are as they were measured: an integer stays an `int`, a text a
text. `number` and `baseline_number` are the same to reckon with: Int64 where all of a frame's numbers are whole, else
Float64; of an age, how old it was then, in its unit; missing for texts and failures. An empty frame has its columns.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import datetime
from fnmatch import fnmatchcase
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import pandas as pd
from sqlalchemy import Connection, Engine, text

from dims_worker import local
from dims_worker.config import Config, load_config
from dims_worker.config.units import AGES
from dims_worker.notebook import queries, recommendations, workflow_frames
from dims_worker.store.engine import clock, engine, transaction
from dims_worker.store.history import daily_readings
from dims_worker.store.migrations import migrate

_TIMES = {
    *("as_of", "baseline_as_of", "failed_at", "day", "started_at", "finished_at", "opened_at", "updated_at"),
    *("decided_at", "event_time", "received_at", "generated_at"),
}
_INTEGERS = {
    *("request", "run_id", "failures", "readings", "failed", "held", "api_calls", "version", "seq", "events"),
    *("rejected", "unmatched"),
}
_FLOATS = {"drift_pct", "age_hours", "seconds", "hours", "lag_seconds", "lag_p50", "lag_max"}
_LONGEST = 1_000_000
"""Rows of one answer to a query of one's own: more are refused, not cut off."""


def open_data(config: Path | None = None) -> NotebookData:
    """The database that `dims` finds from here: DIMS_DATABASE_URL, else this home's own, started where it does not
    run, until the process ends or `close()`. The configuration: `config`, else DIMS_CONFIG, else ./dims.yaml.

    Raises:
        ConfigError, DatabaseUnreachable, ServiceError: with the remedy.
    """
    loaded = load_config(config, os.environ, Path.cwd())
    if loaded.database_url:
        return NotebookData(loaded, engine(loaded.database_url))
    stack = ExitStack()
    mine = engine(stack.enter_context(local.temporary_database(loaded.home)))
    stack.callback(mine.dispose)
    migrate(mine)
    return NotebookData(loaded, mine, stack)


@dataclass
class NotebookData:
    """Everything that is known. Each method is one transaction that can only read."""

    config: Config
    engine: Engine = field(repr=False)
    stack: ExitStack = field(default_factory=ExitStack, repr=False)

    def close(self) -> None:
        """Give the database back, where it was started for this."""
        self.stack.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # --- metrics --------------------------------------------------------------------------------------

    def latest(self, pattern: str = "*", state: str | None = None) -> pd.DataFrame:
        """A row a metric: metric, category, name, value, number, unit, baseline, baseline_number, as_of, age_hours,
        status, severity, drift_pct, state (`ok`, `held`, `failed`, `stale`, `due`, `never`: the first that applies of
        failed, held, stale, never, due), critical, failures, error, request, baseline_as_of. `state` keeps those."""
        with transaction(self.engine) as connection:
            now = _begin(connection)
            rows = _rows(connection, queries.LATEST, {})
        chosen = [row for row in rows if fnmatchcase(row["metric"], pattern)]
        for row in chosen:
            row["number"] = self._number(row, "value", now)
            row["baseline_number"] = self._number(row, "baseline", now)
            row["critical"] = self._policy(row["metric"], "critical") or False
            row["state"] = self._state(row, now)
        found = [row for row in chosen if state in (None, row["state"])]
        return frame(found, recommendations.LATEST)

    def history(self, pattern: str = "*", days: float = 90) -> pd.DataFrame:
        """A row a reading, oldest first: metric, as_of, value, number, unit, outcome, shown (`accepted`, also what a
        person approved; `held`, `rejected`, `failed`, `looked`), status, severity, drift_pct, baseline,
        baseline_number, run_id, reason, error. Superseded and provisional readings are left out."""
        with transaction(self.engine) as connection:
            _begin(connection)
            rows = _rows(connection, queries.HISTORY, {"days": days, "metrics": self._metrics(connection, pattern)})
        for row in rows:
            row["number"] = self._number(row, "value", row["as_of"])
            row["baseline_number"] = self._number(row, "baseline", row["as_of"])
            row["shown"] = "accepted" if row["outcome"] == "approved" else row["outcome"]
        return frame(rows, queries.HISTORY_COLUMNS)

    def daily(self, pattern: str = "*", days: int = 90) -> pd.DataFrame:
        """A row a metric and day (UTC) with a judged reading, the day's last one: metric, day, as_of, value, number,
        outcome, status, drift_pct, baseline."""
        with transaction(self.engine) as connection:
            _begin(connection)
            series = daily_readings(connection, self._metrics(connection, pattern), days)
        rows = [
            {"metric": metric, **{name: getattr(one, name) for name in one.__slots__}}
            for metric, found in series.items()
            for one in found
        ]
        for row in rows:
            row["number"] = self._number(row, "value", row["as_of"])
        return frame(rows, queries.DAILY_COLUMNS)

    def drift(self, days: float = 30) -> pd.DataFrame:
        """The readings of `history` that differed from what they were judged against, largest drift first."""
        found = self.history(days=days)
        return found[found["drift_pct"].fillna(0) > 0].sort_values("drift_pct", ascending=False, ignore_index=True)

    def volatility(self, days: int = 90) -> pd.DataFrame:
        """A row a metric of numbers, most volatile first: see `advice.volatility`, which has the formula."""
        ages = [name for name, metric in self.config.metrics.items() if metric.is_age]
        found = self.daily(days=days)
        return recommendations.volatility(found[~found["metric"].isin(ages)])

    def recommendations(self, days: int = 90) -> pd.DataFrame:
        """What to do, most pressing first: see `advice.recommendations`."""
        return recommendations.recommendations(self.latest(), self.volatility(days), self.daily(days=days))

    # --- what happened --------------------------------------------------------------------------------

    def runs(self, days: float = 30) -> pd.DataFrame:
        """A row a run, oldest first: run_id, trigger, source, status, started_at, finished_at, seconds, readings,
        failed, held, api_calls (LIST and the like)."""
        return self._frame(queries.RUNS, queries.RUN_COLUMNS, days=days)

    def requests(self) -> pd.DataFrame:
        """A row an approval request, oldest first, baselines set by hand among them: request, metric, kind, state,
        version, value, number, unit, baseline, baseline_number, drift_pct, severity, reason, opened_at, decided_at,
        decided_by, note, hours (it took or, while open, waits)."""
        with transaction(self.engine) as connection:
            now = _begin(connection)
            rows = _rows(connection, queries.REQUESTS, {})
        for row in rows:
            row["number"] = self._number(row, "value", now)
            row["baseline_number"] = self._number(row, "baseline", now)
        return frame(rows, queries.REQUEST_COLUMNS)

    def events(self, days: float = 30) -> pd.DataFrame:
        """A row an event, oldest first: seq, producer, event_id, type, subject, event_time, received_at, lag_seconds,
        outcome (`planned`, `unmatched`, `rejected`), reason, rules (in one text)."""
        return self._frame(queries.EVENTS, queries.EVENT_COLUMNS, days=days)

    def event_flow(self, days: float = 30) -> pd.DataFrame:
        """A row a day and producer: day, producer, events, rejected, unmatched, lag_p50 and lag_max (seconds from an
        event's own time to its receipt)."""
        return self._frame(queries.FLOW, queries.FLOW_COLUMNS, days=days)

    # --- workflows ------------------------------------------------------------------------------------

    def results(self) -> dict[str, Mapping[str, Any]]:
        """The newest whole result of each workflow that was run, by its name; those within an audit, too."""
        with transaction(self.engine) as connection:
            _begin(connection)
            return workflow_frames.newest_results(connection)

    def workflows(self) -> pd.DataFrame:
        """A row a workflow that was run: workflow, generated_at, status (`ok`, `attention`, `failed`), figures, to_do
        (in one text each)."""
        return frame(workflow_frames.overview_frame(self.results()), workflow_frames.OVERVIEW)

    def gaps(self) -> pd.DataFrame:
        """gap-analysis: a row a season: see `findings.GAPS`."""
        return frame(workflow_frames.gaps_frame(self.results()), workflow_frames.GAPS)

    def local_and_lake(self) -> pd.DataFrame:
        """sync-status and local-inventory: a row a folder: see `findings.SIDES`."""
        return frame(workflow_frames.sync_frame(self.results()), workflow_frames.SIDES)

    def costs(self) -> pd.DataFrame:
        """aws-inventory: a row a part of the estimate for a month: see `findings.COSTS`."""
        return frame(workflow_frames.costs_frame(self.results()), workflow_frames.COSTS)

    def completeness(self) -> pd.DataFrame:
        """What there is of what there should be, in %: the seasons of gap-analysis and the metrics that measure
        completeness: see `findings.COMPLETENESS`."""
        measured = [
            name for name, metric in self.config.metrics.items() if getattr(metric, "measure", None) == "completeness"
        ]
        latest = self.latest()
        shares = latest[latest["metric"].isin(measured) & latest["number"].notna()]
        rows = workflow_frames.completeness_frame(self.results(), zip(shares["metric"], shares["number"], strict=True))
        return frame(rows, workflow_frames.COMPLETENESS)

    # --- a query of one's own -------------------------------------------------------------------------

    def sql(self, query: str) -> pd.DataFrame:
        """The answer to one SELECT, its columns as the query names them: see docs/api.md for views and functions.

        It is opened as a cursor in a transaction that can only read, so that it is one statement and changes nothing,
        whoever asks; a login of dims_reader could not change anything anyway.
        """
        with transaction(self.engine) as connection:
            _begin(connection)
            connection.execute(text("SET LOCAL statement_timeout = '60s'"))
            connection.execute(
                text("SELECT set_config('dims.query', :query, true)"), {"query": query.strip().rstrip(";")}
            )
            connection.exec_driver_sql(queries.OPEN)
            answer = connection.exec_driver_sql(f"FETCH FORWARD {_LONGEST + 1} FROM dims_answer")
            columns, rows = list(answer.keys()), answer.fetchall()
        if len(rows) > _LONGEST:
            raise ValueError(f"more than {_LONGEST:,} rows: narrow the query, or count and group in it")
        return frame([dict(zip(columns, row, strict=True)) for row in rows], columns)

    # --- within ---------------------------------------------------------------------------------------

    def _frame(self, query: str, columns: Sequence[str], **values: Any) -> pd.DataFrame:
        with transaction(self.engine) as connection:
            _begin(connection)
            return frame(_rows(connection, query, values), columns)

    def _metrics(self, connection: Connection, pattern: str) -> list[str]:
        rows = _rows(connection, "SELECT metric FROM dims_metrics WHERE retired_at IS NULL ORDER BY metric", {})
        return [row["metric"] for row in rows if fnmatchcase(row["metric"], pattern)]

    def _policy(self, metric: str, what: str) -> Any:
        return getattr(self.config.policy_of(metric), what) if metric in self.config.metrics else None

    def _number(self, row: Mapping[str, Any], what: str, now: datetime) -> float | int | None:
        """A value to reckon with; an age is as old as it was at `now`."""
        value, metric = row[what], self.config.metrics.get(row["metric"])
        if isinstance(value, bool) or not isinstance(value, int | float | str):
            return None
        if isinstance(value, int | float):
            return value
        if metric is None or not metric.is_age:
            return None
        try:
            return (now - datetime.fromisoformat(value)).total_seconds() / AGES[metric.shown_unit]
        except (ValueError, TypeError):  # the metric was no age when this was measured
            return None

    def _state(self, row: Mapping[str, Any], now: datetime) -> str:
        if row["error"] is not None:
            return "failed"
        if row["request"] is not None:
            return "held"
        if row["as_of"] is None:
            return "never"
        stale_after = self._policy(row["metric"], "stale_after")
        if stale_after and now - row["as_of"] > stale_after:
            return "stale"
        return "due" if row["due"] else "ok"


def frame(rows: Iterable[Mapping[str, Any]], columns: Sequence[str]) -> pd.DataFrame:
    """Rows as a frame with these columns, in this order and with the types of the module's docstring."""
    listed = list(rows)
    return pd.DataFrame(
        {name: _column(name, [row.get(name) for row in listed]) for name in columns}, columns=[*columns]
    )


def _column(name: str, values: list[Any]) -> pd.Series:
    there = [value for value in values if value is not None]
    if name in _TIMES or (there and all(isinstance(value, datetime) for value in there)):
        return pd.Series(pd.to_datetime(pd.Series(values, dtype=object), utc=True))
    if name in _FLOATS or name.endswith(("_pct", "_usd")):
        return pd.Series(values, dtype="Float64")
    if name in _INTEGERS or name in workflow_frames.COUNTS:
        return pd.Series(values, dtype="Int64")
    if name in ("number", "baseline_number"):
        return numbers(values)
    if there and all(type(value) is int and abs(value) < 2**63 for value in there):
        return (
            pd.Series(values, dtype="Int64") if name not in ("value", "baseline") else pd.Series(values, dtype=object)
        )
    return pd.Series(values, dtype=object)


def numbers(values: Sequence[Any]) -> pd.Series:
    """Int64 where all that are there are whole and fit, else Float64."""
    there = [value for value in values if value is not None]
    whole = bool(there) and all(type(value) is int and abs(value) < 2**63 for value in there)
    return pd.Series(
        [None if v is None else v if whole else float(v) for v in values], dtype="Int64" if whole else "Float64"
    )


def _begin(connection: Connection) -> datetime:
    """Nothing can be written from here to the end of the transaction; the database's clock."""
    connection.execute(text("SET TRANSACTION READ ONLY"))
    return clock(connection)


def _rows(connection: Connection, query: str, values: Mapping[str, Any]) -> list[dict[str, Any]]:
    return [dict(row) for row in connection.execute(text(query), values).mappings()]
