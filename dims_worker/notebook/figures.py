"""The frames as charts: each function takes a frame of `dims_worker.notebook.frames` and returns a plotly figure.

A colour has the same meaning in every chart. The colours are those of Okabe and Ito, which people with any colour
vision can distinguish (Color Universal Design, 2008); a shape or a position repeats what a colour says. A chart without
data says why. Texts from the database are shown as they are, without markup.
"""

from __future__ import annotations

import html
from collections.abc import Iterable
from typing import Any

import pandas as pd
import plotly.graph_objects as go

from dims_worker.domain.health import ACKNOWLEDGED, FLAGS, Flag
from dims_worker.formatting import count_metrics, format_number, format_percent, format_utc_short, pluralize

BLUE, SKY, GREEN, ORANGE, RED, PURPLE = "#0072B2", "#56B4E9", "#009E73", "#E69F00", "#D55E00", "#CC79A7"
GREY, PALE, INK, LINE = "#8A8F98", "#C9CED6", "#1F2933", "#E6E9ED"
OUTCOMES = {"accepted": BLUE, "held": ORANGE, "rejected": RED, "failed": PURPLE, "looked": GREY}
SYMBOLS = {"accepted": "circle", "held": "diamond", "rejected": "x", "failed": "triangle-up", "looked": "circle-open"}
FLAGS_COLORS: dict[Flag, str] = {"failing": PURPLE, "waiting": ORANGE, "limit": RED, "drifted": "#F0E442"}
FLAGS_COLORS |= {"stale": GREY, "overdue": SKY, "new": PALE, "ok": GREEN, "off": LINE}
SEVERITIES = {"urgent": RED, "high": ORANGE, "medium": SKY, "low": PALE}
REQUESTS = {"open": ORANGE, "approved": BLUE, "rejected": RED, "superseded": GREY, "withdrawn": SKY, "expired": PALE}
RUNS = {"ok": GREEN, "partial": PURPLE, "superseded": GREY}
"""The colours of the outcomes of readings, of the flags of metrics, of severities, and of the states of requests and
runs."""
MAX_ROWS = 30
"""A chart has at most this many bars or rows, so that all stay readable."""
MAX_LABEL = 60
MILLISECONDS = 3_600_000
"""Milliseconds per hour: the length of a bar on an axis of times."""


def title(text: str, subtitle: str = "") -> str:
    """Return the title of a chart: what it shows, and below it how to read it."""
    small = f"<br><span style='font-size:13px;color:{GREY}'>{subtitle}</span>" if subtitle else ""
    return f"<b>{text}</b>{small}"


def escape_label(text: object) -> str:
    """Return a text from outside as a label: without markup, on one line, and cut where it is long."""
    line = "".join(c if c.isprintable() else " " for c in str(text))
    return html.escape(line if len(line) <= MAX_LABEL else f"{line[: MAX_LABEL - 1]}…")


def _figure(name: str, heading: str, subtitle: str = "", height: int = 420) -> go.Figure:
    figure = go.Figure()
    figure.update_layout(
        title={"text": title(heading, subtitle), "x": 0.01, "xanchor": "left", "font": {"size": 18}},
        template="none",
        height=height,
        colorway=[BLUE, ORANGE, GREEN, PURPLE, SKY, RED, GREY],
        meta={"dims": name},
        font={"family": "Inter, Segoe UI, Helvetica, Arial, sans-serif", "size": 13, "color": INK},
        paper_bgcolor="white",
        plot_bgcolor="white",
        hovermode="closest",
        bargap=0.25,
        margin={"l": 20, "r": 20, "t": 80, "b": 40},
        legend={"orientation": "h", "x": 1, "xanchor": "right", "y": 1.0, "yanchor": "bottom", "title": None},
    )
    axis = {"gridcolor": LINE, "zerolinecolor": LINE, "linecolor": LINE, "automargin": True, "title": {"standoff": 10}}
    return figure.update_xaxes(**axis).update_yaxes(**axis)


def _without_data(figure: go.Figure, reason: str) -> go.Figure:
    figure.update_xaxes(visible=False).update_yaxes(visible=False).update_layout(height=180)
    font = {"color": GREY, "size": 14}
    return figure.add_annotation(text=reason, showarrow=False, x=0.5, y=0.5, xref="paper", yref="paper", font=font)


def _values(series: pd.Series) -> list[object]:
    """Return plain values. Missing ones are None, which plotly leaves out."""
    return [None if pd.isna(value) else value for value in series]


def _labels(series: Iterable[object]) -> list[str]:
    return [escape_label(value) for value in series]


def _add_bars(
    figure: go.Figure, name: str, labels: Iterable[object], values: pd.Series, color: Any, **more: Any
) -> None:
    x, y = _values(values), _labels(labels)
    figure.add_bar(x=x, y=y, name=name, marker_color=color, orientation="h", **more)


def _count_by(frame: pd.DataFrame, rows: str, columns: str) -> pd.DataFrame:
    return frame.groupby([rows, columns]).size().unstack(fill_value=0).sort_index(ascending=False)


def health_chart(latest: pd.DataFrame) -> go.Figure:
    """Draw how many metrics of each category are in which state. An acknowledged state is paler."""
    well = int(latest["well"].fillna(False).astype(bool).sum())
    height = 180 + 26 * latest["category"].nunique()
    figure = _figure("states", f"{well} of {count_metrics(len(latest))} are well", "by category and state", height)
    if latest.empty:
        return _without_data(figure, "There are no metrics yet: run dims verify")
    counts = _count_by(latest, "category", "state")
    flags = dict(zip(latest["state"], latest["flag"], strict=True))
    for state in sorted(counts, key=lambda state: (FLAGS.index(flags[state]), state)):
        opacity = 0.55 if str(state).endswith(ACKNOWLEDGED) else 1
        _add_bars(figure, str(state), counts.index, counts[state], FLAGS_COLORS[flags[state]], opacity=opacity)
    return figure.update_layout(barmode="stack", xaxis_title="metrics")


def incidents_chart(incidents: pd.DataFrame) -> go.Figure:
    """Draw the newest incidents as bars from their start to their end, or until now. A pattern shows acknowledged
    ones."""
    active = incidents[incidents["state"] != "closed"]
    rows = pd.concat([incidents[incidents["state"] == "closed"], active]).tail(MAX_ROWS).sort_values("opened_at")
    known = int((active["state"] == "acknowledged").sum())
    heading = f"{pluralize(len(active), 'incident')} not closed, {format_number(known)} of them acknowledged"
    figure = _figure("incidents", heading, "from the start to the end, by severity", 200 + 22 * len(rows))
    if rows.empty:
        return _without_data(figure, "There are no incidents in this time")
    for severity in (name for name in SEVERITIES if (rows["severity"] == name).any()):
        listed = rows[rows["severity"] == severity]
        names = listed["incident"].astype(str) + " " + listed["metric"] + ": " + listed["label"]
        figure.add_bar(
            base=_values(listed["opened_at"]),
            x=[float(hours) * MILLISECONDS for hours in listed["hours"]],
            y=_labels(names),
            name=severity,
            orientation="h",
            marker_color=SEVERITIES[severity],
            marker_pattern_shape=["/" if state == "acknowledged" else "" for state in listed["state"]],
            customdata=[
                [escape_label(reason), escape_label(resolution or state)]
                for reason, resolution, state in zip(
                    listed["reason"], _values(listed["resolution"]), listed["state"], strict=True
                )
            ],
            hovertemplate="%{y}<br>%{customdata[0]}<br>%{customdata[1]}<extra></extra>",
        )
    order = _labels(rows["incident"].astype(str) + " " + rows["metric"] + ": " + rows["label"])
    vertical = {"categoryorder": "array", "categoryarray": order, "autorange": "reversed"}
    return figure.update_layout(xaxis_type="date", yaxis=vertical)


def changes_chart(changes: pd.DataFrame) -> go.Figure:
    """Draw the largest accepted drifts. A loss points to the left."""
    rows = changes[changes["drift_pct"].notna()].head(MAX_ROWS)[::-1]
    subtitle = "drift from the value before, in %; accepted by policy or by a person"
    heading = pluralize(len(changes), "accepted drift")
    figure = _figure("changes", heading, subtitle, 200 + 22 * len(rows))
    if rows.empty:
        return _without_data(figure, "DIMS accepted no drift in this time")
    fell = (rows["number"] < rows["baseline_number"]).fillna(False).astype(bool)
    names = rows["metric"] + ", " + rows["as_of"].map(format_utc_short)
    for accepted, color in (("policy", BLUE), ("approved", GREEN), ("by hand", ORANGE)):
        chosen = rows["accepted"] == accepted
        if chosen.any():
            drift = rows["drift_pct"].where(~fell, -rows["drift_pct"])[chosen]
            hover = "%{y}: <b>%{x:.1f} %</b><extra></extra>"
            _add_bars(figure, accepted, names[chosen], drift, color, hovertemplate=hover)
    return figure.update_layout(xaxis_ticksuffix=" %", barmode="overlay")


def trend_chart(history: pd.DataFrame, metric: str | None = None) -> go.Figure:
    """Draw one metric's readings: a line of the accepted ones, markers for the others, the baseline as steps.

    A failed reading has no value: it breaks the line and has a marker at the bottom of the chart.
    """
    readings = history if metric is None else history[history["metric"] == metric]
    name = metric or (str(readings["metric"].iloc[0]) if len(readings) else "a metric")
    points = readings[readings["number"].notna()]
    failed = readings[readings["shown"] == "failed"]
    counts = {outcome: int((readings["shown"] == outcome).sum()) for outcome in OUTCOMES}
    subtitle = ", ".join(f"{count} {outcome}" for outcome, count in counts.items() if count)
    figure = _figure("trend", escape_label(name), subtitle)
    if points.empty:
        return _without_data(figure, "No number was measured in this time")
    unit = escape_label(points["unit"].iloc[-1])
    steps = readings[readings["baseline_number"].notna()]
    if len(steps):
        line = {"shape": "hv", "color": SKY, "width": 1.5, "dash": "dot"}
        x, y = _values(steps["as_of"]), _values(steps["baseline_number"])
        figure.add_scatter(x=x, y=y, name="baseline", mode="lines", line=line)
    for outcome in (name for name in OUTCOMES if name != "failed"):
        rows = points[points["shown"] == outcome]
        if outcome == "accepted":  # a failed reading is a gap in the line
            rows = readings[(readings["shown"] == "failed") | readings.index.isin(rows.index)]
        if rows["number"].notna().any():
            _add_readings(figure, rows, outcome, unit)
    if len(failed):
        bottom = float(points["number"].min())
        figure.add_scatter(
            x=_values(failed["as_of"]),
            y=[bottom] * len(failed),
            name="failed (no value)",
            mode="markers",
            marker={"color": OUTCOMES["failed"], "symbol": SYMBOLS["failed"], "size": 10},
            customdata=[[escape_label(error)] for error in failed["error"]],
            hovertemplate="%{x|%Y-%m-%d %H:%M}<br>failed: %{customdata[0]}",
        )
    return figure.update_layout(yaxis_title=unit, hovermode="closest")


def _add_readings(figure: go.Figure, rows: pd.DataFrame, outcome: str, unit: str) -> None:
    accepted = outcome == "accepted"
    figure.add_scatter(
        x=_values(rows["as_of"]),
        y=_values(rows["number"]),
        name=outcome,
        mode="lines+markers" if accepted else "markers",
        marker={"color": OUTCOMES[outcome], "symbol": SYMBOLS[outcome], "size": 4 if accepted else 11},
        line={"color": OUTCOMES[outcome], "width": 2},
        connectgaps=False,
        customdata=[[escape_label(reason) if reason else ""] for reason in _values(rows["reason"])],
        hovertemplate=f"%{{x|%Y-%m-%d %H:%M}}<br><b>%{{y:,}}</b> {unit} %{{customdata[0]}}",
    )


def drift_heatmap(daily: pd.DataFrame) -> go.Figure:
    """Draw the drift of each day's last reading, for the metrics that drifted most."""
    judged = daily[daily["drift_pct"].notna()]
    most = judged.groupby("metric")["drift_pct"].max().sort_values(ascending=False).head(MAX_ROWS)
    subtitle = "drift of each day's last reading in %; white: no reading"
    figure = _figure("drift_map", "Drift by metric and day", subtitle, 200 + 20 * len(most))
    if judged.empty:
        return _without_data(figure, "No reading was compared with a baseline in this time")
    table = judged[judged["metric"].isin(most.index)].pivot(index="metric", columns="day", values="drift_pct")
    table = table.loc[most.index[::-1]].astype("Float64")
    return figure.add_heatmap(
        x=[day.date() for day in table.columns],
        y=_labels(table.index),
        z=[[None if pd.isna(value) else float(value) for value in row] for row in table.to_numpy()],
        xgap=1,
        ygap=2,
        zmin=0,
        zmax=25,
        colorscale=[[0, "#EEF3F7"], [0.01, "#D9E8F2"], [0.2, SKY], [0.6, ORANGE], [1, RED]],
        colorbar={"title": "drift %", "ticksuffix": " %", "outlinewidth": 0, "thickness": 12},
        hovertemplate="%{y}<br>%{x}: <b>%{z:.1f} %</b><extra></extra>",
    )


def volatility_chart(volatility: pd.DataFrame, limit: float = 25) -> go.Figure:
    """Draw the most volatile metrics. Those above the limit are red."""
    rows = volatility[volatility["volatility_pct"].notna()].head(MAX_ROWS)[::-1]
    above = int((rows["volatility_pct"] > limit).sum())
    heading = f"{count_metrics(above)} above {format_number(limit)} % volatility"
    subtitle = "standard deviation of the daily values in % of their mean"
    figure = _figure("volatility", heading, subtitle, 200 + 20 * len(rows))
    if rows.empty:
        return _without_data(figure, "No metric has numbers on three days yet")
    colors = [RED if value > limit else BLUE for value in rows["volatility_pct"]]
    hover = "%{y}: <b>%{x:.1f} %</b><extra></extra>"
    _add_bars(figure, "volatility", rows["metric"], rows["volatility_pct"], colors, hovertemplate=hover)
    return figure.add_vline(x=limit, line={"color": GREY, "dash": "dot"}).update_layout(xaxis_ticksuffix=" %")


def runs_chart(runs: pd.DataFrame) -> go.Figure:
    """Draw each run by its source and time. The size is its duration, the colour its status."""
    bad = int((runs["status"] != "ok").sum())
    heading = f"{pluralize(len(runs), 'run')}, {format_number(bad)} with failures"
    figure = _figure("runs", heading, "a larger circle took longer", 220 + 24 * runs["source"].nunique())
    if runs.empty:
        return _without_data(figure, "No run in this time")
    for status in sorted(runs["status"].unique()):
        rows = runs[runs["status"] == status]
        sizes = [float(min(26, 5 + 4 * seconds**0.5)) for seconds in rows["seconds"]]
        color = RUNS.get(status, GREY)
        figure.add_scatter(
            x=_values(rows["started_at"]),
            y=_labels(rows["source"]),
            mode="markers",
            name=status,
            marker={"color": color, "opacity": 0.75, "line": {"width": 0}, "size": sizes},
            customdata=rows[["run_id", "seconds", "failed", "readings"]].to_numpy().tolist(),
            hovertemplate="run %{customdata[0]}, %{x|%Y-%m-%d %H:%M}<br>%{customdata[1]:.2f} s, "
            "%{customdata[2]} of %{customdata[3]} readings failed",
        )
    return figure


def durations_chart(runs: pd.DataFrame) -> go.Figure:
    """Draw how long the runs of each source take."""
    sources = sorted(runs["source"].unique(), reverse=True)
    figure = _figure("durations", "Duration of runs", "a box holds half of a source's runs", 220 + 28 * len(sources))
    if runs.empty:
        return _without_data(figure, "No run in this time")
    for source in sources:
        seconds = _values(runs[runs["source"] == source]["seconds"])
        figure.add_box(x=seconds, name=escape_label(source), marker_color=BLUE, line_width=1.5, showlegend=False)
    return figure.update_layout(xaxis_title="seconds")


def requests_chart(requests: pd.DataFrame) -> go.Figure:
    """Draw when each approval request was opened, and how long it took or has been open."""
    waiting = int((requests["state"] == "open").sum())
    heading = f"{pluralize(waiting, 'request')} waiting for approval"
    figure = _figure("requests", heading, "when each was opened, and the hours until it ended")
    drift = requests[requests["kind"] == "drift"]
    if drift.empty:
        return _without_data(figure, "There are no approval requests yet")
    for state in (name for name in REQUESTS if (drift["state"] == name).any()):
        rows = drift[drift["state"] == state]
        symbol = {"open": "diamond", "rejected": "x"}.get(state, "circle")
        size = 15 if state == "open" else 9
        deciders = rows["decided_by"].fillna("not decided yet")
        figure.add_scatter(
            x=_values(rows["opened_at"]),
            y=_values(rows["hours"]),
            mode="markers",
            name=state,
            marker={"color": REQUESTS[state], "size": size, "opacity": 0.85, "symbol": symbol},
            customdata=list(zip(_labels(rows["metric"]), _labels(deciders), strict=True)),
            hovertemplate="%{customdata[0]}<br>%{y:.1f} hours, %{customdata[1]}",
        )
    return figure.update_layout(yaxis_title="hours")


def deciders_chart(requests: pd.DataFrame) -> go.Figure:
    """Draw how many requests each person approved and rejected."""
    decided = requests[requests["decided_by"].notna() & requests["state"].isin(("approved", "rejected"))]
    height = 180 + 40 * decided["decided_by"].nunique()
    figure = _figure("deciders", pluralize(len(decided), "decision"), "by person", height)
    if decided.empty:
        return _without_data(figure, "There are no decisions yet")
    counts = _count_by(decided, "decided_by", "state")
    for state in counts:
        _add_bars(figure, str(state), counts.index, counts[state], REQUESTS[str(state)])
    return figure.update_layout(barmode="stack", xaxis_title="decisions")


def events_chart(flow: pd.DataFrame) -> go.Figure:
    """Draw events per day by producer."""
    number, rejected = int(flow["events"].sum()), int(flow["rejected"].sum())
    figure = _figure(
        "event_flow", f"{pluralize(number, 'event')}, {format_number(rejected)} rejected", "per day, by producer"
    )
    if flow.empty:
        return _without_data(figure, "No event in this time")
    for producer in sorted(flow["producer"].unique()):
        rows = flow[flow["producer"] == producer]
        figure.add_bar(x=_values(rows["day"]), y=_values(rows["events"]), name=escape_label(producer))
    return figure.update_layout(barmode="stack", yaxis_title="events per day")


def lag_chart(flow: pd.DataFrame) -> go.Figure:
    """Draw the median time from an event to its receipt, by day and producer."""
    timed = flow[flow["lag_p50"].notna()]
    figure = _figure("event_lag", "Delay of events", "daily median in seconds, by producer")
    if timed.empty:
        return _without_data(figure, "No event in this time has a time of its own")
    for producer in sorted(timed["producer"].unique()):
        rows = timed[timed["producer"] == producer]
        x, y = _values(rows["day"]), _values(rows["lag_p50"])
        figure.add_scatter(x=x, y=y, name=escape_label(producer), mode="lines+markers")
    return figure.update_layout(yaxis={"title": "seconds", "rangemode": "tozero"})


def recommendations_chart(recommendations: pd.DataFrame) -> go.Figure:
    """Draw the number of recommendations by kind."""
    heading = pluralize(len(recommendations), "recommendation")
    figure = _figure("advice", heading, "by kind", 320)
    if recommendations.empty:
        return _without_data(figure, "There are no recommendations")
    counts = recommendations["kind"].value_counts(sort=False)[::-1]
    _add_bars(figure, "metrics", counts.index, counts, BLUE, text=_values(counts))
    return figure.update_layout(xaxis_title="metrics")


def gaps_chart(gaps: pd.DataFrame) -> go.Figure:
    """Draw the games of each season, and how many have no box score or no play-by-play."""
    missing, games = int(gaps["without_play_by_play"].sum()), int(gaps["games"].sum())
    figure = _figure(
        "gaps", f"{pluralize(missing, 'game')} without play-by-play", f"of {format_number(games)}, by season"
    )
    if gaps.empty:
        return _without_data(figure, "There is no result of gap-analysis yet: run dims workflow gap-analysis")
    for column, color in (("games", "#DDE3E9"), ("without_play_by_play", ORANGE), ("without_box_score", RED)):
        name = column.replace("_", " ")
        figure.add_bar(x=_labels(gaps["season"]), y=_values(gaps[column]), name=name, marker_color=color)
    return figure.update_layout(barmode="group", yaxis_title="games", xaxis_type="category")


def sync_chart(folders: pd.DataFrame) -> go.Figure:
    """Draw for each folder how many files are the same, different, or on one side only."""
    figure = _figure("sides", "The local copy and the lake", "files by folder", 220 + 36 * len(folders))
    if folders.empty:
        return _without_data(figure, "There is no comparison yet: run dims workflow sync-status")
    parts = [("same", GREEN), ("different", ORANGE), ("only_local", BLUE), ("only_lake", PURPLE)]
    if not folders["same"].notna().any():
        parts = [("local_files", BLUE), ("lake_objects", PURPLE)]
    for column, color in parts:
        _add_bars(figure, column.replace("_", " "), folders["folder"], folders[column], color)
    return figure.update_layout(barmode="stack" if len(parts) > 2 else "group", xaxis_title="files")


def costs_chart(costs: pd.DataFrame) -> go.Figure:
    """Draw the estimated cost of a month by part. A part without a price in the configuration is left out."""
    priced = costs[costs["month_usd"].notna()].sort_values("month_usd")
    total = float(priced["month_usd"].sum())
    figure = _figure("costs", f"{format_number(total, 2)} USD per month", "estimate by part", 220 + 36 * len(priced))
    if priced.empty:
        reason = "There are no costs yet: set prices in the configuration and run dims workflow aws-inventory"
        return _without_data(figure, reason)
    amounts = [format_number(value, 2) for value in priced["month_usd"]]
    _add_bars(figure, "USD", priced["part"], priced["month_usd"], BLUE, text=amounts)
    return figure.update_layout(xaxis_title="USD per month")


def completeness_chart(completeness: pd.DataFrame) -> go.Figure:
    """Draw the share of the expected data that is there. The least complete come last."""
    known = completeness[completeness["complete_pct"].notna()]
    rows = known.sort_values("complete_pct", ascending=False).tail(MAX_ROWS)
    whole = int((rows["complete_pct"] >= 100).sum())
    heading = f"{whole} of {len(rows)} are complete"
    figure = _figure("completeness", heading, "in % of what is expected", 220 + 24 * len(rows))
    if rows.empty:
        return _without_data(figure, "No metric measures completeness yet")
    colors = [GREEN if share >= 100 else BLUE if share >= 95 else ORANGE for share in rows["complete_pct"]]
    shares = [format_percent(share, 100) for share in rows["complete_pct"]]
    _add_bars(figure, "complete", rows["what"], rows["complete_pct"], colors, text=shares)
    return figure.update_layout(xaxis={"range": [0, 105], "ticksuffix": " %"})
