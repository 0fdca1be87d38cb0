"""What every page is made from: the configuration, the database, the broker, the templates, and who looks."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property
from typing import TYPE_CHECKING, Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape
from sqlalchemy import Connection, Engine
from starlette.requests import Request
from starlette.responses import HTMLResponse

from dims_worker.config import Config
from dims_worker.formatting import escape_control, format_ago, format_utc, format_utc_short, pluralize
from dims_worker.reports import templating
from dims_worker.store import point_in_time
from dims_worker.store.engine import transaction
from dims_worker.web.identity import SignInPolicy, Viewer
from dims_worker.web.stall_warning import StallMonitor

if TYPE_CHECKING:
    from dims_worker.web.live_hub import LiveHub


@dataclass(frozen=True)
class WebContext:
    """One process's site. `broker_url` None: nobody told where events go, so nothing can be started from here.
    `flower`: where people reach it; None: nowhere. `live`: who tells open pages what happens."""

    config: Config
    engine: Engine
    broker_url: str | None = field(repr=False)
    access: SignInPolicy
    flower: str | None
    live: LiveHub

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """A transaction that reads, of one moment."""
        with transaction(self.engine) as connection:
            point_in_time.begin_read_only(connection)
            yield connection

    @cached_property
    def silence(self) -> StallMonitor:
        return StallMonitor(self.config, self.engine, self.broker_url)

    @cached_property
    def templates(self) -> Environment:
        """All that is written into a page is escaped, and what would move or hide text is made visible first."""
        found = Environment(
            loader=PackageLoader("dims_worker.web"),
            autoescape=True,
            undefined=StrictUndefined,
            finalize=_visible,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        found.globals.update(project=self.config.project.name, flower=self.flower)
        found.filters.update(
            ago=format_ago, count=pluralize, short=format_utc_short, when=format_utc, stamp=stamp,
            chip=templating.chip, codes=code_spans, grouped=breakable_value, parted=breakable_name,
        )  # fmt: skip
        return found

    def page(self, request: Request, template: str, values: Mapping[str, Any], status: int = 200) -> HTMLResponse:
        """A page as this viewer sees it. `here`: the part of the site that it belongs to, for the menu."""
        viewer = viewer_of(request)
        text = self.templates.get_template(template).render(
            {
                **{"viewer": viewer, "form_token": self.access.form_token(viewer) if viewer else ""},
                # What went wrong and the sign-in are said without the database, and on the event loop
                "silence": self.silence.told() if values["here"] not in ("", "sign-in") else "",
                **{"path": request.url.path, "status": status, "made": datetime.now(UTC)},
                **values,
            }
        )
        return HTMLResponse(text, status)


def web_context(request: Request) -> WebContext:
    found: WebContext = request.app.state.site
    return found


def viewer_of(request: Request) -> Viewer | None:
    """Who looks, if they signed in."""
    found: Viewer | None = request.scope.get("viewer")
    return found


def stamp(time: datetime | None) -> Markup:
    """A time as a page shows it, in UTC, and as a machine reads it."""
    if time is None:
        return Markup("never")
    return trusted_html(
        f'<time datetime="{time.isoformat(timespec="seconds")}">{format_utc_short(time)}</time>'
    )  # only digits


def code_spans(said: str) -> Markup:
    """A sentence; what stands in `backticks` as code."""
    return _put("`([^`]+)`", r"<code>\1</code>", said)


def breakable_value(said: str) -> Markup:
    """A value that is broken after its commas, if it must be, and not within a group of digits."""
    return _put(r"(?<=\d),(?=\d)", ",<wbr>", said)


def breakable_name(name: str) -> Markup:
    """A metric's name that is broken between its parts and words, if it must be."""
    return _put(r"(?<=[._])(?=\w)", "<wbr>", name)


def _put(pattern: str, tags: str, said: str) -> Markup:
    """A text from outside with tags of ours in the places that fit: it is escaped first."""
    return trusted_html(re.sub(pattern, tags, str(escape(escape_control(said)))))


def trusted_html(html: str) -> Markup:
    """What `report.page` and `report.charts` have drawn: they escape what they are given."""
    return Markup(html)  # noqa: S704


def _visible(value: Any) -> Any:
    """A text from outside without what would move or hide its neighbours, such as right-to-left marks."""
    if isinstance(value, str) and not isinstance(value, Markup) and not value.isprintable():
        return escape_control(value)
    return value
