"""A local stack for benchmarks: PostgreSQL and Valkey with durable writes, a project, and real worker processes."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import psutil
from redis import Redis
from sqlalchemy import Engine, text

from benchmarks.plain import runs
from benchmarks.traffic import BUCKET
from dims_worker import local
from dims_worker.config import Config, load_config
from dims_worker.local import DataDirectory, postgres, valkey
from dims_worker.store.engine import engine as engine_of
from dims_worker.store.migrations import migrate

REPO = Path(__file__).parents[1]
FLAGS = ("--without-gossip", "--without-mingle")
"""The flags of the Procfile, for DIMS and for the plain task."""


@dataclass(frozen=True)
class Worker:
    """The main process of a worker or server, and its child processes."""

    main: psutil.Process

    @property
    def processes(self) -> list[psutil.Process]:
        return [self.main, *self.main.children(recursive=True)]

    def cpu(self) -> float:
        """Return the CPU seconds of all its processes."""
        return sum(sum(process.cpu_times()[:2]) for process in self.processes)

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Suspend the worker while the block runs."""
        stopped = self.processes
        for process in stopped:
            process.suspend()
        try:
            yield
        finally:
            for process in stopped:
                process.resume()


@dataclass(frozen=True)
class LocalStack:
    """Servers that write to disk before they answer, and a project that uses them."""

    folder: Path
    servers: local.ServerUrls
    env: Mapping[str, str]

    @property
    def project(self) -> Path:
        return self.folder / "project"

    @property
    def broker_url(self) -> str:
        return str(self.servers.broker_url)

    @cached_property
    def config(self) -> Config:
        return load_config(None, self.env, self.project)

    @cached_property
    def engine(self) -> Engine:
        return engine_of(str(self.config.database_url))

    def redis(self) -> Redis:
        return Redis.from_url(self.broker_url)

    def scalar(self, sql: str) -> int:
        with self.engine.connect() as connection:
            return int(connection.execute(text(sql)).scalar_one() or 0)

    def servers_cpu(self) -> float:
        """Return the CPU seconds of PostgreSQL and Valkey."""
        home = DataDirectory(Path(self.env["DIMS_HOME"]))
        mains = [process.pid for process in (postgres.main_process(home), valkey.main_process(home)) if process]
        return sum(Worker(psutil.Process(pid)).cpu() for pid in mains)

    @property
    def plain_runs(self) -> Path:
        """The file in which the plain task records its runs."""
        return self.folder / "plain-runs"

    def ran(self) -> list[float]:
        return runs(self.plain_runs)

    @contextmanager
    def dims(self, *queues: str, concurrency: int) -> Iterator[Worker]:
        """Run a worker of DIMS, as the Procfile starts it."""
        command = ("dims_worker.tasks", "worker", "-l", "INFO", "-Q", ",".join(queues), "-c", str(concurrency))
        with self._celery(f"dims-{queues[0]}", *command) as worker:
            yield worker

    @contextmanager
    def plain(self, *, concurrency: int) -> Iterator[Worker]:
        """Run a worker of the plain task. It does not log, because a line per task makes it a tenth slower."""
        self.plain_runs.touch()
        with self._celery("plain", "benchmarks.plain", "worker", "-l", "WARNING", "-c", str(concurrency)) as worker:
            yield worker

    @contextmanager
    def _celery(self, name: str, *command: str) -> Iterator[Worker]:
        log = self.folder / f"{name}.log"
        with log.open("wb") as output:
            process = subprocess.Popen(
                [sys.executable, "-m", "celery", "-A", *command, "-n", f"{name}@bench", *FLAGS],
                cwd=self.project,
                env=dict(self.env),
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        worker = Worker(psutil.Process(process.pid))
        try:
            pool = int(command[command.index("-c") + 1])
            wait_until(lambda: process.poll() is not None or len(worker.processes) > pool, 60)
            time.sleep(2)  # a worker that does not log cannot report that it is ready
            if process.poll() is not None:
                raise RuntimeError(f"the worker {name} ended:\n{log.read_text()}")
            yield worker
        finally:
            left = worker.processes if worker.main.is_running() else []
            for child in left:  # no warm shutdown: the benchmark needs no more results
                child.kill()
            process.wait()
            psutil.wait_procs(left, timeout=10)


@contextmanager
def local_stack(files: Mapping[str, str] | None = None) -> Iterator[LocalStack]:
    """Run a local stack. `files` are those of the project; None: the example configuration in `config/`."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory())).resolve()
        home, project = folder / "home", folder / "project"
        project.mkdir()
        if files is None:
            shutil.copytree(REPO / "config", project / "config")
        for name, content in (files or {}).items():
            (project / name).parent.mkdir(parents=True, exist_ok=True)
            (project / name).write_text(content, encoding="utf-8")
        servers = local.start(home)
        stack.callback(local.stop, home)
        env = {
            **{name: value for name, value in os.environ.items() if not name.startswith(("DIMS_", "NBA_", "AWS_"))},
            "PYTHONPATH": str(REPO),
            "DIMS_HOME": str(home),
            "DIMS_DATABASE_URL": str(servers.database_url),
            "DIMS_BROKER_URL": str(servers.broker_url),
            "NBA_BUCKET": BUCKET,
            "PLAIN_BROKER_URL": str(servers.broker_url),
            "PLAIN_RUNS": str(folder / "plain-runs"),
        }
        started = LocalStack(folder, servers, env)
        migrate(started.engine)
        stack.callback(started.engine.dispose)
        yield started


def wait_until(condition: Callable[[], object], timeout: float, period: float = 0.005) -> None:
    """Wait until `condition` is true. Raises TimeoutError."""
    end = time.monotonic() + timeout
    while not condition():
        if time.monotonic() > end:
            raise TimeoutError(f"the condition was still false after {timeout:g} s")
        time.sleep(period)
