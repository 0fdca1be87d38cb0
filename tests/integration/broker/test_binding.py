"""Test that a broker database serves one database: the first one binds it, and every other is refused."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from redis import Redis
from redis.exceptions import RedisError
from sqlalchemy import Engine, text

from dims_producers.publish import connect
from dims_producers.spool import Spool
from dims_worker.broker.binding import DATABASE, bind_broker, bound_database, require_broker
from dims_worker.errors import WrongBroker
from dims_worker.local import binaries
from dims_worker.store.identity import DatabaseIdentity, database_identity
from tests.conftest import Project, wait_for

OTHER = DatabaseIdentity("7d7f8c1c-0000-4000-8000-000000000000", "other", "the database other at db.example.org:5432")


def test_the_identity_is_in_the_database(engine: Engine) -> None:
    first = database_identity(engine)
    assert database_identity(engine) == first
    assert len(first.id) == 36
    assert first.name == engine.url.database
    assert first.place == f"the database {first.name} at {engine.url.host}:{engine.url.port}"
    assert str(engine.url.password) not in repr(first)


def test_the_table_keeps_one_row(engine: Engine) -> None:
    with engine.connect() as connection, pytest.raises(Exception, match="dims_database"):
        connection.execute(text("INSERT INTO dims_database DEFAULT VALUES"))


def test_the_first_database_binds_the_broker_and_another_is_refused(redis: Redis, engine: Engine) -> None:
    own = database_identity(engine)
    assert bound_database(redis) is None
    require_broker(redis, own)
    require_broker(redis, own)
    assert bound_database(redis) == own
    with pytest.raises(WrongBroker) as refused:
        require_broker(redis, OTHER)
    message = str(refused.value)
    assert own.place in message
    assert OTHER.place in message
    assert "DIMS_BROKER_URL" in message
    assert "dims broker bind" in message
    assert bound_database(redis) == own


def test_an_emptied_broker_is_bound_again(redis: Redis, engine: Engine) -> None:
    own = database_identity(engine)
    require_broker(redis, own)
    redis.flushdb()
    require_broker(redis, own)
    assert bound_database(redis) == own


@pytest.mark.parametrize("value", ["", "x", "[]", "{}", '{"id": 1}', b"\xff"])
def test_a_key_that_dims_did_not_write_is_refused_until_it_is_bound(
    redis: Redis, engine: Engine, value: str | bytes
) -> None:
    redis.set(DATABASE, value)
    with pytest.raises(WrongBroker, match="unknown database"):
        require_broker(redis, database_identity(engine))
    bind_broker(redis, database_identity(engine))
    require_broker(redis, database_identity(engine))


def test_the_same_database_at_another_host_is_the_same_one(redis: Redis, engine: Engine) -> None:
    own = database_identity(engine)
    require_broker(redis, own)
    require_broker(redis, DatabaseIdentity(own.id, own.name, "the database dims at new.example.org:5432"))


def test_the_command_shows_and_changes_the_binding(project: Project, redis: Redis, broker_url: str) -> None:
    project.write({"dims.yaml": "sources: {}\n"})
    shown = project.dims("broker", "show")
    assert shown.returncode == 0, shown.stderr
    assert "belongs to no database" in shown.stdout
    redis.set(DATABASE, json.dumps({"id": OTHER.id, "name": OTHER.name, "place": OTHER.place}))
    shown = project.dims("broker", "show")
    assert shown.returncode == 2
    assert OTHER.place in shown.stderr
    bound = project.dims("broker", "bind")
    assert bound.returncode == 0, bound.stderr
    assert OTHER.place in bound.stdout
    assert project.dims("broker", "show").returncode == 0


def test_a_worker_of_another_database_ends_before_it_reads(project: Project, redis: Redis) -> None:
    project.write({"dims.yaml": "sources: {}\n"})
    redis.set(DATABASE, json.dumps({"id": OTHER.id, "name": OTHER.name, "place": OTHER.place}))
    assert project.dims("enqueue", "scraper_complete").returncode == 0
    for program in ("worker -Q dims.ingest,dims.verify -c 1", "beat -s beat --pidfile="):
        command = [sys.executable, "-m", "celery", "-A", "dims_worker.tasks", *program.split()]
        done = subprocess.run(
            command,
            check=False,
            cwd=project.folder,
            env=environment(project),
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert done.returncode == 2, done.stderr
        assert OTHER.place in done.stderr
        assert "DIMS_BROKER_URL" in done.stderr
        assert "Traceback" not in done.stderr
    up = project.dims("up")
    assert up.returncode == 2, up.stderr
    assert OTHER.place in up.stderr
    assert redis.xlen("dims:events") == 1
    assert redis.xinfo_groups("dims:events") == []


def environment(project: Project) -> dict[str, str]:
    import os

    return {**os.environ, **project.env}


@pytest.fixture(params=["valkey", "redis-server"])
def cluster(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """Return the URL of a cluster of one server, which serves every slot."""
    program = binaries.valkey_binary(None) if request.param == "valkey" else shutil.which("redis-server")
    if program is None:
        pytest.skip("redis-server is not installed")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    bus = port + 10_000 if port < 50_000 else port - 10_000
    command = [str(program), "--port", str(port), "--bind", "127.0.0.1", "--cluster-enabled", "yes"]
    command += ["--cluster-port", str(bus), "--dir", str(tmp_path), "--save", "", "--appendonly", "no"]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    url = f"redis://127.0.0.1:{port}/0"
    try:
        with Redis.from_url(url) as client:

            def slots() -> bool:
                with suppress(RedisError):
                    client.execute_command("CLUSTER", "ADDSLOTSRANGE", "0", "16383")
                with suppress(RedisError):
                    return bool(client.cluster("INFO")["cluster_state"] == "ok")
                return False

            wait_for(slots)
        yield url
    finally:
        server.terminate()
        server.wait(10)


def test_a_redis_cluster_is_refused_with_the_fix(cluster: str, project: Project, engine: Engine) -> None:
    with connect(cluster, 5) as client, pytest.raises(WrongBroker, match="cluster mode disabled"):
        require_broker(client, database_identity(engine))
    project.write({"dims.yaml": "sources: {}\n"})
    project.env["DIMS_BROKER_URL"] = cluster
    command = [sys.executable, "-m", "celery", "-A", "dims_worker.tasks", "worker", "-c", "1", "-Q", "dims.ingest"]
    worker = subprocess.run(
        command, check=False, cwd=project.folder, env=environment(project), capture_output=True, text=True, timeout=60
    )
    up = project.dims("up")
    for done in (worker, up):
        assert done.returncode == 2, done.stderr
        assert "Redis Cluster" in done.stderr
        assert "cluster mode disabled" in done.stderr
        assert "Traceback" not in done.stderr


def test_a_producer_spools_when_a_cluster_refuses(project: Project, tmp_path: Path) -> None:
    """A cluster without slots refuses every key."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    bus = port + 10_000 if port < 50_000 else port - 10_000
    command = [
        str(binaries.valkey_binary(None)),
        "--port",
        str(port),
        "--bind",
        "127.0.0.1",
        "--cluster-enabled",
        "yes",
    ]
    command += ["--cluster-port", str(bus), "--dir", str(tmp_path), "--save", ""]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    try:
        project.write({"dims.yaml": "sources: {}\n"})
        project.env["DIMS_BROKER_URL"] = f"redis://127.0.0.1:{port}/0"
        with Redis(port=port) as client:
            wait_for(lambda: answers(client))
        done = project.dims("enqueue", "scraper_complete")
        assert done.returncode == 0, done.stderr
        assert len(Spool(project.config.home / "spool")) == 1
    finally:
        server.terminate()
        server.wait(10)


def answers(client: Redis) -> bool:
    with suppress(RedisError):
        return bool(client.ping())
    return False
