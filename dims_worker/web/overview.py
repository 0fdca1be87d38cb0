"""The first page: what needs a person, then all metrics by category."""

from __future__ import annotations

from starlette.routing import BaseRoute

routes: list[BaseRoute] = []
