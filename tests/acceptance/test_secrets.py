"""Whatever goes wrong, no password is told: not in a log, an answer, a page, an argument or a `repr`."""

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
FLOWER = "mark-of-flower"
WRONG = "mark/of a wrong@one"
QUOTED = urllib.parse.quote(WRONG, safe="")


@dataclass
class Machine:
    """A `dims up` in a project of its own, and all that was ever said there."""

    folder: Path
    port: int
    process: subprocess.Popen[bytes] | None = None
    said: dict[str, str] = field(default_factory=dict)

    @property
    def home(self) -> Path:
        return self.folder / ".dims"

    @property
    def env(self) -> dict[str, str]:
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("DIMS_", "FLOWER_", "CELERY_"))}
        warehouse = f"postgresql://reader:{QUOTED}@127.0.0.1:1/warehouse"
        return {**kept, **GIT_ENV, "DIMS_FLOWER_AUTH": f"ada:{FLOWER}", "DIMS_FLOWER_PORT": str(self.port),
                "WAREHOUSE_URL": warehouse, "PYTHONPATH": str(Path(__file__).parents[2])}  # fmt: skip

    def run(self, words: str, env: dict[str, str] | None = None, bound: float = 60) -> str:
        """What a module says on both of its outputs; one that does not end within `bound` seconds is ended."""
        try:
            done = subprocess.run([sys.executable, "-m", *words.split()], cwd=self.folder, env=self.env | (env or {}),
                                  capture_output=True, text=True, timeout=bound, check=False)  # fmt: skip
            text = done.stdout + done.stderr
        except subprocess.TimeoutExpired as late:
            text = f"{(late.stdout or b'').decode()}{(late.stderr or b'').decode()}"
        self.said[f"{words} {env or ''}"] = text
        return text

    def run_all(self, calls: list[tuple[str, dict[str, str]]], bound: float = 60) -> None:
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(lambda call: self.run(*call, bound=bound), calls))

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
            text = f"away: {error}"
        self.said[f"{method} {path}"] = text
        return text

    def inspected(self) -> list[str]:
        """The names of the workers, once Flower has asked both of them about themselves."""
        answer = self.page("/api/workers?refresh=1").partition("\n\n")[2]
        found = json.loads(answer) if answer.startswith("{") else {}
        return list(found) if len(found) == 2 and all("stats" in one for one in found.values()) else []

    def processes(self) -> list[psutil.Process]:
        """Whatever runs of it, the servers with their own sessions too."""
        found = []
        for one in psutil.process_iter():
            with suppress(psutil.NoSuchProcess, psutil.AccessDenied):
                if Path(one.cwd()).is_relative_to(self.folder):
                    found.append(one)
        return found

    def pids(self) -> dict[str, int | None]:
        return {one.name: one.pid for one in local.stack_status(self.home) if one.state == "running"}

    @property
    def secrets(self) -> dict[str, str]:
        return {str(file.relative_to(self.home)): file.read_text().strip() for file in self.home.glob("*/*password")}


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    folder = tmp_path_factory.mktemp("machine").resolve()
    (folder / "dims.yaml").write_text(CONFIG)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        made = Machine(folder, int(probe.getsockname()[1]))
    log = folder / "up.txt"
    with log.open("wb") as output:
        made.process = subprocess.Popen([sys.executable, "-m", "dims_worker", "up"], cwd=folder, env=made.env,
                                        stdout=output, stderr=output)  # fmt: skip
        try:
            wait_for(lambda: made.process is None or made.process.poll() is not None or len(made.pids()) == 8, 90)
            assert made.process.poll() is None, log.read_text()
            yield made
        finally:
            made.process.send_signal(signal.SIGTERM)
            made.process.wait(60)
            shutil.rmtree(made.home, ignore_errors=True)


def test_all_listen_on_this_machine_alone(machine: Machine) -> None:
    wait_for(lambda: all(f"{name}@" in machine.page("/workers?json=1") for name in ("ingest", "worker")), 60, 0.5)
    found: dict[str, set[str]] = {}
    for one in machine.processes():
        with suppress(psutil.NoSuchProcess):
            for connection in one.net_connections():
                if connection.status == psutil.CONN_LISTEN:
                    found.setdefault(" ".join(one.cmdline())[:200], set()).add(connection.laddr.ip)
    assert set().union(*found.values()) == {"127.0.0.1"}
    assert len(found) >= 3, found  # PostgreSQL, Valkey, Flower


def trouble(machine: Machine) -> None:
    """Everything that usually makes programs talk: servers that die, that are away, and that do not let one in."""
    machine.run("dims_worker enqueue any")
    for name in ("valkey", "postgres"):
        before = machine.pids()
        os.kill(int(before[name] or 0), signal.SIGKILL)
        machine.run("dims_worker status")
        machine.run("dims_worker enqueue any")
        wait_for(lambda name=name, before=before: machine.pids().get(name) not in (None, before[name]), 60)
    wait_for(lambda: "broker    up" in machine.run("dims_worker status"), 60)
    urls = json.loads((machine.home / "servers.json").read_text())
    broker, database = urllib.parse.urlsplit(urls["broker_url"]), urllib.parse.urlsplit(urls["database_url"])
    wrong = {"DIMS_BROKER_URL": f"redis://:{QUOTED}@127.0.0.1:{broker.port}/0",
             "DIMS_DATABASE_URL": f"postgresql://dims:{QUOTED}@127.0.0.1:{database.port}/dims"}  # fmt: skip
    away = {name: re.sub(r":\d+/", ":1/", url) for name, url in wrong.items()}
    unfit = {"DIMS_BROKER_URL": f"redis://:{WRONG}@127.0.0.1:1/0", "DIMS_DATABASE_URL": f"postgresql://d:{WRONG}@h:1/d"}
    option = {name: f"{url}?ssl_cafile=x&sslmode=nonsense&nonsense=1" for name, url in wrong.items()}
    many, few = ("status --json", "events", "verify", "enqueue any"), ("status", "enqueue any")
    calls = [(f"dims_worker {words}", env) for env in (wrong, away) for words in many]
    calls += [(f"dims_worker {words}", env) for env in (unfit, option) for words in few]
    calls += [("dims_producers.enqueue any", env) for env in (away, unfit)]
    calls += [("celery -A dims_worker.tasks inspect ping", env) for env in (away, unfit)]
    machine.run_all(calls)
    endless = [(f"celery -A dims_worker.tasks {words} -l DEBUG", env) for env in (wrong, away)
               for words in ("worker -c 1 -n wrong@h", f"beat -s {machine.folder}/beat --pidfile=")]  # fmt: skip
    machine.run_all(endless, bound=8)


def look(machine: Machine) -> None:
    """Ask everything that answers."""
    ours = ("status", "status --json", "config check", "config show", "events", "metrics", "runs")
    machine.run_all([(f"dims_worker {words}", {}) for words in ours])
    urls = json.loads((machine.home / "servers.json").read_text())
    env = {"DIMS_BROKER_URL": urls["broker_url"], "DIMS_DATABASE_URL": urls["database_url"]}
    theirs = ("report", "inspect report", "inspect conf include_defaults", "inspect stats", "inspect active")
    machine.run_all([(f"celery -A dims_worker.tasks {words}", env) for words in theirs])
    workers = wait_for(machine.inspected, 60, 1)
    tasks = json.loads(machine.page("/api/tasks?limit=20").partition("\n\n")[2])
    assert tasks
    paths = ["/", "/workers", "/workers?json=1", "/tasks", "/broker", "/metrics", "/nothing", "/api/queues/length"]
    paths += [f"/worker/{name}" for name in workers] + [f"/api/workers?workername={name}" for name in workers]
    paths += [f"/task/{task}" for task in tasks] + [f"/api/task/info/{task}" for task in tasks]
    query = urllib.parse.urlencode({"draw": 1, "start": 0, "length": 100, "columns[0][data]": "received",
                                    "order[0][column]": 0, "order[0][dir]": "desc"})  # fmt: skip
    for path in [*paths, f"/tasks/datatable?{query}"]:
        machine.page(path)
    for one in machine.processes():
        with suppress(psutil.NoSuchProcess):
            machine.said[f"arguments of {one.pid}"] = " ".join([one.name(), *one.cmdline()])
    config = load_config(None, {**machine.env, **env}, machine.folder)
    session = Session(None, {**machine.env, **env}, machine.folder)
    machine.said["repr"] = f"{config!r} {local.running(machine.home)!r} {session!r}"
    for file in [*machine.home.glob("logs/*"), machine.home / "run/processes.json", machine.folder / "up.txt"]:
        machine.said[str(file)] = file.read_text(errors="replace")


def told(machine: Machine, secrets: dict[str, str]) -> list[str]:
    """Who tells which secret, in whatever dress."""
    dressed = {
        name: {secret, urllib.parse.quote(secret, safe=""), urllib.parse.quote_plus(secret), repr(secret)[1:-1],
               json.dumps(secret)[1:-1], base64.b64encode(secret.encode()).decode()}
        for name, secret in secrets.items()
    }  # fmt: skip
    return [f"{where}: {name}" for where, text in machine.said.items() for name, forms in dressed.items()
            if any(form in text for form in forms)]  # fmt: skip


def test_no_password_is_told_whatever_goes_wrong(machine: Machine) -> None:
    trouble(machine)
    look(machine)
    secrets = {**machine.secrets, "Flower's": FLOWER, "the wrong one": WRONG}
    assert len(secrets) == 5
    assert told(machine, secrets) == []
    # All troubles were had, and all were asked, or it would have been easy
    everything = "\n".join(machine.said.values())
    for words in ("password authentication failed", "invalid username-password pair", "Connection refused",
                  "is not a PostgreSQL URL", "not a URL of a broker", "that libpq does not know", "need rediss://",
                  "Cannot connect to redis://:**@", "redis://:********@127.0.0.1", "transport:redis"):  # fmt: skip
        assert words in everything, words
    assert {Path(where).name for where in machine.said if "/logs/" in where} >= {
        *("ingest.log", "worker.log", "beat.log", "flower.log", "watch.log", "web.log", "valkey.log", "postgres.log")
    }


def test_a_socket_with_a_password_tells_it_nowhere(machine: Machine) -> None:
    """kombu takes all of such a URL for the name of a host, and Celery would tell that."""
    with tempfile.TemporaryDirectory(prefix="dims-") as folder:  # a socket's path is short
        path = f"{folder}/s"
        options = {"port": "0", "unixsocket": path, "requirepass": "mark-of-socket", "save": "", "dir": folder}
        words = [word for name, value in options.items() for word in (f"--{name}", value)]
        program = [str(binaries.valkey_binary(None)), *words]
        urls = json.loads((machine.home / "servers.json").read_text())
        env = {**machine.env, "DIMS_BROKER_URL": f"redis+socket://:mark-of-socket@{path}?virtual_host=0",
               "DIMS_DATABASE_URL": urls["database_url"]}  # fmt: skip
        log = machine.folder / "socket.txt"
        with log.open("wb") as output:
            server = subprocess.Popen(program, stdout=subprocess.DEVNULL)
            command = "-m celery -A dims_worker.tasks worker -c 1 -l INFO -n socket@h -Q dims.verify"
            worker = subprocess.Popen([sys.executable, *command.split()], cwd=machine.folder, env=env, stdout=output,
                                      stderr=output)  # fmt: skip
            try:
                wait_for(lambda: " ready." in log.read_text(), 60)
                ours = Machine(machine.folder, machine.port)
                ours.run_all([(f"celery -A dims_worker.tasks {words}", env) for words in ("inspect stats", "report")])
            finally:
                for one in (worker, server):
                    one.kill()
                    one.wait(10)
    stats = next(text for where, text in ours.said.items() if "inspect stats" in where)
    assert f'"hostname": "redis+socket://:**@/{path.lstrip("/")}"' in stats
    ours.said["log"] = log.read_text()
    assert told(ours, {"the socket's": "mark-of-socket"}) == []
