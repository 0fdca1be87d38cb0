"""One page that needs nothing but itself: no network, no script, no font. It is readable on a phone and in the dark."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, timedelta
from importlib.resources import files

from dims_worker import __version__
from dims_worker.analysis.health import health_sentence
from dims_worker.formatting import format_utc
from dims_worker.reports.html_page import attention, recent_activity
from dims_worker.reports.html_page import metrics as known
from dims_worker.reports.html_page.markup import ReportSpan, e
from dims_worker.reports.inventory import DAYS, YEAR, InventoryReport

POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; form-action 'none'"
"""Content-Security-Policy: whatever the database holds, the page loads nothing and runs nothing."""
TILES = (
    *(("waiting", "waiting for a person", "warn", "waiting"), ("failed", "failed", "lost", "look")),
    *(("beyond limits", "beyond limits", "bad", "look"), ("stale", "stale", "warn", "look")),
    ("drifted", "drifted", "bad", "trends"),
    ("due", "due", "quiet", "categories"),
)


def render_page(inventory: InventoryReport) -> str:
    """The whole document."""
    days = max(DAYS, min(YEAR, (inventory.now - inventory.since).days + 1))
    last = inventory.now.astimezone(UTC).date()
    span = ReportSpan(last - timedelta(days=days - 1), last, inventory.now)
    sections = (
        *(
            ("waiting", "Waits for a person", attention.waiting_section),
            ("look", "Needs a look", attention.problems_section),
        ),
        *(("categories", "Categories", known.category_sections), ("trends", "Trends", known.trends_section)),
        *(("gaps", "Gaps", known.gaps_section), ("workflows", "Workflows", known.workflows_section)),
        ("lately", "What happened", recent_activity.activity_section),
    )
    told = [(name, title, body) for name, title, tell in sections if (body := "".join(tell(inventory, span)))]
    return "".join(
        (
            *_head(inventory),
            *_top(inventory, [(name, title) for name, title, _ in told]),
            '<main id="main">',
            *(f'<section id="{name}" aria-labelledby="h-{name}"><h2 id="h-{name}">{title}</h2>{body}</section>\n'
              for name, title, body in told),
            "</main>",
            f"<footer>Written by DIMS {e(__version__)}. Times are UTC. <code>dims report html</code> makes this page "
            "anew.</footer></body></html>\n",
        )
    )  # fmt: skip


def _head(inventory: InventoryReport) -> Iterator[str]:
    yield '<!doctype html><html lang="en"><head><meta charset="utf-8">'
    yield f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">'
    yield '<meta name="viewport" content="width=device-width, initial-scale=1">'
    yield '<meta name="referrer" content="no-referrer"><link rel="icon" href="data:,">'
    yield f"<title>{e(inventory.project)}: data inventory</title>"
    style = files("dims_worker.reports").joinpath("html_page", "page.css").read_text(encoding="utf-8")
    yield f"<style>{style}</style></head>\n"


def _top(inventory: InventoryReport, told: list[tuple[str, str]]) -> Iterator[str]:
    health = inventory.health
    yield '<body><a class="skip" href="#main">To the inventory</a><header>'
    yield f'<p class="eyebrow">Data inventory</p><h1>{e(inventory.project)}</h1>'
    yield f'<p class="verdict">{e(health_sentence(health))}</p>'
    newest = f"newest reading {format_utc(inventory.newest)}" if inventory.newest else "nothing is measured yet"
    yield f'<p class="meta">As of {format_utc(inventory.now)} · {newest} · '
    yield f"changes since {format_utc(inventory.since)}</p>"
    links = "".join(f'<a href="#{name}">{title}</a>' for name, title in told)
    yield f'<nav aria-label="Parts">{links}</nav>'
    yield f'<ul class="tiles"><li class="ok"><b>{len(inventory.well):,}</b>'
    yield f"<span>of {len(inventory.standings):,} are well</span></li>"
    there = {name for name, _ in told}
    for word, title, style, anchor in TILES:
        number = len(health[word])
        name = f'<a href="#{anchor}">{title}</a>' if number and anchor in there else title
        yield f'<li class="{style if number else "none"}"><b>{number:,}</b><span>{name}</span></li>'
    yield "</ul></header>\n"
