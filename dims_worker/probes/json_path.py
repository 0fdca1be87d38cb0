"""The way to values in a JSON document: names and numbers between dots, such as `totals.0.files`; `*` is every item."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any


def resolve_pointer(document: Any, pointer: str) -> Iterator[Any]:
    """The values that the pointer leads to; more than one only past a `*`, which is every item of a list or
    every value of an object.

    Raises LookupError, whose text says where the way ends, where a name or number is not there.
    """
    return _walk(document, pointer.split("."), 0)


def _walk(here: Any, steps: list[str], done: int) -> Iterator[Any]:
    if done == len(steps):
        yield here
        return
    step = steps[done]
    if step == "*" and isinstance(here, list | dict):
        for item in here if isinstance(here, list) else here.values():
            yield from _walk(item, steps, done + 1)
    elif isinstance(here, dict) and step in here:
        yield from _walk(here[step], steps, done + 1)
    elif isinstance(here, list) and step.isdecimal() and int(step) < len(here):
        yield from _walk(here[int(step)], steps, done + 1)
    else:
        where = ".".join(steps[:done])
        raise LookupError(f"there is no {step!r} in {where}" if where else f"there is no {step!r}")
