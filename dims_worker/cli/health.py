"""Define `dims health`: whether a process on this host works, as an exit code for containers and load balancers."""

from __future__ import annotations

import socket
from dataclasses import dataclass
from typing import Any

import click

from dims_worker import local
from dims_worker.cli.main import exit_with
from dims_worker.cli.session import Session, examples, json_option, pass_session
from dims_worker.cli.web import answers, read_url
from dims_worker.config import Config
from dims_worker.errors import DatabaseUnreachable, DimsError
from dims_worker.local import DataDirectory

ROLES = ("worker", "ingest", "beat", "web", "watch")
LIVENESS_HELP = "Also exit with 0 if the database cannot be reached, because a restart does not help then."


@dataclass(frozen=True, slots=True)
class HealthCheck:
    """The answer about one role on this host. `healthy` is None if it cannot be known now."""

    role: str
    host: str
    healthy: bool | None
    reason: str
    processes: tuple[str, ...] = ()


@click.command()
@examples(
    "dims health worker               a worker on this host makes progress",
    "dims health web --json           the dashboard answers an HTTP request",
    "dims health beat --liveness      for a probe that restarts the container",
)
@click.argument("role", type=click.Choice(ROLES))
@click.option("--liveness", is_flag=True, help=LIVENESS_HELP)
@json_option
@pass_session
def health(session: Session, role: str, liveness: bool, as_json: bool) -> None:
    """Check whether a process on this host works.

    A worker, beat and a watcher work if their row in dims_processes is recent and names no problem. The dashboard works
    if it answers an HTTP request. The exit code is 0 if the process works, and 3 if it does not or if the database
    cannot be reached.
    """
    check = _check_web(session.config) if role == "web" else _check_row(session.config, role)
    if as_json:
        from dims_worker.text.json_documents import facts

        session.print_json(facts(check))
    else:
        session.print_text(f"{check.role} on {check.host}: {check.reason}")
    exit_with(0 if check.healthy or (liveness and check.healthy is None) else 3)


def _check_web(config: Config) -> HealthCheck:
    host, url = socket.gethostname(), read_url(DataDirectory(config.home))
    if not url:
        return HealthCheck("web", host, False, f"no dashboard has started with the data directory {config.home}")
    if not answers(url):
        return HealthCheck("web", host, False, f"it does not answer at {url}. Read its log")
    return HealthCheck("web", host, True, f"it answers at {url}")


def _check_row(config: Config, role: str) -> HealthCheck:
    """Check the rows of the processes with this role. Several may run on a host, and each leaves a row if it is killed.

    So one that works is enough, unless another one that reports itself names a problem.
    """
    from dims_worker.store.engine import clock, engine, transaction
    from dims_worker.store.processes import problem_of, process_rows

    host = socket.gethostname()
    try:
        with transaction(engine(_database_url(config))) as connection:
            rows, now = process_rows(connection), clock(connection)
    except DimsError as error:
        return HealthCheck(role, host, None, f"it cannot be checked: {error}")
    own = [row for row in rows if row.role == role and row.host == host]
    problems = {row.process: problem_of(row, now, config.settings.sweep) for row in own}
    names = tuple(problems)
    working = [name for name, problem in problems.items() if problem is None]
    reported = [f"{row.process} (pid {row.pid}): {row.problem}" for row in own if row.problem]
    if not own:
        return HealthCheck(
            role, host, False, "no such process has reported itself on this host. Start it with `dims up`"
        )
    if reported and not _replaced(own):
        return HealthCheck(role, host, False, "; ".join(reported), names)
    if not working:
        silent = "; ".join(f"{name}: {problem}" for name, problem in problems.items())
        return HealthCheck(role, host, False, f"{silent}. Read its log", names)
    return HealthCheck(role, host, True, f"{', '.join(working)} {'works' if len(working) == 1 else 'work'}", names)


def _replaced(rows: list[Any]) -> bool:
    """Return whether only processes that have ended name a problem: a later one on this host works."""
    latest = max(rows, key=lambda row: row.started_at)
    return latest.problem is None


def _database_url(config: Config) -> str:
    """Return the URL of the database. Raises DatabaseUnreachable if none is configured and none runs here."""
    servers = None if config.database_url else local.running(config.home)
    url = config.database_url or (servers.database_url if servers else None)
    if url is None:
        raise DatabaseUnreachable
    return url
