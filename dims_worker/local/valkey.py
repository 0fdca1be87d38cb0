"""Valkey from a wheel, on 127.0.0.1, in `$DIMS_HOME/valkey`.

The folder holds `valkey.conf`, `password`, `producer-password` and the append-only file. Valkey acknowledges an event
only when it is on disk (`appendfsync always`). With `everysec`, a power cut can lose a second of events.
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
"""Seconds until it must answer. It reads its append-only file first."""

STOP_PATIENCE = 20.0
"""Seconds between SIGTERM (it writes and ends) and SIGKILL, which loses nothing that was acknowledged."""

ANSWER_PATIENCE = 15.0
"""Seconds that it may not answer at all before it counts as hung."""

PRODUCER = "dims-producer"
"""The broker's user for producers. It may append to the stream, and nothing else."""

PRODUCER_FILE = "producer-password"

CONFIGURATION = """\
# DIMS writes this file at each start. Your changes here are lost.
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
    """A running Valkey: its process, and what the URLs of its database 0 need."""

    identity: Identity
    port: int
    password: str = field(repr=False)
    producer_password: str | None = field(repr=False)

    @property
    def url(self) -> str:
        return f"redis://:{self.password}@{ports.HOST}:{self.port}/0"

    @property
    def producer_url(self) -> str | None:
        """The URL for producers. None if the server was started before it had a user for them."""
        if self.producer_password is None:
            return None
        return f"redis://{PRODUCER}:{self.producer_password}@{ports.HOST}:{self.port}/0"


def start(home: DataDirectory, *, port: int | None = None, fast: bool = False) -> ValkeyServer:
    """Start the server, on `port` if that is free, or return the running one. The caller holds the servers' lock.

    Raises:
        ServiceError: it does not start, or does not answer. The message has the last lines of its log.
    """
    identity = main_process(home)
    if identity is not None:
        return _attach(home, identity)
    account = unprivileged_user(home.valkey)
    private_folder(home.valkey, account)
    program = binaries.valkey_binary(account)
    password, producer_password = secret(home.valkey, account), secret(home.valkey, account, PRODUCER_FILE)
    log = home.log("valkey")
    wanted = port
    for _ in range(3):
        chosen = ports.choose_port(wanted)
        appendfsync = "no" if fast else "always"
        producer = " ".join((PRODUCER, *producer_rules(producer_password)))
        text = CONFIGURATION.format(
            host=ports.HOST, port=chosen, password=password, producer=producer, appendfsync=appendfsync
        )
        write_private(home.valkey / "valkey.conf", text)
        # Valkey reads its configuration from stdin: no argument shows the password, and no path must be reachable.
        with (home.valkey / "valkey.conf").open("rb") as conf:
            child = process.launch([str(program), "-"], log=log, cwd=home.valkey, stdin=conf, account=account)
        identity = process.track(child)
        if identity is not None:
            server = ValkeyServer(identity, chosen, password, producer_password)
            _wait_ready(server)
            if identity.alive():
                return _require_ready(home, server)
        wanted = None
        if ports.port_is_free(chosen):
            break  # The port was not the reason.
    raise ServiceError(f"{NAME} did not start. The end of {log}:\n{process.log_tail(log)}")


def running(home: DataDirectory) -> ValkeyServer | None:
    """Return the server of this data directory if it answers now. Does not wait."""
    identity = main_process(home)
    server = _described(home, identity) if identity else None
    return server if server and _ready(server) else None


def silence(server: ValkeyServer) -> tuple[str, float] | None:
    """Return why the server does not answer now, and how many seconds that may last. None if it answers.

    An error reply, such as LOADING or MISCONF, is an answer.
    """
    import redis

    try:
        with client(server) as opened:
            opened.ping()
    except redis.ConnectionError as error:
        if isinstance(error, redis.BusyLoadingError | redis.AuthenticationError):
            return None
        return f"it does not answer: {error}", ANSWER_PATIENCE
    except redis.TimeoutError as error:
        return f"it does not answer: {error}", ANSWER_PATIENCE
    except redis.RedisError:
        return None
    return None


def end_silent(identity: Identity) -> None:
    """End a server that does not answer, so that it can be started again. What it acknowledged is on disk."""
    identity.end((signal.SIGTERM, 3.0), (signal.SIGKILL, 5.0))


def existing(home: DataDirectory) -> ValkeyServer | None:
    """Return the server whose process runs in this data directory, even if it does not answer. Does not connect."""
    identity = main_process(home)
    return _described(home, identity) if identity else None


def stop(home: DataDirectory) -> Identity | None:
    """Stop the server. Return the process that ended, if there was one.

    Raises:
        ServiceError: another server answers with this password at its port, or it does not end.
    """
    identity = main_process(home)
    if identity is None:
        return None
    server = _described(home, identity)
    pid = _process_id(server) if server else None
    if pid is not None and pid != identity.pid:
        raise ServiceError(
            f"{NAME} of {home.path} should be pid {identity.pid}, but pid {pid} answers. End one of them yourself."
        )
    if not identity.end((signal.SIGTERM, STOP_PATIENCE), (signal.SIGKILL, 5.0)):
        raise ServiceError(f"{NAME} (pid {identity.pid}) does not end. See its log: {home.logs / 'valkey.log'}")
    return identity


def main_process(home: DataDirectory) -> Identity | None:
    """Return the server that works in this data directory.

    Its child that rewrites the append-only file works there too, with a title like `valkey-aof-rewrite`. It may outlive
    the server for a moment. That does no harm: it writes to its own file, which the next server removes.
    """
    is_server = re.compile(r"(valkey|redis)-server( |$)").search
    return process.find_main_process(PROGRAM, home.valkey, lambda argv: is_server(" ".join(argv)) is not None)


def _described(home: DataDirectory, identity: Identity) -> ValkeyServer | None:
    """Return the server that its configuration describes, or None if there is no configuration."""
    try:
        text = (home.valkey / "valkey.conf").read_text(encoding="utf-8")
    except FileNotFoundError:
        return None
    settings = dict(re.findall(r"^(port|requirepass) (\S+)$", text, re.MULTILINE))
    file = home.valkey / PRODUCER_FILE
    producer_password = file.read_text().strip() if file.exists() else None
    return ValkeyServer(identity, int(settings["port"]), settings["requirepass"], producer_password)


def _attach(home: DataDirectory, identity: Identity) -> ValkeyServer:
    """Return the running server, once it is ready."""
    server = _described(home, identity)
    if server is None:
        raise ServiceError(
            f"{NAME} (pid {identity.pid}) runs in {home.valkey}, but its valkey.conf is missing. "
            f"End it (`kill {identity.pid}`) and run `dims up` again."
        )
    _wait_ready(server)
    return _with_producer(home, _require_ready(home, server))


def _with_producer(home: DataDirectory, server: ValkeyServer) -> ValkeyServer:
    """Add the producers' user to the server. An older DIMS may have started it without one."""
    import redis

    password = secret(home.valkey, unprivileged_user(home.valkey), PRODUCER_FILE)
    try:
        with client(server) as opened:
            opened.execute_command("ACL", "SETUSER", PRODUCER, *producer_rules(password))  # type: ignore[no-untyped-call]
    except redis.RedisError as error:
        raise ServiceError(f"{NAME} (pid {server.identity.pid}) refuses the user {PRODUCER}: {error}") from None
    return replace(server, producer_password=password)


def producer_rules(password: str) -> tuple[str, ...]:
    """Return the rights of the producers' user, for `ACL SETUSER` or a `user` line. They hold the password's SHA-256
    only.

    Signing in needs no right. Source: https://valkey.io/topics/acl/
    """
    digest = hashlib.sha256(password.encode()).hexdigest()
    return ("reset", "on", f"#{digest}", f"~{STREAM}", "+xadd")


def _wait_ready(server: ValkeyServer) -> None:
    process.wait_until(lambda: _ready(server) or not server.identity.alive(), READY_PATIENCE)


def _require_ready(home: DataDirectory, server: ValkeyServer) -> ValkeyServer:
    if _ready(server):
        return server
    log = home.logs / "valkey.log"
    raise ServiceError(f"{NAME} (pid {server.identity.pid}) is not ready. The end of {log}:\n{process.log_tail(log)}")


@contextmanager
def client(server: ValkeyServer) -> Iterator[Redis]:
    """Yield a client of redis-py that tries once and gives up after a few seconds."""
    import redis
    from redis.backoff import NoBackoff
    from redis.retry import Retry

    opened = redis.Redis(
        host=ports.HOST,
        port=server.port,
        password=server.password,
        socket_connect_timeout=2,
        socket_timeout=5,
        retry=Retry(NoBackoff(), 0),
    )
    try:
        yield opened
    finally:
        opened.close()


def _process_id(server: ValkeyServer, *, loaded: bool = False) -> int | None:
    """Return the pid of the server that answers at this port with this password (and has read its data), or None."""
    import redis

    try:
        with client(server) as opened:
            info: Any = opened.info("server")
            if loaded:
                opened.ping()  # an error while it reads its data
            return int(info["process_id"])
    except redis.RedisError:
        return None


def _ready(server: ValkeyServer) -> bool:
    return _process_id(server, loaded=True) == server.identity.pid
