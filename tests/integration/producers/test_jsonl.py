"""`--from-file` of both commands, run like a user does, with a real Valkey."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import redis

from dims_worker.events import STREAM, Event
from tests.conftest import Project

LINES = [
    {"type": "scraper_complete", "id": "1", "subject": "espn", "data": {"games": 12}},
    {"specversion": "1.0", "id": "2", "source": "my:job", "type": "t", "time": "2026-11-22T09:00:00Z"},
    ["no event"],
    {"type": "scraper_complete", "id": "4"},
]


def enqueue(home: Path, url: str, text: bytes, *arguments: str) -> subprocess.CompletedProcess[bytes]:
    command = [sys.executable, "-m", "dims_producers.enqueue", "--home", str(home), *arguments]
    env = {**os.environ, "DIMS_BROKER_URL": url}
    return subprocess.run(command, input=text, env=env, capture_output=True, check=False, timeout=60)


def test_many_lines_from_a_pipe_use_few_connections(home: Path, valkey: Any) -> None:
    text = b"".join(b'{"type": "t", "id": "%d"}\n' % number for number in range(10_000))
    before = valkey.client.info("stats")["total_connections_received"]
    done = enqueue(home, valkey.url, text, "--from-file", "-")
    assert (done.returncode, done.stderr) == (0, b"")
    assert [event.id for event in valkey.events()] == done.stdout.decode().split() == [*map(str, range(10_000))]
    connections = valkey.client.info("stats")["total_connections_received"] - before
    assert connections == 10


def test_events_wait_for_the_broker_and_are_sent_with_the_next_one(home: Path, valkey: Any) -> None:
    valkey.stop()
    text = b"".join(b'{"type": "t", "id": "%d"}\n' % number for number in range(20))
    done = enqueue(home, valkey.url, text, "--from-file", "-")
    assert done.returncode == 0 and b"events wait in" in done.stderr and b"pass" not in done.stderr
    valkey.start()
    assert enqueue(home, valkey.url, b"", "t", "--id", "next").returncode == 0
    assert [event.id for event in valkey.events()] == [*map(str, range(20)), "next"]


def test_dims_enqueue_reads_a_file_too(project: Project, broker_url: str) -> None:
    project.write(
        {"dims.yaml": "sources:\n  here: {type: files, path: '.'}\n", "events.jsonl": "\n".join(map(json.dumps, LINES))}
    )
    done = project.dims("enqueue", "--from-file", "events.jsonl")
    assert done.returncode == 2
    assert done.stdout.split() == ["1", "2", "4"]
    assert "dims: line 3: the line must be a JSON object, not list" in done.stderr
    with redis.Redis.from_url(broker_url) as client:
        entries: Any = client.xrange(STREAM)
    assert [Event.from_json(fields[b"event"]).id for _, fields in entries] == ["1", "2", "4"]
    for arguments in (["t", "--from-file", "x"], ["--from-file", "x", "--wait"], ["--from-file", "no such"], []):
        assert project.dims("enqueue", *arguments).returncode == 2
