"""Test a broker that refuses: worker and beat wait, log one line, and go on once it accepts commands again.

Most refusals are real ones of the test's own Valkey. A proxy answers with those that are hard to cause.
"""

from __future__ import annotations

import itertools
import os
import re
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from redis import Redis
from redis.exceptions import RedisError
from sqlalchemy import Engine, create_engine, text
from sqlalchemy.pool import NullPool

from dims_producers.spool import Spool
from dims_worker.broker.outage_log import FLAPPING
from dims_worker.events import STREAM
from dims_worker.store.migrations import migrate
from tests.chaos.stack import Program, Server, ends_of_logs
from tests.conftest import wait_for
from tests.fixtures.refusing_proxy import RefusingProxy

CONFIG = """
settings: {lease: 3s, sweep: 1s, orphan: 3s}
sources: {tree: {type: command}}
metrics: {tree: {files: {source: tree, command: "find tree -type f | wc -l", shell: true}}}
rules: {scraped: {on: dims.scraper.complete, metrics: ["tree.*"]}}
"""
REFUSED_SECONDS = 4.0
MAIN_BACK = "WARNING/MainProcess] the broker is back after "
LINES = 4
"""Lines of one process, at most: a refusal that begins may end once and begin again (a role that changes)."""
RECOVERY_SECONDS = 20.0

_numbers = itertools.count(1)


@dataclass
class RefusedStack:
    """A broker behind a proxy, a database, a worker and beat that are started once."""

    folder: Path
    database: Server
    broker: Server
    proxy: RefusingProxy
    programs: dict[str, Program]
    engine: Engine
    admin: Redis
    """Connects directly, as a user that every refusal spares."""
    env: dict[str, str]

    @property
    def spool(self) -> Spool:
        return Spool(Path(self.env["DIMS_HOME"]) / "spool")

    def enqueue(self) -> None:
        """Change the folder, and publish an event as a scraper does. The producer must succeed."""
        number = next(_numbers)
        (self.folder / "tree" / f"{number}").touch()
        command = [sys.executable, "-m", "dims_producers.enqueue", "dims.scraper.complete", "--id", f"scraped-{number}"]
        done = subprocess.run(
            command, check=False, cwd=self.folder, env=self.env, capture_output=True, text=True, timeout=60
        )
        assert done.returncode == 0, done.stderr
        assert "Traceback" not in done.stderr

    def settled(self) -> bool:
        """Return whether every event is stored once and measured, and nothing waits."""
        stream, spool, events, measured, files = self.state()
        return (stream, spool, events, measured) == (0, 0, files, 1)

    def state(self) -> tuple[object, ...]:
        """Return the numbers of events in the stream, the spool and the database, of measured metrics, and of files."""
        number = len(list((self.folder / "tree").iterdir()))
        with self.engine.connect() as connection:
            events = connection.execute(
                text("SELECT count(*) FROM dims_event_log WHERE event_id LIKE 'scraped-%'")
            ).scalar()
            value = connection.execute(
                text(
                    f"SELECT count(*) FROM dims_metrics WHERE value = to_jsonb({number}) "
                    "AND requested_gen = measured_gen"
                )
            ).scalar()
        return self.admin.xlen(STREAM), len(self.spool), events, value, number

    def alive(self) -> bool:
        return all(program.alive() and len(program.leaders) == 1 for program in self.programs.values())


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RefusedStack]:
    home = tmp_path_factory.mktemp("refusals")
    folder = home / "project"
    (folder / "tree").mkdir(parents=True)
    (folder / "dims.yaml").write_text(CONFIG, encoding="utf-8")
    database, broker = Server(home, "database"), Server(home, "broker")
    programs: dict[str, Program] = {}
    proxy: RefusingProxy | None = None
    try:
        database.start()
        broker.start()
        url = urlsplit(broker.url)
        assert url.port
        with Redis.from_url(broker.url) as default:
            default.execute_command("ACL", "SETUSER", "admin", "on", "nopass", "~*", "&*", "+@all")
        admin = Redis(port=url.port, username="admin", password="x")
        proxy = RefusingProxy(url.port)
        engine = create_engine(database.url, poolclass=NullPool, connect_args={"connect_timeout": 5})
        migrate(engine)
        env = {
            **{name: value for name, value in os.environ.items() if not name.startswith("DIMS_")},
            "DIMS_DATABASE_URL": database.url,
            "DIMS_BROKER_URL": broker.url.replace(f":{url.port}/", f":{proxy.port}/"),
            "DIMS_HOME": str(home / "home"),
            "TMPDIR": str(home),
        }
        celery = [sys.executable, "-m", "celery", "-A", "dims_worker.tasks"]
        worker = "worker -l INFO -Q dims.ingest,dims.verify -c 2 --without-gossip --without-mingle"
        commands = {
            "worker": [*celery, *worker.split()],
            "beat": [*celery, "beat", "-l", "INFO", "-s", str(home / "beat"), "--pidfile="],
        }
        for name, command in commands.items():
            programs[name] = Program(name, command, folder, env, home / f"{name}.log")
            programs[name].start()
        stack = RefusedStack(folder, database, broker, proxy, programs, engine, admin, env)
        stack.enqueue()
        wait_for(stack.settled, 60, 0.2)
        yield stack
        admin.close()
    finally:
        for program in reversed(programs.values()):
            program.stop()
        if proxy:
            proxy.close()
        for server in (broker, database):
            server.stop()


Cause = Callable[[RefusedStack], AbstractContextManager[None]]


def setting(name: str, refusing: str, accepting: str, *, drop: bool = False) -> Callable[[RefusedStack], object]:
    """Return a refusal that a setting of the server causes. `drop`: end the connections, which had been accepted."""

    @contextmanager
    def refuse(stack: RefusedStack) -> Iterator[None]:
        stack.admin.config_set(name, refusing)
        if drop:
            stack.admin.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
        yield
        stack.admin.config_set(name, accepting)

    return refuse


def reply(line: str) -> Callable[[RefusedStack], object]:
    """Return a refusal that the proxy sends."""

    @contextmanager
    def refuse(stack: RefusedStack) -> Iterator[None]:
        stack.proxy.refusal = line
        yield
        stack.proxy.refusal = None

    return refuse


@contextmanager
def failing_save(stack: RefusedStack) -> Iterator[None]:
    """A folder in place of the file makes BGSAVE fail, which makes the server refuse writes."""
    dump = next(stack.folder.parent.rglob("valkey.conf")).parent / "dump.rdb"
    dump.unlink(missing_ok=True)
    (dump / "in the way").mkdir(parents=True)
    stack.admin.config_set("save", "3600 1")

    def saved(status: str) -> bool:
        with suppress(RedisError):  # another save is running
            stack.admin.bgsave()
        return stack.admin.info("persistence")["rdb_last_bgsave_status"] == status

    wait_for(lambda: saved("err"), 10, 0.2)
    yield
    (dump / "in the way").rmdir()
    dump.rmdir()
    wait_for(lambda: saved("ok"), 10, 0.2)
    stack.admin.config_set("save", "")


@contextmanager
def replica(stack: RefusedStack) -> Iterator[None]:
    """The role changes while a read blocks (UNBLOCKED), then writes are refused (READONLY)."""
    stack.admin.execute_command("REPLICAOF", "127.0.0.1", "1")
    yield
    stack.admin.execute_command("REPLICAOF", "NO", "ONE")


@contextmanager
def stale_replica(stack: RefusedStack) -> Iterator[None]:
    """A replica without its primary refuses reads too (MASTERDOWN)."""
    stack.admin.config_set("replica-serve-stale-data", "no")
    with replica(stack):
        yield
    stack.admin.config_set("replica-serve-stale-data", "yes")


@contextmanager
def fewer_rights(stack: RefusedStack) -> Iterator[None]:
    stack.admin.execute_command("ACL", "SETUSER", "default", "-@all", "+auth", "+ping", "+select", "+client")
    yield
    stack.admin.execute_command("ACL", "SETUSER", "default", "+@all")


@contextmanager
def new_password(stack: RefusedStack) -> Iterator[None]:
    """The password changes, and the connections that knew the old one end."""
    password = str(urlsplit(stack.broker.url).password)
    stack.admin.execute_command("ACL", "SETUSER", "default", "resetpass", ">rotated")
    stack.admin.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
    yield
    stack.admin.execute_command("ACL", "SETUSER", "default", "resetpass", f">{password}")


@contextmanager
def busy_script(stack: RefusedStack) -> Iterator[None]:
    stack.admin.config_set("busy-reply-threshold", "50")
    with Redis.from_url(stack.broker.url) as client:

        def run() -> None:
            with suppress(RedisError):  # it is killed
                client.eval("while true do end", 0)

        script = threading.Thread(target=run)
        script.start()
        yield
        stack.admin.script_kill()
        script.join(10)


def wrong_type(*keys: str) -> Callable[[RefusedStack], object]:
    """Return a refusal of keys that another program has written."""

    @contextmanager
    def refuse(stack: RefusedStack) -> Iterator[None]:
        for key in keys:
            with stack.admin.pipeline() as pipe:
                pipe.delete(key)
                pipe.set(key, "mine")
                pipe.execute()
        yield
        stack.admin.delete(*keys)

    return refuse


REFUSALS = {
    "MISCONF": (failing_save, "cannot save its data to disk"),
    "READONLY": (replica, "read-only replica|changed its role"),
    "MASTERDOWN": (stale_replica, "without a link to its primary|changed its role|read-only"),
    "NOPERM": (fewer_rights, "lacks a right"),
    "NOREPLICAS": (setting("min-replicas-to-write", "1", "0"), "too few replicas"),
    "OOM": (setting("maxmemory", "1", "0"), "maxmemory"),
    "WRONGPASS": (new_password, "user or password"),
    "max clients": (setting("maxclients", "1", "10000", drop=True), "maxclients"),
    "BUSY": (busy_script, "SCRIPT KILL"),
    "WRONGTYPE of the stream": (wrong_type(STREAM), f"DEL {STREAM}"),
    "WRONGTYPE of queues": (wrong_type("dims.ingest", "dims.verify"), "DEL dims.ingest"),
    "NOAUTH": (reply("NOAUTH Authentication required."), "wants a password"),
    "LOADING": (reply("LOADING Redis is loading the dataset in memory"), "reads its data from disk"),
    "CLUSTERDOWN": (reply("CLUSTERDOWN Hash slot not served"), "Redis Cluster"),
    "CROSSSLOT": (reply("CROSSSLOT Keys in request don't hash to the same slot"), "Redis Cluster"),
    "MOVED": (reply("MOVED 3999 127.0.0.1:6381"), "Redis Cluster"),
    "UNBLOCKED": (reply("UNBLOCKED force unblock from blocking operation, instance state changed"), "changed its role"),
    "NOSCRIPT": (reply("NOSCRIPT No matching script. Please use EVAL."), "lost its scripts"),
    "EXECABORT": (reply("EXECABORT Transaction discarded because of previous errors."), "transaction"),
    "unknown": (reply("ERR something new"), "something new"),
}


@pytest.mark.parametrize("name", REFUSALS)
def test_worker_and_beat_survive_a_refusal(stack: RefusedStack, name: str) -> None:
    refuse, sentence = REFUSALS[name]
    time.sleep(FLAPPING)  # else the log takes this outage and the last one for one
    before = {each: len(program.log_since_start()) for each, program in stack.programs.items()}
    try:
        with refuse(stack):  # type: ignore[attr-defined]
            stack.enqueue()
            time.sleep(REFUSED_SECONDS)
            stack.enqueue()
            assert stack.alive()
        stack.enqueue()
        wait_for(stack.settled, RECOVERY_SECONDS, 0.2)
        wait_for(lambda: MAIN_BACK in said(stack, "worker", before["worker"]), RECOVERY_SECONDS)
        assert stack.alive()
        worker = said(stack, "worker", before["worker"])
        expected = [part for part in sentence.split("|") if part in worker]
        assert expected, worker
        for each in stack.programs:
            log = said(stack, each, before[each])
            assert "Traceback" not in log, log
            assert "Unrecoverable" not in log, log
            outages = Counter(re.findall(r"(?:WARNING|ERROR|CRITICAL)/(\S+)\]", log))
            assert max(outages.values(), default=0) <= LINES, log
    except BaseException:
        print(stack.state())
        programs = [program.log for program in stack.programs.values()]
        print(ends_of_logs([stack.database.log, stack.broker.log, *programs], 60))
        raise


def said(stack: RefusedStack, program: str, start: int) -> str:
    return stack.programs[program].log_since_start()[start:]
