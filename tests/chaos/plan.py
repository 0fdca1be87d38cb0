"""The plan of a run: which faults, in which order. One seed gives one plan."""

from __future__ import annotations

import fnmatch
import random
from collections.abc import Sequence

from tests.chaos.cluster import Cluster
from tests.chaos.faults import FAULTS, Fault


def chosen_faults(only: Sequence[str] = (), without: Sequence[str] = ()) -> list[type[Fault]]:
    """Return the faults whose names match a pattern of `only` (or all), and no pattern of `without`.

    Raises ValueError if a pattern matches none.
    """
    for pattern in (*only, *without):
        if not any(_matches(fault, [pattern]) for fault in FAULTS):
            names = "; ".join(fault.name for fault in FAULTS)
            raise ValueError(f"no fault matches {pattern!r}. The faults are: {names}")
    return [fault for fault in FAULTS if (not only or _matches(fault, only)) and not _matches(fault, without)]


def make_plan(rng: random.Random, faults: Sequence[type[Fault]], number: int) -> list[type[Fault]]:
    """Return `number` faults in a random order: each as often as its weight says, and each at least once if there is
    room."""
    if not faults:
        raise ValueError("there is no fault to plan")
    planned: list[type[Fault]] = []
    weighted = [fault for fault in faults for _ in range(fault.weight)]
    while len(planned) < number:
        batch = list(faults) if not planned else list(weighted)
        rng.shuffle(batch)
        planned += batch[: number - len(planned)]
    rng.shuffle(planned)
    return planned


def skipped_faults(cluster: Cluster, faults: Sequence[type[Fault]]) -> dict[str, str]:
    """Return the faults that this computer cannot have, and the reason of each."""
    reasons = {fault.name: fault.is_available(cluster) for fault in faults}
    return {name: reason for name, reason in reasons.items() if reason}


def _matches(fault: type[Fault], patterns: Sequence[str]) -> bool:
    return any(fnmatch.fnmatch(fault.name, f"*{pattern}*") for pattern in patterns)
