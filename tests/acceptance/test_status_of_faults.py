"""`dims status` during faults of a real stack: it names the fault and exits with 3, and with 0 before and after."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psycopg2
import pytest
from redis import Redis
from sqlalchemy import create_engine, text

from dims_worker import local
from dims_worker.store.migrations import migrate
from dims_worker.store.processes import ProcessIdentity, record_sign_of_life
from tests.chaos.stack import Server
from tests.conftest import GIT_ENV, wait_for

CONFIG = """
settings: {lease: 5s, sweep: 1s}
sources:
  project: {type: files, path: "data"}
metrics:
  data:
    files: {source: project, measure: count}
rules:
  daily: {schedule: "0 9 * * *", metrics: [data.files]}
"""
PROCESSES = ("ingest", "worker", "slow-worker", "beat")
PATIENCE = 120.0
"""Seconds until the stack runs again after a fault. The supervisor waits longer after each restart."""


@dataclass
class Stack:
    """Servers of their own, and `dims up` that runs only ingest, the workers and beat against them."""

    folder: Path
    database: Server
    broker: Server
    env: dict[str, str] = field(default_factory=dict)
    stopped: int | None = None

    def dims(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        env = {**os.environ, **GIT_ENV, **self.env}
        command = [sys.executable, "-m", "dims_worker", *arguments]
        return subprocess.run(
            command, cwd=self.folder, env=env, capture_output=True, text=True, timeout=60, check=False
        )

    def status(self) -> tuple[int, dict[str, Any]]:
        """Return the exit code of `dims status`, and its JSON document with the checks by name."""
        done = self.dims("status", "--json")
        assert "internal error" not in done.stderr, done.stderr
        document = json.loads(done.stdout)
        document["checks"] = {check["name"]: check for check in document["checks"]}
        assert (done.returncode == 3) == (document["state"] == "problem")
        return done.returncode, document

    def fine(self) -> bool:
        code, document = self.status()
        return code == 0 and document["checks"]["workers"]["state"] == "ok"

    def shows(self, name: str, words: str) -> Callable[[], bool]:
        """Return a condition: the exit code is 3, and this check has a problem with these words and a fix."""

        def is_shown() -> bool:
            code, document = self.status()
            check = document["checks"].get(name, {"state": "ok"})
            return code == 3 and check["state"] == "problem" and words in check["summary"] and bool(check["fix"])

        return is_shown

    def redis(self) -> Redis:
        return Redis.from_url(self.broker.url)

    def sql(self, statement: str) -> None:
        """Run a statement outside a transaction, even if the database is read-only by default."""
        url = self.database.url.replace("+psycopg2", "")
        with closing(psycopg2.connect(url, options="-c default_transaction_read_only=off")) as connection:
            connection.autocommit = True
            with connection.cursor() as cursor:
                cursor.execute(statement)

    def supervisor(self) -> int:
        return int(local.lock_owner(Path(self.env["DIMS_HOME"])) or 0)

    def pid(self, name: str) -> int:
        pids = {status.name: status.pid for status in local.stack_status(Path(self.env["DIMS_HOME"]))}
        return int(pids[name] or 0)


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    folder = tmp_path_factory.mktemp("status")
    (folder / "data").mkdir()
    (folder / "dims.yaml").write_text(CONFIG)
    words = (Path(__file__).parents[2] / "Procfile").read_text().splitlines()
    lines = [line for line in words if line.partition(":")[0] in PROCESSES]
    (folder / "Procfile").write_text("\n".join(lines) + "\n")
    stack = Stack(folder, Server(folder / "servers", "database"), Server(folder / "servers", "broker"))
    (folder / "servers").mkdir()
    with ExitStack() as cleanup:
        for server in (stack.database, stack.broker):
            server.start()
            cleanup.callback(server.stop)
        engine = create_engine(stack.database.url)
        migrate(engine)
        engine.dispose()
        stack.env |= {
            "DIMS_DATABASE_URL": stack.database.url,
            "DIMS_BROKER_URL": stack.broker.url,
            "DIMS_HOME": str(folder / "home"),
        }
        cleanup.callback(stack.dims, "down")
        started = stack.dims("up", "--detach", "--procfile", "Procfile")
        assert started.returncode == 0, started.stdout + started.stderr
        wait_for(stack.fine, PATIENCE, 0.5)
        yield stack


@contextmanager
def refused_save(stack: Stack) -> Iterator[None]:
    """Let the broker's next save fail, as on a full disk."""
    folder = Path(stack.broker._home.valkey)
    with stack.redis() as redis:
        redis.config_set("save", "3600 1")
        mode = folder.stat().st_mode
        owner = folder.stat().st_uid
        os.chown(folder, 0, -1) if os.geteuid() == 0 else None
        folder.chmod(0o555)
        try:
            redis.execute_command("BGSAVE")
            wait_for(lambda: redis.info("persistence")["rdb_last_bgsave_status"] == "err", 30)
            yield
        finally:
            folder.chmod(mode)
            os.chown(folder, owner, -1) if os.geteuid() == 0 else None
            redis.config_set("save", "")
            redis.execute_command("BGSAVE")
            wait_for(lambda: redis.info("persistence")["rdb_last_bgsave_status"] == "ok", 30)


@contextmanager
def broker_setting(stack: Stack, name: str, value: str) -> Iterator[None]:
    with stack.redis() as redis:
        before = redis.config_get(name)[name]
        redis.config_set(name, value)
        try:
            yield
        finally:
            redis.config_set(name, before)


@contextmanager
def replica(stack: Stack) -> Iterator[None]:
    with stack.redis() as redis:
        redis.execute_command("REPLICAOF", "127.0.0.1", "1")
        try:
            yield
        finally:
            redis.execute_command("REPLICAOF", "NO", "ONE")


@contextmanager
def stopped(server: Server) -> Iterator[None]:
    server.stop()
    try:
        yield
    finally:
        server.start()


@contextmanager
def hung(server: Server) -> Iterator[None]:
    server.signal(signal.SIGSTOP)
    try:
        yield
    finally:
        server.signal(signal.SIGCONT)


@contextmanager
def read_only(stack: Stack) -> Iterator[None]:
    stack.sql("ALTER SYSTEM SET default_transaction_read_only = on")
    stack.sql("SELECT pg_reload_conf()")
    try:
        yield
    finally:
        stack.sql("ALTER SYSTEM RESET default_transaction_read_only")
        stack.sql("SELECT pg_reload_conf()")


@contextmanager
def no_free_connection(stack: Stack) -> Iterator[None]:
    url = stack.database.url.replace("+psycopg2", "")
    opened = []
    try:
        try:
            opened.extend(iter(lambda: psycopg2.connect(url), None))
        except psycopg2.OperationalError as error:
            assert "too many clients" in str(error)
        yield
    finally:
        for connection in opened:
            connection.close()


@contextmanager
def lock(stack: Stack, statement: str) -> Iterator[None]:
    engine = create_engine(stack.database.url)
    with engine.connect() as connection, connection.begin():
        connection.execute(text(statement))
        yield
    engine.dispose()


@contextmanager
def signalled(stack: Stack, name: str, number: signal.Signals) -> Iterator[None]:
    """Send a signal to a process. The supervisor is suspended meanwhile, so that it restarts nothing."""
    supervisor, pid = stack.supervisor(), stack.pid(name)
    os.kill(supervisor, signal.SIGSTOP)
    try:
        os.kill(pid, number)
        yield
    finally:
        if number == signal.SIGSTOP:
            os.kill(pid, signal.SIGCONT)
        os.kill(supervisor, signal.SIGCONT)


@contextmanager
def wrong_clock(stack: Stack) -> Iterator[None]:
    """Let a process on another host report that its clock is ten minutes behind."""
    engine = create_engine(stack.database.url)
    now = datetime.now(UTC)
    identity = ProcessIdentity("watch@far", "far", "watch", 1, "0", "x", (), now)
    with engine.begin() as connection:
        record_sign_of_life(connection, identity, now=now)
        change = "UPDATE dims_processes SET clock_offset = -600, seen_at = now() + interval '1 minute'"
        connection.execute(text(f"{change} WHERE process = 'watch@far'"))
    try:
        yield
    finally:
        with engine.begin() as connection:
            connection.execute(text("DELETE FROM dims_processes WHERE process = 'watch@far'"))
        engine.dispose()


LOCK_METRICS = "LOCK TABLE dims_metrics IN ACCESS EXCLUSIVE MODE"
FAULTS: dict[str, tuple[Callable[[Stack], Any], str, str]] = {
    "broker MISCONF": (refused_save, "broker", "MISCONF"),
    "broker OOM": (lambda stack: broker_setting(stack, "maxmemory", "1"), "broker", "its memory is full"),
    "broker READONLY": (replica, "broker", "read-only replica"),
    "broker NOREPLICAS": (lambda stack: broker_setting(stack, "min-replicas-to-write", "1"), "broker", "NOREPLICAS"),
    "broker stopped": (lambda stack: stopped(stack.broker), "broker", "unreachable: "),
    "broker hung": (lambda stack: hung(stack.broker), "broker", "does not answer"),
    "database read-only": (read_only, "database", "is read-only"),
    "database stopped": (lambda stack: stopped(stack.database), "database", "unreachable: "),
    "database hung": (lambda stack: hung(stack.database), "database", "does not answer"),
    "database without connections": (no_free_connection, "database", "accepts no more connections"),
    "database locked": (lambda stack: lock(stack, LOCK_METRICS), "database", "holds a lock"),
    "worker killed": (lambda stack: signalled(stack, "worker", signal.SIGKILL), "workers", "no worker runs"),
    "worker suspended": (lambda stack: signalled(stack, "worker", signal.SIGSTOP), "workers", "no worker runs"),
    "ingest killed": (lambda stack: signalled(stack, "ingest", signal.SIGKILL), "ingest", "no process stores events"),
    "beat killed": (lambda stack: signalled(stack, "beat", signal.SIGKILL), "beat", "unreachable"),
    "clock": (wrong_clock, "clock", "far is 10 min 0 s behind the database"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_status_names_the_fault_and_exits_with_3(stack: Stack, fault: str) -> None:
    """All is well before, because the fixture or the test before has waited for it, and all is well afterwards."""
    make, name, words = FAULTS[fault]
    with make(stack):
        wait_for(stack.shows(name, words), 60, 0.2)
    wait_for(stack.fine, PATIENCE, 0.5)
