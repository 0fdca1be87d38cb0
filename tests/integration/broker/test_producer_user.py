"""The producers' user on a real Valkey. It may append to the stream, and nothing else."""

from __future__ import annotations

import hashlib
import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import redis
from redis.exceptions import NoPermissionError

from dims_producers import s3_lambda
from dims_producers.git_hook import install
from dims_producers.publish import broker_url, publish
from dims_producers.spool import Spool
from dims_producers.watch_files import FolderWatcher
from dims_worker import local
from dims_worker.errors import BrokerUnreachable
from dims_worker.events import STREAM, Event
from dims_worker.local import valkey
from dims_worker.local.home import DataDirectory
from tests.conftest import GIT_ENV, REPO, wait_for


class Broker:
    """A data directory with a running Valkey, and a client for each of its two users."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.start()

    def start(self) -> None:
        self.servers = local.start(self.home, database=False, fast=True)
        self.full = redis.Redis.from_url(str(self.servers.broker_url), driver_info=None, protocol=2)
        self.producer = redis.Redis.from_url(str(self.servers.producer_url), driver_info=None, protocol=2)

    def events(self) -> list[Event]:
        entries: Any = self.full.xrange(STREAM)
        return [Event.from_json(fields[b"event"]) for _, fields in entries]

    def refused(self) -> list[str]:
        """Return what the server has refused since the last call, as `user: command or key`."""
        log: Any = self.full.acl_log()
        self.full.acl_log_reset()
        return [f"{entry['username']}: {entry['object']}" for entry in log]

    def stop(self) -> None:
        self.full.close()
        self.producer.close()
        local.stop(self.home)


@pytest.fixture(scope="module")
def _broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    broker = Broker(tmp_path_factory.mktemp("home"))
    yield broker
    broker.stop()


@pytest.fixture
def broker(_broker: Broker) -> Broker:
    _broker.full.flushall()
    _broker.full.acl_log_reset()
    return _broker


def event(id: str) -> Event:
    return Event.new("dims.scraper.complete", "test", now=datetime(2026, 11, 22, 9, tzinfo=UTC), id=id)


def test_the_user_may_only_append_to_the_stream(broker: Broker) -> None:
    rights: Any = broker.full.acl_getuser(valkey.PRODUCER)
    assert rights["commands"] == ["+xadd"]
    assert (rights["keys"], rights["channels"], rights["flags"]) == ([f"~{STREAM}"], [], ["on"])
    assert broker.producer.xadd(STREAM, {"event": "{}"})


@pytest.mark.parametrize(
    "command",
    [
        "XADD other * a b",
        "XADD dims:events2 * a b",
        f"XRANGE {STREAM} - +",
        f"XREAD STREAMS {STREAM} 0",
        f"XLEN {STREAM}",
        f"XTRIM {STREAM} MAXLEN 0",
        f"XDEL {STREAM} 1-1",
        f"XGROUP DESTROY {STREAM} dims",
        f"XSETID {STREAM} 9-9",
        f"XINFO STREAM {STREAM}",
        f"DEL {STREAM}",
        f"UNLINK {STREAM}",
        f"RENAME {STREAM} x",
        f"EXPIRE {STREAM} 1",
        f"TYPE {STREAM}",
        "HGETALL dims:wakeups:dims.ingest",
        "HDEL dims:wakeups:dims.ingest dims.ingest",
        "LPUSH dims.verify x",
        "KEYS *",
        "SCAN 0",
        "FLUSHALL",
        "FLUSHDB",
        "CONFIG GET requirepass",
        "CONFIG SET appendonly no",
        "EVAL return(1) 0",
        "FUNCTION LIST",
        "SCRIPT FLUSH",
        "SUBSCRIBE x",
        "PSUBSCRIBE *",
        "PUBLISH x y",
        "SELECT 1",
        "PING",
        "INFO",
        "CLIENT LIST",
        "CLIENT SETINFO LIB-NAME x",
        "ACL WHOAMI",
        "ACL LIST",
        "MONITOR",
        "SHUTDOWN NOSAVE",
        "SAVE",
        "BGREWRITEAOF",
        "REPLICAOF 127.0.0.1 1",
        "MODULE LIST",
        "SWAPDB 0 1",
        "MIGRATE 127.0.0.1 1 x 0 1",
        f"COPY {STREAM} x",
        "MULTI",
    ],
)
def test_other_commands_are_refused(broker: Broker, command: str) -> None:
    first = broker.producer.xadd(STREAM, {"event": "{}"})
    with pytest.raises(NoPermissionError):
        broker.producer.execute_command(*command.split())
    assert broker.full.xrange(STREAM) == [(first, {b"event": b"{}"})]
    assert len(broker.refused()) == 1


def test_no_other_command_is_allowed(broker: Broker) -> None:
    """Checks each command that the server knows, with ACL DRYRUN. The test above tries those with subcommands."""
    commands: Any = broker.full.command()
    allowed = []
    for name, facts in sorted(commands.items()):
        words = [name, *["x"] * (abs(facts["arity"]) - 1)]
        if not facts["subcommands"]:
            answer: Any = broker.full.execute_command("ACL", "DRYRUN", valkey.PRODUCER, *words)
            if b"no permissions to run" not in answer:
                allowed.append(name)
    assert len(commands) > 200
    # AUTH, HELLO, QUIT and RESET need no right, because a client uses them before it signs in
    assert allowed == ["auth", "hello", "quit", "reset", "xadd"]


def test_a_client_without_the_password_is_refused(broker: Broker) -> None:
    for login in ("", f"{valkey.PRODUCER}:x@", f"{valkey.PRODUCER}@", ":x@"):
        url = f"redis://{login}{str(broker.servers.producer_url).rpartition('@')[2]}"
        with redis.Redis.from_url(url) as stranger, pytest.raises((redis.AuthenticationError, NoPermissionError)):
            stranger.xadd(STREAM, {"event": "{}"})


def test_publish_sends_only_auth_and_xadd(broker: Broker) -> None:
    commands: list[str] = []
    with redis.Redis.from_url(str(broker.servers.broker_url)) as other, other.monitor() as monitor:
        publish([event("1"), event("2")], str(broker.servers.producer_url))
        broker.full.echo("end")
        for entry in monitor.listen():
            if "ECHO end" in entry["command"]:
                break
            commands.append(entry["command"].split()[0])
    assert commands == ["AUTH", "XADD", "XADD"]
    assert broker.refused() == []
    assert [event.id for event in broker.events()] == ["1", "2"]


def test_only_the_owner_can_read_the_secrets_and_the_configuration_has_a_hash(broker: Broker) -> None:
    password = (broker.home / "valkey" / valkey.PRODUCER_FILE).read_text()
    full = (broker.home / "valkey" / "password").read_text()
    assert len(password) == 48
    assert password != full
    conf = (broker.home / "valkey" / "valkey.conf").read_text()
    assert password not in conf
    assert hashlib.sha256(password.encode()).hexdigest() in conf
    assert (broker.home / "producer.env").read_text() == f"DIMS_BROKER_URL={broker.servers.producer_url}\n"
    assert full not in (broker.home / "producer.env").read_text()
    for name in ("producer.env", "servers.json", "valkey/password", "valkey/producer-password", "valkey/valkey.conf"):
        assert (broker.home / name).stat().st_mode & 0o777 == 0o600, name
    assert password not in repr(broker.servers) + (broker.home / "logs/valkey.log").read_text()


def test_the_command_for_your_own_broker_creates_the_same_user(broker: Broker) -> None:
    (line,) = re.findall(r"^ACL SETUSER dims-producer .*$", (REPO / "docs/security.md").read_text(), re.MULTILINE)
    broker.full.execute_command(*line.replace("dims-producer", "other").replace("PASSWORD", "hunter2").split())
    ours, other = broker.full.acl_getuser(valkey.PRODUCER), broker.full.acl_getuser("other")
    assert ours.pop("passwords") != other.pop("passwords")
    assert ours == other
    publish([event("1")], f"redis://other:hunter2@{str(broker.servers.broker_url).rpartition('@')[2]}")
    assert [event.id for event in broker.events()] == ["1"]
    broker.full.acl_deluser("other")


def test_a_stolen_key_can_do_only_what_the_guide_says(broker: Broker) -> None:
    for options in ("MAXLEN 0 *", "MINID 99999999999999-0 *"):
        broker.producer.xadd(STREAM, {"event": "{}"})
        broker.producer.execute_command("XADD", STREAM, *options.split(), "event", "{}")
        assert broker.full.xlen(STREAM) == 0
    broker.producer.xadd(STREAM, {"event": "{}"}, id="9999999999999-0")
    assert broker.producer.xadd(STREAM, {"event": "{}"}) == b"9999999999999-1"
    last = f"{2**64 - 1}-{2**64 - 1}"
    assert last in (REPO / "docs/security.md").read_text()
    broker.producer.xadd(STREAM, {"event": "{}"}, id=last)
    with pytest.raises(BrokerUnreachable, match="exhausted the last possible ID"):
        publish([event("1")], str(broker.servers.producer_url))


# --- every producer, with this user -------------------------------------------------------------------


def test_both_enqueue_commands_work_with_this_user(broker: Broker, tmp_path: Path) -> None:
    env = {k: v for k, v in os.environ.items() if not k.startswith("DIMS_")} | {"DIMS_HOME": str(broker.home)}
    (tmp_path / "dims.yaml").write_text("sources: {project: {type: files, path: '.'}}\n")
    for command in (["dims_producers.enqueue"], ["dims_worker", "enqueue"]):
        done = subprocess.run(
            [sys.executable, "-m", *command, "scraper_complete"],
            cwd=tmp_path,
            env=env,
            check=True,
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert done.stdout.strip() == broker.events()[-1].id
        assert done.stderr == ""
    assert broker.refused() == []


def test_the_hook_and_its_sender_work_with_this_user(broker: Broker, tmp_path: Path) -> None:
    env = {k: v for k, v in os.environ.items() if not k.startswith("DIMS_")} | GIT_ENV
    for command in (["init", "-q"], ["commit", "-q", "--allow-empty", "-m", "m"]):
        if command[0] == "commit":
            install(tmp_path, broker.home)
        subprocess.run(["git", *command], cwd=tmp_path, env=env, check=True, capture_output=True, timeout=60)
    wait_for(broker.events)
    assert [event.type for event in broker.events()] == ["dims.git.commit"]
    wait_for(lambda: len(Spool(broker.home / "spool")) == 0)
    assert broker.refused() == []


def test_the_watcher_sends_the_spool_with_this_user(broker: Broker, tmp_path: Path) -> None:
    spool, stop = Spool(broker.home / "spool"), threading.Event()
    spool.put(event("waited"))
    url = partial(broker_url, {}, broker.home)
    folders = FolderWatcher({"project": tmp_path}, spool, url, ignored=lambda _: False, settle=0.1, stop=stop)
    watcher = threading.Thread(target=folders.run)
    watcher.start()
    try:
        wait_for(lambda: len(broker.events()) >= 2)
        (tmp_path / "new").touch()
        wait_for(lambda: any(event.data and event.data.get("paths") == ["new"] for event in broker.events()))
    finally:
        stop.set()
        watcher.join(10)
    assert {event.type for event in broker.events()} == {"dims.scraper.complete", "dims.files.changed"}
    assert broker.refused() == []


def test_the_lambda_works_with_this_user(broker: Broker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DIMS_BROKER_URL", str(broker.servers.producer_url))
    about = {"bucket": {"name": "b"}, "object": {"key": "k", "sequencer": "01"}}
    record = {"eventName": "ObjectCreated:Put", "eventTime": "2026-11-22T09:00:00Z", "awsRegion": "r", "s3": about}
    assert s3_lambda.handler({"Records": [record]}, None) == {"published": 1}
    assert [event.subject for event in broker.events()] == ["k"]
    assert broker.refused() == []


def test_the_producer_url_of_the_environment_has_priority(tmp_path: Path) -> None:
    env = {"DIMS_BROKER_URL": "redis://:full@h:1/0", "DIMS_PRODUCER_URL": "redis://dims-producer:mine@h:1/0"}
    assert broker_url(env, tmp_path) == env["DIMS_PRODUCER_URL"]
    assert broker_url(env | {"DIMS_PRODUCER_URL": ""}, tmp_path) == env["DIMS_BROKER_URL"]


# --- data directories older than this user------------------------------------------------------------


def test_an_older_data_directory_gets_the_user(tmp_path: Path) -> None:
    broker = Broker(tmp_path / "home")
    try:
        first = broker.servers

        def forget() -> None:
            """Recreate what an older DIMS left: one user, and a producer.env with full rights."""
            broker.full.execute_command("ACL", "DELUSER", valkey.PRODUCER)
            (broker.home / "valkey" / valkey.PRODUCER_FILE).unlink()
            (broker.home / "producer.env").write_text(f"DIMS_BROKER_URL={broker.servers.broker_url}\n")

        before = valkey.main_process(DataDirectory(broker.home))
        forget()
        urls = local.running(broker.home)
        assert urls is not None
        assert urls.producer_url is None
        broker.start()
        assert valkey.main_process(DataDirectory(broker.home)) == before
        assert broker.servers.broker_url == first.broker_url
        assert broker.servers.producer_url not in (None, first.producer_url)
        publish([event("before")], broker_url({}, broker.home))

        forget()
        local.stop(broker.home)
        broker.start()
        publish([event("after")], broker_url({}, broker.home))
        assert valkey.PRODUCER in broker_url({}, broker.home)
        assert [event.id for event in broker.events()] == ["before", "after"]
    finally:
        broker.stop()
