"""One metric's whole story on one page."""

from __future__ import annotations

from starlette.routing import BaseRoute

routes: list[BaseRoute] = []
