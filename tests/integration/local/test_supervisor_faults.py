"""The supervisor survives what its processes survive: a full disk, too few files, a closed terminal, hung servers."""

from __future__ import annotations

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import closing, contextmanager, suppress
from pathlib import Path

import psutil
import psycopg2
import pytest
import redis

from dims_worker import local
from dims_worker.local import home as home_module
from dims_worker.local import postgres, process, supervisor, valkey

QUICK = local.Backoff(first=0.1, longest=0.4)
ENDLESS = f"{sys.executable} -c 'import time; time.sleep(600)'"
LIMIT = 60.0


def until(condition, seconds=LIMIT):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.fixture
def data(tmp_path):
    """A data directory whose servers are stopped at the end."""
    home = tmp_path / "home"
    yield home
    with suppress(Exception):
        local.stop(home)


@contextmanager
def supervised(home, procfile, *, report=None, **options):
    """A supervisor in a thread, and the sentences that it has reported so far."""
    sentences: list[str] = []
    stop = threading.Event()
    failures: list[BaseException] = []
    options = {"fast": True, "backoff": QUICK, "grace": 5.0} | options
    made = local.Supervisor(
        home, procfile, {"PATH": os.environ["PATH"]}, home.parent, report or sentences.append, **options
    )

    def run():
        try:
            made.run(stop)
        except BaseException as error:
            failures.append(error)

    thread = threading.Thread(target=run)
    with local.hold_home(home):
        thread.start()
        try:
            yield sentences
        finally:
            stop.set()
            thread.join(60)
            assert not thread.is_alive()
    assert failures == []


def saved(home):
    value = json.loads((home / "run" / "processes.json").read_text())
    return {entry["name"]: entry for entry in value["servers"] + value["processes"]}


def pid_of(home, name):
    return next((part.pid for part in local.stack_status(home) if part.name == name), None)


def any_line(sentences, *parts):
    return any(all(part in line for part in parts) for line in [*sentences])


def test_a_state_file_that_cannot_be_written_is_written_later(data, monkeypatch):
    full = threading.Event()
    write = home_module.write_private

    def write_or_fail(path, text, account=None):
        if full.is_set():
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
        write(path, text, account)

    monkeypatch.setattr(home_module, "write_private", write_or_fail)
    monkeypatch.setattr(supervisor, "SAVE_AGAIN", 0.2)
    with supervised(data, f"one: {ENDLESS}", database=False, broker=False) as sentences:
        until(lambda: any_line(sentences, "one started"))
        full.set()
        first = pid_of(data, "one")
        os.kill(first, signal.SIGKILL)
        until(lambda: sum("one started" in line for line in sentences) == 2)
        time.sleep(0.5)
        assert saved(data)["one"]["pid"] == first  # the file is still the old one
        full.clear()
        until(lambda: any_line(sentences, "can write", "processes.json again"))
        assert saved(data)["one"]["pid"] not in {None, first}
        assert saved(data)["one"]["reason"].startswith("it ended by signal 9 (SIGKILL) after ")
    assert sum("cannot write" in line and "No space left" in line for line in sentences) == 1


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EMFILE, errno.ENOMEM, errno.EAGAIN])
def test_a_process_that_the_system_cannot_start_is_started_later(data, monkeypatch, number):
    launch, failing = process.launch, threading.Event()

    def launch_or_fail(*arguments, **options):
        if failing.is_set():
            raise OSError(number, os.strerror(number))
        return launch(*arguments, **options)

    monkeypatch.setattr(process, "launch", launch_or_fail)
    with supervised(data, f"one: {ENDLESS}\ntwo: {ENDLESS}", database=False, broker=False) as sentences:
        until(lambda: any_line(sentences, "two started"))
        failing.set()
        os.kill(pid_of(data, "one"), signal.SIGKILL)
        until(lambda: any_line(sentences, "one does not start", os.strerror(number)))
        time.sleep(1)
        failing.clear()
        until(lambda: sum("one started" in line for line in sentences) == 2)
    assert sum("one does not start" in line for line in sentences) == 1


def test_every_check_may_fail_for_a_while(data, monkeypatch):
    """As with too many open files: not even /proc can be read."""
    birth, failing = process._birth, threading.Event()

    def birth_or_fail(pid):
        if failing.is_set():
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
        return birth(pid)

    monkeypatch.setattr(process, "_birth", birth_or_fail)
    with supervised(data, f"one: {ENDLESS}", database=False) as sentences:
        until(lambda: any_line(sentences, "one started"))
        first = pid_of(data, "one")
        failing.set()
        os.kill(first, signal.SIGKILL)
        until(lambda: any_line(sentences, "cannot watch Valkey", "Too many open files"))
        time.sleep(1)
        failing.clear()
        until(lambda: any_line(sentences, "can watch Valkey again"))
        until(lambda: pid_of(data, "one") not in {None, first})


def test_a_report_that_fails_ends_nothing(data):
    lines, broken = [], threading.Event()

    def report(line):
        if broken.is_set():
            raise BrokenPipeError(errno.EPIPE, "Broken pipe")
        lines.append(line)

    with supervised(data, f"one: {ENDLESS}", report=report, database=False, broker=False):
        until(lambda: any_line(lines, "one started"))
        broken.set()
        first = pid_of(data, "one")
        os.kill(first, signal.SIGKILL)
        until(lambda: pid_of(data, "one") not in {None, first})
        broken.clear()
    assert any_line(lines, "earlier lines could not be written")


def test_a_configuration_that_cannot_be_read_ends_nothing(data):
    failing = threading.Event()

    def changed():
        if failing.is_set():
            raise OSError(errno.EIO, "Input/output error", "dims.yaml")

    with supervised(data, f"one: {ENDLESS}", changed=changed, database=False, broker=False) as sentences:
        until(lambda: any_line(sentences, "one started"))
        failing.set()
        until(lambda: any_line(sentences, "cannot read the configuration", "Input/output error"))
        failing.clear()
        until(lambda: any_line(sentences, "can read the configuration again"))


def test_a_hung_valkey_is_restarted(data, monkeypatch):
    monkeypatch.setattr(valkey, "ANSWER_PATIENCE", 4.0)
    with supervised(data, f"one: {ENDLESS}", database=False) as sentences:
        until(lambda: any_line(sentences, "one started"))
        before = valkey.main_process(local.DataDirectory(data))
        before.send(signal.SIGSTOP)
        until(lambda: any_line(sentences, "Valkey runs again"))
        assert not before.alive()
        assert any_line(sentences, f"Valkey (pid {before.pid}) hangs: it does not answer")
        assert saved(data)["valkey"]["reason"].startswith("it does not answer")
        url = local.running(data).broker_url
        with redis.Redis.from_url(url) as client:
            assert client.ping()


def test_a_hung_postgres_is_restarted(data, monkeypatch):
    monkeypatch.setattr(postgres, "ANSWER_PATIENCE", 4.0)
    with supervised(data, f"one: {ENDLESS}", broker=False) as sentences:
        until(lambda: any_line(sentences, "one started"))
        before = postgres.main_process(local.DataDirectory(data))
        before.send(signal.SIGSTOP)
        until(lambda: any_line(sentences, "PostgreSQL runs again"))
        assert not before.alive()
        assert any_line(sentences, f"PostgreSQL (pid {before.pid}) hangs: it does not answer")


def startup_process(main):
    """Return the process that replays PostgreSQL's log, if it runs now."""
    with suppress(psutil.Error):
        for child in psutil.Process(main).children():
            with suppress(psutil.Error):
                if "startup" in " ".join(child.cmdline()):
                    return child
    return None


def kill_startup_process(home, main):
    """Crash a backend of PostgreSQL, then kill the startup process of the recovery that follows. True if it was hit."""
    with suppress(psycopg2.Error):
        server = postgres._described(home, main)
        with closing(postgres.connect(server, postgres.DATABASE)) as connection, connection.cursor() as cursor:
            cursor.execute("CREATE TABLE IF NOT EXISTS junk (t text)")
            cursor.execute("INSERT INTO junk SELECT repeat('x', 900) FROM generate_series(1, 60000)")
            connection.commit()
            os.kill(connection.get_backend_pid(), signal.SIGKILL)
            end = time.monotonic() + 5
            while time.monotonic() < end:
                if victim := startup_process(main.pid):
                    victim.kill()
                    return True
    return False


def test_a_recovery_whose_startup_process_was_killed_is_restarted(data):
    home = local.DataDirectory(data)
    with supervised(data, f"one: {ENDLESS}", broker=False) as sentences:
        until(lambda: any_line(sentences, "one started"))
        before = postgres.main_process(home)
        hit = any(kill_startup_process(home, before) for _ in range(3) if before.alive())
        if not hit:
            pytest.skip("PostgreSQL recovered before its startup process could be killed")
        until(lambda: (up := local.running(data)) and up.database_url, 90)
        assert pid_of(data, "one")


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 90 MB."""
    folder = Path(tempfile.mkdtemp(prefix="dims-disk-"))
    mounted = os.geteuid() == 0 and shutil.which("mount")
    options = ["-t", "tmpfs", "-o", "size=90m,mode=755", "tmpfs", str(folder)]
    if not mounted or subprocess.run(["mount", *options], check=False, capture_output=True).returncode:
        folder.rmdir()
        pytest.skip("a file system cannot be mounted here")
    yield folder
    with suppress(Exception):
        local.stop(folder / "home")
    subprocess.run(["umount", "-l", str(folder)], check=True)
    folder.rmdir()


WRITER = """
import os, sys, time
while True:
    with open(sys.argv[1], "a") as file:
        file.write("x" * 100_000)  # ends with an error if the disk is full
    time.sleep(0.2)
"""


def test_a_disk_that_is_full_for_ten_seconds(small_disk, tmp_path):
    home = small_disk / "home"
    (tmp_path / "writer.py").write_text(WRITER)
    procfile = f"one: {ENDLESS}\nwriter: python {tmp_path / 'writer.py'} {small_disk / 'written'}"
    with supervised(home, procfile, fast=False, backoff=local.Backoff()) as sentences:
        until(lambda: any_line(sentences, "writer started"))
        broker_url = local.running(home).broker_url
        with (small_disk / "filler").open("wb") as filler, suppress(OSError):
            while True:
                filler.write(b"x" * 65536)
                filler.flush()
        end = time.monotonic() + 10
        while time.monotonic() < end:
            with suppress(redis.RedisError), redis.Redis.from_url(broker_url) as client:
                client.set("a", "b" * 10_000)  # ends a Valkey that writes each command to disk
            time.sleep(0.2)
        assert any_line(sentences, "writer ended with code 1")
        (small_disk / "filler").unlink()
        until(lambda: (up := local.running(home)) and up.broker_url and up.database_url)
        until(
            lambda: (
                {part.name: part.state for part in local.stack_status(home)}
                == dict.fromkeys(("postgres", "valkey", "one", "writer"), "running")
            )
        )
        until(lambda: both_accept_a_write(home))


def both_accept_a_write(home):
    urls = local.running(home)
    with suppress(redis.RedisError, psycopg2.Error):
        if urls and urls.broker_url and urls.database_url:
            with redis.Redis.from_url(urls.broker_url) as client:
                client.set("a", "c")
            with closing(psycopg2.connect(urls.database_url.replace("+psycopg2", ""))) as connection:
                connection.cursor().execute("CREATE TABLE after_the_fault (a int)")
                connection.commit()
                return True
    return False
