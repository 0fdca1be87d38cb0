"""HTML out of texts that nobody chose: escaped, on one line, in few words."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from html import escape

from dims_worker.analysis.health import MetricHealth, health_labels
from dims_worker.formatting import escape_control

LONGEST = 400
"""A text from outside is cut after so many characters; `--json` has it whole."""
STYLES = {
    **{"failed": "lost", "stale": "warn", "moderate": "warn", "major": "bad", "extreme": "bad", "rejected": "bad"},
    **{"held": "warn", "open": "warn", "attention": "warn", "partial": "lost", "ok": "ok", "approved": "ok"},
    **{"accepted": "ok", "beyond its limit": "bad"},
}


def e(value: object) -> str:
    """A text as HTML that is nothing but text."""
    seen = escape_control(value)
    return escape(seen if len(seen) <= LONGEST else f"{seen[:LONGEST]}…")


def chip(word: str) -> str:
    """A state as a pill. Its words say all; the colour only helps."""
    style = "warn" if word.startswith("waits") else STYLES.get(word, "quiet")
    return f'<span class="chip {style}">{e(word)}</span>'


def chips(one: MetricHealth) -> str:
    """What is the matter with a metric."""
    return "".join(chip(word) for word in health_labels(one) or ["ok"])


def table(heads: Sequence[str], rows: Iterable[Sequence[str]], numbers: Collection[int] = ()) -> str:
    """A table of cells that are HTML; `numbers` are the columns that stand to the right. It scrolls by itself where
    it is wider than the page."""
    classes = [' class="n"' if index in numbers else "" for index in range(len(heads))]
    head = "".join(f"<th{c}>{e(name)}</th>" for name, c in zip(heads, classes, strict=True))
    body = "".join(
        f"<tr>{''.join(f'<td{c}>{cell}</td>' for cell, c in zip(row, classes, strict=True))}</tr>" for row in rows
    )
    return f'<div class="scroll" tabindex="0"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def folded(title: str, more: str, body: str, *, chips: str = "", opened: bool = False) -> str:
    """A part that is opened and closed."""
    aside = f'<span class="chips">{chips}</span>' if chips else ""
    return (
        f"<details{' open' if opened else ''}><summary><h3>{e(title)}</h3>"
        f'<span class="more">{e(more)}</span>{aside}</summary><div class="in">{body}</div></details>\n'
    )


def name(one: MetricHealth, full: bool = False) -> str:
    critical = " critical" if one.critical else ""
    return f'<span class="name{critical}">{e(one.metric if full else one.name)}</span>'


@dataclass(frozen=True, slots=True)
class ReportSpan:
    """From a day to another, and the moment at which ages are told."""

    first: date
    last: date
    now: datetime

    @property
    def days(self) -> int:
        return (self.last - self.first).days + 1
