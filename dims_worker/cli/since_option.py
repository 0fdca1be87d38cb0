"""Read the option `--since` of commands that look back: a span or a date."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import click

from dims_worker.config.units import parse_since

LONGEST_SPAN = timedelta(days=36_500)


def parse_since_option(context: click.Context, parameter: click.Parameter, written: str) -> timedelta | datetime:
    """Return the span or the time to look back to."""
    try:
        since = parse_since(written)
    except ValueError:
        raise click.BadParameter(
            f"{written!r} is neither a span, such as 7d or 48h, nor a date, such as 2026-11-01"
        ) from None
    if isinstance(since, datetime) and since > datetime.now(UTC):
        raise click.BadParameter(f"{written} is in the future")
    if isinstance(since, timedelta) and not timedelta(0) < since <= LONGEST_SPAN:
        raise click.BadParameter(f"{written} is not between 0 and 100 years")
    return since
