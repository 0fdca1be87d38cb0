"""Open pages are told what happens: one listener on the database, however many look."""

from __future__ import annotations

from sqlalchemy import Engine
from starlette.routing import BaseRoute

from dims_worker.config import Config


class Hub:
    """Hands on what one listener hears to every open page."""

    def __init__(self, engine: Engine, config: Config) -> None:
        self.engine, self.config = engine, config

    async def start(self) -> None:
        """Begin to listen."""

    def close(self) -> None:
        """End every stream; from any thread, and from a signal's handler."""

    async def stop(self) -> None:
        """End every stream, and the listener."""


routes: list[BaseRoute] = []
