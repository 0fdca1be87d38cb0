"""Flower with the shipped configuration: what each option does to a real process, and what Flower never shows."""

from __future__ import annotations

import base64
import dbm
import json
import os
import pickle
import re
import shelve
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest
from celery import Celery

from dims_worker.broker.queues import INGEST, VERIFY
from dims_worker.cli.up import flower_variables
from tests.conftest import Project, Worker, wait_for

CONF = flower_variables({})["DIMS_FLOWER_CONFIG"]
AUTH = "ada:flower-hunter2,bob:other:pass"
ROW, MORE = "lake · s3_upload_complete · 28 events", "dims events show 1234"


@dataclass
class Flower:
    """A Flower process, and what its pages show."""

    process: subprocess.Popen[bytes]
    port: int
    log: Path
    login: str | None

    def get(self, path: str, *, login: str | None = "", method: str | None = None) -> tuple[int, str]:
        """Return the status and text of a page."""
        request = urllib.request.Request(f"http://127.0.0.1:{self.port}{path}", method=method)
        if login := self.login if login == "" else login:
            request.add_header("Authorization", f"Basic {base64.b64encode(login.encode()).decode()}")
        try:
            with urllib.request.urlopen(request, timeout=20) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read().decode()

    def rows(self) -> list[dict[str, Any]]:
        """Return the rows of the task table, as the browser gets them."""
        query = {
            "draw": 1,
            "start": 0,
            "length": 100,
            "order[0][column]": 0,
            "order[0][dir]": "desc",
            "columns[0][data]": "received",
        }
        status, text = self.get(f"/tasks/datatable?{urllib.parse.urlencode(query)}")
        assert status == 200
        rows: list[dict[str, Any]] = json.loads(text)["data"]
        return rows

    def workers(self) -> list[dict[str, Any]]:
        rows: list[dict[str, Any]] = json.loads(self.get("/workers?json=1")[1])["data"]
        return rows

    def stopped_with(self, ids: set[str], database: Path) -> bool:
        """Pause it for good if its database is complete and has exactly these tasks. A save empties the file first."""
        self.process.send_signal(signal.SIGSTOP)
        with tempfile.TemporaryDirectory() as folder:
            for file in database.glob("flower*"):
                shutil.copy(file, folder)
            try:
                with shelve.open(f"{folder}/{next(database.glob('flower*')).stem}", "r") as kept:
                    if set(kept["events"].tasks) == ids:
                        return True
            except (*dbm.error, KeyError, EOFError, pickle.UnpicklingError, StopIteration):
                pass  # it is still saving
        self.process.send_signal(signal.SIGCONT)
        return False

    def end(self, number: signal.Signals = signal.SIGTERM) -> None:
        self.process.send_signal(number)
        self.process.wait(20)


Start = Callable[..., Flower]


@pytest.fixture
def start_flower(project: Project, tmp_path: Path) -> Iterator[Start]:
    started: list[Flower] = []

    def start(env: Mapping[str, str] | None = None, conf: str = CONF, login: str | None = None) -> Flower:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        log = tmp_path / f"flower{len(started)}.log"
        command = [sys.executable, "-m", "celery", "-A", "dims_worker.tasks", "flower", f"--conf={conf}"]
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("FLOWER_", "DIMS_"))}
        with log.open("wb") as output:
            process = subprocess.Popen(
                command,
                cwd=project.folder,
                stdout=output,
                stderr=output,
                env={**kept, **project.env, "DIMS_FLOWER_PORT": str(port), **(env or {})},
            )
        flower = Flower(process, port, log, login)
        started.append(flower)

        def answers() -> bool:
            if process.poll() is not None:
                return True
            try:
                return flower.get("/healthcheck")[0] == 200
            except OSError:
                return False

        wait_for(answers)
        return flower

    yield start
    for flower in started:
        if flower.process.poll() is None:
            flower.process.kill()
            flower.process.wait(10)


NOTHING_STORED = "0 stored, 0 known, 0 rejected, 0 unmatched"
"""The result of the small task that these tests send."""


@pytest.fixture
def worker(project: Project, start_worker: Callable[..., Worker]) -> Iterator[Worker]:
    project.write({"dims.yaml": "sources: {project: {type: files, path: '.'}}\n"})
    started = start_worker(concurrency=1)
    yield started
    if started.process.poll() is None:
        started.kill()


def send(project: Project, id: str, **options: Any) -> None:
    """Send a small task. The options say how it is shown."""
    with Celery(broker=project.env["DIMS_BROKER_URL"]) as app:
        app.send_task(INGEST, queue=VERIFY, task_id=id, ignore_result=True, **options)


def wait_until_connected(project: Project, flower: Flower) -> None:
    """Wait until Flower receives events of tasks. It never sees those from before it connected."""

    def connected() -> bool:
        send(project, "probe")
        return any(row["uuid"] == "probe" for row in flower.rows())

    wait_for(connected, period=0.3)


def test_flower_knows_each_name_in_the_configuration(tmp_path: Path) -> None:
    """It ignores names that it does not know, so a name that Flower changes would have no effect."""
    code = (
        "import json, sys; from flower.options import options; before = set(options._options);"
        "options.parse_config_file(sys.argv[1]); config = {}; exec(open(sys.argv[1]).read(), config);"
        "print(json.dumps([{k: getattr(options, k) for k in config if k.replace('_', '-') in before},"
        "[k for k in config if k.replace('_', '-') not in before]], default=lambda f: f.__name__))"
    )
    env = {**os.environ, "DIMS_HOME": str(tmp_path), "DIMS_FLOWER_AUTH": AUTH}
    done = subprocess.run([sys.executable, "-c", code, CONF], env=env, capture_output=True, text=True, check=True)
    options, others = json.loads(done.stdout)
    assert options == {
        "address": "127.0.0.1",
        "port": 5555,
        "unix_socket": "",
        "basic_auth": AUTH.split(","),
        "read_only": False,
        "persistent": True,
        "db": str(tmp_path / "run" / "flower"),
        "state_save_interval": 60_000,
        "max_tasks": 10_000,
        "purge_offline_workers": 86_400,
        "natural_time": True,
        "tasks_columns": "received,name,args,kwargs,result,state,runtime,worker,uuid",
        "format_task": "format_task_arguments",
    }
    assert {name for name in others if not name.startswith("_")} == {
        "ConfigError",
        "Path",
        "flower_access",
        "format_task_arguments",
        "os",
    }
    assert (tmp_path / "run").stat().st_mode & 0o777 == 0o700


def test_without_a_password_flower_only_shows_tasks(project: Project, worker: Worker, start_flower: Start) -> None:
    socket_path = project.folder / "flower.sock"
    flower = start_flower({"FLOWER_UNIX_SOCKET": str(socket_path), "FLOWER_ADDRESS": "0.0.0.0", "FLOWER_PORT": "1"})
    listening = [c.laddr for c in psutil.Process(flower.process.pid).net_connections() if c.status == "LISTEN"]
    assert listening == [("127.0.0.1", flower.port)]
    assert not socket_path.exists()
    wait_until_connected(project, flower)
    send(project, "custom", argsrepr=ROW, kwargsrepr=MORE)
    send(project, "plain", args=["lake", 1])
    wait_for(lambda: [row["state"] for row in flower.rows() if row["uuid"] != "probe"] == ["SUCCESS", "SUCCESS"])
    rows = {row["uuid"]: row for row in flower.rows() if row["uuid"] != "probe"}  # it may have missed its beginning
    assert {id: (row["args"], row["kwargs"], row["result"], row["name"]) for id, row in rows.items()} == {
        "custom": (ROW, MORE, NOTHING_STORED, INGEST),
        "plain": ("lake, 1", "", NOTHING_STORED, INGEST),
    }
    tasks = flower.get("/tasks")[1]
    assert re.findall(r'data-column="(\w+)"', tasks) == [
        *("received", "name", "args", "kwargs", "result", "state", "runtime", "worker", "uuid")
    ]
    assert "value=\"natural-time-UTC\" id='time'" in tasks
    assert re.search(rf"{ROW}.*{MORE}", flower.get("/task/custom")[1], re.DOTALL)
    (name,) = [worker_row["hostname"] for worker_row in flower.workers()]
    page = wait_for(lambda: flower.get(f"/worker/{name}")[1] if flower.get(f"/worker/{name}")[0] == 200 else None)
    assert "worker-tab-pool" in page
    assert "Shut Down" not in page
    for path, method in (
        ("/api/workers", "GET"),
        ("/api/tasks", "GET"),
        (f"/api/worker/shutdown/{name}", "POST"),
        (f"/api/task/send-task/{INGEST}", "POST"),
        ("/api/task/revoke/custom", "POST"),
    ):
        assert flower.get(path, method=method)[0] == 401, path
    assert worker.process.poll() is None
    assert flower.get("/metrics")[0] == 200


def test_with_a_password_everything_but_metrics_and_health_requires_it(
    project: Project, worker: Worker, start_flower: Start
) -> None:
    flower = start_flower({"DIMS_FLOWER_AUTH": AUTH, "FLOWER_UNAUTHENTICATED_API": "1"}, login="ada:flower-hunter2")
    wait_until_connected(project, flower)
    send(project, "custom", argsrepr=ROW, kwargsrepr=MORE)
    wait_for(lambda: ROW in [row["args"] for row in flower.rows()])
    wait_for(lambda: "conf" in flower.get("/api/workers")[1])
    (name,) = json.loads(flower.get("/api/workers")[1])
    paths = [
        "/",
        "/workers",
        "/tasks",
        "/task/custom",
        "/broker",
        f"/worker/{name}",
        "/api/workers",
        "/api/tasks",
        "/api/task/types",
        "/api/task/info/custom",
        "/api/queues/length",
    ]
    for login, status in (
        ("ada:flower-hunter2", 200),
        ("bob:other:pass", 200),
        ("ada:x", 401),
        ("eve:", 401),
        ("flower-hunter2", 401),
        (None, 401),
    ):
        assert {path: flower.get(path, login=login)[0] for path in paths} == dict.fromkeys(paths, status), login
    for path in ("/metrics", "/healthcheck"):
        assert flower.get(path, login=None)[0] == 200
    assert "Shut Down" in flower.get(f"/worker/{name}")[1]
    assert flower.get(f"/api/worker/pool/grow/{name}", login=None, method="POST")[0] == 401
    assert flower.get(f"/api/worker/pool/grow/{name}", method="POST")[0] == 200
    wait_for(lambda: len(psutil.Process(worker.process.pid).children()) == 2)


def test_flower_keeps_its_tasks_across_restarts(project: Project, worker: Worker, start_flower: Start) -> None:
    conf = project.folder / "quick.py"  # the same with small numbers, to show their units
    conf.write_text(f"{Path(CONF).read_text()}\nstate_save_interval = 300\nmax_tasks = 3\npurge_offline_workers = 1\n")
    flower = start_flower(conf=str(conf))
    wait_until_connected(project, flower)
    for number in range(5):
        send(project, str(number), argsrepr=f"row {number}")
    wait_for(lambda: {row["uuid"] for row in flower.rows()} == {"2", "3", "4"})
    database = Path(project.env["DIMS_HOME"]) / "run"
    wait_for(lambda: flower.stopped_with({"2", "3", "4"}, database))  # so it saved again within 300 ms
    flower.end(signal.SIGKILL)
    flower = start_flower(conf=str(conf))
    assert {row["args"] for row in flower.rows()} == {"row 2", "row 3", "row 4"}
    wait_until_connected(project, flower)
    send(project, "last", argsrepr="last row")
    wait_for(lambda: "last row" in {row["args"] for row in flower.rows()})
    flower.end()
    flower = start_flower()
    assert "last row" in {row["args"] for row in flower.rows()}
    flower.end()
    flower = start_flower(conf=str(conf))
    wait_for(lambda: [worker_row["freq"] for worker_row in flower.workers()] == [2.0])  # it has received a heartbeat
    worker.kill()
    wait_for(lambda: flower.workers() == [])


@pytest.mark.parametrize(
    ("env", "words"),
    [
        ({"DIMS_FLOWER_ADDRESS": "0.0.0.0"}, "flower: Flower would listen on 0.0.0.0 without a password"),
        ({"DIMS_FLOWER_AUTH": "flower-hunter2"}, "flower: DIMS_FLOWER_AUTH must be user:password"),
        ({"FLOWER_UNAUTHENTICATED_API": "true"}, "flower: FLOWER_UNAUTHENTICATED_API lets any web page"),
    ],
)
def test_flower_refuses_to_start_more_open_than_you_meant(
    project: Project, start_flower: Start, env: dict[str, str], words: str
) -> None:
    project.write({"dims.yaml": "sources: {project: {type: files, path: '.'}}\n"})
    flower = start_flower(env)
    assert flower.process.poll() == 1
    log = flower.log.read_text()
    assert words in log
    assert "Traceback" not in log
    assert "hunter2" not in log
    project.env |= env
    refused = project.dims("up", "--detach")
    assert refused.returncode == 2
    assert words.removeprefix("flower: ") in refused.stderr
    assert "hunter2" not in refused.stderr + refused.stdout
