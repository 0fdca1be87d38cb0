"""What the numbers suggest that somebody does. Pure: frames in, frames out."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pandas as pd

LATEST = (
    *("metric", "category", "name", "value", "number", "unit", "baseline", "baseline_number", "as_of", "age_hours"),
    *("status", "severity", "drift_pct", "state", "critical", "failures", "error", "request", "baseline_as_of"),
)
VOLATILITY = ("metric", "days", "mean", "stddev", "volatility_pct", "mean_drift_pct")
ADVICE = ("kind", "metric", "value", "unit", "what_to_do")

DRIFT_PCT = 15.0
VOLATILE_PCT = 25.0
UNCHANGED_DAYS = 30
"""A metric with so many days of readings, all equal, has never changed."""


def volatility(daily: pd.DataFrame) -> pd.DataFrame:
    """Most volatile first, of `Known.daily` rows: metric, days (with a number), mean, stddev, volatility_pct,
    mean_drift_pct.

    volatility_pct is the coefficient of variation: 100 x standard deviation (of the sample) / |mean| of the days'
    last numbers; missing where there are fewer than 3 days, or the mean is 0. mean_drift_pct is the mean size of the
    drifts that were judged.
    """
    counted = daily[daily["number"].notna()]
    grouped = counted.assign(number=counted["number"].astype("Float64")).groupby("metric", sort=True)
    found = grouped.agg(
        days=("number", "size"), mean=("number", "mean"), stddev=("number", "std"), mean_drift_pct=("drift_pct", "mean")
    ).reset_index()
    mean = found["mean"].abs().where((found["mean"] != 0) & (found["days"] >= 3))
    found["volatility_pct"] = 100 * found["stddev"] / mean
    found = found.astype(
        {"days": "Int64", **dict.fromkeys(("mean", "stddev", "volatility_pct", "mean_drift_pct"), "Float64")}
    )
    return found[[*VOLATILITY]].sort_values("volatility_pct", ascending=False, na_position="last", ignore_index=True)


def recommendations(latest: pd.DataFrame, volatile: pd.DataFrame, daily: pd.DataFrame) -> pd.DataFrame:
    """Most pressing kind first, within a kind the largest first: kind (`failed`, `held`, `drift`, `stale`, `volatile`,
    `never changed`), metric, value and its unit (%, hours, days, failures), what_to_do."""
    rows = [
        *_failed(latest),
        *_held(latest),
        *_drift(latest),
        *_stale(latest),
        *_volatile(volatile),
        *_unchanged(daily),
    ]
    found = pd.DataFrame(rows, columns=[*ADVICE])
    return found.astype({"value": "Float64", **dict.fromkeys(("kind", "metric", "unit", "what_to_do"), object)})


Rows = Iterator[dict[str, Any]]


def _row(kind: str, metric: str, value: Any, unit: str, what_to_do: str) -> dict[str, Any]:
    return {"kind": kind, "metric": metric, "value": value, "unit": unit, "what_to_do": what_to_do}


def _failed(latest: pd.DataFrame) -> Rows:
    for one in latest[latest["state"] == "failed"].sort_values("failures", ascending=False).itertuples():
        yield _row("failed", one.metric, one.failures, "failures", f"Mend its source: {one.error}")


def _held(latest: pd.DataFrame) -> Rows:
    for one in latest[latest["state"] == "held"].sort_values("drift_pct", ascending=False).itertuples():
        yield _row("held", one.metric, one.drift_pct, "%", f"Decide request {one.request}: "
                   f"dims approvals show {one.request}")  # fmt: skip


def _drift(latest: pd.DataFrame) -> Rows:
    drifted = latest[(latest["drift_pct"].fillna(0) > DRIFT_PCT) & ~latest["state"].isin(("held", "failed"))]
    for one in drifted.sort_values("drift_pct", ascending=False).itertuples():
        yield _row("drift", one.metric, one.drift_pct, "%", f"Look for its cause: dims explain {one.metric}")


def _stale(latest: pd.DataFrame) -> Rows:
    for one in latest[latest["state"] == "stale"].sort_values("age_hours", ascending=False).itertuples():
        yield _row("stale", one.metric, one.age_hours, "hours",
                   "See that its producer still sends events, or give it a schedule; measure it now: "
                   f"dims verify -m {one.metric}")  # fmt: skip


def _volatile(volatile: pd.DataFrame) -> Rows:
    wild = volatile[volatile["volatility_pct"].fillna(0) > VOLATILE_PCT]
    for one in wild.itertuples():
        yield _row("volatile", one.metric, one.volatility_pct, "%",
                   "Say what is usual: volatility: volatile, wider thresholds, or min_abs")  # fmt: skip


def _unchanged(daily: pd.DataFrame) -> Rows:
    counted = daily[daily["outcome"] != "failed"]
    for metric, found in counted.groupby("metric", sort=True):
        if len(found) >= UNCHANGED_DAYS and found["value"].map(repr).nunique() == 1:
            yield _row("never changed", str(metric), len(found), "days",
                       "See that it measures what it should (path, prefix, query); if so, seldom will do")  # fmt: skip
