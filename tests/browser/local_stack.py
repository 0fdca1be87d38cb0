"""A complete local stack: PostgreSQL, Valkey, S3, a repository with the Git hook, a worker, beat and `dims web`."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import boto3
import pytest
from sqlalchemy import Engine, create_engine, text

from dims_producers.publish import publish
from dims_worker.events import Event
from dims_worker.local.ports import choose_port, port_is_free
from dims_worker.store.approval_requests import ApprovalRequest, open_requests
from dims_worker.store.engine import transaction
from tests.conftest import GIT_ENV, Lake, Project, wait_for

TOKENS = {"ada": "ada-token-" + "x" * 20, "bob": "bob-token-" + "y" * 20}
HELD = ("clicked", "keyed", "raced", "moved", "plain", "hostile", "waiting")
"""One critical metric for each test, so that tests do not share requests."""
HOSTILE = "<script>alert(1)</script>\"'\u202egnp.exe\u2066" + "long" * 120
"""A hostile name of an object."""
SUBJECT = "<img src=x onerror=alert(2)> \"quoted\" 'and' \u202eturned round"
"""A hostile subject of a commit."""

CONFIG = """
settings: {lease: 5s, sweep: 1s}
sources:
  project: {type: files, path: code}
  repo: {type: git, path: "."}
  lake: {type: s3, bucket: lake}
metrics:
  documentation:
    markdown_files: {source: project, measure: count, paths: "**/*.md"}
  git:
    commits: {source: repo, measure: commits}
  s3_storage:
METRICS
rules:
  git_post_commit: {on: "dims.git.*"}
  s3_upload_complete: {on: "com.amazonaws.s3.*"}
  nightly: {schedule: "30 2 * * *", workflows: [file-inventory]}
workflows:
  file_inventory: {source: project}
web:
  tokens: {ada: "${ADA_TOKEN:-}", bob: "${BOB_TOKEN:-}"}
""".replace(
    "METRICS",
    "\n".join(
        f"    {name}: {{source: lake, prefix: {name}/, measure: count, critical: true, tolerance_pct: 20}}"
        for name in HELD
    ),
)
"""A value within 20 % of the proposed one updates its request."""


@dataclass
class LocalStack:
    """A running stack. `url` is the address of the dashboard."""

    project: Project
    engine: Engine
    url: str

    def publish(self, kind: str, producer: str, **fields: Any) -> None:
        event = Event.new(kind, producer, now=datetime.now(UTC), **fields)
        publish([event], self.project.env["DIMS_BROKER_URL"])

    def upload(self, prefix: str, names: list[str]) -> None:
        """Put objects into the bucket and publish the events that S3 would send."""
        keys = [f"{prefix}/{name}" for name in names]
        put(self.project.env, keys)
        for key in keys:
            data = {"bucket": "lake", "key": key, "size": 100}
            self.publish("com.amazonaws.s3.ObjectCreated:Put", "aws:s3.us-east-1.lake", subject=key, data=data)

    def commit(self, subject: str, files: Mapping[str, str]) -> str:
        """Make a commit. The hook publishes it."""
        return self.project.commit(subject, files)

    def scalar(self, query: str, **values: Any) -> Any:
        with self.engine.connect() as connection:
            return connection.execute(text(query), values).scalar()

    def baseline(self, metric: str) -> Any:
        return self.scalar("SELECT baseline FROM dims_metrics WHERE metric = :metric", metric=metric)

    def request(self, metric: str, *, version: int = 1) -> ApprovalRequest:
        """Wait for the open request of a metric to reach this version."""

        def open_request() -> ApprovalRequest | None:
            with transaction(self.engine) as connection:
                request = open_requests(connection).get(metric)
            return request if request and request.version >= version else None

        waited: ApprovalRequest = wait_for(open_request)
        return waited

    def served(self) -> bool:
        """Return whether nothing is due."""
        return bool(self.scalar("SELECT count(*) > 0 AND bool_and(requested_gen = measured_gen) FROM dims_metrics"))


@contextmanager
def local_stack(database_url: str, broker_url: str, folder: Path) -> Iterator[LocalStack]:
    """Run a stack until the end of the block. All critical metrics but `clicked` have an open request."""
    with ExitStack() as stack:
        port = choose_port(None)
        env = {"DIMS_DATABASE_URL": database_url, "DIMS_BROKER_URL": broker_url, "DIMS_HOME": str(folder / "home")}
        env |= {f"{name.upper()}_TOKEN": token for name, token in TOKENS.items()}
        env |= Lake(f"http://127.0.0.1:{port}").env
        project = Project(folder / "project", env)
        project.folder.mkdir()
        project.git("init", "-q", "-b", "main")
        project.commit("Begin", {"dims.yaml": CONFIG, "code/a.md": "# A\n", "code/a.py": '"""Adds."""\n'})
        # In its own process, because other tests empty the S3 mock of this one
        _process(stack, project, folder / "lake.log", "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port))
        wait_for(lambda: not port_is_free(port))
        _client(env).create_bucket(Bucket="lake")
        put(env, [f"{name}/{number}.parquet" for name in HELD for number in range(10)])
        engine = create_engine(database_url)
        stack.callback(engine.dispose)
        _process(
            stack,
            project,
            folder / "worker.log",
            *("-m", "celery", "-A", "dims_worker.tasks", "worker", "-l", "INFO", "-c", "2"),
            *("-Q", "dims.ingest,dims.verify,dims.verify.slow", "--without-gossip", "--without-mingle"),
        )
        _process(  # without it, each page warns that no beat runs
            stack,
            project,
            folder / "beat.log",
            *("-m", "celery", "-A", "dims_worker.tasks", "beat", "-s", str(folder / "beat-schedule"), "--pidfile="),
        )
        _process(stack, project, folder / "web.log", *("-m", "dims_worker", "web", "--port", "0"))
        project.dims("hook", "install", check=True)
        web_json = folder / "home" / "run" / "web.json"
        running = LocalStack(project, engine, "")
        wait_for(running.served)
        _fill(running)
        running.url = json.loads(wait_for(lambda: web_json.is_file() and web_json.read_text()))["url"]
        yield running


def _fill(stack: LocalStack) -> None:
    """Create requests, a hostile commit and a workflow's report."""
    for name in HELD[1:]:
        stack.upload(
            name, [HOSTILE] + [f"more {number}" for number in range(4)] if name == "hostile" else list("abcde")
        )
    stack.commit(SUBJECT, {"code/odd.py": "x = 1\n"})
    stack.publish("dims.workflow.requested", "tests", data={"workflow": "file-inventory"})
    for name in HELD[1:]:
        stack.request(f"s3_storage.{name}")
    wait_for(
        lambda: stack.served() and stack.scalar("SELECT count(*) FROM dims_verification_runs WHERE result IS NOT NULL")
    )
    wait_for(lambda: stack.scalar("SELECT count(*) FROM dims_event_log WHERE type = 'dims.git.commit'"))
    wait_for(lambda: stack.scalar("SELECT count(*) FROM dims_processes WHERE role = 'beat'"))


def put(env: Mapping[str, str], keys: list[str]) -> None:
    """Put objects into the bucket."""
    client = _client(env)
    for key in keys:
        client.put_object(Bucket="lake", Key=key, Body=b"x" * 100)


def _client(env: Mapping[str, str]) -> Any:
    return boto3.client(
        "s3",
        endpoint_url=env["AWS_ENDPOINT_URL"],
        aws_access_key_id="test",
        aws_secret_access_key="test",
        region_name="us-east-1",
    )


def _process(stack: ExitStack, project: Project, log: Path, *arguments: str) -> None:
    """Start a Python process in its own process group. It ends with the stack."""
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, *arguments],
            cwd=project.folder,
            env={**os.environ, **GIT_ENV, **project.env},
            stdout=output,
            stderr=output,
            start_new_session=True,
        )

    def end() -> None:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait(10)
            pytest.fail(f"{' '.join(arguments)} did not end:\n{log.read_text()[-2000:]}")

    stack.callback(end)
