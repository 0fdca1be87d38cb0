"""Check the producers of this host: the git hooks and the watcher. No server is needed, and it is fast."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import partial

from dims_worker.checks.check import Check, worst_state
from dims_worker.checks.git_hooks import git_hook_checks
from dims_worker.checks.watching import watching_checks
from dims_worker.config import Config
from dims_worker.formatting import pluralize


def producer_checks(config: Config) -> list[Check]:
    """Return the checks of hooks, of changes that wait in repositories, and of the watcher's limits."""
    checks: list[Check] = []
    for name, call in (("hooks", git_hook_checks), ("watching", watching_checks)):
        checks += guarded(name, partial(call, config))
    return checks


def producers_check(config: Config) -> Check:
    """Return one check for all of `producer_checks`. `dims status` and the dashboard show it."""
    checks = producer_checks(config)
    state = worst_state(checks)
    failed = [check for check in checks if check.state != "ok"]
    if not failed:
        return Check("producers", "ok", "hooks and watchers report changes")
    names = ", ".join(check.name for check in failed)
    counted = _counted(failed)
    public = f"The git hooks or the watcher do not report every change: {counted}"
    return Check("producers", state, f"{counted}: {names}", "Run `dims doctor`.", public)


def _counted(failed: Sequence[Check]) -> str:
    counts = {state: sum(check.state == state for check in failed) for state in ("problem", "warning")}
    return " and ".join(pluralize(count, state) for state, count in counts.items() if count)


def guarded(name: str, call: Callable[[], Iterable[Check]]) -> list[Check]:
    """Return the checks of a call. One that fails itself is a warning, so that you still see all others."""
    try:
        return list(call())
    except Exception as error:  # noqa: BLE001 - a fault of one check must not hide the others
        fix = "Run `dims --debug doctor`, and report it with its output."
        return [Check(name, "warning", f"the check itself failed: {error!r}", fix)]
