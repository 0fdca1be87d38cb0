"""Everything that a chaos run starts: both servers and two hosts with workers, each with its own network and clock."""

from __future__ import annotations

import os
import random
import signal
import sys
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from urllib.parse import urlsplit

import psutil
import psycopg2
from psycopg2 import extensions
from redis import Redis
from redis.backoff import NoBackoff
from redis.retry import Retry
from sqlalchemy import Engine, create_engine
from sqlalchemy.pool import NullPool

from dims_worker.local.process import Identity
from dims_worker.local.procfile import ProcfileEntry, expand, parse
from dims_worker.store.migrations import migrate
from tests.chaos.network import Namespace
from tests.chaos.proxy import Proxy
from tests.chaos.small_disk import SmallDisk
from tests.chaos.stack import (
    Program,
    Restarter,
    Server,
    ServerOptions,
    SupervisedWorker,
    Worker,
    ends_of_logs,
    send,
    wait_until,
)
from tests.chaos.workload import HOSTS, SCANS, ScanSeconds, World
from tests.chaos.wrong_clock import WrongClock
from tests.conftest import REPO

CHILDREN = 3
"""The child processes of each worker that serves the default queue."""
PLAIN, SUPERVISED = HOSTS
"""The host whose programs restart like containers, and the host whose programs `dims up` restarts."""
ROLE, PASSWORD = "chaos_worker", "chaos-worker-password"
"""The user of the workers in both servers. It is no superuser, so that it can lack a right."""
CONNECTIONS = 60
MARK = "DIMS_CHAOS_RUN"
"""The variable that all processes of a run have, so that the end of the run finds them."""
DISKS = {"database": 400, "broker": 64, SUPERVISED: 64}
"""The size of each small disk, in megabytes."""


@dataclass
class HostNetwork:
    """How a host reaches the servers: through its own namespace, or through a proxy for each server."""

    namespace: Namespace | None
    proxies: Mapping[str, Proxy]

    def cut(self) -> None:
        """Lose everything that is sent, without an error, until `restore`."""
        if self.namespace:
            self.namespace.cut()
        for proxy in self.proxies.values():
            proxy.cut()

    def restore(self) -> None:
        if self.namespace:
            self.namespace.restore()
        for proxy in self.proxies.values():
            proxy.restore()

    def drop_silently(self) -> None:
        """Let the present connections die without an error. New ones work."""
        if self.namespace:
            self.namespace.change_address()
        for proxy in self.proxies.values():
            proxy.drop_silently()

    def place(self, server: str, port: int) -> str:
        """Return the address and the port at which this host reaches a server."""
        return f"{self.namespace.address}:{port}" if self.namespace else f"127.0.0.1:{self.proxies[server].port}"


@dataclass
class Cluster:
    """The processes of a run. Start them with `running`, which stops them all at the end.

    `unavailable` says why a part is missing: `network`, `disk`, `clock`.
    """

    folder: Path
    rng: random.Random
    isolated: bool
    """Whether to use what needs root: a network namespace, and small disks."""
    scan_seconds: ScanSeconds = SCANS
    unavailable: dict[str, str] = field(default_factory=dict)
    programs: dict[str, Program] = field(default_factory=dict)
    workers: dict[str, Worker] = field(default_factory=dict)
    restarters: list[Restarter] = field(default_factory=list)
    networks: dict[str, HostNetwork] = field(default_factory=dict)
    clocks: dict[str, WrongClock] = field(default_factory=dict)
    disks: dict[str, SmallDisk] = field(default_factory=dict)
    busy_kills: Counter[str] = field(default_factory=Counter)
    """Children that were killed while they held a lease, or unacknowledged stream entries."""
    last_killed: str = ""
    """The source whose scan was killed last."""
    logs: str = ""
    """The ends of all logs, after the run."""

    def __post_init__(self) -> None:
        self.database, self.broker = Server(self.folder, "database"), Server(self.folder, "broker")
        self.world = World(self.folder / "project", self.scan_seconds)

    # --- what faults and checks use ---------------------------------------------------------------

    @property
    def database_url(self) -> str:
        """The URL of the owner of the tables, directly."""
        return self._url(self.database.url, f"{ROLE}:{PASSWORD}", None)

    @property
    def engine(self) -> Engine:
        """An engine as superuser."""
        return create_engine(self.database.url, poolclass=NullPool, connect_args={"connect_timeout": 5})

    @contextmanager
    def superuser(self) -> Iterator[extensions.cursor]:
        """Yield a cursor of the superuser, in autocommit mode."""
        url = self.database.url.replace("+psycopg2", "")
        with closing(psycopg2.connect(url, connect_timeout=5, options="-c statement_timeout=20000")) as connection:
            connection.autocommit = True
            with connection.cursor() as cursor:
                yield cursor

    def redis(self) -> Redis:
        """Return a client with all rights that tries once."""
        return Redis.from_url(self.broker.url, socket_timeout=5, retry=Retry(NoBackoff(), 0))

    @property
    def pool_workers(self) -> dict[str, Worker]:
        """The workers that serve the default queue, by host."""
        return {host: self.workers[f"worker-{host}"] for host in HOSTS}

    def environment(self, host: str, *, clock: str | None = None) -> dict[str, str]:
        """Return the variables of a process on a host. `operator` is a host beside the servers."""
        network = self.networks.get(host)
        urls = {}
        for server, url, user in (
            ("DIMS_DATABASE_URL", self.database.url, f"{ROLE}:{PASSWORD}"),
            ("DIMS_BROKER_URL", self.broker.url, f"{ROLE}:{PASSWORD}"),
        ):
            name = "database" if "DATABASE" in server else "broker"
            port = urlsplit(url.replace("+psycopg2", "")).port
            assert port
            urls[server] = self._url(url, user, network.place(name, port) if network else None)
        return {
            **os.environ,
            **urls,
            "DIMS_HOME": str(self.home(host)),
            "TMPDIR": str(self.folder),  # a killed process leaves a folder behind
            MARK: str(self.folder),
            **(self.clocks[clock].variables if clock in self.clocks else {}),
        }

    def home(self, host: str) -> Path:
        """Return the data directory of a host."""
        return self.folder / f"home-{host}"

    def worker_problems(self) -> list[str]:
        """Return which worker lacks children, and which processes have no parent any more."""
        problems = []
        for host, worker in self.pool_workers.items():
            if (number := len(worker.children())) != CHILDREN:
                problems.append(f"the worker of {host} has {number} children")
        problems += [
            f"{program.name} left processes behind: {leftovers}"
            for program in self.programs.values()
            if (leftovers := program.leftovers())
        ]
        return problems

    def restart_everything(self) -> None:
        """Kill every process of DIMS. The restarters start them again."""
        for pid in self._marked():
            send(pid, signal.SIGKILL)

    def ends_of_logs(self, lines: int = 25) -> str:
        logs = [self.database.log, self.broker.log, *(program.log for program in self.programs.values())]
        logs += [worker.log for worker in self.workers.values()]
        return ends_of_logs(list(dict.fromkeys(logs)), lines)

    def _keep_logs(self) -> None:
        """Keep the ends of all logs: the folder is gone when the run reports."""
        self.logs = self.ends_of_logs()

    # --- start and stop ---------------------------------------------------------------------------

    @contextmanager
    def running(self) -> Iterator[None]:
        """Start everything. Stop, unmount and remove everything at the end, also after an error."""
        with ExitStack() as stack:
            self._make_parts(stack)
            stack.callback(self._end_marked)
            stack.enter_context(self._server_options().applied())
            stack.callback(self._stop_restarters)
            stack.callback(self._keep_logs)
            for server in (self.database, self.broker):
                server.start()
                self._supervise(server)
            self._prepare_database()
            self._make_proxies(stack)
            self.world.make()
            self._make_programs()
            for program in self.programs.values():
                self._supervise(program)
            for worker in self.workers.values():
                wait_until(partial(_ready, worker), 90, f"{worker.name} to start")
            yield

    def _make_parts(self, stack: ExitStack) -> None:
        """Make the namespace, the disks and the clocks, or note why one is missing."""
        self.networks = {host: HostNetwork(None, {}) for host in HOSTS}
        reason = "the run does not use what needs root"
        self.unavailable = {} if self.isolated else {"network": reason, "disk": reason}
        folders = {
            "database": self.database.folder,
            "broker": self.broker.folder,
            SUPERVISED: self.home(SUPERVISED),
        }
        if self.isolated:
            try:
                self.networks[SUPERVISED].namespace = stack.enter_context(Namespace.create())
            except OSError as error:
                self.unavailable["network"] = str(error)
            try:
                self.disks = {
                    name: stack.enter_context(SmallDisk.mounted(folder, DISKS[name]))
                    for name, folder in folders.items()
                }
            except OSError as error:
                self.unavailable["disk"] = str(error)
        for name in (SUPERVISED, "beat"):
            self.clocks[name] = WrongClock(self.folder, name)
            if self.clocks[name].problem:
                self.unavailable["clock"] = self.clocks[name].problem

    def _server_options(self) -> ServerOptions:
        namespace = self.networks[SUPERVISED].namespace
        addresses = ["127.0.0.1", *([namespace.address] if namespace else [])]
        settings = {
            "listen_addresses": ",".join(addresses),
            "max_connections": str(CONNECTIONS),
            "max_wal_size": "64MB",
            "min_wal_size": "32MB",
        }
        bind = f"bind {' '.join(addresses)}\n" if namespace else ""
        return ServerOptions(settings, f"{bind}user {ROLE} on >{PASSWORD} ~* &* +@all\n")

    def _prepare_database(self) -> None:
        """Create the workers' role, let the namespace connect, and create the tables."""
        with self.superuser() as cursor:
            cursor.execute(f"CREATE ROLE {ROLE} LOGIN PASSWORD '{PASSWORD}'")
            cursor.execute(f"ALTER DATABASE dims OWNER TO {ROLE}")
            cursor.execute(f"GRANT ALL ON SCHEMA public TO {ROLE}")
            if namespace := self.networks[SUPERVISED].namespace:
                with (self.database.folder / "data" / "pg_hba.conf").open("a", encoding="utf-8") as file:
                    file.write(f"host all all {namespace.network} scram-sha-256\n")
                cursor.execute("SELECT pg_reload_conf()")
        engine = create_engine(self.database_url)
        migrate(engine)
        engine.dispose()

    def _make_proxies(self, stack: ExitStack) -> None:
        """Make a proxy for each server and each host without a namespace."""
        for network in self.networks.values():
            if network.namespace is None:
                ports = {
                    "database": urlsplit(self.database.url.replace("+psycopg2", "")).port,
                    "broker": urlsplit(self.broker.url).port,
                }
                network.proxies = {name: Proxy(int(port)) for name, port in ports.items() if port}
                for proxy in network.proxies.values():
                    stack.callback(proxy.close)

    def _make_programs(self) -> None:
        """Make the programs of both hosts from the lines of the Procfile."""
        entries = {entry.name: entry for entry in parse((REPO / "Procfile").read_text(encoding="utf-8"))}
        (self.home(PLAIN) / "run").mkdir(parents=True)
        for entry in entries.values():
            if "-Q" in entry.words:
                name = f"{entry.name}-{PLAIN}"
                self._add_program(name, expand(_words(entry, PLAIN), self._procfile_variables(PLAIN)))
                self.workers[name] = self.programs[name]
        self._add_program("beat", expand(entries["beat"].words, self._procfile_variables(PLAIN)), clock="beat")
        lines = {entry.name: _words(entry, SUPERVISED) for entry in entries.values() if "-Q" in entry.words}
        procfile = self.folder / "Procfile"
        procfile.write_text("".join(f"{name}: {' '.join(words)}\n" for name, words in lines.items()), encoding="utf-8")
        up = ["python", "-P", "-m", "dims_worker", "up", "--quiet", "--procfile", str(procfile)]
        self._add_program(f"up-{SUPERVISED}", up, host=SUPERVISED, clock=SUPERVISED, grace=60)
        for name in lines:
            self.workers[f"{name}-{SUPERVISED}"] = SupervisedWorker(f"{name}-{SUPERVISED}", name, self.home(SUPERVISED))

    def _procfile_variables(self, host: str) -> dict[str, str]:
        return {**os.environ, "DIMS_HOME": str(self.home(host))}

    def _add_program(
        self, name: str, argv: list[str], *, host: str = PLAIN, clock: str | None = None, grace: float = 15
    ) -> None:
        command = [sys.executable, *argv[1:]] if argv[0] == "python" else argv
        if namespace := self.networks[host].namespace:
            command = namespace.command(command)
        env = self.environment(host, clock=clock)
        log = self.folder / f"{name}.log"
        self.programs[name] = Program(name, command, self.world.folder, env, log, grace=grace)

    def _supervise(self, target: Server | Program) -> None:
        restarter = Restarter(target, random.Random(self.rng.random()), longest=1.0)
        self.restarters.append(restarter)
        restarter.start()

    def _stop_restarters(self) -> None:
        """Stop every process, in reverse order of their starts."""
        for pid in self._marked():
            send(pid, signal.SIGCONT)
        for network in self.networks.values():
            network.restore()
        for restarter in reversed(self.restarters):
            restarter.stop()

    def _marked(self) -> list[int]:
        """Return the pids of all processes of this run, without the servers."""
        found = []
        for process in psutil.process_iter():
            try:
                if process.environ().get(MARK) == str(self.folder) and Identity.of(process.pid):
                    found.append(process.pid)
            except psutil.Error:
                continue
        return found

    def _end_marked(self) -> None:
        """Kill what an error or a killed supervisor has left."""
        for pid in self._marked():
            send(pid, signal.SIGKILL)

    @staticmethod
    def _url(url: str, user: str, place: str | None) -> str:
        """Return a URL with another user, and perhaps another address and port."""
        scheme, _, rest = url.partition("://")
        old_place, _, path = rest.rpartition("@")[2].partition("/")
        return f"{scheme}://{user}@{place or old_place}/{path}"


def _words(entry: ProcfileEntry, host: str) -> list[str]:
    """Return the words of a worker's command, with its name and its number of children, and with the host's queue."""
    words = list(entry.words)
    words[words.index("-n") + 1] = f"{entry.name}-{host}@%h"
    if entry.name == "worker":
        words[words.index("-Q") + 1] += f",{host}"
        words[words.index("-c") + 1] = str(CHILDREN)
    return words


def _ready(worker: Worker) -> bool:
    return worker.main() is not None and len(worker.children()) > 0
