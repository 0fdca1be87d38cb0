"""`dims up`, `dims down`, `dims status`: the machine."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path

import click
from rich.text import Text

from dims_worker import services
from dims_worker.cli.follow import follow_until
from dims_worker.cli.main import exit_with
from dims_worker.cli.readings import plain_table
from dims_worker.cli.session import Session, json_option, pass_session
from dims_worker.cli.words import NOTHING, ago, clock_text, count
from dims_worker.config import S3Source
from dims_worker.errors import AlreadyRunning, DimsError, ServiceError
from dims_worker.events import STREAM
from dims_worker.ingest import register
from dims_worker.services.flower import access
from dims_worker.store import states
from dims_worker.store.engine import clock, engine, transaction
from dims_worker.store.events import last_event
from dims_worker.store.migrations import migrate
from dims_worker.store.requests import open_requests
from dims_worker.store.runs import requests_since
from producers.publish import PRODUCER_URL, connect

PATIENCE = 90.0
"""Seconds that a detached start may take until all processes run."""


def procfile_text() -> str:
    """The Procfile: inside an installed package, or at the root of a checkout."""
    return _shipped("Procfile", "Procfile").read_text()


def flower_variables(env: Mapping[str, str]) -> dict[str, str]:
    """What Flower's line of the Procfile and its configuration need beside DIMS_HOME: a port that is free, unless
    one is asked for, and where the configuration is. Raises ConfigError as `services.flower.access` does."""
    wanted = access(env).port
    return {
        "DIMS_FLOWER_PORT": str(wanted if env.get("DIMS_FLOWER_PORT") else free_port(wanted)),
        "DIMS_FLOWER_CONFIG": env.get("DIMS_FLOWER_CONFIG")
        or str(_shipped("flowerconfig.py", "config/flowerconfig.py")),
    }


def _shipped(in_package: str, in_checkout: str) -> Path:
    """A file that an installed package holds, and a checkout of the project elsewhere."""
    package = Path(__file__).parents[1]
    return next(path for path in (package / in_package, package.parent / in_checkout) if path.is_file())


@click.command()
@click.option("--detach", "-d", is_flag=True, help="Return once all runs.")
@click.option("--quiet", "-q", is_flag=True, help="Do not tell what happens.")
@click.option("--procfile", type=click.Path(path_type=Path, dir_okay=False, exists=True), help="Other processes.")
@pass_session
def up(session: Session, detach: bool, quiet: bool, procfile: Path | None) -> None:
    """Start the machine: PostgreSQL and Valkey (unless DIMS_DATABASE_URL and DIMS_BROKER_URL name others), then
    worker, beat, flower and watch, each started again when it ends. Ctrl-C or `dims down` stops all in order.
    """
    flower = flower_variables(session.env)
    if detach:
        _detach(session, procfile, quiet=quiet)
        return
    config = session.config
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda *_: stop.set())

    def tell(line: str) -> None:
        session.tell(f"{clock_text(datetime.now(UTC))}  {line}")

    with services.hold(config.home):
        servers = services.start(
            config.home, database=config.database_url is None, broker=config.broker_url is None
        )  # fmt: skip
        if config.broker_url:
            services.remember_broker(config.home, session.env.get(PRODUCER_URL) or config.broker_url)
        url = config.database_url or servers.database_url
        assert url is not None
        before, after = migrate(engine(url))
        if before != after:
            tell(f"the database is at revision {after} now")
        env = {
            **session.env,
            "DIMS_CONFIG": str(config.file),
            "DIMS_DATABASE_URL": url,
            "DIMS_BROKER_URL": str(config.broker_url or servers.broker_url),
            **flower,
        }
        supervisor = services.Supervisor(
            config.home, procfile.read_text() if procfile else procfile_text(), env, config.project, tell,
            database=config.database_url is None, broker=config.broker_url is None,
        )  # fmt: skip
        asks = " (it asks for a password)" if access(env).auth else ""
        tell(f"DIMS is up in {config.home}; Flower: {access(env).url}{asks}; Ctrl-C stops all")
        teller = threading.Thread(target=follow_until, args=(stop, engine(url), config, session.tell), daemon=True)
        if not quiet:
            teller.start()
        supervisor.run(stop)
        tell("DIMS is down; nothing is lost")


def free_port(wanted: int) -> int:
    """The port, or a free one where it is taken."""
    for port in (wanted, 0):
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return int(probe.getsockname()[1])
    raise ServiceError("no port is free")


def _detach(session: Session, procfile: Path | None, *, quiet: bool) -> None:
    config = session.config
    if (pid := services.holder(config.home)) is not None:
        raise AlreadyRunning(f"DIMS runs in {config.home} already (pid {pid}): `dims status`, `dims down`")
    home = services.Home.at(config.home).make()
    log = home.log("up")
    command = [sys.executable, "-m", "dims_worker", "--config", str(config.file), "up"]
    command += ["--procfile", str(procfile.resolve())] if procfile else []
    command += ["--quiet"] if quiet else []
    with log.open("ab") as output:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True,
            cwd=config.project, env={**session.env, "DIMS_HOME": str(config.home)},
        )  # fmt: skip
    end = time.monotonic() + PATIENCE
    with session.err.status("starting …"):
        while time.monotonic() < end:
            if process.poll() is not None:
                last = "\n".join(log.read_text(errors="replace").splitlines()[-10:])
                raise ServiceError(f"DIMS did not start; {log} ends with:\n{last}")
            states_ = services.status(config.home)
            processes = [one for one in states_ if one.name not in ("postgres", "valkey")]
            if processes and all(one.state in ("running", "missing") for one in states_):
                break
            time.sleep(0.1)
        else:
            raise ServiceError(f"not all processes run after {PATIENCE:g} s: see `dims status` and {log.parent}")
    session.out.print(f"DIMS is up: {', '.join(one.name for one in states_)}. See `dims follow`, `dims status`; "
                      "`dims down` stops it.", soft_wrap=True)  # fmt: skip


@click.command()
@click.option("--timeout", type=click.FloatRange(min=1), default=60, show_default=True, help="Seconds.")
@pass_session
def down(session: Session, timeout: float) -> None:
    """Stop the machine in order; what it had taken in is finished or waits. Also tidies up after a crash."""
    stopped = services.end(session.config.home, timeout)
    for sentence in stopped:
        click.echo(sentence)
    if not stopped:
        click.echo("nothing was running")


@click.command()
@json_option
@pass_session
def status(session: Session, as_json: bool) -> None:
    """What is up, what is down, what waits. Exit code 3 where the database or the broker is away."""
    config = session.config
    now = datetime.now(UTC)
    found = services.status(config.home)
    servers = services.running(config.home)
    database_url = config.database_url or (servers.database_url if servers else None)
    broker_url = config.broker_url or (servers.broker_url if servers else None)
    lines = {"broker": _broker_line(broker_url), "database": _database_line(session, database_url)}
    if (listing := _listing_line(session, database_url)) is not None:
        lines["listing"] = listing
    spool = config.home / "spool" / "new"
    waiting = sum(1 for _ in os.scandir(spool)) if spool.is_dir() else 0
    lines["spool"] = f"{count(waiting, 'event')} to be sent" if waiting else "empty"
    unread = sum(1 for _ in os.scandir(bad)) if (bad := spool.parent / "bad").is_dir() else 0
    lines["spool"] += f"; {count(unread, 'file')} could not be read: see {bad}" if unread else ""
    if as_json:
        session.print_json(
            {"home": str(config.home),
             "processes": [{name: getattr(one, name) for name in one.__slots__} for one in found], **lines}
        )  # fmt: skip
    else:
        table = plain_table("process", "state", "pid", "since", "restarts", numbers=("pid", "restarts"))
        for one in found:
            style = {"running": "green", "stopped": "dim"}.get(one.state, "magenta")
            table.add_row(one.name, Text(one.state, style), str(one.pid or NOTHING),
                          ago(one.since, now) if one.since else NOTHING, str(one.restarts))  # fmt: skip
        if found:
            session.out.print(table)
        for name, line in lines.items():
            session.out.print(f"{name:<9} {line}", soft_wrap=True)
    exit_with(3 if any(line.startswith("away") for line in lines.values()) else 0)


MONTH = timedelta(days=30)


def _listing_line(session: Session, url: str | None) -> str | None:
    """What listing buckets has cost in the last month, at the configuration's price; None without a bucket."""
    prices = {name: one.list_price for name, one in session.config.sources.items() if isinstance(one, S3Source)}
    if not prices or url is None:
        return None
    try:
        with transaction(engine(url)) as connection:
            made = requests_since(connection, MONTH)
    except DimsError:
        return None  # said by the database's own line
    dearest = max(prices.values())  # of a look at several sources, or a workflow, it is not known which
    kept = {source: n for source, n in made.items() if source in prices or source not in session.config.sources}
    cost = sum(n * prices.get(source or "", dearest) / 1000 for source, n in kept.items())
    return f"{count(sum(kept.values()), 'request')} in 30 days, at most {cost:,.4f} USD"


def _broker_line(url: str | None) -> str:
    if url is None:
        return "away: not running here; `dims up` starts it"
    try:
        client = connect(url, timeout=3)
        waiting = int(client.xlen(STREAM))
        client.close()
    except Exception as error:
        from redis.exceptions import RedisError

        if isinstance(error, RedisError | DimsError | OSError):
            return f"away: {error}"
        raise
    return f"up, {count(waiting, 'event')} waiting in the stream"


def _database_line(session: Session, url: str | None) -> str:
    if url is None:
        return "away: not running here; `dims up` starts it"
    config = session.config
    try:
        with transaction(engine(url)) as connection:
            register(connection, config)
            known = states.read(connection, config.metrics)
            waiting, events, now = open_requests(connection), last_event(connection), clock(connection)
    except DimsError as error:
        return f"away: {error}"
    failed = sum(state.error is not None for state in known.values())
    due = sum(state.due for state in known.values())
    newest = max((state.as_of for state in known.values() if state.as_of), default=None)
    return (
        f"up, {count(events, 'event')}, {count(len(known), 'metric')}: {due} due, {failed} failed, "
        f"{count(len(waiting), 'request')} waiting; last reading {ago(newest, now)}"
    )
