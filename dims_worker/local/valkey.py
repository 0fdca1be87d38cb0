"""Valkey on 127.0.0.1, out of a wheel, in `$DIMS_HOME/valkey`.

The folder holds `valkey.conf`, `password`, `producer-password` and the append-only file. An event is
acknowledged only when it is on disk (`appendfsync always`): `everysec` can lose a second of events when the
power goes.
"""

from __future__ import annotations

import hashlib
import re
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from dims_worker.errors import ServiceError
from dims_worker.events import STREAM
from dims_worker.local import binaries, ports, process
from dims_worker.local.home import DataDirectory, private_folder, secret, write_private
from dims_worker.local.process import Identity
from dims_worker.local.server_user import unprivileged_user

if TYPE_CHECKING:
    from redis import Redis

NAME = "Valkey"
PROGRAM = ("valkey-server", "redis-server")

READY_PATIENCE = 120.0
"""Seconds until it must answer; it reads its append-only file first."""

STOP_PATIENCE = 20.0
"""Seconds for SIGTERM (it writes what it has and ends), before SIGKILL, which loses nothing acknowledged."""

PRODUCER = "dims-producer"
"""The user of producers, who may log in and append to the stream, and do nothing else."""

PRODUCER_FILE = "producer-password"

ENVIRONMENT = {"PATH": "/usr/bin:/bin", "LC_ALL": "C", "TZ": "UTC"}

CONFIGURATION = """\
# Written by DIMS at each start; changes here are lost.
bind {host}
port {port}
protected-mode yes
requirepass {password}
user {producer}
daemonize no
dir .
save ""
appendonly yes
appendfsync {appendfsync}
aof-load-truncated yes
maxmemory-policy noeviction
"""


@dataclass(frozen=True, slots=True)
class ValkeyServer:
    """A Valkey that runs: its process and the URL of its database 0."""

    identity: Identity
    port: int
    password: str = field(repr=False)
    producer_password: str | None = field(repr=False)

    @property
    def url(self) -> str:
        return f"redis://:{self.password}@{ports.HOST}:{self.port}/0"

    @property
    def producer_url(self) -> str | None:
        """The URL of the user of producers; None while the server was begun before there was one."""
        if self.producer_password is None:
            return None
        return f"redis://{PRODUCER}:{self.producer_password}@{ports.HOST}:{self.port}/0"


def start(home: DataDirectory, *, port: int | None = None, fast: bool = False) -> ValkeyServer:
    """Start it, on `port` if that is free; or find it running. The caller holds the lock of the servers.

    Raises:
        ServiceError: it does not start, or runs without answering; the log's last lines are in the message.
    """
    identity = main_process(home)
    if identity is not None:
        return _found(home, identity)
    account = unprivileged_user(home.valkey)
    private_folder(home.valkey, account)
    program = binaries.valkey_binary(account)
    password, producer_password = secret(home.valkey, account), secret(home.valkey, account, PRODUCER_FILE)
    log = home.log("valkey")
    wanted = port
    for _ in range(3):
        chosen = ports.choose_port(wanted)
        appendfsync = "no" if fast else "always"
        settings = {"host": ports.HOST, "port": chosen, "password": password, "appendfsync": appendfsync,
                    "producer": " ".join((PRODUCER, *producer_rules(producer_password)))}  # fmt: skip
        write_private(home.valkey / "valkey.conf", CONFIGURATION.format_map(settings))
        # The configuration comes in by stdin: the password shows nowhere, and no path must be reachable.
        with (home.valkey / "valkey.conf").open("rb") as conf:
            child = process.launch(
                [str(program), "-"], log=log, env=ENVIRONMENT, cwd=home.valkey, stdin=conf, account=account
            )
        identity = process.keep(child)
        if identity is not None:
            server = ValkeyServer(identity, chosen, password, producer_password)
            _wait_ready(server)
            if identity.alive():
                return _confirmed(home, server)
        wanted = None
        if ports.port_is_free(chosen):
            break  # The port was not the reason.
    raise ServiceError(f"{NAME} did not start; the end of {log} says:\n{process.log_tail(log)}")


def running(home: DataDirectory) -> ValkeyServer | None:
    """The server of this home, if it is up and answers at this moment. Waits for nothing."""
    identity = main_process(home)
    server = _described(home, identity) if identity else None
    return server if server and _ready(server) else None


def stop(home: DataDirectory) -> Identity | None:
    """Stop it; the process that was ended, if there was one.

    Raises:
        ServiceError: another server answers with this password at its port, or it does not end.
    """
    identity = main_process(home)
    if identity is None:
        return None
    server = _described(home, identity)
    told = _process_id(server) if server else None
    if told is not None and told != identity.pid:
        raise ServiceError(f"{NAME} of {home.path} should be pid {identity.pid}, but pid {told} answers.")
    if not identity.end((signal.SIGTERM, STOP_PATIENCE), (signal.SIGKILL, 5.0)):
        raise ServiceError(f"{NAME} (pid {identity.pid}) does not end; see {home.logs / 'valkey.log'}.")
    return identity


def main_process(home: DataDirectory) -> Identity | None:
    """The server that works in this home's folder.

    A child that rewrites its file works there too, with a title like `valkey-aof-rewrite`. It may outlive the
    server by a moment, and does no harm: it writes to a file of its own, which the next server removes.
    """
    psutil = process.load_psutil()
    for one in process.of_folder(PROGRAM, home.valkey):
        try:
            if re.search(r"(valkey|redis)-server( |$)", " ".join(one.cmdline())):
                return Identity.of(one.pid)
        except psutil.NoSuchProcess:
            continue
    return None


def _described(home: DataDirectory, identity: Identity) -> ValkeyServer | None:
    """The server as its configuration describes it; None while there is none."""
    try:
        text = (home.valkey / "valkey.conf").read_text(encoding="utf-8")
    except FileNotFoundError:
        return None
    said = dict(re.findall(r"^(port|requirepass) (\S+)$", text, re.MULTILINE))
    mine = home.valkey / PRODUCER_FILE
    return ValkeyServer(
        identity, int(said["port"]), said["requirepass"], mine.read_text().strip() if mine.exists() else None
    )


def _found(home: DataDirectory, identity: Identity) -> ValkeyServer:
    server = _described(home, identity)
    if server is None:
        raise ServiceError(f"{NAME} (pid {identity.pid}) works in {home.valkey}, and its valkey.conf is gone.")
    _wait_ready(server)
    return _with_producer(home, _confirmed(home, server))


def _with_producer(home: DataDirectory, server: ValkeyServer) -> ValkeyServer:
    """The server, which certainly knows the user of producers now: an older DIMS may have begun it without."""
    import redis

    password = secret(home.valkey, unprivileged_user(home.valkey), PRODUCER_FILE)
    try:
        with client(server) as opened:
            opened.execute_command("ACL", "SETUSER", PRODUCER, *producer_rules(password))  # type: ignore[no-untyped-call]
    except redis.RedisError as error:
        raise ServiceError(f"{NAME} (pid {server.identity.pid}) does not take the user {PRODUCER}: {error}") from None
    return replace(server, producer_password=password)


def producer_rules(password: str) -> tuple[str, ...]:
    """What the user of producers may, in the words of `ACL SETUSER` and of a `user` line; of the password they
    hold the SHA-256 alone. Logging in needs no right. Source: https://valkey.io/topics/acl/"""
    digest = hashlib.sha256(password.encode()).hexdigest()
    return ("reset", "on", f"#{digest}", f"~{STREAM}", "+xadd")


def _wait_ready(server: ValkeyServer) -> None:
    process.wait_until(lambda: _ready(server) or not server.identity.alive(), READY_PATIENCE)


def _confirmed(home: DataDirectory, server: ValkeyServer) -> ValkeyServer:
    if _ready(server):
        return server
    log = home.logs / "valkey.log"
    pid = server.identity.pid
    raise ServiceError(f"{NAME} (pid {pid}) runs and is not ready; the end of {log} says:\n{process.log_tail(log)}")


@contextmanager
def client(server: ValkeyServer) -> Iterator[Redis]:
    """A client of redis-py that tries once and gives up after seconds."""
    import redis
    from redis.backoff import NoBackoff
    from redis.retry import Retry

    made = redis.Redis(
        host=ports.HOST,
        port=server.port,
        password=server.password,
        socket_connect_timeout=2,
        socket_timeout=5,
        retry=Retry(NoBackoff(), 0),
    )
    try:
        yield made
    finally:
        made.close()


def _process_id(server: ValkeyServer) -> int | None:
    """The pid that the server at this port gives to who knows the password; None when none answers."""
    import redis

    try:
        with client(server) as opened:
            told: Any = opened.info("server")
            return int(told["process_id"])
    except redis.RedisError:
        return None


def _ready(server: ValkeyServer) -> bool:
    """Is it this process that answers, and has it read all its data?"""
    import redis

    try:
        with client(server) as opened:
            told: Any = opened.info("server")
            return int(told["process_id"]) == server.identity.pid and bool(opened.ping())
    except redis.RedisError:
        return False
