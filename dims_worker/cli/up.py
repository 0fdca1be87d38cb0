"""`dims up`, `dims down`, `dims status`: the machine."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path

import click

from dims_producers.publish import PRODUCER_URL
from dims_worker import local
from dims_worker.cli import web
from dims_worker.cli.follow import follow_until
from dims_worker.cli.session import Session, pass_session
from dims_worker.config import Config, load_config
from dims_worker.errors import AlreadyRunning, ConfigError, ServiceError
from dims_worker.formatting import format_clock
from dims_worker.local.flower import flower_access
from dims_worker.store.engine import engine
from dims_worker.store.migrations import migrate

PATIENCE = 90.0
"""Seconds that a detached start may take until all processes run."""


def procfile_text() -> str:
    """The Procfile: inside an installed package, or at the root of a checkout."""
    return _shipped("Procfile", "Procfile").read_text()


def flower_variables(env: Mapping[str, str]) -> dict[str, str]:
    """What Flower's line of the Procfile and its configuration need beside DIMS_HOME: a port that is free, unless
    one is asked for, and where the configuration is. Raises ConfigError as `services.flower.access` does."""
    wanted = flower_access(env).port
    return {
        "DIMS_FLOWER_PORT": str(wanted if env.get("DIMS_FLOWER_PORT") else free_port(wanted)),
        "DIMS_FLOWER_CONFIG": env.get("DIMS_FLOWER_CONFIG")
        or str(_shipped("flowerconfig.py", "config/flowerconfig.py")),
    }


def web_variables(env: Mapping[str, str]) -> dict[str, str]:
    """The page's port: one that is free, unless one is asked for."""
    return {"DIMS_WEB_PORT": env.get("DIMS_WEB_PORT") or str(free_port(web.PORT))}


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
    worker, beat, flower, watch and web, each started again when it ends. Ctrl-C or `dims down` stops all in order.
    """
    ports = {**flower_variables(session.env), **web_variables(session.env)}
    if detach:
        _detach(session, procfile, quiet=quiet)
        return
    config = session.config
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda *_: stop.set())

    def tell(line: str) -> None:
        session.tell(f"{format_clock(datetime.now(UTC))}  {line}")

    with local.hold_home(config.home):
        servers = local.start(
            config.home, database=config.database_url is None, broker=config.broker_url is None
        )  # fmt: skip
        if config.broker_url:
            local.remember_broker(config.home, session.env.get(PRODUCER_URL) or config.broker_url)
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
            **ports,
        }
        supervisor = local.Supervisor(
            config.home, procfile.read_text() if procfile else procfile_text(), env, config.project, tell,
            database=config.database_url is None, broker=config.broker_url is None,
            changed=ConfigReloader(session, config, tell).changed,
        )  # fmt: skip
        asks = " (it asks for a password)" if flower_access(env).auth else ""
        tell(f"DIMS is up in {config.home}; Flower: {flower_access(env).url}{asks}; Ctrl-C stops all")
        page = web.url(env.get("DIMS_WEB_ADDRESS") or "127.0.0.1", int(env["DIMS_WEB_PORT"]))
        tell(f"the page: {page} (`dims web --link` signs you in)")
        teller = threading.Thread(target=follow_until, args=(stop, engine(url), config, session.tell), daemon=True)
        if not quiet:
            teller.start()
        supervisor.run(stop)
        tell("DIMS is down; nothing is lost")


class ConfigReloader:
    """Notices that the configuration's files have changed. One that is not valid is told, and changes nothing."""

    def __init__(self, session: Session, config: Config, tell: Callable[[str], None]) -> None:
        self.session, self.config, self.tell = session, config, tell
        self.seen = self._look()

    def _look(self) -> list[tuple[int, int] | None]:
        found: list[tuple[int, int] | None] = []
        for file in self.config.files:
            try:
                about = file.stat()
            except OSError:
                found.append(None)
            else:
                found.append((about.st_mtime_ns, about.st_size))
        return found

    def changed(self) -> str | None:
        """The sentence's beginning, once for each change."""
        seen = self._look()
        if seen == self.seen:
            return None
        self.seen, files = seen, self.config.files
        try:
            self.config = load_config(self.config.file, self.session.env, self.session.cwd)
        except (ConfigError, OSError) as error:
            self.tell(f"the configuration has changed and is not valid, so the one before stays in force:\n{error}")
            return None
        if self.config.files != files:
            self.seen = self._look()
        return "The configuration has changed"


def free_port(wanted: int) -> int:
    """The port, or a free one where it is taken."""
    for port in (wanted, 0):
        with socket.socket() as probe:
            # As who listens there does: what was served before and is ended leaves the port to the next, at once
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return int(probe.getsockname()[1])
    raise ServiceError("no port is free")


def _detach(session: Session, procfile: Path | None, *, quiet: bool) -> None:
    config = session.config
    if (pid := local.lock_owner(config.home)) is not None:
        raise AlreadyRunning(f"DIMS runs in {config.home} already (pid {pid}): `dims status`, `dims down`")
    home = local.DataDirectory.at(config.home).make()
    log = home.log("up")
    command = [sys.executable, "-P", "-m", "dims_worker", "--config", str(config.file), "up"]
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
            states_ = local.stack_status(config.home)
            processes = [one for one in states_ if one.name not in ("postgres", "valkey")]
            if processes and all(one.state in ("running", "missing") for one in processes):
                break
            time.sleep(0.1)
        else:
            raise ServiceError(f"not all processes run after {PATIENCE:g} s: see `dims status` and {log.parent}")
    names = ", ".join(one.name for one in states_ if one.state == "running")
    session.out.print(f"DIMS is up: {names}. See `dims web --link`, `dims follow`, `dims status`; "
                      "`dims down` stops it.", soft_wrap=True)  # fmt: skip


@click.command()
@click.option("--timeout", type=click.FloatRange(min=1), default=60, show_default=True, help="Seconds.")
@pass_session
def down(session: Session, timeout: float) -> None:
    """Stop the machine in order; what it had taken in is finished or waits. Also tidies up after a crash."""
    stopped = local.end_stack(session.config.home, timeout)
    for sentence in stopped:
        click.echo(sentence)
    if not stopped:
        click.echo("nothing was running")
