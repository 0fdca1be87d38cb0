"""Broker and database away: worker, beat and watcher wait, come back by themselves, and nothing hangs.

All runs on servers of this module's own; nobody starts a program again. What is told before, during and after is told
through the watcher: it sees the files, and sends what lies in the spool.
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
GONE = 1.5
"""Seconds for which a server is not there."""
SILENT = 11.0
"""Seconds for which a server is there and says nothing: longer than any timeout of ours (`socket_timeout`: 10 s)."""
BACK = 25.0
"""Seconds within which all must be measured once it is back: a lease, a reconnect, a sweep, on a slow machine."""

_numbers = itertools.count(1)


@dataclass
class Machine:
    """Servers, and programs that are started once."""

    folder: Path
    database: Server
    broker: Server
    way: Proxy
    """On which all programs go to the broker."""
    programs: dict[str, Program]
    engine: Engine
    spool: Spool

    def tell(self) -> None:
        """Change both trees. The watcher sees the one; of the other an event in the spool tells."""
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
        """Whether all that was told is stored and measured, and nothing waits anywhere."""
        number = len(list((self.folder / "tree").iterdir()))
        with Redis.from_url(self.broker.url, socket_timeout=5) as redis:
            waiting = len(self.spool) + int(redis.xlen(STREAM))
        values = f"SELECT count(*) FROM dims_metrics WHERE value = to_jsonb({number}) AND requested_gen = measured_gen"
        told = "SELECT count(*) FROM dims_event_log WHERE event_id LIKE 'scraped-%'"
        return not waiting and self.scalar(values) == 2 and self.scalar(told) == number

    def sweeps(self) -> int:
        """How many bells of beat's the worker has had: nobody else rings for a sweep."""
        return self.programs["worker"].log_since_start().count("Task dims.sweep")

    def recovered(self, within: float = BACK) -> None:
        """All is measured; what was told anew is, with beat's help and without it; all programs are those of before."""
        try:
            wait_for(self.settled, within, 0.1)
            sweeps = self.sweeps()
            wait_for(lambda: self.sweeps() > sweeps, 10)
            with frozen(self.programs["beat"].leaders):
                self.tell()
                wait_for(self.settled, 10, 0.1)
            assert all(program.alive() and len(program.leaders) == 1 for program in self.programs.values())
            wait_for(lambda: len(self.programs["worker"].children()) == 2, 10)
        except BaseException:
            print(ends_of_logs([self.database, self.broker, *self.programs.values()]))
            raise


@contextmanager
def frozen(pids: list[int]) -> Iterator[None]:
    """These processes are there and do nothing."""
    for pid in pids:
        send(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in pids:
            send(pid, signal.SIGCONT)


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    home = tmp_path_factory.mktemp("away")
    folder = home / "project"
    for name in ("tree", "slow"):
        (folder / name).mkdir(parents=True)
    (folder / "dims.yaml").write_text(CONFIG, encoding="utf-8")
    database, broker = Server(home, "database"), Server(home, "broker")
    programs: dict[str, Program] = {}
    way: Proxy | None = None
    try:
        database.start()
        broker.start()
        port = urlsplit(broker.url).port
        assert port
        way = Proxy(port)
        engine = create_engine(database.url, poolclass=NullPool, connect_args={"connect_timeout": 5})
        migrate(engine)
        env = {
            **os.environ,
            "DIMS_DATABASE_URL": database.url,
            "DIMS_BROKER_URL": broker.url.replace(f":{port}/", f":{way.port}/"),
            "DIMS_HOME": str(home / "home"),
            "TMPDIR": str(home),
        }
        celery = [sys.executable, "-m", "celery", "-A", "dims_worker.tasks"]
        for name, command in {
            "worker": [*celery, "worker", "-l", "INFO", "-Q", "dims.ingest,dims.verify", "-c", "2",
                       "--without-gossip", "--without-mingle"],
            "beat": [*celery, "beat", "-l", "INFO", "-s", str(home / "beat"), "--pidfile="],
            "watch": [sys.executable, "-m", "dims_worker", "watch"],
        }.items():  # fmt: skip
            programs[name] = Program(name, command, folder, env, home / f"{name}.log")
            programs[name].start()
        made = Machine(folder, database, broker, way, programs, engine, Spool(home / "home" / "spool"))
        made.tell()
        wait_for(made.settled, 60, 0.2)
        yield made
    finally:
        for program in reversed(programs.values()):
            program.stop()
        if way:
            way.close()
        for server in (broker, database):
            server.stop()


IDLE, BUSY = "idle", "busy"


@pytest.fixture
def at_work(request: pytest.FixtureRequest, machine: Machine) -> None:
    """The worker has nothing to do, or is in the middle of a measurement."""
    machine.tell()
    wait_for(machine.settled if request.param == IDLE else machine.measuring, BACK)


@pytest.mark.parametrize(
    ("at_work", "number"),
    [(IDLE, signal.SIGTERM), (BUSY, signal.SIGKILL)],
    indirect=["at_work"],
)
@pytest.mark.usefixtures("at_work")
def test_a_broker_that_ends_and_comes_back(machine: Machine, number: signal.Signals) -> None:
    machine.tell()
    ended(machine, machine.broker, number)
    machine.recovered()


@pytest.mark.parametrize("at_work", [BUSY], indirect=True)
@pytest.mark.usefixtures("at_work")
def test_a_broker_that_falls_silent(machine: Machine) -> None:
    machine.tell()
    with frozen(machine.broker.family()):
        machine.tell()
        time.sleep(SILENT)
    machine.tell()
    machine.recovered()


@pytest.mark.parametrize("at_work", [IDLE], indirect=True)
@pytest.mark.usefixtures("at_work")
def test_connections_to_the_broker_that_die_without_a_word(machine: Machine) -> None:
    """kombu before 5.7 waits on such a one for ever."""
    machine.way.drop_silently()
    machine.tell()
    machine.recovered(within=2 * BACK)


@pytest.mark.parametrize("at_work", [IDLE, BUSY], indirect=True)
@pytest.mark.usefixtures("at_work")
def test_a_database_that_is_killed(machine: Machine) -> None:
    machine.tell()
    ended(machine, machine.database, signal.SIGKILL)
    machine.recovered()


@pytest.mark.parametrize("part", ["all of it", "the sessions of ours"])
@pytest.mark.parametrize("at_work", [BUSY], indirect=True)
@pytest.mark.usefixtures("at_work")
def test_a_database_that_falls_silent(machine: Machine, part: str) -> None:
    """All of it: who connects gets no answer either. The sessions alone: who connects anew can work."""
    pids = machine.database.family() if part == "all of it" else sessions(machine)
    assert pids
    with frozen(pids):
        machine.tell()
        time.sleep(SILENT / 2 if part == "all of it" else SILENT / 4)  # longer than connecting may take: 5 s
    machine.tell()
    machine.recovered()


def ended(machine: Machine, server: Server, number: signal.Signals) -> None:
    """End a server, and start it again after a while in which more happens, and after which more happens."""
    send(server.family()[0], number)
    wait_for(lambda: not server.alive(), 20)
    machine.tell()
    time.sleep(GONE)
    server.start()
    machine.tell()


def sessions(machine: Machine) -> list[int]:
    with machine.engine.connect() as connection:
        rows = connection.execute(text("SELECT pid FROM pg_stat_activity WHERE application_name = 'dims'"))
        return [row.pid for row in rows]
