"""The frames as charts: each function takes a frame of `dims_worker.notebook.frames` and gives a plotly figure.

One look for all: a colour has one meaning everywhere. The colours are those of Okabe and Ito, which people with any
colour vision can tell apart (Color Universal Design, 2008); beside colour, a shape or a place says the same. A chart
of nothing says so instead of being empty. Texts from the database are shown as they are: no markup of theirs acts.
"""

from __future__ import annotations

import html
from collections.abc import Iterable

import pandas as pd
import plotly.graph_objects as go

from dims_worker.formatting import format_percent, pluralize

BLUE, SKY, GREEN, ORANGE, RED, PURPLE = "#0072B2", "#56B4E9", "#009E73", "#E69F00", "#D55E00", "#CC79A7"
GREY, INK, LINE = "#8A8F98", "#1F2933", "#E6E9ED"
OUTCOMES = {"accepted": BLUE, "held": ORANGE, "rejected": RED, "failed": PURPLE, "looked": GREY}
"""What became of a reading."""
SYMBOLS = {"accepted": "circle", "held": "diamond", "rejected": "x", "failed": "triangle-up", "looked": "circle-open"}
STATES = {
    **{"ok": GREEN, "due": SKY, "stale": GREY, "failed": PURPLE, "held": ORANGE, "never": "#C9CED6"},
    **{"open": ORANGE, "approved": BLUE, "rejected": RED, "superseded": GREY, "withdrawn": SKY, "expired": "#C9CED6"},
    **{"partial": PURPLE, "planned": BLUE, "unmatched": GREY},
}
"""The state of a metric, of a request, of a run, of an event."""
SHOWN = 30
"""So many bars or rows a chart has; more could not be read."""


def title(text: str, found: str = "") -> str:
    """A title that says what is seen, and below it how it is meant."""
    return f"<b>{text}</b>" + (f"<br><span style='font-size:13px;color:{GREY}'>{found}</span>" if found else "")


def escape_label(text: object) -> str:
    """A text from outside in a chart: shown, not acted on; a long one is cut."""
    said = "".join(c if c.isprintable() else " " for c in str(text))
    return html.escape(said if len(said) <= 60 else f"{said[:59]}…")


def _figure(name: str, heading: str, found: str = "", height: int = 420) -> go.Figure:
    made = go.Figure()
    made.update_layout(
        title={"text": title(heading, found), "x": 0.01, "xanchor": "left", "font": {"size": 18}},
        template="none", height=height, colorway=[BLUE, ORANGE, GREEN, PURPLE, SKY, RED, GREY], meta={"dims": name},
        font={"family": "Inter, Segoe UI, Helvetica, Arial, sans-serif", "size": 13, "color": INK},
        paper_bgcolor="white", plot_bgcolor="white", hovermode="closest", bargap=0.25,
        margin={"l": 20, "r": 20, "t": 80, "b": 40},
        legend={"orientation": "h", "x": 1, "xanchor": "right", "y": 1.0, "yanchor": "bottom", "title": None},
    )  # fmt: skip
    axis = {"gridcolor": LINE, "zerolinecolor": LINE, "linecolor": LINE, "automargin": True, "title": {"standoff": 10}}
    made.update_xaxes(**axis)
    made.update_yaxes(**axis)
    return made


def _nothing(made: go.Figure, why: str) -> go.Figure:
    made.update_xaxes(visible=False)
    made.update_yaxes(visible=False)
    made.update_layout(height=180)
    return made.add_annotation(text=why, showarrow=False, x=0.5, y=0.5, xref="paper", yref="paper",
                               font={"color": GREY, "size": 14})  # fmt: skip


def _list(series: pd.Series) -> list[object]:
    """Plain values; what is missing is None, which plotly leaves out."""
    return [None if pd.isna(value) else value for value in series]


def _names(series: Iterable[object]) -> list[str]:
    return [escape_label(value) for value in series]


def health_chart(latest: pd.DataFrame) -> go.Figure:
    """How many metrics of each category are well, and how many not."""
    well = int((latest["state"] == "ok").sum())
    made = _figure("states", f"{well} of {len(latest)} metrics are well", "by category and state",
                   180 + 26 * latest["category"].nunique())  # fmt: skip
    if latest.empty:
        return _nothing(made, "No metric is known yet: run dims verify")
    counted = latest.groupby(["category", "state"]).size().unstack(fill_value=0).sort_index(ascending=False)
    for state in (name for name in STATES if name in counted):
        made.add_bar(y=_names(counted.index), x=_list(counted[state]), name=state, orientation="h",
                     marker_color=STATES[state])  # fmt: skip
    return made.update_layout(barmode="stack", xaxis_title="metrics")


def trend_chart(history: pd.DataFrame, metric: str | None = None) -> go.Figure:
    """One metric's readings: accepted ones as a line, held, rejected and failed ones apart, the baseline as steps. A
    failed one has no value: it is a mark at the foot of the chart."""
    of = history if metric is None else history[history["metric"] == metric]
    name = metric or (str(of["metric"].iloc[0]) if len(of) else "a metric")
    points = of[of["number"].notna()]
    failed = of[of["shown"] == "failed"]
    said = ", ".join(f"{many} {shown}" for shown in OUTCOMES if (many := int((of["shown"] == shown).sum())))
    made = _figure("trend", escape_label(name), said)
    if points.empty:
        return _nothing(made, "No number was measured in this time")
    unit = escape_label(points["unit"].iloc[-1])
    steps = of[of["baseline_number"].notna()]
    if len(steps):
        made.add_scatter(x=_list(steps["as_of"]), y=_list(steps["baseline_number"]), name="baseline", mode="lines",
                         line={"shape": "hv", "color": SKY, "width": 1.5, "dash": "dot"})  # fmt: skip
    for shown in (name for name in OUTCOMES if name != "failed"):
        some = points[points["shown"] == shown]
        if shown == "accepted":  # a failed reading is a gap in the line
            some = of[(of["shown"] == "failed") | of.index.isin(some.index)]
        if some["number"].notna().any():
            made.add_scatter(
                x=_list(some["as_of"]), y=_list(some["number"]), name=shown,
                mode="lines+markers" if shown == "accepted" else "markers",
                marker={"color": OUTCOMES[shown], "symbol": SYMBOLS[shown], "size": 4 if shown == "accepted" else 11},
                line={"color": OUTCOMES[shown], "width": 2}, connectgaps=False,
                customdata=[[escape_label(reason) if reason else ""] for reason in _list(some["reason"])],
                hovertemplate=f"%{{x|%Y-%m-%d %H:%M}}<br><b>%{{y:,}}</b> {unit} %{{customdata[0]}}",
            )  # fmt: skip
    if len(failed):
        foot = float(points["number"].min())
        made.add_scatter(x=_list(failed["as_of"]), y=[foot] * len(failed), name="failed (no value)", mode="markers",
                         marker={"color": OUTCOMES["failed"], "symbol": SYMBOLS["failed"], "size": 10},
                         customdata=[[escape_label(error)] for error in failed["error"]],
                         hovertemplate="%{x|%Y-%m-%d %H:%M}<br>failed: %{customdata[0]}")  # fmt: skip
    return made.update_layout(yaxis_title=unit, hovermode="closest")


def drift_heatmap(daily: pd.DataFrame) -> go.Figure:
    """Metric x day: the drift of the day's last reading, for the metrics that drifted most."""
    measured = daily[daily["drift_pct"].notna()]
    most = measured.groupby("metric")["drift_pct"].max().sort_values(ascending=False).head(SHOWN)
    made = _figure("drift_map", "When which metric drifted", "drift of each day's last reading, in %; white: none read",
                   200 + 20 * len(most))  # fmt: skip
    if measured.empty:
        return _nothing(made, "No reading was judged against a baseline in this time")
    table = measured[measured["metric"].isin(most.index)].pivot(index="metric", columns="day", values="drift_pct")
    table = table.loc[most.index[::-1]].astype("Float64")
    made.add_heatmap(
        x=[day.date() for day in table.columns], y=_names(table.index), xgap=1, ygap=2, zmin=0, zmax=25,
        z=[[None if pd.isna(value) else float(value) for value in row] for row in table.to_numpy()],
        colorscale=[[0, "#EEF3F7"], [0.01, "#D9E8F2"], [0.2, SKY], [0.6, ORANGE], [1, RED]],
        colorbar={"title": "drift %", "ticksuffix": " %", "outlinewidth": 0, "thickness": 12},
        hovertemplate="%{y}<br>%{x}: <b>%{z:.1f} %</b><extra></extra>",
    )  # fmt: skip
    return made


def volatility_chart(found: pd.DataFrame, limit: float = 25) -> go.Figure:
    """The most volatile metrics; those above the limit stand out."""
    some = found[found["volatility_pct"].notna()].head(SHOWN)[::-1]
    above = int((some["volatility_pct"] > limit).sum())
    made = _figure("volatility", f"{pluralize(above, 'metric')} above {limit:g} % volatility",
                   "standard deviation of the days' values, in % of their mean", 200 + 20 * len(some))  # fmt: skip
    if some.empty:
        return _nothing(made, "No metric has numbers of three days yet")
    made.add_bar(y=_names(some["metric"]), x=_list(some["volatility_pct"]), orientation="h", name="volatility",
                 marker_color=[RED if value > limit else BLUE for value in some["volatility_pct"]],
                 hovertemplate="%{y}: <b>%{x:.1f} %</b><extra></extra>")  # fmt: skip
    return made.add_vline(x=limit, line={"color": GREY, "dash": "dot"}).update_layout(xaxis_ticksuffix=" %")


def runs_chart(found: pd.DataFrame) -> go.Figure:
    """Each run by its source and time; its size is its duration, its colour how it ended."""
    bad = int((found["status"] != "ok").sum())
    made = _figure("runs", f"{len(found):,} runs, {bad:,} of them with failures", "a circle a run; larger: longer",
                   220 + 24 * found["source"].nunique())  # fmt: skip
    if found.empty:
        return _nothing(made, "No run in this time")
    for status in sorted(found["status"].unique()):
        some = found[found["status"] == status]
        made.add_scatter(
            x=_list(some["started_at"]), y=_names(some["source"]), mode="markers", name=status,
            marker={"color": STATES.get(status, GREY), "opacity": 0.75, "line": {"width": 0},
                    "size": [float(min(26, 5 + 4 * seconds**0.5)) for seconds in some["seconds"]]},
            customdata=some[["run_id", "seconds", "failed", "readings"]].to_numpy().tolist(),
            hovertemplate="run %{customdata[0]}, %{x|%Y-%m-%d %H:%M}<br>%{customdata[1]:.2f} s, "
                          "%{customdata[2]} of %{customdata[3]} readings failed",
        )  # fmt: skip
    return made


def durations_chart(found: pd.DataFrame) -> go.Figure:
    """How long the runs of each source take."""
    made = _figure("durations", "How long runs take", "half of a source's runs lie within its box",
                   220 + 28 * found["source"].nunique())  # fmt: skip
    if found.empty:
        return _nothing(made, "No run in this time")
    for source in sorted(found["source"].unique(), reverse=True):
        some = found[found["source"] == source]
        made.add_box(
            x=_list(some["seconds"]), name=escape_label(source), marker_color=BLUE, line_width=1.5, showlegend=False
        )
    return made.update_layout(xaxis_title="seconds")


def requests_chart(found: pd.DataFrame) -> go.Figure:
    """Every request: when it was opened and how long it took or, while open, waits."""
    waiting = int((found["state"] == "open").sum())
    made = _figure(
        "requests",
        f"{pluralize(waiting, 'request')} waiting for a person",
        "when each was opened, and the hours that it took",
    )
    timed = found[found["kind"] == "drift"]
    if timed.empty:
        return _nothing(made, "No request was ever opened")
    for state in (name for name in STATES if (timed["state"] == name).any()):
        some = timed[timed["state"] == state]
        made.add_scatter(
            x=_list(some["opened_at"]), y=_list(some["hours"]), mode="markers", name=state,
            marker={"color": STATES[state], "size": 15 if state == "open" else 9, "opacity": 0.85,
                    "symbol": {"open": "diamond", "rejected": "x"}.get(state, "circle")},
            customdata=[[escape_label(one.metric), escape_label(one.decided_by or "nobody yet")] for one in some.itertuples()],
            hovertemplate="%{customdata[0]}<br>%{y:.1f} hours, %{customdata[1]}",
        )  # fmt: skip
    return made.update_layout(yaxis_title="hours")


def deciders_chart(found: pd.DataFrame) -> go.Figure:
    """Who decided how many requests, and how."""
    decided = found[found["decided_by"].notna() & found["state"].isin(("approved", "rejected"))]
    made = _figure(
        "deciders", pluralize(len(decided), "decision"), "by person", 180 + 40 * decided["decided_by"].nunique()
    )
    if decided.empty:
        return _nothing(made, "Nobody has decided anything yet")
    counted = decided.groupby(["decided_by", "state"]).size().unstack(fill_value=0).sort_index(ascending=False)
    for state in counted:
        made.add_bar(y=_names(counted.index), x=_list(counted[state]), name=str(state), orientation="h",
                     marker_color=STATES[str(state)])  # fmt: skip
    return made.update_layout(barmode="stack", xaxis_title="decisions")


def events_chart(flow: pd.DataFrame) -> go.Figure:
    """Events a day, by producer."""
    told, rejected = int(flow["events"].sum()), int(flow["rejected"].sum())
    made = _figure("event_flow", f"{told:,} events, {rejected:,} of them rejected", "a day, by producer")
    if flow.empty:
        return _nothing(made, "No event in this time")
    for producer in sorted(flow["producer"].unique()):
        some = flow[flow["producer"] == producer]
        made.add_bar(x=_list(some["day"]), y=_list(some["events"]), name=escape_label(producer))
    return made.update_layout(barmode="stack", yaxis_title="events a day")


def lag_chart(flow: pd.DataFrame) -> go.Figure:
    """From an event's own time to its receipt: the median of each day."""
    some = flow[flow["lag_p50"].notna()]
    made = _figure("event_lag", "How late events arrive", "median of a day, in seconds, by producer")
    if some.empty:
        return _nothing(made, "No event in this time tells when it happened")
    for producer in sorted(some["producer"].unique()):
        own = some[some["producer"] == producer]
        made.add_scatter(
            x=_list(own["day"]), y=_list(own["lag_p50"]), name=escape_label(producer), mode="lines+markers"
        )
    return made.update_layout(yaxis={"title": "seconds", "rangemode": "tozero"})


def recommendations_chart(found: pd.DataFrame) -> go.Figure:
    """How many metrics each kind of recommendation concerns."""
    made = _figure("advice", f"{len(found)} things to look at", "by kind", 320)
    if found.empty:
        return _nothing(made, "Nothing to do")
    counted = found["kind"].value_counts(sort=False)[::-1]
    made.add_bar(y=_names(counted.index), x=_list(counted), orientation="h", marker_color=BLUE, text=_list(counted),
                 name="metrics")  # fmt: skip
    return made.update_layout(xaxis_title="metrics")


def gaps_chart(found: pd.DataFrame) -> go.Figure:
    """Games by season: how many lack their box score, how many their play-by-play."""
    lacking = int(found["without_play_by_play"].sum())
    made = _figure("gaps", f"{lacking:,} games have no play-by-play", f"of {int(found['games'].sum()):,}, by season")
    if found.empty:
        return _nothing(made, "gap-analysis has not run yet: dims workflow gap-analysis")
    parts = (("games", "#DDE3E9"), ("without_play_by_play", ORANGE), ("without_box_score", RED))
    for what, colour in parts:
        made.add_bar(x=_names(found["season"]), y=_list(found[what]), name=what.replace("_", " "), marker_color=colour)
    return made.update_layout(barmode="group", yaxis_title="games", xaxis_type="category")


def sync_chart(found: pd.DataFrame) -> go.Figure:
    """Each folder against the lake: the same, different, on one side only."""
    made = _figure("sides", "The local copy and the lake", "files by folder", 220 + 36 * len(found))
    if found.empty:
        return _nothing(made, "Nothing was compared yet: dims workflow sync-status")
    parts = [("same", GREEN), ("different", ORANGE), ("only_local", BLUE), ("only_lake", PURPLE)]
    if not found["same"].notna().any():
        parts = [("local_files", BLUE), ("lake_objects", PURPLE)]
    for what, colour in parts:
        made.add_bar(y=_names(found["folder"]), x=_list(found[what]), name=what.replace("_", " "), orientation="h",
                     marker_color=colour)  # fmt: skip
    return made.update_layout(barmode="stack" if len(parts) > 2 else "group", xaxis_title="files")


def costs_chart(found: pd.DataFrame) -> go.Figure:
    """What a month costs, by part; one without a price in the configuration is not 0, and is not there."""
    known = found[found["month_usd"].notna()].sort_values("month_usd")
    total = float(known["month_usd"].sum())
    made = _figure("costs", f"{total:,.2f} USD a month", "the estimate's parts", 220 + 36 * len(known))
    if known.empty:
        return _nothing(made, "No cost is known: dims workflow aws-inventory, with prices in the configuration")
    made.add_bar(y=_names(known["part"]), x=_list(known["month_usd"]), orientation="h", marker_color=BLUE, name="USD",
                 text=[f"{value:,.2f}" for value in known["month_usd"]])  # fmt: skip
    return made.update_layout(xaxis_title="USD a month")


def completeness_chart(found: pd.DataFrame) -> go.Figure:
    """What there is of what there should be."""
    some = found[found["complete_pct"].notna()].sort_values("complete_pct", ascending=False).tail(SHOWN)
    whole = int((some["complete_pct"] >= 100).sum())
    made = _figure(
        "completeness", f"{whole} of {len(some)} are complete", "in % of what is expected", 220 + 24 * len(some)
    )
    if some.empty:
        return _nothing(made, "Nothing measures completeness yet")
    made.add_bar(y=_names(some["what"]), x=_list(some["complete_pct"]), orientation="h", name="complete",
                 marker_color=[GREEN if one >= 100 else BLUE if one >= 95 else ORANGE for one in some["complete_pct"]],
                 text=[format_percent(share, 100) for share in some["complete_pct"]])  # fmt: skip
    return made.update_layout(xaxis={"range": [0, 105], "ticksuffix": " %"})
