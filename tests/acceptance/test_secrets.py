"""Test that no password appears in a log, an answer, a page, an argument or a `repr`, whatever goes wrong."""

from __future__ import annotations

import base64
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import pytest

from dims_worker import local
from dims_worker.cli.session import Session
from dims_worker.config import load_config
from dims_worker.local import binaries
from tests.conftest import GIT_ENV, wait_for

CONFIG = """
settings: {sweep: 1s}
sources:
  project: {type: files, path: "."}
  warehouse: {type: sql, url: "${WAREHOUSE_URL}"}
metrics:
  code: {files: {source: project, measure: count, paths: "**/*.py"}}
  rows: {rows: {source: warehouse, measure: value, query: "SELECT 1"}}
rules: {any: {on: dims.scraper.complete}}
"""
FLOWER = "secret-of-flower"
WRONG = "secret/that is@wrong"
QUOTED = urllib.parse.quote(WRONG, safe="")
EXPECTED_PHRASES = (
    "password authentication failed",
    "invalid username-password pair",
    "Connection refused",
    "is not a PostgreSQL URL",
    "not the URL of a broker",
    "invalid connection option",
    "need rediss://",
    "the broker is unreachable or refuses",
    "redis://:********@127.0.0.1",
    "transport:redis",
)


@dataclass
class LocalStack:
    """A `dims up` in its own project, and every text that was collected from it."""

    folder: Path
    port: int
    process: subprocess.Popen[bytes] | None = None
    texts: dict[str, str] = field(default_factory=dict)

    @property
    def home(self) -> Path:
        return self.folder / ".dims"

    @property
    def env(self) -> dict[str, str]:
        inherited = {k: v for k, v in os.environ.items() if not k.startswith(("DIMS_", "FLOWER_", "CELERY_"))}
        warehouse = f"postgresql://reader:{QUOTED}@127.0.0.1:1/warehouse"
        return {
            **inherited,
            **GIT_ENV,
            "DIMS_FLOWER_AUTH": f"ada:{FLOWER}",
            "DIMS_FLOWER_PORT": str(self.port),
            "WAREHOUSE_URL": warehouse,
            "PYTHONPATH": str(Path(__file__).parents[2]),
        }

    def run(self, arguments: str, env: dict[str, str] | None = None, timeout: float = 60) -> str:
        """Run a module and collect both of its outputs. It is killed after `timeout` seconds."""
        try:
            done = subprocess.run(
                [sys.executable, "-m", *arguments.split()],
                cwd=self.folder,
                env=self.env | (env or {}),
                capture_output=True,
                text=True,
                timeout=timeout,
                check=False,
            )
            text = done.stdout + done.stderr
        except subprocess.TimeoutExpired as late:
            text = f"{(late.stdout or b'').decode()}{(late.stderr or b'').decode()}"
        self.texts[f"{arguments} {env or ''}"] = text
        return text

    def run_all(self, calls: list[tuple[str, dict[str, str]]], timeout: float = 60) -> None:
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(lambda call: self.run(*call, timeout=timeout), calls))

    def page(self, path: str, method: str = "GET") -> str:
        request = urllib.request.Request(f"http://127.0.0.1:{self.port}{path}", method=method)
        request.add_header("Authorization", f"Basic {base64.b64encode(f'ada:{FLOWER}'.encode()).decode()}")
        try:
            with urllib.request.urlopen(request, timeout=20) as answer:
                text = f"{answer.headers}{answer.read().decode()}"
        except urllib.error.HTTPError as error:
            with error:
                text = f"{error.code} {error.headers}{error.read().decode()}"
        except OSError as error:
            text = f"unreachable: {error}"
        self.texts[f"{method} {path}"] = text
        return text

    def inspected(self) -> list[str]:
        """Return the names of the workers, once Flower knows the details of all three."""
        answer = self.page("/api/workers?refresh=1").partition("\n\n")[2]
        found = json.loads(answer) if answer.startswith("{") else {}
        return list(found) if len(found) == 3 and all("stats" in worker for worker in found.values()) else []

    def processes(self) -> list[psutil.Process]:
        """Return every process of the stack, including the servers, which have their own sessions."""
        found = []
        for process in psutil.process_iter():
            with suppress(psutil.NoSuchProcess, psutil.AccessDenied):
                if Path(process.cwd()).is_relative_to(self.folder):
                    found.append(process)
        return found

    def pids(self) -> dict[str, int | None]:
        return {part.name: part.pid for part in local.stack_status(self.home) if part.state == "running"}

    @property
    def secrets(self) -> dict[str, str]:
        return {str(file.relative_to(self.home)): file.read_text().strip() for file in self.home.glob("*/*password")}


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalStack]:
    folder = tmp_path_factory.mktemp("stack").resolve()
    (folder / "dims.yaml").write_text(CONFIG)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        stack = LocalStack(folder, int(probe.getsockname()[1]))
    log = folder / "up.txt"
    with log.open("wb") as output:
        command = [sys.executable, "-m", "dims_worker", "up"]
        process = subprocess.Popen(command, cwd=folder, env=stack.env, stdout=output, stderr=output)
        stack.process = process
        try:
            wait_for(lambda: process.poll() is not None or len(stack.pids()) == 9, 90)
            assert process.poll() is None, log.read_text()
            yield stack
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(60)
            shutil.rmtree(stack.home, ignore_errors=True)


def test_every_process_listens_on_localhost_only(stack: LocalStack) -> None:
    wait_for(lambda: all(f"{name}@" in stack.page("/workers?json=1") for name in ("ingest", "worker")), 60, 0.5)
    found: dict[str, set[str]] = {}
    for process in stack.processes():
        with suppress(psutil.NoSuchProcess):
            for connection in process.net_connections():
                if connection.status == psutil.CONN_LISTEN:
                    found.setdefault(" ".join(process.cmdline())[:200], set()).add(connection.laddr.ip)
    assert set().union(*found.values()) == {"127.0.0.1"}
    assert len(found) >= 3, found  # PostgreSQL, Valkey, Flower


def cause_failures(stack: LocalStack) -> None:
    """Cause the failures that are usually logged: servers that die, are unreachable or refuse a password."""
    stack.run("dims_worker enqueue any")
    for name in ("valkey", "postgres"):
        before = stack.pids()
        os.kill(int(before[name] or 0), signal.SIGKILL)
        stack.run("dims_worker status")
        stack.run("dims_worker enqueue any")
        wait_for(lambda name=name, before=before: stack.pids().get(name) not in (None, before[name]), 60)
    wait_for(lambda: re.search(r"broker +up", stack.run("dims_worker status")), 60)
    urls = json.loads((stack.home / "servers.json").read_text())
    broker, database = urllib.parse.urlsplit(urls["broker_url"]), urllib.parse.urlsplit(urls["database_url"])
    wrong = {
        "DIMS_BROKER_URL": f"redis://:{QUOTED}@127.0.0.1:{broker.port}/0",
        "DIMS_DATABASE_URL": f"postgresql://dims:{QUOTED}@127.0.0.1:{database.port}/dims",
    }
    unreachable = {name: re.sub(r":\d+/", ":1/", url) for name, url in wrong.items()}
    malformed = {
        "DIMS_BROKER_URL": f"redis://:{WRONG}@127.0.0.1:1/0",
        "DIMS_DATABASE_URL": f"postgresql://d:{WRONG}@h:1/d",
    }
    with_options = {name: f"{url}?ssl_cafile=x&sslmode=nonsense&nonsense=1" for name, url in wrong.items()}
    all_commands = ("status --json", "events", "verify", "enqueue any")
    some_commands = ("status", "enqueue any")
    calls = [(f"dims_worker {words}", env) for env in (wrong, unreachable) for words in all_commands]
    calls += [(f"dims_worker {words}", env) for env in (malformed, with_options) for words in some_commands]
    calls += [("dims_producers.enqueue any", env) for env in (unreachable, malformed)]
    calls += [("celery -A dims_worker.tasks inspect ping", env) for env in (unreachable, malformed)]
    stack.run_all(calls)
    endless = [
        (f"celery -A dims_worker.tasks {words} -l DEBUG", env)
        for env in (wrong, unreachable)
        for words in ("worker -c 1 -n wrong@h", f"beat -s {stack.folder}/beat --pidfile=")
    ]
    stack.run_all(endless, timeout=8)


def collect_texts(stack: LocalStack) -> None:
    """Collect the output of every command, page, process and log."""
    commands = ("status", "status --json", "config check", "config show", "events", "metrics", "runs")
    stack.run_all([(f"dims_worker {words}", {}) for words in commands])
    urls = json.loads((stack.home / "servers.json").read_text())
    env = {"DIMS_BROKER_URL": urls["broker_url"], "DIMS_DATABASE_URL": urls["database_url"]}
    celery_commands = ("report", "inspect report", "inspect conf include_defaults", "inspect stats", "inspect active")
    stack.run_all([(f"celery -A dims_worker.tasks {words}", env) for words in celery_commands])
    workers = wait_for(stack.inspected, 60, 1)
    tasks = json.loads(stack.page("/api/tasks?limit=20").partition("\n\n")[2])
    assert tasks
    paths = ["/", "/workers", "/workers?json=1", "/tasks", "/broker", "/metrics", "/nothing", "/api/queues/length"]
    paths += [f"/worker/{name}" for name in workers] + [f"/api/workers?workername={name}" for name in workers]
    paths += [f"/task/{task}" for task in tasks] + [f"/api/task/info/{task}" for task in tasks]
    query = "draw=1&start=0&length=100&columns[0][data]=received&order[0][column]=0&order[0][dir]=desc"
    for path in [*paths, f"/tasks/datatable?{urllib.parse.quote(query, safe='=&')}"]:
        stack.page(path)
    for process in stack.processes():
        with suppress(psutil.NoSuchProcess):
            stack.texts[f"arguments of {process.pid}"] = " ".join([process.name(), *process.cmdline()])
    config = load_config(None, {**stack.env, **env}, stack.folder)
    session = Session(None, {**stack.env, **env}, stack.folder)
    stack.texts["repr"] = f"{config!r} {local.running(stack.home)!r} {session!r}"
    for file in [*stack.home.glob("logs/*"), stack.home / "run/processes.json", stack.folder / "up.txt"]:
        stack.texts[str(file)] = file.read_text(errors="replace")


def leaks(stack: LocalStack, secrets: dict[str, str]) -> list[str]:
    """Return which text contains which secret, in any encoding."""
    encoded = {
        name: {
            secret,
            urllib.parse.quote(secret, safe=""),
            urllib.parse.quote_plus(secret),
            repr(secret)[1:-1],
            json.dumps(secret)[1:-1],
            base64.b64encode(secret.encode()).decode(),
        }
        for name, secret in secrets.items()
    }
    return [
        f"{origin}: {name}"
        for origin, text in stack.texts.items()
        for name, forms in encoded.items()
        if any(form in text for form in forms)
    ]


def test_no_password_appears_anywhere_whatever_goes_wrong(stack: LocalStack) -> None:
    cause_failures(stack)
    collect_texts(stack)
    secrets = {**stack.secrets, "Flower's": FLOWER, "the wrong one": WRONG}
    assert len(secrets) == 5
    assert leaks(stack, secrets) == []
    # The test is meaningful only if every failure happened and every text was collected
    everything = "\n".join(stack.texts.values())
    assert [phrase for phrase in EXPECTED_PHRASES if phrase not in everything] == []
    logs = {Path(origin).stem for origin in stack.texts if "/logs/" in origin}
    assert logs >= {"ingest", "worker", "slow-worker", "beat", "flower", "watch", "web", "valkey", "postgres"}


def test_the_password_in_a_socket_url_appears_nowhere(stack: LocalStack) -> None:
    """kombu takes such a URL for the name of a host, which Celery would print."""
    with tempfile.TemporaryDirectory(prefix="dims-") as folder:  # the path of a socket must be short
        path = f"{folder}/s"
        options = {"port": "0", "unixsocket": path, "requirepass": "secret-of-socket", "save": "", "dir": folder}
        arguments = [argument for name, value in options.items() for argument in (f"--{name}", value)]
        program = [str(binaries.valkey_binary(None)), *arguments]
        urls = json.loads((stack.home / "servers.json").read_text())
        broker_url = f"redis+socket://:secret-of-socket@{path}?virtual_host=0"
        env = {**stack.env, "DIMS_BROKER_URL": broker_url, "DIMS_DATABASE_URL": urls["database_url"]}
        log = stack.folder / "socket.txt"
        with log.open("wb") as output:
            server = subprocess.Popen(program, stdout=subprocess.DEVNULL)
            worker_options = "-m celery -A dims_worker.tasks worker -c 1 -l INFO -n socket@h -Q dims.verify"
            command = [sys.executable, *worker_options.split()]
            worker = subprocess.Popen(command, cwd=stack.folder, env=env, stdout=output, stderr=output)
            try:
                wait_for(lambda: " ready." in log.read_text(), 60)
                collector = LocalStack(stack.folder, stack.port)
                collector.run_all(
                    [(f"celery -A dims_worker.tasks {words}", env) for words in ("inspect stats", "report")]
                )
            finally:
                for process in (worker, server):
                    process.kill()
                    process.wait(10)
    stats = next(text for origin, text in collector.texts.items() if "inspect stats" in origin)
    assert f'"hostname": "redis+socket://:**@/{path.lstrip("/")}"' in stats
    collector.texts["log"] = log.read_text()
    assert leaks(collector, {"the socket's": "secret-of-socket"}) == []
