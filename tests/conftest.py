"""Define fixtures with real servers for integration and acceptance tests.

One PostgreSQL and one Valkey run for the whole session, on free ports. Each test has its own database, which is cloned
from a migrated template. Worker processes and an S3 server of moto are started for the tests that need them.
"""

from __future__ import annotations

import itertools
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from sqlalchemy import Engine, create_engine, make_url, text

from dims_worker import local
from dims_worker.config import Config, load_config
from dims_worker.store.migrations import migrate
from tests.fixtures.receivers import mailbox, receiver

__all__ = ["mailbox", "receiver"]  # fixtures

REPO = Path(__file__).parents[1]
GIT_ENV = {
    "GIT_CONFIG_GLOBAL": os.devnull,
    "GIT_CONFIG_SYSTEM": os.devnull,
    "GIT_AUTHOR_NAME": "Ada",
    "GIT_AUTHOR_EMAIL": "ada@example.org",
    "GIT_COMMITTER_NAME": "Ada",
    "GIT_COMMITTER_EMAIL": "ada@example.org",
}


def wait_for(condition: Callable[[], Any], timeout: float = 30.0, period: float = 0.05) -> Any:
    """Return the first true result of `condition`. After `timeout` seconds, the test fails."""
    end = time.monotonic() + timeout
    while not (result := condition()):
        if time.monotonic() > end:
            pytest.fail(f"{getattr(condition, '__name__', condition)} was not true within {timeout:g} s")
        time.sleep(period)
    return result


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Let each of several processes begin with a part of the acceptance tests, so that none ends with a long one.

    At first, each process gets an equal part of the list. The tests of a file stay together, because they share what
    the file starts. Only each part of the chaos test is alone: it takes minutes.
    """
    processes = int(getattr(config, "workerinput", {}).get("workercount", 1))
    if processes == 1:
        return
    slow: dict[str, list[pytest.Item]] = {}
    others: list[pytest.Item] = []
    for item in items:
        if item.path.parent.name == "acceptance":
            slow.setdefault(item.nodeid if item.path.name == "test_chaos.py" else str(item.path), []).append(item)
        else:
            others.append(item)
    size = -(-len(items) // processes)
    ordered: list[pytest.Item] = []
    for number in range(processes):
        begin = [item for group in list(slow.values())[number::processes] for item in group]
        ordered += begin + [others.pop(0) for _ in range(min(size - len(begin), len(others)))]
    items[:] = ordered + others


@pytest.fixture(scope="session")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[local.ServerUrls]:
    """Run PostgreSQL and Valkey for the session."""
    home = tmp_path_factory.mktemp("servers")
    try:
        yield local.start(home, fast=True)
    finally:
        local.stop(home)


def _admin(servers: local.ServerUrls) -> Engine:
    return create_engine(str(servers.database_url), isolation_level="AUTOCOMMIT")


@pytest.fixture(scope="session")
def template(servers: local.ServerUrls) -> str:
    """Create a migrated database to clone, and return its name."""
    admin = _admin(servers)
    with admin.connect() as connection:
        connection.execute(text("CREATE DATABASE dims_template"))
    admin.dispose()
    url = str(servers.database_url).rpartition("/")[0] + "/dims_template"
    engine = create_engine(url)
    migrate(engine)
    engine.dispose()
    return "dims_template"


_numbers = itertools.count(1)


@pytest.fixture
def database_url(servers: local.ServerUrls, template: str) -> Iterator[str]:
    """Return the URL of a migrated database that only this test uses."""
    name = f"test_{next(_numbers)}"
    admin = _admin(servers)
    with admin.connect() as connection:
        connection.execute(text(f"CREATE DATABASE {name} TEMPLATE {template}"))
    yield str(servers.database_url).rpartition("/")[0] + f"/{name}"
    with admin.connect() as connection:
        connection.execute(text(f"DROP DATABASE {name} WITH (FORCE)"))
    admin.dispose()


@pytest.fixture
def engine(database_url: str) -> Iterator[Engine]:
    engine = create_engine(database_url, connect_args={"options": "-c lock_timeout=15s"})  # fail instead of waiting
    yield engine
    engine.dispose()


@pytest.fixture
def empty(database_url: str) -> Iterator[Engine]:
    """A database without tables."""
    name = f"{make_url(database_url).database}_empty"
    admin = create_engine(database_url, isolation_level="AUTOCOMMIT")
    with admin.connect() as connection:
        connection.execute(text(f"CREATE DATABASE {name}"))
    made = create_engine(make_url(database_url).set(database=name))
    yield made
    made.dispose()
    with admin.connect() as connection:
        connection.execute(text(f"DROP DATABASE {name} WITH (FORCE)"))
    admin.dispose()


@pytest.fixture
def broker_url(servers: local.ServerUrls) -> Iterator[str]:
    """Return the URL of an empty Redis database. The tests use 15 in turn, and the browser tests the last one."""
    import redis

    url = f"{str(servers.broker_url).rpartition('/')[0]}/{next(_numbers) % 15}"
    with redis.Redis.from_url(url) as client:
        client.flushdb()
    yield url


@dataclass
class Project:
    """A scratch project: a folder with a git repository, and an environment that names the servers of the test."""

    folder: Path
    env: dict[str, str] = field(default_factory=dict)

    def write(self, files: Mapping[str, str]) -> None:
        for name, content in files.items():
            path = self.folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(content, encoding="utf-8")

    def git(self, *arguments: str) -> str:
        done = subprocess.run(
            ["git", "-C", str(self.folder), *arguments],
            env={**os.environ, **GIT_ENV, **self.env},
            check=True,
            capture_output=True,
            text=True,
        )
        return done.stdout.strip()

    def commit(self, message: str, files: Mapping[str, str]) -> str:
        """Write and commit files. Return the hash of the commit."""
        self.write(files)
        self.git("add", "-A")
        self.git("commit", "-q", "-m", message)
        return self.git("rev-parse", "HEAD")

    @property
    def config(self) -> Config:
        return load_config(None, self.env, self.folder)

    def dims(self, *arguments: str, check: bool = False) -> subprocess.CompletedProcess[str]:
        """Run `dims` in the folder of the project, as a user does."""
        done = subprocess.run(
            [sys.executable, "-m", "dims_worker", *arguments],
            check=False,
            cwd=self.folder,
            env={**os.environ, **GIT_ENV, **self.env},
            capture_output=True,
            text=True,
            timeout=120,
        )
        if check and done.returncode:
            pytest.fail(f"dims {' '.join(arguments)} ended with {done.returncode}:\n{done.stdout}{done.stderr}")
        return done


@pytest.fixture
def project(tmp_path: Path, database_url: str, broker_url: str) -> Project:
    """Create an empty git repository, with an environment that names the database and the broker of the test."""
    folder = tmp_path / "project"
    folder.mkdir()
    project = Project(
        folder,
        {
            "DIMS_DATABASE_URL": database_url,
            "DIMS_BROKER_URL": broker_url,
            "DIMS_HOME": str(tmp_path / "home"),
            "TMPDIR": str(tmp_path),  # killed processes leave their temporary folders here
        },
    )
    project.git("init", "-q", "-b", "main")
    return project


@dataclass
class Worker:
    """A Celery worker in its own process group."""

    process: subprocess.Popen[bytes]
    log: Path

    def kill(self) -> None:
        """Kill the main process and its children with SIGKILL, as a power failure does."""
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait(10)


@pytest.fixture
def start_worker(project: Project, tmp_path: Path) -> Iterator[Callable[..., Worker]]:
    """Return a function that starts workers. Workers that run at the end of the test are stopped."""
    started: list[Worker] = []

    def start(
        *, concurrency: int = 2, queues: str = "dims.ingest,dims.verify", env: Mapping[str, str] | None = None
    ) -> Worker:
        name = f"worker{len(started)}"
        log = tmp_path / f"{name}.log"
        command = [sys.executable, "-m", "celery", "-A", "dims_worker.tasks", "worker", "-l", "INFO"]
        command += ["-n", f"{name}@%h", "-Q", queues, "-c", str(concurrency), "--without-gossip", "--without-mingle"]
        with log.open("wb") as output:
            process = subprocess.Popen(
                command,
                cwd=project.folder,
                env={**os.environ, **GIT_ENV, **project.env, **(env or {}), "PYTHONWARNINGS": "default"},
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        worker = Worker(process, log)
        started.append(worker)

        def ready() -> bool:
            if process.poll() is not None:
                pytest.fail(f"the worker ended with {process.returncode}:\n{log.read_text()}")
            return " ready." in log.read_text()

        wait_for(ready)
        return worker

    yield start
    for worker in started:
        if worker.process.poll() is None:
            worker.process.terminate()
    for worker in started:
        try:
            worker.process.wait(20)
        except subprocess.TimeoutExpired:
            worker.kill()


@dataclass
class Lake:
    """An S3 server of moto, and the LIST requests that it received."""

    url: str
    lists: list[str] = field(default_factory=list)

    @property
    def env(self) -> dict[str, str]:
        return {
            "AWS_ENDPOINT_URL": self.url,
            "AWS_ACCESS_KEY_ID": "test",
            "AWS_SECRET_ACCESS_KEY": "test",
            "AWS_DEFAULT_REGION": "us-east-1",
        }

    def put(self, bucket: str, objects: Mapping[str, bytes]) -> None:
        """Put objects into a bucket, which is created if needed. No HTTP request is made."""
        from moto.s3.models import s3_backends

        backend = s3_backends["123456789012"]["aws"]
        if bucket not in backend.buckets:
            backend.create_bucket(bucket, "us-east-1")
        for key, body in objects.items():
            backend.put_object(bucket, key, body)

    def drop(self, bucket: str) -> None:
        """Delete a bucket and its objects."""
        from moto.s3.models import s3_backends

        backend = s3_backends["123456789012"]["aws"]
        for key in list(backend.buckets[bucket].keys):
            backend.delete_object(bucket, key)
        backend.delete_bucket(bucket)


@pytest.fixture
def lake() -> Iterator[Lake]:
    """Run an S3 server on a free port that records its LIST requests."""
    from moto.moto_api._internal import moto_api_backend
    from moto.server import ThreadedMotoServer
    from werkzeug.serving import WSGIRequestHandler

    lake = Lake("")
    original = WSGIRequestHandler.log_request

    def counted(self: Any, *arguments: Any) -> None:
        if "list-type=2" in urlsplit(self.path).query:
            lake.lists.append(self.path)

    WSGIRequestHandler.log_request = counted  # type: ignore[method-assign, assignment]
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    lake.url = f"http://{host}:{port}"
    yield lake
    server.stop()
    moto_api_backend.reset()
    WSGIRequestHandler.log_request = original  # type: ignore[method-assign]
