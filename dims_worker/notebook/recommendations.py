"""Recommendations from the numbers. Pure functions: frames in, frames out."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pandas as pd

LATEST = (
    *("metric", "category", "name", "value", "number", "unit", "baseline", "baseline_number", "as_of", "age_hours"),
    *("status", "severity", "drift_pct", "state", "critical", "failures", "error", "request", "request_drift_pct"),
    *("baseline_as_of", "method", "beyond", "flag", "well", "sentence", "incident"),
)
VOLATILITY = ("metric", "days", "mean", "stddev", "volatility_pct", "mean_drift_pct")
ADVICE = ("kind", "metric", "value", "unit", "what_to_do")

DRIFT_PCT = 15.0
VOLATILE_PCT = 25.0
UNCHANGED_DAYS = 30
"""A metric has never changed when this many days or more have the same value."""

CLOSE = "Restore what is missing, or close it with a reason: dims incidents show {0.incident}"
DECIDE = "Decide request {0.request}: dims approvals show {0.request}"
MEASURE = "Check that its producer sends events, or add a schedule. Measure it now: dims verify -m {0.metric}"
CONFIGURE = "Configure what is normal: `volatility: volatile`, wider thresholds, or `min_abs`"

Advice = Iterator[tuple[str, str, Any, str, str]]
"""Rows with the columns `ADVICE`."""


def volatility(daily: pd.DataFrame) -> pd.DataFrame:
    """Return the volatility of each metric in `NotebookData.daily` rows, the most volatile first.

    Columns: metric, days (with a number), mean, stddev, volatility_pct, mean_drift_pct. volatility_pct is the
    coefficient of variation: 100 x standard deviation (of the sample) / |mean| of the daily numbers. It is missing with
    fewer than 3 days and where the mean is 0. mean_drift_pct is the mean of the judged drifts.
    """
    known = daily[daily["number"].notna()]
    grouped = known.assign(number=known["number"].astype("Float64")).groupby("metric", sort=True)
    table = grouped.agg(
        days=("number", "size"), mean=("number", "mean"), stddev=("number", "std"), mean_drift_pct=("drift_pct", "mean")
    ).reset_index()
    mean = table["mean"].abs().where((table["mean"] != 0) & (table["days"] >= 3))
    table["volatility_pct"] = 100 * table["stddev"] / mean
    floats = dict.fromkeys(("mean", "stddev", "volatility_pct", "mean_drift_pct"), "Float64")
    table = table.astype({"days": "Int64", **floats})
    return table[[*VOLATILITY]].sort_values("volatility_pct", ascending=False, na_position="last", ignore_index=True)


def recommendations(
    latest: pd.DataFrame, volatile: pd.DataFrame, daily: pd.DataFrame, incidents: pd.DataFrame | None = None
) -> pd.DataFrame:
    """Return what to do: the most urgent kind first, within a kind the largest value first.

    Columns: kind (`failed`, `held`, `limit`, `incident`, `drift`, `stale`, `volatile`, `never changed`), metric, value
    and its unit (%, hours, days, failures, or those of the metric), what_to_do. A drift whose incident is not closed is
    an `incident`, whatever its metric measured since, and none once a person has acknowledged it.
    """
    flag, drift = latest["flag"], latest["drift_pct"].fillna(0)
    drifts = _drift_incidents(incidents)
    elsewhere = flag.isin(("waiting", "failing")) | latest["metric"].isin(drifts["metric"])
    drifted = latest[(drift > DRIFT_PCT) & ~elsewhere]
    volatile = volatile[volatile["volatility_pct"].fillna(0) > VOLATILE_PCT]
    by_kind = (
        _advise("failed", latest[flag == "failing"], "failures", "failures", "Fix its source: {0.error}"),
        _advise("held", latest[latest["request"].notna()], "request_drift_pct", "%", DECIDE),
        _beyond_limit(latest),
        _advise("incident", drifts[drifts["state"] == "open"], "drift_pct", "%", CLOSE),
        _advise("drift", drifted, "drift_pct", "%", "Find the cause: dims explain {0.metric}"),
        _advise("stale", latest[flag == "stale"], "age_hours", "hours", MEASURE),
        _advise("volatile", volatile, "volatility_pct", "%", CONFIGURE),
        _unchanged(daily),
    )
    rows = [dict(zip(ADVICE, row, strict=True)) for kind in by_kind for row in kind]
    table = pd.DataFrame(rows, columns=[*ADVICE])
    return table.astype({"value": "Float64", **dict.fromkeys(("kind", "metric", "unit", "what_to_do"), object)})


def _drift_incidents(incidents: pd.DataFrame | None) -> pd.DataFrame:
    """Return the incidents of drifts that are not closed."""
    if incidents is None:
        return pd.DataFrame(columns=["incident", "metric", "state", "drift_pct"])
    return incidents[(incidents["state"] != "closed") & (incidents["kind"] == "drift")]


def _advise(kind: str, frame: pd.DataFrame, column: str, unit: str, what_to_do: str) -> Advice:
    """Yield advice for each row, the largest value of `column` first. `{0.metric}` in the text is the row's metric."""
    for row in frame.sort_values(column, ascending=False).itertuples():
        yield kind, row.metric, getattr(row, column), unit, what_to_do.format(row)


def _beyond_limit(latest: pd.DataFrame) -> Advice:
    """Yield the metrics beyond a limit. An instant in the future has no value."""
    for row in latest[latest["beyond"].notna()].itertuples():
        number = row.number if pd.notna(row.number) else None
        yield "limit", row.metric, number, row.unit, f"Find the cause: dims explain {row.metric}. It is {row.beyond}"


def _unchanged(daily: pd.DataFrame) -> Advice:
    measured = daily[daily["outcome"] != "failed"]
    for metric, rows in measured.groupby("metric", sort=True):
        if len(rows) >= UNCHANGED_DAYS and rows["value"].map(repr).nunique() == 1:
            what = "Check that it measures what you expect (path, prefix, query). If it does, measure it less often."
            yield "never changed", str(metric), len(rows), "days", what
