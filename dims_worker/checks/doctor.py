"""Run every check that a person would, side by side and in limited time."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import partial

from dims_worker.checks.bounded import BoundedCalls
from dims_worker.checks.bucket_notifications import notification_checks
from dims_worker.checks.check import Check
from dims_worker.checks.config_files import config_file_checks
from dims_worker.checks.file_access import file_access_checks, ports_check
from dims_worker.checks.git_hooks import git_hook_checks
from dims_worker.checks.installation import installation_checks
from dims_worker.checks.judging import judging_checks
from dims_worker.checks.producers import guarded
from dims_worker.checks.server_setup import broker_setup_checks, database_setup_checks
from dims_worker.checks.sources import source_checks
from dims_worker.checks.system import SystemState, check_system
from dims_worker.checks.watching import watching_checks
from dims_worker.config import Config

SECONDS = 10.0
"""How long all checks together may take, after those of the system."""

RUNS, SOURCES, EVENTS, HOST = "What runs", "Sources", "Events", "This host"
"""The groups of checks, in the order in which people read them."""


def doctor_checks(config: Config, env: Mapping[str, str], calls: BoundedCalls | None = None) -> dict[str, list[Check]]:
    """Return all checks by group. Each source has its own thread, so one that hangs delays no other."""
    calls = calls or BoundedCalls()
    groups: dict[str, dict[str, Callable[[], Iterable[Check]]]] = {
        SOURCES: {name: partial(_single, check) for name, check in source_checks(config).items()},
        EVENTS: {
            "hooks": partial(git_hook_checks, config, run_python=True),
            **{name: partial(_single, check) for name, check in notification_checks(config).items()},
            "watching": partial(watching_checks, config),
            "critical metrics": partial(judging_checks, config),
        },
        HOST: {
            "configuration": partial(config_file_checks, config, env),
            "installation": partial(installation_checks, config, env),
            "permissions": partial(file_access_checks, config),
        },
    }
    named = {
        f"{group}: {name}": partial(guarded, name, call) for group in groups for name, call in groups[group].items()
    }
    system: SystemState | None = None

    def run_system() -> list[Check]:
        nonlocal system
        system = check_system(config, BoundedCalls())
        return [*system.checks, *_setup_checks(config, system), _ports(env, system)]

    results = calls.run({RUNS: partial(guarded, "system", run_system), **named}, 2 * SECONDS)
    found: dict[str, list[Check]] = {RUNS: list(results.get(RUNS, [_late("system")]))}
    for group, members in groups.items():
        found[group] = [check for name in members for check in results.get(f"{group}: {name}", [_late(name)])]
    found[RUNS] = [check for check in found[RUNS] if check.name != "producers"]  # EVENTS has its parts
    return found


def _setup_checks(config: Config, system: SystemState) -> list[Check]:
    """Return the checks of how the servers are set up, of those that run."""
    checks: list[Check] = []
    if url := system.servers.database_url:
        checks += database_setup_checks(url, own=config.database_url is not None)
    if url := system.servers.broker_url:
        checks += broker_setup_checks(url, system.broker.info if system.broker else None)
    return checks


def _ports(env: Mapping[str, str], system: SystemState) -> Check:
    return ports_check(env, running=any(process.state == "running" for process in system.processes))


def _single(check: Callable[[], Check]) -> list[Check]:
    return [check()]


def _late(name: str) -> Check:
    fix = "Check the network between this host and it, then try again."
    return Check(name, "problem", f"no answer within {2 * SECONDS:g} s", fix)
