"""The result of one check: a state, one sentence, and the fix."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

State = Literal["ok", "warning", "problem"]
STATES: tuple[State, ...] = ("ok", "warning", "problem")
"""From the best to the worst. A problem means that something that should run does not."""


@dataclass(frozen=True, slots=True)
class Check:
    """What one check found.

    `summary` and `fix` are for the people who run DIMS, and may name hosts and paths. They never hold a password.
    `public` is the summary for everyone who may read the dashboard: it names no host, no path and no text of a server.
    If it is empty, the dashboard does not show the check. A check with a `public` summary has a `fix` that is as safe.
    """

    name: str
    state: State
    summary: str
    fix: str = ""
    public: str = ""


def worst_state(checks: Iterable[Check]) -> State:
    """Return the worst state of these checks, and `ok` if there is none."""
    return max((check.state for check in checks), key=STATES.index, default="ok")
