"""PostgreSQL from a wheel, on 127.0.0.1, in `$DIMS_HOME/pg`.

The folder holds `data` (the cluster) and `password`. DIMS reads the state from the folder and from the processes that
work in it, never from a file of its own, which a crash can leave wrong.
"""

from __future__ import annotations

import shutil
import signal
import subprocess
import tempfile
import time
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from dims_worker.errors import ServiceError
from dims_worker.local import binaries, ports, process
from dims_worker.local.home import DataDirectory, private_folder, secret, sync_folder
from dims_worker.local.process import Identity
from dims_worker.local.server_user import ServerUser, reachable_path, unprivileged_user

if TYPE_CHECKING:
    from psycopg2 import extensions

NAME = "PostgreSQL"
USER = "dims"
DATABASE = "dims"
PROGRAM = ("postgres",)
DRAFT = "initdb-"

READY_PATIENCE = 120.0
"""Seconds until it must answer. After a crash it replays its log first, which can take a while."""

STOP_PATIENCE = (45.0, 15.0)
"""Seconds for SIGINT (a fast shutdown), then for SIGQUIT (an immediate one, with recovery at the next start)."""

PROBE_SECONDS = 3
"""Seconds in which a healthy server accepts a connection."""

ANSWER_PATIENCE = 15.0
"""Seconds that it may not answer at all before it counts as hung."""

RECOVERY_PATIENCE = 6.0
"""Seconds that a recovery may lack its startup process. PostgreSQL 18.4 starts no other if that one was killed."""

SETTINGS = {
    "listen_addresses": ports.HOST,
    "unix_socket_directories": "",  # a socket's path may have 107 characters, and a data directory's can be longer
    "max_connections": "100",
    "shared_buffers": "64MB",
    "max_wal_size": "512MB",
    "jit": "off",
    "timezone": "UTC",
    "log_timezone": "UTC",
    "fsync": "on",
    "synchronous_commit": "on",
}

FAST = {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off"}
"""For tests only: a `kill -9` loses the last commits, and a power cut destroys the data."""


@dataclass(frozen=True, slots=True)
class PostgresServer:
    """A running PostgreSQL: its main process, and what its URL needs."""

    identity: Identity
    port: int
    password: str = field(repr=False)

    @property
    def url(self) -> str:
        return f"postgresql+psycopg2://{USER}:{self.password}@{ports.HOST}:{self.port}/{DATABASE}"


def start(home: DataDirectory, *, port: int | None = None, fast: bool = False) -> PostgresServer:
    """Start the server, on `port` if that is free, or return the running one. The caller holds the servers' lock.

    Raises:
        ServiceError: it does not start, or does not answer. The message has the last lines of its log.
    """
    server = find(home)
    if server is not None:
        return server
    account = unprivileged_user(home.pg)
    private_folder(home.pg, account)
    programs = binaries.postgres_bin(home.pg / "data", account)
    password = secret(home.pg, account)
    with reachable_path(home.pg, account) as (folder, descriptors):
        launcher = _Launcher(home, programs, account, folder, descriptors, fast)
        if not (home.pg / "data").exists():
            launcher.create()
        _remove_obstacles(home)
        server = launcher.launch(password, port)
    _ensure_database(server)
    return server


def find(home: DataDirectory) -> PostgresServer | None:
    """Return the running server of this data directory, or None. Waits for one that is starting.

    Raises:
        ServiceError: it does not become ready, or refuses the connection.
    """
    identity = main_process(home)
    if identity is None:
        return None
    ready = _wait_ready(home, identity)
    if not identity.alive():
        return None
    server = _described(home, identity) if ready else None
    if server is None:
        raise ServiceError(_not_ready(home, identity))
    _ensure_database(server)
    return server


def running(home: DataDirectory) -> PostgresServer | None:
    """Return the server of this data directory if it accepts a connection now. Does not wait."""
    identity = main_process(home)
    server = _described(home, identity) if identity and _ready(home, identity) else None
    return server if server and _accepts(server) else None


def silence(server: PostgresServer) -> tuple[str, float] | None:
    """Return why the server accepts no connection now, and how many seconds that may last. None if it accepts one.

    A refusal, such as "too many clients", is an answer.
    """
    import psycopg2

    try:
        with closing(connect(server, DATABASE, timeout=PROBE_SECONDS)) as connection, connection.cursor() as cursor:
            cursor.execute("SELECT 1")
    except psycopg2.Error as error:
        reason = str(error).strip().splitlines()[-1] if str(error).strip() else type(error).__name__
        if "the database system is" in reason:  # starting up, shutting down, in recovery mode (postmaster.c)
            if "shutting down" in reason or recovers(server.identity):
                return f"it recovers: {reason}", READY_PATIENCE
            return f"its startup process is gone, and it waits for it for ever: {reason}", RECOVERY_PATIENCE
        if "FATAL" not in reason and "ERROR" not in reason:
            return f"it does not answer: {reason}", ANSWER_PATIENCE
    return None


def recovers(identity: Identity) -> bool:
    """Return whether the startup process runs, which replays the log after a crash."""
    psutil = process.load_psutil()
    try:
        children = psutil.Process(identity.pid).children()
        return any("startup" in " ".join(child.cmdline()) for child in children)
    except psutil.Error:
        return True  # a process that ends right now: the next probe knows more


def end_silent(identity: Identity) -> None:
    """End a server that does not answer, so that it can be started again. Its log keeps every commit."""
    identity.end((signal.SIGQUIT, 3.0), (signal.SIGKILL, 5.0))


def existing(home: DataDirectory) -> PostgresServer | None:
    """Return the server whose process runs in this data directory, even if it does not answer. Does not connect."""
    identity = main_process(home)
    return _described(home, identity) if identity else None


def stop(home: DataDirectory) -> Identity | None:
    """Stop the server and what an earlier crash left of it. Return the process that ended, if there was one.

    Raises:
        ServiceError: it does not end.
    """
    identity = main_process(home)
    if identity is not None:
        fast, immediate = STOP_PATIENCE
        if not identity.end((signal.SIGINT, fast), (signal.SIGQUIT, immediate)):
            raise ServiceError(f"{NAME} (pid {identity.pid}) does not end. See its log: {home.logs / 'postgres.log'}")
    _end_orphans(home)
    return identity


def connect(server: PostgresServer, database: str, *, timeout: int = 10) -> extensions.connection:
    """Connect with psycopg2. Every option is given, because PG* variables would fill in those that are not."""
    import psycopg2

    return psycopg2.connect(
        host=ports.HOST,
        port=server.port,
        user=USER,
        password=server.password,
        dbname=database,
        connect_timeout=timeout,
        tcp_user_timeout=timeout * 1000,
        sslmode="disable",
        gssencmode="disable",
        options="",
    )


@dataclass(frozen=True, slots=True)
class _Launcher:
    """Runs PostgreSQL's programs. `folder` is the path of the `pg` folder that `account` can use."""

    home: DataDirectory
    programs: Path
    account: ServerUser | None
    folder: str
    descriptors: tuple[int, ...]
    fast: bool

    def create(self) -> None:
        """Create the cluster in a temporary folder, then rename that. A crash leaves no half-made cluster."""
        for stale in self.home.pg.glob(f"{DRAFT}*"):
            # The initdb of a killed command may still write there. The next start removes what is left.
            shutil.rmtree(stale, ignore_errors=True)
        draft = Path(tempfile.mkdtemp(prefix=DRAFT, dir=self.home.pg))
        private_folder(draft, self.account)
        log = self.home.log("postgres")
        child = self._run(
            *("initdb", "-D", f"{self.folder}/{draft.name}", "-U", USER),
            *("--pwfile", f"{self.folder}/password", "--auth=scram-sha-256"),
            # Text sorts by code point, as in Python and on every machine.
            *("--encoding=UTF8", "--locale=C", "--no-instructions"),
            *(["--no-sync"] if self.fast else []),
        )
        try:
            code = child.wait(READY_PATIENCE)
        except subprocess.TimeoutExpired as error:
            child.kill()
            child.wait()
            raise ServiceError(f"initdb took longer than {READY_PATIENCE:.0f} s. See its log: {log}") from error
        if code != 0:
            raise ServiceError(f"initdb ended with code {code}. The end of {log}:\n{process.log_tail(log)}")
        draft.rename(self.home.pg / "data")
        sync_folder(self.home.pg)

    def launch(self, password: str, wanted: int | None) -> PostgresServer:
        """Start the server. Try another port if a program took the first one in the meantime."""
        log = self.home.log("postgres")
        for _ in range(3):
            port = ports.choose_port(wanted)
            settings = SETTINGS | (FAST if self.fast else {}) | {"port": str(port)}
            options = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
            identity = process.track(self._run("postgres", "-D", f"{self.folder}/data", *options))
            if identity is not None and _wait_ready(self.home, identity):
                return PostgresServer(identity, port, password)
            wanted = None
            if identity is not None and identity.alive():
                identity.end((signal.SIGINT, 5.0), (signal.SIGQUIT, 10.0))
                raise ServiceError(_not_ready(self.home, identity))
            if ports.port_is_free(port):
                break  # The port was not the reason.
        raise ServiceError(f"{NAME} did not start. The end of {log}:\n{process.log_tail(log)}")

    def _run(self, program: str, *arguments: str) -> subprocess.Popen[bytes]:
        return process.launch(
            [str(self.programs / program), *arguments],
            log=self.home.logs / "postgres.log",
            cwd=Path("/"),
            account=self.account,
            pass_fds=self.descriptors,
        )


def _wait_ready(home: DataDirectory, identity: Identity) -> bool:
    process.wait_until(lambda: _ready(home, identity) or not identity.alive(), READY_PATIENCE)
    return identity.alive() and _ready(home, identity)


def _not_ready(home: DataDirectory, identity: Identity) -> str:
    log = home.logs / "postgres.log"
    return (
        f"{NAME} (pid {identity.pid}) is not ready after {READY_PATIENCE:.0f} s. "
        f"The end of {log}:\n{process.log_tail(log)}"
    )


def _lock_lines(home: DataDirectory) -> list[str]:
    """Return the lines of postmaster.pid: pid, data folder, start, port, socket, address, memory, state.

    Source: PostgreSQL, src/include/utils/pidfile.h.
    """
    try:
        return (home.pg / "data" / "postmaster.pid").read_text(encoding="utf-8").split("\n")
    except FileNotFoundError:
        return []


def _ready(home: DataDirectory, identity: Identity) -> bool:
    """Return whether the server has written that it is ready. Connecting instead would fill its log with refusals."""
    lines = _lock_lines(home)
    return len(lines) > 7 and lines[0].strip() == str(identity.pid) and lines[7].strip() == "ready"


def _described(home: DataDirectory, identity: Identity) -> PostgresServer | None:
    """Return the server that the files in its folder describe, or None if they are missing."""
    lines = _lock_lines(home)
    password = home.pg / "password"
    if len(lines) < 4 or not password.exists():
        return None
    return PostgresServer(identity, int(lines[3]), password.read_text(encoding="utf-8").strip())


def _accepts(server: PostgresServer) -> bool:
    import psycopg2

    try:
        with closing(connect(server, DATABASE)):
            return True
    except psycopg2.OperationalError:
        return False


def main_process(home: DataDirectory) -> Identity | None:
    """Return the main process. Its children have titles like `postgres: checkpointer`, and it shows its arguments."""
    data = home.pg / "data"
    return process.find_main_process(PROGRAM, data, lambda argv: bool(argv) and not argv[0].startswith("postgres:"))


def _remove_obstacles(home: DataDirectory) -> None:
    """Remove what prevents a start after the main process was killed.

    PostgreSQL ignores a stale postmaster.pid, except if its pid now belongs to another process or to the zombie of the
    old one (CreateLockFile in miscinit.c). Then DIMS must remove the file, but only after every process that uses the
    old shared memory has ended.
    """
    _end_orphans(home)
    lines = _lock_lines(home)
    if lines and lines[0].strip().isdigit() and process.load_psutil().pid_exists(int(lines[0])):
        (home.pg / "data" / "postmaster.pid").unlink()


def _end_orphans(home: DataDirectory) -> None:
    """Wait for the children of a killed main process, then end them. A busy child notices the death only when idle.

    Raises:
        ServiceError: one does not end.
    """
    data = home.pg / "data"
    if process.wait_until(lambda: not process.find_in_folder(PROGRAM, data), 1.0):
        return
    for number, patience in ((signal.SIGQUIT, 2.0), (signal.SIGKILL, 5.0)):
        for orphan in process.find_in_folder(PROGRAM, data):
            identity = Identity.of(orphan.pid)
            if identity is not None:
                identity.send(number)
        if process.wait_until(lambda: not process.find_in_folder(PROGRAM, data), patience):
            return
    raise ServiceError(f"Processes of an earlier {NAME} still use {data} and do not end. End them with `kill -9`.")


def _ensure_database(server: PostgresServer) -> None:
    """Create the database if it does not exist. A crash may have come between initdb and this.

    Raises:
        ServiceError: the server refuses the connection.
    """
    import psycopg2

    deadline = time.monotonic() + 10
    while True:
        try:
            with closing(connect(server, "postgres")) as connection:
                connection.autocommit = True  # CREATE DATABASE refuses to run in a transaction
                with connection.cursor() as cursor:
                    cursor.execute("SELECT 1 FROM pg_database WHERE datname = %s", [DATABASE])
                    if cursor.fetchone() is None:
                        cursor.execute(f'CREATE DATABASE "{DATABASE}"')
            return
        except psycopg2.Error as error:
            if time.monotonic() > deadline:
                raise ServiceError(
                    f"{NAME} on port {server.port} refuses a connection: {str(error).strip()}"
                ) from error
            time.sleep(0.1)
