"""Messages that are no wake-ups, in the queues of a real worker, are refused and counted. The worker continues."""

from __future__ import annotations

import base64
import json
import os
import pickle
import signal
import subprocess
import sys
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import kombu
import psutil
import pytest
from redis import Redis
from sqlalchemy import create_engine, text

from dims_worker import local
from dims_worker.broker.queues import INGEST, REFUSED, VERIFY
from tests.conftest import wait_for

JSON = "application/json"
EMBEDDED: dict[str, Any] = {"callbacks": None, "errbacks": None, "chain": None, "chord": None}
GOOD: list[Any] = [[], {}, EMBEDDED]


class FolderMaker:
    """Creates a folder when it is unpickled."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.folder),)


def message(body: object = None, kind: str = JSON, *, encoding: str = "utf-8", **headers: Any) -> str:
    """Return a sweep message in the form of kombu's Redis transport, with the given changes."""
    raw = body if isinstance(body, bytes) else json.dumps(GOOD if body is None else body).encode()
    kept = {"lang": "py", "task": INGEST, "id": str(uuid.uuid4())} | headers
    about = {
        "delivery_tag": str(uuid.uuid4()),
        "body_encoding": "base64",
        "delivery_mode": 2,
        "priority": 0,
        "delivery_info": {"exchange": "", "routing_key": VERIFY},
    }
    return json.dumps(
        {
            "body": base64.b64encode(raw).decode(),
            "content-type": kind,
            "content-encoding": encoding,
            "headers": {k: v for k, v in kept.items() if v != "absent"},
            "properties": about,
        }
    )


@dataclass
class SharedWorker:
    """One worker for all tests of this file. None of them may end it."""

    redis: Redis
    url: str
    process: subprocess.Popen[bytes]
    path: Path

    @property
    def log(self) -> str:
        return self.path.read_text()


@pytest.fixture(scope="module")
def worker(
    servers: local.ServerUrls, template: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[SharedWorker]:
    folder = tmp_path_factory.mktemp("worker")
    (folder / "dims.yaml").write_text("sources: {project: {type: files, path: '.'}}\n")
    admin = create_engine(str(servers.database_url), isolation_level="AUTOCOMMIT")
    with admin.connect() as connection:
        connection.execute(text(f"CREATE DATABASE test_consumer TEMPLATE {template}"))
    url = f"{str(servers.broker_url).rpartition('/')[0]}/15"
    env = {
        "DIMS_DATABASE_URL": str(servers.database_url).rpartition("/")[0] + "/test_consumer",
        "DIMS_BROKER_URL": url,
        "DIMS_HOME": str(folder / "home"),
        "PYTHONWARNINGS": "default",
    }
    command = [
        sys.executable,
        "-m",
        "celery",
        "-A",
        "dims_worker.tasks",
        "worker",
        "-l",
        "INFO",
        "-c",
        "1",
        "-Q",
        "dims.verify",
        "--without-gossip",
        "--without-mingle",
    ]
    log = folder / "worker.log"
    with log.open("wb") as output, Redis.from_url(url) as redis:
        redis.flushdb()
        process = subprocess.Popen(
            command, cwd=folder, env={**os.environ, **env}, stdout=output, stderr=output, start_new_session=True
        )
        try:
            wait_for(lambda: " ready." in log.read_text() or process.poll() is not None)
            yield SharedWorker(redis, url, process, log)
        finally:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait(10)
            redis.flushdb()
    with admin.connect() as connection:
        connection.execute(text("DROP DATABASE test_consumer WITH (FORCE)"))
    admin.dispose()


def counted(worker: SharedWorker) -> int:
    return int(worker.redis.get(REFUSED) or 0)  # type: ignore[arg-type]


def refuses(worker: SharedWorker, *messages: str | bytes) -> str:
    """Put messages in a queue. Return the log of the worker once it has refused each and handled a wake-up."""
    before, count = len(worker.log), counted(worker)
    child = psutil.Process(worker.process.pid).children()
    worker.redis.lpush(VERIFY, *messages)
    wait_for(lambda: counted(worker) >= count + len(messages))
    last = str(uuid.uuid4())
    worker.redis.lpush(VERIFY, message(id=last))
    wait_for(lambda: f"[{last}] succeeded" in worker.log)
    assert counted(worker) == count + len(messages)
    wait_for(lambda: worker.redis.hlen("unacked") == 0)
    assert worker.process.poll() is None
    assert psutil.Process(worker.process.pid).children() == child
    log = worker.log[before:]
    assert "Connection to broker lost" not in log
    assert "Traceback" not in log
    return log


def test_pickle_and_yaml_are_not_read(worker: SharedWorker, tmp_path: Path) -> None:
    pickle.loads(pickle.dumps(FolderMaker(tmp_path / "proof")))
    assert (tmp_path / "proof").is_dir()  # reading the message would create a folder
    mark = FolderMaker(tmp_path / "trace")
    bodies = [pickle.dumps(([mark], {}, {})), pickle.dumps(mark)]
    yaml = f"!!python/object/apply:os.mkdir [{tmp_path / 'trace'}]".encode()
    kinds = {"encoding": "binary", "kind": "application/x-python-serialize"}
    log = refuses(
        worker,
        *(message(body, **kinds) for body in bodies),
        *(message(body, **kinds, task="absent", id="absent") for body in bodies),  # the format of older messages
        *(message(body, encoding="binary") for body in bodies),  # it claims to be JSON
        message(yaml, "application/x-yaml"),
        message(yaml, "text/yaml"),
        message(b"x", "application/data", encoding="binary"),  # kombu trusts this one
        message(b"x", "x/unknown"),
    )
    assert not (tmp_path / "trace").exists()
    assert log.count("its content is 'application/x-python-serialize', not JSON") == 4
    assert "trace" not in log  # the content of a message is not logged


BODIES: list[object] = [
    5,
    "x",
    True,
    [],
    {},
    [[]],
    [[], {}],
    [5, 6, 7],
    [[], [], {}],
    [[], {}, None],
    [[], {}, {}, {}],
    {"args": [], "kwargs": {}},
    {"task": INGEST, "args": []},
    [[], {}, EMBEDDED | {"chain": [{"task": INGEST}]}],
    [[], {}, EMBEDDED | {"callbacks": 5}],
    b"null",
    b"{",
    b"",
    b"\xff\xfe",
    b"[" * 100_000,
]
SHAPES: list[object] = [5, -1, True, [], {}, [1], {"a": 1}, ["a", {}], 1e300, ""]


ENTRIES: list[str | bytes] = [
    *("x", "", "[]", "{}", "null", "5", '"x"', "[[]]", "{", '{"body": 1}', '{"properties": 5}', '{"properties": {}}'),
    *('{"properties": {"delivery_tag": "t1"}}', '{"properties": {"delivery_tag": "t2", "delivery_info": 5}}'),
    *('{"body": 5, "properties": {"delivery_tag": "t3", "body_encoding": "base64"}}', b"\xff\xfe"),
]
"""What a person could push to a queue by mistake."""


def test_entries_of_a_queue_that_are_no_messages_are_refused(worker: SharedWorker) -> None:
    refuses(worker, *ENTRIES)


def test_json_of_another_structure_is_refused(worker: SharedWorker) -> None:
    log = refuses(worker, *map(message, BODIES))
    assert log.count("its body is not [arguments, keywords, embedded]") >= 12


def test_headers_that_would_end_the_worker_are_refused(worker: SharedWorker) -> None:
    named = [message(**{name: shape}) for name in ("task", "id") for shape in (*SHAPES, None, "absent") if shape != ""]
    unknown = [message(task="nope"), message(task="nope", id="absent"), message(task="")]
    dated = [message(**{name: shape}) for name in ("eta", "expires", "shadow") for shape in SHAPES]
    dated += [message(eta="soon"), message(expires="never")]
    others = [message(timelimit=shape) for shape in [*SHAPES, [1], [1, "x"], [1, 2, 3]]]
    others += [message(stamped_headers=shape) for shape in [5, True, 1e300, {"a": 1}, [1], ["a", {}], ""]]
    others += [message(compression=shape) for shape in ("application/x-gzip", "nope")]
    refuses(worker, *named, *unknown, *dated, *others)


def test_other_headers_do_no_harm(worker: SharedWorker) -> None:
    names = (
        "group",
        "group_index",
        "root_id",
        "parent_id",
        "argsrepr",
        "kwargsrepr",
        "origin",
        "ignore_result",
        "lang",
        "meth",
        "replaced_task_nesting",
        "stamps",
        "redelivered",
    )
    before = worker.log.count("succeeded")
    worker.redis.lpush(VERIFY, *(message(**{name: shape}) for name in names for shape in SHAPES))
    wait_for(lambda: worker.log.count("succeeded") >= before + len(names) * len(SHAPES))
    refuses(worker, message(5))


def test_a_message_that_cannot_be_counted_is_refused_all_the_same(worker: SharedWorker) -> None:
    worker.redis.delete(REFUSED)
    worker.redis.lpush(REFUSED, "not a number")
    worker.redis.lpush(VERIFY, message(5))
    wait_for(lambda: "cannot count the refused message: WRONGTYPE" in worker.log)
    worker.redis.delete(REFUSED)
    refuses(worker, message(5))


def test_the_remote_control_reads_no_pickle_either(worker: SharedWorker, tmp_path: Path) -> None:
    count = counted(worker)
    body = {"method": "ping", "arguments": {}, "destination": None, "mark": FolderMaker(tmp_path / "trace")}
    with kombu.Connection(worker.url) as connection:
        exchange = kombu.Exchange("celery.pidbox", "fanout", durable=False)
        connection.Producer().publish(body, exchange=exchange, declare=[exchange], serializer="pickle")
    wait_for(lambda: counted(worker) == count + 1)
    assert "it cannot be read (ContentDisallowed)" in worker.log
    assert not (tmp_path / "trace").exists()
    refuses(worker, message(5))
