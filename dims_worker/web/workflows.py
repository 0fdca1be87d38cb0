"""The last report of each workflow, and the button that starts one."""

from __future__ import annotations

from starlette.routing import BaseRoute

routes: list[BaseRoute] = []
