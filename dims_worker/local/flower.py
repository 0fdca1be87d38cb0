"""Flower, Celery's dashboard: where it listens, who may look, and how a task reads in it. All pure.

`config/flowerconfig.py` turns this into Flower's own options; `dims up` asks first, so that it can refuse.
"""

from __future__ import annotations

import ast
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from dims_worker.errors import ConfigError
from dims_worker.local.ports import HOST, is_loopback

PORT = 5555


@dataclass(frozen=True, slots=True)
class FlowerAccess:
    """Where Flower listens, and the `user:password` pairs that it asks for; none: it asks for nothing."""

    address: str
    port: int
    auth: tuple[str, ...] = field(repr=False)

    @property
    def url(self) -> str:
        """Where it is, without a password."""
        return f"http://{f'[{self.address}]' if ':' in self.address else self.address}:{self.port}"


def flower_access(env: Mapping[str, str]) -> FlowerAccess:
    """What DIMS_FLOWER_ADDRESS, DIMS_FLOWER_PORT and DIMS_FLOWER_AUTH (else Flower's FLOWER_BASIC_AUTH) ask for.

    Raises ConfigError, which quotes no password, where one of them is unfit, or would open more than was meant.
    """
    address = env.get("DIMS_FLOWER_ADDRESS", "").strip() or HOST
    asked = env.get("DIMS_FLOWER_AUTH") or env.get("FLOWER_BASIC_AUTH") or ""
    auth = tuple(filter(None, (pair.strip() for pair in asked.split(","))))
    if not all(_is_pair(pair) for pair in auth):
        raise ConfigError("DIMS_FLOWER_AUTH must be user:password, in ASCII; several are separated by commas")
    if not auth and not is_loopback(address):
        raise ConfigError(
            f"Flower would listen on {address} and ask for no password: set DIMS_FLOWER_AUTH=user:password, "
            "or leave DIMS_FLOWER_ADDRESS out"
        )
    if not auth and env.get("FLOWER_UNAUTHENTICATED_API", "").lower() not in ("", "0", "n", "no", "f", "false", "off"):
        raise ConfigError(
            "FLOWER_UNAUTHENTICATED_API lets any web page that a browser of this machine opens command the workers: "
            "set DIMS_FLOWER_AUTH=user:password instead"
        )
    return FlowerAccess(address, _port(env.get("DIMS_FLOWER_PORT", "").strip()), auth)


def _is_pair(pair: str) -> bool:
    user, colon, password = pair.partition(":")
    return bool(user and colon and password) and pair.isascii()  # Flower compares ASCII only


def _port(text: str) -> int:
    if not text:
        return PORT
    if not (text.isdecimal() and 0 < int(text) < 65_536):
        raise ConfigError(f"DIMS_FLOWER_PORT must be a port, 1 to 65535, not {text!r}")
    return int(text)


def format_task_arguments(task: Any) -> Any:
    """A task as people read it, for Flower's `format_task`: `lake` for `('lake',)`, and nothing for None.

    Its argument is a copy of a celery.events.state.Task; what has a text of its own keeps it.
    """
    for name in ("args", "kwargs", "result"):
        setattr(task, name, _plain(getattr(task, name, None)))
    return task


def _plain(shown: Any) -> Any:
    """What is behind a `repr`, where it is simple."""
    try:
        value = ast.literal_eval(shown)
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        return shown
    if value is None or value in ((), {}, []):
        return ""
    return ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
