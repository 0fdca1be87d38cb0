"""Define `dims up` and `dims down`: start and stop the local stack."""

from __future__ import annotations

import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path

import click
from redis.exceptions import RedisError

from dims_producers.broker_refusal import broker_reason
from dims_producers.publish import PRODUCER_URL, connect
from dims_worker import local
from dims_worker.broker.binding import require_broker
from dims_worker.cli import web
from dims_worker.cli.follow import follow_until
from dims_worker.cli.session import EXISTING_FILE, Session, examples, pass_session
from dims_worker.config import Config, load_config
from dims_worker.errors import AlreadyRunning, ConfigError, ServiceError
from dims_worker.formatting import format_bytes, format_clock
from dims_worker.local.flower import flower_access
from dims_worker.store.engine import engine
from dims_worker.store.identity import database_identity
from dims_worker.store.migrations import migrate

NEW_DATABASE_BYTES = 64_000_000
"""Free space that a new data directory needs: an empty PostgreSQL, and its log."""
START_BYTES = 2_000_000
"""Free space that the servers of an existing data directory need to start."""
BROKER_TIMEOUT = 5.0
START_TIMEOUT = 90.0
"""Seconds that `dims up --detach` waits until every process runs."""


def procfile_text() -> str:
    """Return the Procfile of the installed package, or the one at the root of a checkout."""
    return _shipped_file("Procfile", "Procfile").read_text()


def flower_variables(env: Mapping[str, str]) -> dict[str, str]:
    """Return the variables that Flower needs beside DIMS_HOME: its port and the path of its configuration.

    The port is DIMS_FLOWER_PORT if it is set, or else a free one. Raises ConfigError as `flower_access` does.
    """
    port = flower_access(env).port
    return {
        "DIMS_FLOWER_PORT": str(port if env.get("DIMS_FLOWER_PORT") else free_port(port)),
        "DIMS_FLOWER_CONFIG": env.get("DIMS_FLOWER_CONFIG")
        or str(_shipped_file("flowerconfig.py", "config/flowerconfig.py")),
    }


def web_variables(env: Mapping[str, str]) -> dict[str, str]:
    """Return the variable with the port of the dashboard: DIMS_WEB_PORT if it is set, or else a free one."""
    return {"DIMS_WEB_PORT": env.get("DIMS_WEB_PORT") or str(free_port(web.PORT))}


def _shipped_file(in_package: str, in_checkout: str) -> Path:
    """Return the path of a file, which is in the installed package or elsewhere in a checkout."""
    package = Path(__file__).parents[1]
    return next(path for path in (package / in_package, package.parent / in_checkout) if path.is_file())


@click.command()
@examples("dims up", "dims up --detach")
@click.option("--detach", "-d", is_flag=True, help="Run in the background, and return when every process runs.")
@click.option("--quiet", "-q", is_flag=True, help="Do not print events, runs and verdicts.")
@click.option("--procfile", type=EXISTING_FILE, help="Run the processes in this Procfile instead.")
@pass_session
def up(session: Session, detach: bool, quiet: bool, procfile: Path | None) -> None:
    """Start DIMS: the servers, the workers and the dashboard.

    It starts PostgreSQL and Valkey, unless DIMS_DATABASE_URL and DIMS_BROKER_URL name your own servers. Then it starts
    the workers, beat, flower, watch and web, and restarts each one that ends. Together they are the local stack. Stop
    it with Ctrl-C or `dims down`.
    """
    ports = {**flower_variables(session.env), **web_variables(session.env)}
    if detach:
        _detach(session, procfile, quiet=quiet)
        return
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda *_: stop.set())

    def report(line: str) -> None:
        session.print_activity(f"{format_clock(datetime.now(UTC))}  {line}")

    def log(line: str) -> None:
        with suppress(OSError, ValueError):  # the terminal may be closed, and the disk of a log may be full
            report(line)

    def write(line: str) -> None:
        with suppress(OSError, ValueError):
            session.print_activity(line)

    config = session.config
    with _disk_errors(config.home), local.hold_home(config.home):
        _require_space(config)
        reloader = ConfigReloader(session, config, log)
        env = {**session.env, **_start_servers(session, log), **ports}
        supervisor = local.Supervisor(
            config.home,
            procfile.read_text() if procfile else procfile_text(),
            env,
            config.project,
            report,
            database=config.database_url is None,
            broker=config.broker_url is None,
            changed=reloader.changed,
            sweep=lambda: reloader.config.settings.sweep,
        )
        password = " (with a password)" if flower_access(env).auth else ""
        dashboard = web.url(env.get("DIMS_WEB_ADDRESS") or "127.0.0.1", int(env["DIMS_WEB_PORT"]))
        log(f"DIMS is up. Data directory: {config.home}. Flower: {flower_access(env).url}{password}. Stop with Ctrl-C.")
        log(f"dashboard: {dashboard} (sign in with `dims web --link`)")
        if not quiet:
            arguments = (stop, engine(env["DIMS_DATABASE_URL"]), config, write)
            threading.Thread(target=follow_until, args=arguments, daemon=True).start()
        supervisor.run(stop)
        log("DIMS is down. Queued work is kept.")


@contextmanager
def _disk_errors(home: Path) -> Iterator[None]:
    """Turn an error of the disk into one sentence with its fix. Raises ServiceError."""
    try:
        yield
    except OSError as error:
        raise ServiceError(
            f"cannot use the data directory {home}: {local.describe_error(error)}. "
            "Free some space or correct its permissions, then run `dims up` again."
        ) from error


def _require_space(config: Config) -> None:
    """Refuse to start with too little space: the servers would only fail later, with long logs. Raises ServiceError."""
    if config.database_url is not None and config.broker_url is not None:
        return
    is_new = config.database_url is None and not (config.home / "pg" / "data").exists()
    needed = NEW_DATABASE_BYTES if is_new else START_BYTES
    free = shutil.disk_usage(config.home).free
    if free < needed:
        raise ServiceError(
            f"the disk of {config.home} is full: {format_bytes(free)} are free, and DIMS needs {format_bytes(needed)} "
            "to start. Free some space, or set DIMS_HOME to a folder on another disk."
        )


def _start_servers(session: Session, log: Callable[[str], None]) -> dict[str, str]:
    """Start the servers that the configuration does not name, and migrate the database. Return their variables."""
    config = session.config
    servers = local.start(config.home, database=config.database_url is None, broker=config.broker_url is None)
    if config.broker_url:
        local.remember_broker(config.home, session.env.get(PRODUCER_URL) or config.broker_url)
    url = config.database_url or servers.database_url
    assert url is not None
    before, after = migrate(engine(url))
    if before != after:
        log(f"migrated the database to revision {after}")
    broker_url = str(config.broker_url or servers.broker_url)
    _require_own_broker(broker_url, url, log)
    return {"DIMS_CONFIG": str(config.file), "DIMS_DATABASE_URL": url, "DIMS_BROKER_URL": broker_url}


def _require_own_broker(broker_url: str, database_url: str, log: Callable[[str], None]) -> None:
    """Refuse a Redis Cluster, and a broker of another database. If the broker is unreachable, its workers check it.

    Raises WrongBroker.
    """
    try:
        with connect(broker_url, BROKER_TIMEOUT) as redis:
            require_broker(redis, database_identity(engine(database_url)))
    except (RedisError, OSError) as error:
        log(f"the broker is unreachable or refuses, so the workers wait for it: {broker_reason(error)}")


class ConfigReloader:
    """Notice changes of the configuration files. A file that is not valid is reported and changes nothing."""

    def __init__(self, session: Session, config: Config, log: Callable[[str], None]) -> None:
        self.session, self.config, self.log = session, config, log
        self.versions = self._file_versions()

    def _file_versions(self) -> list[tuple[int, int] | None]:
        """Return the modification time and size of each file, or None for a missing file."""
        versions: list[tuple[int, int] | None] = []
        for file in self.config.files:
            try:
                stat = file.stat()
            except OSError:
                versions.append(None)
            else:
                versions.append((stat.st_mtime_ns, stat.st_size))
        return versions

    def changed(self) -> str | None:
        """Return why processes must restart, once for each change, as the beginning of a sentence."""
        versions = self._file_versions()
        if versions == self.versions:
            return None
        self.versions, files = versions, self.config.files
        try:
            self.config = load_config(self.config.file, self.session.env, self.session.cwd)
        except (ConfigError, OSError) as error:
            self.log(f"the configuration changed and is not valid, so the previous one is still in use:\n{error}")
            return None
        if self.config.files != files:
            self.versions = self._file_versions()
        return "The configuration has changed"


def free_port(preferred: int) -> int:
    """Return the preferred port, or a free one if it is taken."""
    for port in (preferred, 0):
        with socket.socket() as probe:
            # As servers do: a port whose server has just ended can be used again at once
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return int(probe.getsockname()[1])
    raise ServiceError("no port is free on 127.0.0.1")


def _detach(session: Session, procfile: Path | None, *, quiet: bool) -> None:
    config = session.config
    if (pid := local.lock_owner(config.home)) is not None:
        raise AlreadyRunning(
            f"DIMS already runs in {config.home} (pid {pid}). See `dims status`, or stop it with `dims down`."
        )
    log = local.DataDirectory(config.home).make().log("up")
    command = [sys.executable, "-P", "-m", "dims_worker", "--config", str(config.file), "up"]
    command += ["--procfile", str(procfile.resolve())] if procfile else []
    command += ["--quiet"] if quiet else []
    with log.open("ab") as output:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
            cwd=config.project,
            env={**session.env, "DIMS_HOME": str(config.home)},
        )
    with session.err.status("starting …"):
        running = _wait_until_running(config.home, process, log)
    commands = "`dims web --link`, `dims follow`, `dims status`"
    session.print_text(f"DIMS is up: {', '.join(running)}. See {commands}; `dims down` stops it.")


def _wait_until_running(home: Path, process: subprocess.Popen[bytes], log: Path) -> list[str]:
    """Wait until every process of the stack runs, and return their names. Raises ServiceError."""
    end = time.monotonic() + START_TIMEOUT
    while time.monotonic() < end:
        if process.poll() is not None:
            last = "\n".join(log.read_text(errors="replace").splitlines()[-10:])
            raise ServiceError(f"DIMS did not start. The log {log} ends with:\n{last}")
        parts = local.stack_status(home)
        processes = [part for part in parts if part.name not in ("postgres", "valkey")]
        if processes and all(part.state in ("running", "missing") for part in processes):
            return [part.name for part in parts if part.state == "running"]
        time.sleep(0.1)
    raise ServiceError(
        f"some processes do not run after {START_TIMEOUT:g} seconds. See `dims status` and the logs in {log.parent}."
    )


@click.command()
@examples("dims down", "dims down --timeout 120")
@click.option("--timeout", type=click.FloatRange(min=1), default=60, show_default=True, help="Wait this many seconds.")
@pass_session
def down(session: Session, timeout: float) -> None:
    """Stop DIMS gracefully. Queued work is kept.

    It also cleans up after a crash.
    """
    sentences = local.end_stack(session.config.home, timeout)
    for sentence in sentences:
        click.echo(sentence)
    if not sentences:
        click.echo("DIMS was not running")
