"""Define fixtures of the acceptance tests: an empty warehouse, and a generated world on servers and disks."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, create_engine, text

from dims_worker import local
from tests.conftest import REPO, Lake, Project, Worker
from tests.fixtures import data_project
from tests.fixtures.data_project import World

BUCKET = "test-lake"
Start = Callable[..., Worker]


@dataclass
class Environment:
    """A generated world on servers and disks, for the configuration in config/."""

    world: World
    project: Project
    lake: Lake
    warehouse: Engine

    def verify(self, *arguments: str) -> tuple[int, dict[str, Any]]:
        """Run `dims verify --json`. Return its exit code and its metrics by name."""
        done = self.project.dims("verify", "--json", *arguments)
        assert done.returncode in (0, 3), done.stdout + done.stderr
        return done.returncode, {item["metric"]: item for item in json.loads(done.stdout)["metrics"]}


@pytest.fixture
def warehouse(servers: local.ServerUrls, database_url: str) -> Iterator[Engine]:
    """Create an empty database beside the one of DIMS."""
    admin = create_engine(str(servers.database_url), isolation_level="AUTOCOMMIT")
    name = f"warehouse_{database_url.rpartition('_')[2]}"
    with admin.connect() as connection:
        connection.execute(text(f"CREATE DATABASE {name}"))
    engine = create_engine(str(servers.database_url).rpartition("/")[0] + f"/{name}")
    yield engine
    engine.dispose()
    with admin.connect() as connection:
        connection.execute(text(f"DROP DATABASE {name} WITH (FORCE)"))
    admin.dispose()


@pytest.fixture
def environment(project: Project, lake: Lake, warehouse: Engine, tmp_path: Path) -> Environment:
    world = data_project.make(datetime.now(UTC))
    _fill_lake(lake, world)
    _fill_warehouse(warehouse, world)
    _fill_project(project, world)
    folders = {
        "NBA_LOCAL_LAKE": world.local_lake,
        "NBA_ARCHIVES": world.archives,
        "NBA_TEMP": world.temp,
        "NBA_ESPN_DIR": world.espn,
    }
    for name, files in folders.items():
        _write(tmp_path / name, files)
        project.env[name] = str(tmp_path / name)
    project.env |= {
        **lake.env,
        "NBA_BUCKET": BUCKET,
        "NBA_DATABASE_URL": warehouse.url.render_as_string(hide_password=False),
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_MAX_ATTEMPTS": "1",
    }
    return Environment(world, project, lake, warehouse)


def _write(folder: Path, files: Mapping[str, bytes]) -> None:
    for name, body in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(body)


def _fill_lake(lake: Lake, world: World) -> None:
    import boto3

    lake.put(BUCKET, {key: each.body for key, each in world.objects.items()})
    set_times(world)
    rds = boto3.client(
        "rds", endpoint_url=lake.url, region_name="us-east-1", aws_access_key_id="x", aws_secret_access_key="x"
    )
    rds.create_db_instance(
        DBInstanceIdentifier="nba-sim-db",
        DBInstanceClass=world.instance_class,
        AllocatedStorage=world.allocated_gib,
        Engine="postgres",
    )
    rds.close()


def set_times(world: World) -> None:
    from moto.s3.models import s3_backends

    keys = s3_backends["123456789012"]["aws"].buckets[BUCKET].keys
    for key, each in world.objects.items():
        keys[key].last_modified = each.modified.replace(tzinfo=None)


def _fill_warehouse(warehouse: Engine, world: World) -> None:
    with warehouse.begin() as connection:
        for statement in world.ddl:
            connection.execute(text(statement))
        for table, rows in world.rows.items():
            columns = [f"c{number}" for number in range(len(rows[0]))]
            values = ", ".join(f":{column}" for column in columns)
            connection.execute(
                text(f"INSERT INTO {table} VALUES ({values})"), [dict(zip(columns, row, strict=True)) for row in rows]
            )


def _fill_project(project: Project, world: World) -> None:
    shutil.copytree(REPO / "config", project.folder / "config", ignore=shutil.ignore_patterns("*.py"))
    _write(project.folder, world.tree)
    seconds = world.inventory_at.timestamp()
    os.utime(project.folder / "FILE_INVENTORY.md", (seconds, seconds))
    project.git("add", "-A")
    for commit in world.commits:
        if commit.branch != "main":
            project.git("checkout", "-q", "-b", commit.branch)
        when = commit.at.isoformat()
        project.env |= {"GIT_COMMITTER_DATE": when, "GIT_AUTHOR_DATE": "2001-01-01T00:00:00Z"}
        project.git("commit", "-q", "--allow-empty", "-m", f"{commit.subject}\n\n{commit.body}")
        if commit.branch != "main":
            project.git("checkout", "-q", "main")
    del project.env["GIT_COMMITTER_DATE"], project.env["GIT_AUTHOR_DATE"]


@pytest.fixture
def start(start_worker: Start) -> Iterator[Start]:
    """Return a function that starts workers. They are killed at the end, because a warm shutdown takes seconds."""
    workers: list[Worker] = []

    def start_one() -> Worker:
        workers.append(start_worker())
        return workers[-1]

    yield start_one
    for worker in workers:
        if worker.process.poll() is None:
            worker.kill()
