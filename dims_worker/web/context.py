"""What every page needs: the configuration, the database, the broker, the templates and the viewer."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property
from typing import TYPE_CHECKING, Any

from jinja2 import Environment
from markupsafe import Markup, escape
from sqlalchemy import Connection, Engine
from starlette.requests import Request
from starlette.responses import HTMLResponse

from dims_worker.config import Config
from dims_worker.formatting import escape_control, format_utc_short, shell_quote
from dims_worker.reports.templating import html_environment
from dims_worker.store import point_in_time
from dims_worker.store.engine import transaction
from dims_worker.store.incidents import count_open
from dims_worker.web.identity import SignInPolicy, Viewer
from dims_worker.web.stall_warning import StallMonitor

if TYPE_CHECKING:
    from dims_worker.web.live_hub import LiveHub


@dataclass(frozen=True)
class WebContext:
    """The dashboard of one process.

    Without `broker_url` the dashboard cannot start workflows. `flower` is the address of Flower, if there is one.
    `live` sends updates to open pages.
    """

    config: Config
    engine: Engine
    broker_url: str | None = field(repr=False)
    access: SignInPolicy
    flower: str | None
    live: LiveHub

    @contextmanager
    def read_transaction(self) -> Iterator[Connection]:
        """Open a read-only transaction in which all queries see the same moment."""
        with transaction(self.engine) as connection:
            point_in_time.begin_read_only(connection)
            yield connection

    @cached_property
    def stall_monitor(self) -> StallMonitor:
        return StallMonitor(self.config, self.engine, self.broker_url)

    @cached_property
    def templates(self) -> Environment:
        environment = html_environment("dims_worker.web")
        environment.globals.update(project=self.config.project.name, flower=self.flower)
        for template_filter in (time_tag, code_spans, breakable_value, breakable_name, shell_quote):
            environment.filters[template_filter.__name__] = template_filter
        return environment

    def _count_incidents(self) -> int:
        """Return how many incidents are open or acknowledged, for the menu."""
        with transaction(self.engine) as connection:
            return sum(count_open(connection).values())

    def page(self, request: Request, template: str, values: Mapping[str, Any], status: int = 200) -> HTMLResponse:
        """Render a page for the viewer of this request. `values["section"]` is the entry of the menu to highlight."""
        viewer = viewer_of(request)
        # Error and sign-in pages are rendered without the database, on the event loop
        needs_database = values["section"] not in ("", "sign-in")
        html = self.templates.get_template(template).render(
            viewer=viewer,
            form_token=self.access.form_token(viewer) if viewer else "",
            stall_warnings=self.stall_monitor.warnings() if needs_database else (),
            incident_count=self._count_incidents() if needs_database else 0,
            path=request.url.path,
            rendered_at=datetime.now(UTC),
            **values,
        )
        return HTMLResponse(html, status)


def web_context(request: Request) -> WebContext:
    site: WebContext = request.app.state.site
    return site


def viewer_of(request: Request) -> Viewer | None:
    """Return the person who sent a request, if they are signed in."""
    viewer: Viewer | None = request.scope.get("viewer")
    return viewer


def time_tag(time: datetime | None) -> Markup:
    """Return a time in UTC as a `<time>` element."""
    if time is None:
        return Markup("never")
    return trusted_html(f'<time datetime="{time.isoformat(timespec="seconds")}">{format_utc_short(time)}</time>')


def code_spans(text: str) -> Markup:
    """Turn `backticks` into `<code>` elements."""
    return _insert_tags("`([^`]+)`", r"<code>\1</code>", text)


def breakable_value(text: str) -> Markup:
    """Allow a line break after the commas of a number, and not within its groups of digits."""
    return _insert_tags(r"(?<=\d),(?=\d)", ",<wbr>", text)


def breakable_name(name: str) -> Markup:
    """Allow a line break between the parts and words of a metric's name."""
    return _insert_tags(r"(?<=[._])(?=\w)", "<wbr>", name)


def _insert_tags(pattern: str, replacement: str, text: str) -> Markup:
    """Replace a pattern by HTML in a text that is escaped first."""
    return trusted_html(re.sub(pattern, replacement, str(escape(escape_control(text)))))


def trusted_html(html: str) -> Markup:
    """Mark HTML as safe. Use it only for HTML whose values are escaped already."""
    return Markup(html)  # noqa: S704
