"""Paths to values in a JSON document: names and numbers between dots (`totals.0.files`). `*` is every item."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any


def resolve_pointer(document: Any, pointer: str, *, skip_missing: bool = False) -> Iterator[Any]:
    """Yield the values at the pointer: more than one only if it has a `*`.

    `*` is every item of a list or every value of an object. A name or number that does not exist raises
    LookupError, whose text says which one and where. With `skip_missing` it yields nothing.
    """
    return _walk(document, pointer.split("."), 0, skip_missing)


def _walk(node: Any, steps: list[str], done: int, skip_missing: bool) -> Iterator[Any]:
    if done == len(steps):
        yield node
        return
    step = steps[done]
    if step == "*" and isinstance(node, list | dict):
        for item in node if isinstance(node, list) else node.values():
            yield from _walk(item, steps, done + 1, skip_missing)
    elif isinstance(node, dict) and step in node:
        yield from _walk(node[step], steps, done + 1, skip_missing)
    elif isinstance(node, list) and step.isdecimal() and int(step) < len(node):
        yield from _walk(node[int(step)], steps, done + 1, skip_missing)
    elif not skip_missing:
        where = ".".join(steps[:done])
        raise LookupError(f"there is no {step!r} in {where}" if where else f"there is no {step!r}")
