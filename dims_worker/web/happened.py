"""Events and runs, as they happen."""

from __future__ import annotations

from starlette.routing import BaseRoute

routes: list[BaseRoute] = []
