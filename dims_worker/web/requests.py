"""What waits for a person, and the buttons that decide it."""

from __future__ import annotations

from starlette.routing import BaseRoute

routes: list[BaseRoute] = []
