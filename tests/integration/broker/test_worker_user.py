"""Test the broker's user for workers that the guide shows: worker, beat and remote control work, and nothing else."""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from redis import Redis
from redis.exceptions import NoPermissionError, RedisError
from sqlalchemy import Engine, text

from dims_worker import local
from tests.chaos.stack import Program, ends_of_logs
from tests.conftest import REPO, Project, wait_for

CONFIG = """
settings: {sweep: 1s}
sources: {tree: {type: command, cooldown: 1s}}
metrics: {tree: {files: {source: tree, command: "find tree -type f | wc -l", shell: true}}}
rules: {scraped: {on: dims.scraper.complete}}
"""


def rules(password: str) -> list[str]:
    """Return the words of the guide's line after ACL SETUSER NAME."""
    (line,) = re.findall(r"^ACL SETUSER dims-worker (.*)$", (REPO / "docs/security.md").read_text(), re.MULTILINE)
    return str(line).replace("PASSWORD", password).split()


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[local.ServerUrls]:
    """Run a Valkey of its own, because users belong to a server and not to a database number."""
    home = tmp_path_factory.mktemp("broker")
    yield local.start(home, database=False, fast=True)
    local.stop(home)


@pytest.fixture
def admin(broker: local.ServerUrls) -> Iterator[Redis]:
    with Redis.from_url(str(broker.broker_url)) as client:
        client.flushall()
        client.execute_command("ACL", "SETUSER", "dims-worker", *rules("hunter2"))
        client.acl_log_reset()
        yield client


@pytest.fixture
def worker_url(broker: local.ServerUrls) -> str:
    return f"redis://dims-worker:hunter2@{str(broker.broker_url).rpartition('@')[2]}"


def test_everything_works_with_the_user_of_the_guide(
    project: Project, engine: Engine, admin: Redis, worker_url: str, tmp_path: Path
) -> None:
    project.write({"dims.yaml": CONFIG, "tree/1": ""})
    project.env["DIMS_BROKER_URL"] = worker_url
    env = {**os.environ, **project.env}
    celery = [sys.executable, "-m", "celery", "-A", "dims_worker.tasks"]
    queues = "dims.ingest,dims.verify,dims.verify.slow"
    commands = {
        "worker": [*celery, "worker", "-l", "INFO", "-Q", queues, "-c", "1", "--without-gossip", "--without-mingle"],
        "beat": [*celery, "beat", "-l", "INFO", "-s", str(tmp_path / "beat"), "--pidfile="],
    }
    programs = [Program(name, command, project.folder, env, tmp_path / name) for name, command in commands.items()]
    try:
        for program in programs:
            program.start()

        def measured(value: int) -> bool:
            sql = f"SELECT count(*) FROM dims_metrics WHERE value = to_jsonb({value}) AND requested_gen = measured_gen"
            with engine.connect() as connection:
                return bool(connection.execute(text(sql)).scalar())

        def has_beat() -> bool:
            with engine.connect() as connection:
                return bool(connection.execute(text("SELECT 1 FROM dims_processes WHERE role = 'beat'")).scalar())

        wait_for(lambda: measured(1), 60)
        (project.folder / "tree/2").touch()
        assert project.dims("enqueue", "dims.scraper.complete").returncode == 0
        wait_for(lambda: measured(2), 60)
        ping = subprocess.run(
            [*celery, "inspect", "ping", "--timeout", "10"],
            check=False,
            cwd=project.folder,
            env=env,
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert ping.returncode == 0, ping.stdout + ping.stderr
        status = project.dims("status")
        assert "NOPERM" not in status.stdout + status.stderr
        wait_for(has_beat)
    except BaseException:
        print(ends_of_logs([program.log for program in programs]))
        raise
    finally:
        for program in programs:
            program.stop()
    log: Any = admin.acl_log()
    assert [(entry["reason"], entry["object"]) for entry in log if entry["username"] == "dims-worker"] == []
    assert "unreachable or refuses" not in programs[0].log_since_start()


REFUSED = [
    "FLUSHALL",
    "FLUSHDB",
    "CONFIG GET requirepass",
    "CONFIG SET appendonly no",
    "KEYS *",
    "SCAN 0",
    "RANDOMKEY",
    "DBSIZE",
    "SELECT 1",
    "SWAPDB 0 1",
    "MONITOR",
    "SHUTDOWN NOSAVE",
    "SAVE",
    "BGREWRITEAOF",
    "REPLICAOF NO ONE",
    "ACL LIST",
    "ACL SETUSER x",
    "CLIENT KILL TYPE normal",
    "CLIENT LIST",
    "MODULE LIST",
    "SCRIPT FLUSH",
    "SCRIPT KILL",
    "FUNCTION LIST",
    "FUNCTION FLUSH",
    "CLUSTER RESET",
    "MIGRATE 127.0.0.1 1 dims:events 0 1",
    "GET theirs",
    "SET theirs 1",
    "DEL theirs",
    "LPUSH queue x",
    "RENAME dims:events theirs",
    "COPY dims:events theirs",
    "EVAL return(redis.call('GET','theirs')) 0",
    "PUBLISH theirs x",
    "SUBSCRIBE theirs",
    "PSUBSCRIBE *",
]


@pytest.mark.parametrize("command", REFUSED)
def test_other_commands_and_keys_are_refused(admin: Redis, worker_url: str, command: str) -> None:
    admin.set("theirs", "secret")
    with Redis.from_url(worker_url) as worker:
        worker.set("dims:events", "x")
        with pytest.raises((NoPermissionError, RedisError), match=r"(?i)permission|NOPERM|can't access|ACL") as refused:
            worker.execute_command(*command.split())
    assert "secret" not in str(refused.value)
    assert admin.get("theirs") == b"secret"


def test_redis_7_accepts_the_line_of_the_guide(tmp_path: Path) -> None:
    program = shutil.which("redis-server")
    if program is None:
        pytest.skip("redis-server is not installed")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [program, "--port", str(port), "--bind", "127.0.0.1", "--dir", str(tmp_path), "--save", ""]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    try:
        with Redis(port=port) as admin:

            def answers() -> bool:
                with suppress(RedisError):
                    return bool(admin.ping())
                return False

            wait_for(answers)
            admin.execute_command("ACL", "SETUSER", "dims-worker", *rules("hunter2"))
        with Redis(port=port, username="dims-worker", password="hunter2") as worker:
            assert worker.set("dims:beat", "1")
            with pytest.raises(NoPermissionError):
                worker.flushall()
    finally:
        server.terminate()
        server.wait(10)
