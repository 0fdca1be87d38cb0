"""Test outages of the broker and the database: worker, beat and watcher wait, and recover without a restart.

The module runs its own servers. Events before, during and after an outage come from the watcher, which sees changed
files and sends the events in the spool.
"""

from __future__ import annotations

import itertools
import os
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from redis import Redis
from sqlalchemy import Engine, create_engine, text
from sqlalchemy.pool import NullPool

from dims_producers.spool import Spool
from dims_worker.config.settings import Settings
from dims_worker.events import SCRAPER_COMPLETE, STREAM, Event
from dims_worker.store.migrations import migrate
from tests.chaos.proxy import Proxy
from tests.chaos.stack import Program, Server, ends_of_logs, send
from tests.conftest import wait_for

CONFIG = f"""
settings: {{lease: 3s, sweep: 1s{", orphan: 3s" if "orphan" in Settings.model_fields else ""}}}
sources:
  tree: {{type: files, path: tree}}
  slow: {{type: command}}
metrics:
  tree: {{files: {{source: tree, measure: count}}}}
  slow: {{files: {{source: slow, command: "n=$(find slow -type f | wc -l); sleep 1; echo $n", shell: true}}}}
rules:
  changed: {{on: dims.files.changed}}
  scraped: {{on: dims.scraper.complete, metrics: ["slow.*"]}}
watch: [tree]
"""
DOWN_SECONDS = 1.5
"""Seconds for which a server is stopped."""
FROZEN_SECONDS = 11.0
"""Seconds for which a server is frozen: longer than each timeout of DIMS (`socket_timeout`: 10 s)."""
RECOVERY_SECONDS = 25.0
"""Seconds in which everything must be measured after an outage: a lease, a reconnect and a sweep, with a margin."""

_numbers = itertools.count(1)


@dataclass
class LocalStack:
    """Servers, and programs that are started once."""

    folder: Path
    database: Server
    broker: Server
    proxy: Proxy
    """All programs connect to the broker through it."""
    programs: dict[str, Program]
    engine: Engine
    spool: Spool

    def change_files(self) -> None:
        """Change both trees. The watcher sees one, and an event in the spool reports the other."""
        number = next(_numbers)
        (self.folder / "tree" / f"{number}").touch()
        (self.folder / "slow" / f"{number}").touch()
        self.spool.put(Event.new(SCRAPER_COMPLETE, "test", now=datetime.now(UTC), id=f"scraped-{number}"))

    def scalar(self, sql: str) -> object:
        with self.engine.connect() as connection:
            return connection.execute(text(sql)).scalar()

    def measuring(self) -> bool:
        return bool(self.scalar("SELECT count(*) FROM dims_sources WHERE source = 'slow' AND lease_until IS NOT NULL"))

    def settled(self) -> bool:
        """Return whether every event is stored and measured, and nothing waits anywhere."""
        number = len(list((self.folder / "tree").iterdir()))
        with Redis.from_url(self.broker.url, socket_timeout=5) as redis:
            waiting = len(self.spool) + int(redis.xlen(STREAM))
        values = f"SELECT count(*) FROM dims_metrics WHERE value = to_jsonb({number}) AND requested_gen = measured_gen"
        events = "SELECT count(*) FROM dims_event_log WHERE event_id LIKE 'scraped-%'"
        return not waiting and self.scalar(values) == 2 and self.scalar(events) == number

    def beat_ran(self) -> int:
        """Return when the loop of beat last ran, in milliseconds since 1970."""
        latest = "SELECT coalesce(1000 * extract(epoch FROM max(last_sweep_at)), 0)::bigint FROM dims_processes"
        return int(str(self.scalar(f"{latest} WHERE role = 'beat'")))

    def wait_for_recovery(self, within: float = RECOVERY_SECONDS) -> None:
        """Wait until everything is measured, also a new change with beat frozen. No program may have been restarted."""
        try:
            wait_for(self.settled, within, 0.1)
            ran = self.beat_ran()
            wait_for(lambda: self.beat_ran() > ran, 30)
            with frozen(self.programs["beat"].leaders):
                self.change_files()
                wait_for(self.settled, 10, 0.1)
            assert all(program.alive() and len(program.leaders) == 1 for program in self.programs.values())
            wait_for(lambda: len(self.programs["worker"].children()) == 2, 10)
        except BaseException:
            programs = [program.log for program in self.programs.values()]
            print(ends_of_logs([self.database.log, self.broker.log, *programs]))
            raise


@contextmanager
def frozen(pids: list[int]) -> Iterator[None]:
    """Stop these processes for a while with SIGSTOP."""
    for pid in pids:
        send(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in pids:
            send(pid, signal.SIGCONT)


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalStack]:
    home = tmp_path_factory.mktemp("outages")
    folder = home / "project"
    for name in ("tree", "slow"):
        (folder / name).mkdir(parents=True)
    (folder / "dims.yaml").write_text(CONFIG, encoding="utf-8")
    database, broker = Server(home, "database"), Server(home, "broker")
    programs: dict[str, Program] = {}
    proxy: Proxy | None = None
    try:
        database.start()
        broker.start()
        port = urlsplit(broker.url).port
        assert port
        proxy = Proxy(port)
        engine = create_engine(database.url, poolclass=NullPool, connect_args={"connect_timeout": 5})
        migrate(engine)
        env = {
            **os.environ,
            "DIMS_DATABASE_URL": database.url,
            "DIMS_BROKER_URL": broker.url.replace(f":{port}/", f":{proxy.port}/"),
            "DIMS_HOME": str(home / "home"),
            "TMPDIR": str(home),
        }
        celery = [sys.executable, "-m", "celery", "-A", "dims_worker.tasks"]
        worker = "worker -l INFO -Q dims.ingest,dims.verify -c 2 --without-gossip --without-mingle"
        commands = {
            "worker": [*celery, *worker.split()],
            "beat": [*celery, "beat", "-l", "INFO", "-s", str(home / "beat"), "--pidfile="],
            "watch": [sys.executable, "-m", "dims_worker", "watch"],
        }
        for name, command in commands.items():
            programs[name] = Program(name, command, folder, env, home / f"{name}.log")
            programs[name].start()
        stack = LocalStack(folder, database, broker, proxy, programs, engine, Spool(home / "home" / "spool"))
        stack.change_files()
        wait_for(stack.settled, 60, 0.2)
        yield stack
    finally:
        for program in reversed(programs.values()):
            program.stop()
        if proxy:
            proxy.close()
        for server in (broker, database):
            server.stop()


IDLE, BUSY = "idle", "busy"


@pytest.fixture
def worker_state(request: pytest.FixtureRequest, stack: LocalStack) -> None:
    """Bring the worker into its state: idle, or in the middle of a measurement."""
    stack.change_files()
    wait_for(stack.settled if request.param == IDLE else stack.measuring, RECOVERY_SECONDS)


@pytest.mark.parametrize(
    ("worker_state", "number"),
    [(IDLE, signal.SIGTERM), (BUSY, signal.SIGKILL)],
    indirect=["worker_state"],
)
@pytest.mark.usefixtures("worker_state")
def test_a_broker_that_stops_and_starts_again(stack: LocalStack, number: signal.Signals) -> None:
    stack.change_files()
    restart(stack, stack.broker, number)
    stack.wait_for_recovery()


@pytest.mark.parametrize("worker_state", [BUSY], indirect=True)
@pytest.mark.usefixtures("worker_state")
def test_a_broker_that_freezes(stack: LocalStack) -> None:
    stack.change_files()
    with frozen(stack.broker.family()):
        stack.change_files()
        time.sleep(FROZEN_SECONDS)
    stack.change_files()
    stack.wait_for_recovery()


@pytest.mark.parametrize("worker_state", [IDLE], indirect=True)
@pytest.mark.usefixtures("worker_state")
def test_connections_to_the_broker_that_are_dropped_silently(stack: LocalStack) -> None:
    """kombu before 5.7 waits forever on such a connection."""
    stack.proxy.drop_silently()
    stack.change_files()
    stack.wait_for_recovery(within=2 * RECOVERY_SECONDS)


@pytest.mark.parametrize("worker_state", [IDLE, BUSY], indirect=True)
@pytest.mark.usefixtures("worker_state")
def test_a_database_that_is_killed(stack: LocalStack) -> None:
    stack.change_files()
    restart(stack, stack.database, signal.SIGKILL)
    stack.wait_for_recovery()


@pytest.mark.parametrize("part", ["everything", "our sessions"])
@pytest.mark.parametrize("worker_state", [BUSY], indirect=True)
@pytest.mark.usefixtures("worker_state")
def test_a_database_that_freezes(stack: LocalStack, part: str) -> None:
    """With everything frozen, new connections get no answer either. With only our sessions frozen, they work."""
    pids = stack.database.family() if part == "everything" else sessions(stack)
    assert pids
    with frozen(pids):
        stack.change_files()
        time.sleep(
            FROZEN_SECONDS / 2 if part == "everything" else FROZEN_SECONDS / 4
        )  # longer than the connect timeout of 5 s
    stack.change_files()
    stack.wait_for_recovery()


def restart(stack: LocalStack, server: Server, number: signal.Signals) -> None:
    """Stop a server and start it again later. Files change while it is down, and afterwards."""
    send(server.family()[0], number)
    wait_for(lambda: not server.alive(), 20)
    stack.change_files()
    time.sleep(DOWN_SECONDS)
    server.start()
    stack.change_files()


def sessions(stack: LocalStack) -> list[int]:
    with stack.engine.connect() as connection:
        rows = connection.execute(text("SELECT pid FROM pg_stat_activity WHERE application_name = 'dims'"))
        return [row.pid for row in rows]


OUTAGE_SECONDS = 10.0
"""An outage that is long enough for many attempts: without a limit, each of them is a line."""


@pytest.mark.parametrize("server", ["database", "broker"])
def test_an_outage_is_one_line_when_it_begins_and_one_when_it_ends(stack: LocalStack, server: str) -> None:
    """Each process logs it. A worker has a main process and two children, and a child may begin after the outage."""
    stack.change_files()
    wait_for(stack.settled, RECOVERY_SECONDS)
    stopped: Server = getattr(stack, server)
    before = {name: len(program.log_since_start()) for name, program in stack.programs.items()}
    send(stopped.family()[0], signal.SIGKILL)
    wait_for(lambda: not stopped.alive(), 20)
    stack.change_files()
    time.sleep(OUTAGE_SECONDS)
    stopped.start()
    stack.wait_for_recovery(within=2 * RECOVERY_SECONDS)
    for name, program in stack.programs.items():
        lines = program.log_since_start()[before[name] :].splitlines()
        processes = 1 + len(program.children())
        unusual = [line for line in lines if not _is_ordinary(line)]
        assert len(unusual) <= 3 * processes, f"{name}:\n" + "\n".join(unusual)


def _is_ordinary(line: str) -> bool:
    return any(text in line for text in (": INFO/", ": DEBUG/")) and "is back" not in line
