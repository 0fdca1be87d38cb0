"""Flower, Celery's dashboard: where it listens, who may sign in, and how it shows a task. All functions are pure.

`config/flowerconfig.py` turns these into Flower's own options. `dims up` calls them first, to refuse bad settings
early.
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
    """Where Flower listens, and the `user:password` pairs that it accepts. Without pairs, it asks for no password."""

    address: str
    port: int
    auth: tuple[str, ...] = field(repr=False)

    @property
    def url(self) -> str:
        """The URL, without a password."""
        return f"http://{f'[{self.address}]' if ':' in self.address else self.address}:{self.port}"


def flower_access(env: Mapping[str, str]) -> FlowerAccess:
    """Read DIMS_FLOWER_ADDRESS, DIMS_FLOWER_PORT and DIMS_FLOWER_AUTH (else Flower's own FLOWER_BASIC_AUTH).

    Raises:
        ConfigError: a value is not valid, or would open Flower to more people than you meant. It quotes no password.
    """
    address = env.get("DIMS_FLOWER_ADDRESS", "").strip() or HOST
    pairs = env.get("DIMS_FLOWER_AUTH") or env.get("FLOWER_BASIC_AUTH") or ""
    auth = tuple(filter(None, (pair.strip() for pair in pairs.split(","))))
    if not all(_is_pair(pair) for pair in auth):
        raise ConfigError("DIMS_FLOWER_AUTH must be user:password, in ASCII. Separate several pairs with commas.")
    if not auth and not is_loopback(address):
        raise ConfigError(
            f"Flower would listen on {address} without a password. Set DIMS_FLOWER_AUTH=user:password, "
            "or remove DIMS_FLOWER_ADDRESS."
        )
    if not auth and env.get("FLOWER_UNAUTHENTICATED_API", "").lower() not in ("", "0", "n", "no", "f", "false", "off"):
        raise ConfigError(
            "FLOWER_UNAUTHENTICATED_API lets any web page in a browser of this machine command the workers. "
            "Remove it, and set DIMS_FLOWER_AUTH=user:password instead."
        )
    return FlowerAccess(address, _port(env.get("DIMS_FLOWER_PORT", "").strip()), auth)


def _is_pair(pair: str) -> bool:
    user, colon, password = pair.partition(":")
    return bool(user and colon and password) and pair.isascii()  # Flower compares ASCII only


def _port(text: str) -> int:
    if not text:
        return PORT
    if not (text.isdecimal() and 0 < int(text) < 65_536):
        raise ConfigError(f"DIMS_FLOWER_PORT must be a port from 1 to 65535, not {text!r}.")
    return int(text)


def format_task_arguments(task: Any) -> Any:
    """Make a task readable, for Flower's `format_task`: `lake` instead of `('lake',)`, and nothing for None.

    Args:
        task: a copy of a celery.events.state.Task. Fields that are not simple literals keep their text.
    """
    for name in ("args", "kwargs", "result"):
        setattr(task, name, _plain(getattr(task, name, None)))
    return task


def _plain(shown: Any) -> Any:
    """Return the value behind a `repr` as plain text, if it is a simple literal."""
    try:
        value = ast.literal_eval(shown)
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        return shown
    if value is None or value in ((), {}, []):
        return ""
    return ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
