"""Who may decide on a metric. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Literal

from dims_worker.config import Config
from dims_worker.errors import NotAllowed


@dataclass(frozen=True, slots=True)
class Decider:
    """A person who decides, and how DIMS knows the name. On the command line: an `option`, the `environment`, or the
    `system`'s user name. On the dashboard: a `token`, a sign-in `link` or a trusted `proxy`."""

    name: str
    known_by: Literal["option", "environment", "system", "token", "link", "proxy"]


def approvers_of(config: Config, metric: str) -> tuple[str, ...]:
    """Return the name patterns of the people who may decide on a metric. Empty: everyone may."""
    return config.policy_of(metric).approvers if metric in config.metrics else ()


def may_decide(config: Config, metric: str, name: str) -> bool:
    """Return whether a person of this name may decide on a metric."""
    approvers = approvers_of(config, metric)
    return not approvers or any(fnmatchcase(name, pattern) for pattern in approvers)


def require_approver(config: Config, metric: str, person: Decider) -> None:
    """Raise NotAllowed if a person may not decide on a metric."""
    if not may_decide(config, metric, person.name):
        approvers = approvers_of(config, metric)
        raise NotAllowed(f"{person.name} may not decide on {metric}: its `approvers` are {', '.join(approvers)}")
