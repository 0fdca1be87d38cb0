"""What is known: metrics by category, trends, gaps, what workflows found."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from dims_worker.analysis.evidence import Gap
from dims_worker.analysis.health import MetricHealth, health_labels
from dims_worker.formatting import count_metrics, format_percent, format_utc, format_utc_short, pluralize
from dims_worker.reports import svg_charts
from dims_worker.reports.html_page.markup import ReportSpan, chip, chips, e, folded, name, table
from dims_worker.reports.inventory import CategoryHealth, InventoryReport
from dims_worker.text import metric_values
from dims_worker.workflows import registry

NAMED = 60
"""So many names of a gap are told."""
SEASONS = 40
FIRST = 6
"""So many trends are seen at once; the others are folded."""


def category_sections(inventory: InventoryReport, span: ReportSpan) -> Iterator[str]:
    """A part for each category, in the order of the configuration."""
    yield f'<p class="note">Pictures show {span.days} days. A metric in bold is critical.</p>'
    for category in inventory.categories:
        wrong: dict[str, int] = {}
        for one in category.standings:
            for state in health_labels(one):
                word = "waits" if state.startswith("waits") else state
                wrong[word] = wrong.get(word, 0) + 1
        aside = "".join(chip(word if n == 1 else f"{n} {word}") for word, n in wrong.items())
        more = count_metrics(len(category.standings))
        yield folded(category.name, more, _metrics(category, span), chips=aside, opened=True)
    if inventory.off:
        names = "".join(f"<code>{e(one)}</code>" for one in inventory.off)
        yield folded("off", "measured only when they are named", f'<div class="names">{names}</div>')


def _metrics(category: CategoryHealth, span: ReportSpan) -> str:
    heads = (
        ("metric", ""),
        ("value", "n"),
        ("change", "n"),
        (f"{span.days} days", ""),
        ("state", ""),
        ("measured", ""),
    )
    head = "".join(f'<th class="{style}">{title}</th>' if style else f"<th>{title}</th>" for title, style in heads)
    rows = "".join(_metric(one, span) for one in category.standings)
    return f'<table class="metrics"><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>'


def _metric(one: MetricHealth, span: ReportSpan) -> str:
    about = f'<span class="what">{e(one.declared.description)}</span>' if one.declared.description else ""
    why = one.state.error or one.broken
    about += f'<span class="why">{e(why)}</span>' if why else ""
    return (
        f'<tr><td>{name(one)}{about}</td><td class="n value">{e(metric_values.metric_value(one, one.state.value, span.now))}</td>'
        f'<td class="n change">{e(metric_values.metric_change(one))}</td>'
        f'<td class="picture">{svg_charts.sparkline(one, span.first, span.last)}</td>'
        f'<td class="s">{chips(one)}</td><td class="t">{format_utc_short(one.state.as_of)}</td></tr>'
    )


def trends_section(inventory: InventoryReport, span: ReportSpan) -> Iterator[str]:
    """Large pictures of the metrics that matter most."""
    drawn = [_trend(one, span) for one in inventory.trends]
    if not drawn:
        return
    yield '<p class="note">What waits, failed, drifted or is critical, the most important first.</p>'
    yield svg_charts.legend_html()
    yield f'<div class="trends">{"".join(drawn[:FIRST])}</div>'
    if len(drawn) > FIRST:
        rest = f'<div class="trends">{"".join(drawn[FIRST:])}</div>'
        yield folded("More trends", pluralize(len(drawn) - FIRST, "metric"), rest)


def _trend(one: MetricHealth, span: ReportSpan) -> str:
    worst = "".join(map(chip, health_labels(one)[:1]))
    return (
        f'<figure class="card">{name(one, full=True)}'
        f'<p class="now">{e(metric_values.metric_value(one, one.state.value, span.now))} {worst}</p>'
        f"{svg_charts.metric_trend_svg(one, span.first, span.last, span.now)}</figure>"
    )


def gaps_section(inventory: InventoryReport, span: ReportSpan) -> Iterator[str]:
    """What is missing by name, and how complete each season is."""
    named = [(one, gap) for one in inventory.standings for gap in one.gaps]
    found = inventory.workflow("gap-analysis")
    told = _seasons(found.result) if found else ""
    if not named and not told:
        return
    yield '<p class="note">Names that readings keep: what is missing, different, or could not be read.</p>'
    if found and told:
        yield folded("games by season", f"gap-analysis of {format_utc(found.run.started_at)}", told, opened=True)
    for one, gap in named:
        names = "".join(f"<code>{e(each)}</code>" for each in gap.named[:NAMED])
        shown = min(len(gap.named), NAMED)
        more = f"{gap.total:,}" if shown == gap.total else f"{shown:,} of {gap.total:,}"
        yield folded(f"{one.metric}: {_what(one, gap)}", more, f'<div class="names">{names}</div>')


def _what(one: MetricHealth, gap: Gap) -> str:
    """What the names are; `rows` of a query are what its metric counts."""
    return one.unit or "names" if gap.name == "rows" else gap.name.replace("_", " ")


def _seasons(result: Mapping[str, Any]) -> str:
    seasons: Sequence[Mapping[str, Any]] = (result.get("games") or {}).get("seasons", ())
    rows = [
        [
            e(season["season"]),
            share_bar(season["coverage_pct"]),
            f"{season['games']:,}",
            f"{season['without_box_score']:,}",
            f"{season['without_play_by_play']:,}",
        ]
        for season in seasons[-SEASONS:]
    ]
    heads = ("season", "play-by-play", "games", "no box score", "no play-by-play")
    return table(heads, rows, (2, 3, 4)) if rows else ""


def share_bar(share: float | None) -> str:
    """A share as a bar and a number."""
    if share is None:
        return "-"
    style = "ok" if share >= 100 else "warn" if share >= 95 else "bad"
    width = max(0.0, min(100.0, share))
    return f'<span class="bar {style}"><i style="width:{width:.1f}%"></i></span>{format_percent(share, 100)}'


def workflows_section(inventory: InventoryReport, span: ReportSpan) -> Iterator[str]:
    """What the last run of each workflow found, in figures and sentences."""
    if not inventory.workflows:
        return
    for one in inventory.workflows:
        figures = "".join(
            f"<div><dt>{e(what)}</dt><dd>{e(said)}</dd></div>" for what, said in registry.result_summary(one.result)
        )
        body = f'<dl class="figures">{figures}</dl>' if figures else ""
        said = [*(f"{s} was not reached: {why}" for s, why in sorted(one.result["unreached"].items())),
                *one.result.get("attention", ())]  # fmt: skip
        body += f'<ul class="plain">{"".join(f"<li>{e(each)}</li>" for each in said[:NAMED])}</ul>' if said else ""
        yield folded(
            one.name,
            format_utc_short(one.run.started_at),
            body,
            chips=chip(registry.result_status(one.result)),
        )
