"""The Jinja environment that every HTML page of DIMS is rendered in, and the filters that pages share."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from markupsafe import Markup

from dims_worker import formatting
from dims_worker.domain.health import ACKNOWLEDGED

if TYPE_CHECKING:
    from jinja2 import Environment

CHIP_STYLES = {
    "ok": ("accepted", "approved", "closed", "ok"),
    "warn": ("attention", "held", "medium", "moderate", "open", "overdue", "stale"),
    "bad": ("beyond its limit", "drifted", "extreme", "high", "in the future", "lost", "major", "rejected", "urgent"),
    "lost": ("failed", "failing", "partial", "silent"),
}
"""The states by their CSS class. Every other state is `quiet`."""
_ACKNOWLEDGED = f", {ACKNOWLEDGED}"


def html_environment(package: str, max_length: int | None = None) -> Environment:
    """Return the environment for the `templates` folder of a package.

    Every value is escaped, and its control characters are made visible. `max_length` cuts longer values. The filters
    include every `format_...` function of `dims_worker.formatting`.
    """
    # Only the commands that render HTML load Jinja
    from jinja2 import Environment, PackageLoader, StrictUndefined

    def finalize(value: Any) -> Any:
        return value if isinstance(value, Markup) else visible_text(value, max_length)

    environment = Environment(
        loader=PackageLoader(package),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=finalize,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    formats = {name: function for name, function in vars(formatting).items() if name.startswith("format_")}
    environment.filters.update(formats, chip=chip, pluralize=formatting.pluralize)
    return environment


def visible_text(value: object, max_length: int | None = None) -> str:
    """Return a text without characters that could move or hide its neighbours, such as right-to-left marks."""
    text = formatting.escape_control(value)
    return text if max_length is None or len(text) <= max_length else f"{text[:max_length]}…"


def chip(state: str) -> Markup:
    """Return a state as a pill. The text says everything; the colour only helps.

    A state that a person has acknowledged keeps its colour, and has an outline instead of a background. A count may
    come before it: `3 lost`.
    """
    name = re.sub(r"^[\d,]+ ", "", state.removesuffix(_ACKNOWLEDGED))
    styles = (style for style, states in CHIP_STYLES.items() if name in states)
    style = "warn" if name.startswith("waits") else next(styles, "quiet")
    if state.endswith(_ACKNOWLEDGED):
        style += " acknowledged"
    return Markup('<span class="chip {}">{}</span>').format(style, visible_text(state))
