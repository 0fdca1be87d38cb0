"""The local stack with the real PostgreSQL and Valkey. Each test has its own data directory and stops all it starts."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import closing, contextmanager
from pathlib import Path

import psutil
import psycopg2
import pytest
import redis

from dims_worker import local
from dims_worker.errors import ServiceError
from dims_worker.local import binaries, postgres, process
from dims_worker.local.server_user import unprivileged_user

ROOT = Path(__file__).parents[3]
QUICK = local.Backoff(first=0.1, longest=0.4)


def until(condition, seconds=20.0):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.1)  # listing all processes costs a few ms, so not too often


def works_in(home: Path) -> list[psutil.Process]:
    """The processes that run for this data directory: by working directory, environment or arguments."""
    matches = []
    for running in psutil.process_iter():
        try:
            inside = Path(running.cwd()).is_relative_to(home) or any(str(home) in word for word in running.cmdline())
            if (inside or running.environ().get(process.SUPERVISED_BY) == str(home)) and running.pid != os.getpid():
                matches.append(running)
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue
    return matches


@pytest.fixture
def make_home(tmp_path):
    homes: list[Path] = []

    def make(path: Path = tmp_path / "home") -> Path:
        homes.append(path)
        return path

    yield make
    for home in homes:
        for running in works_in(home):
            if running.name() not in {"postgres", "valkey-server"} and running.is_running():
                running.kill()
        local.stop(home)
        shutil.rmtree(home, ignore_errors=True)  # 50 MB each, which pytest would keep


@pytest.fixture
def new_home(make_home):
    return make_home()


@pytest.fixture(scope="session")
def template(tmp_path_factory):
    """A pg folder whose initdb has run. Copying it is faster than running initdb again."""
    home = tmp_path_factory.mktemp("template")
    local.start(home, broker=False, fast=True)
    local.stop(home)
    return home / "pg"


@pytest.fixture
def home(make_home, template):
    home = make_home()
    home.mkdir(mode=0o700)
    subprocess.run(["cp", "-a", str(template), str(home / "pg")], check=True)
    return home


@contextmanager
def sql(url):
    with closing(psycopg2.connect(url.replace("+psycopg2", ""))) as connection:
        connection.autocommit = True
        with connection.cursor() as cursor:
            yield cursor


@contextmanager
def broker(url):
    with closing(redis.Redis.from_url(url)) as client:
        yield client


def pids(home):
    return {running.name: running.pid for running in local.stack_status(home)}


def write_both(servers, value):
    with sql(servers.database_url) as cursor:
        cursor.execute("CREATE TABLE IF NOT EXISTS kept (value int)")
        cursor.execute("INSERT INTO kept VALUES (%s)", [value])
    with broker(servers.broker_url) as client:
        client.xadd("kept", {"value": value})


def read_both(servers):
    with sql(servers.database_url) as cursor:
        cursor.execute("SELECT value FROM kept ORDER BY 1")
        rows = [row[0] for row in cursor.fetchall()]
    with broker(servers.broker_url) as client:
        return rows, [int(fields[b"value"]) for _, fields in client.xrange("kept")]


def test_start_stop_start_keeps_data_ports_and_secrets(new_home):
    home = new_home
    first = local.start(home)  # the settings of production, once
    assert local.start(home) == first == local.running(home)
    with sql(first.database_url) as cursor, broker(first.broker_url) as client:
        cursor.execute("SELECT current_setting('fsync'), current_setting('synchronous_commit')")
        assert cursor.fetchone() == ("on", "on")
        assert client.config_get("appendfsync", "maxmemory-policy") == {
            "appendfsync": "always",
            "maxmemory-policy": "noeviction",
        }
    write_both(first, 1)
    sentences = local.stop(home)
    assert [sentence.split()[0] for sentence in sentences] == ["Valkey", "PostgreSQL"]
    assert local.running(home) is None
    assert works_in(home) == []
    assert local.stop(home) == []
    again = local.start(home)
    assert again == first
    assert read_both(again) == ([1], [1])
    assert (home / "producer.env").read_text() == f"DIMS_BROKER_URL={first.producer_url}\n"
    files = [home / "producer.env", home / "servers.json", *home.glob("logs/*.log"), *home.glob("*/*password")]
    assert {file.stat().st_mode & 0o777 for file in files} == {0o600}
    secrets = [file.read_text().strip() for file in home.glob("*/*password")]
    shown = " ".join(word for running in works_in(home) for word in running.cmdline())
    shown += "".join(log.read_text() for log in home.glob("logs/*"))
    assert len({*secrets}) == 3
    assert not any(secret in shown for secret in secrets)


def test_both_listen_on_localhost_only_and_require_the_password(home):
    servers = local.start(home, fast=True)
    for name, pid in pids(home).items():
        listening = [c for c in psutil.Process(pid).net_connections() if c.status == psutil.CONN_LISTEN]
        assert {c.laddr.ip for c in listening} == {"127.0.0.1"}, name
    with (
        pytest.raises(psycopg2.OperationalError, match="password"),
        sql(servers.database_url.replace("dims:", "dims:x")),
    ):
        pass
    with (
        pytest.raises(redis.AuthenticationError),
        broker(servers.broker_url.replace("://:", "://:x")) as client,
    ):
        client.ping()


def test_kill_9_of_both_servers_loses_nothing_acknowledged(home):
    servers = local.start(home)  # the settings of production: fast ones lose the last commits
    write_both(servers, 1)
    for value in range(2, 4):
        write_both(servers, value)
        before = pids(home)
        for pid in before.values():
            os.kill(pid, signal.SIGKILL)
        servers = local.start(home)
        assert {*pids(home).values()}.isdisjoint(before.values())
    assert not [pid for pid in before.values() if psutil.pid_exists(pid)]  # no zombie is left either
    assert read_both(servers) == ([1, 2, 3], [1, 2, 3])


def test_postgres_starts_while_a_busy_child_of_a_killed_one_runs(home):
    servers = local.start(home, broker=False, fast=True)
    spin = "DO $$ BEGIN LOOP PERFORM 1; END LOOP; END $$"

    def work():
        with pytest.raises(psycopg2.OperationalError), sql(servers.database_url) as cursor:
            cursor.execute(spin)

    thread = threading.Thread(target=work)
    thread.start()
    with sql(servers.database_url) as cursor:

        def busy():
            cursor.execute("SELECT count(*) FROM pg_stat_activity WHERE query = %s AND state = 'active'", [spin])
            return cursor.fetchone()[0] == 1

        until(busy)
    main = pids(home)["postgres"]
    os.kill(main, signal.SIGKILL)
    assert local.start(home, broker=False, fast=True).database_url == servers.database_url
    assert pids(home)["postgres"] != main
    thread.join(10)
    assert not thread.is_alive()


def test_a_pid_file_that_names_another_process_is_removed_and_that_process_lives(home):
    local.start(home, broker=False, fast=True)
    lock = home / "pg" / "data" / "postmaster.pid"
    lines = lock.read_text().split("\n")
    os.kill(pids(home)["postgres"], signal.SIGKILL)
    with subprocess.Popen(["sleep", "60"]) as stranger:
        try:
            lock.write_text("\n".join([str(stranger.pid), *lines[1:]]))
            assert local.running(home) is None
            local.start(home, broker=False, fast=True)
            assert stranger.poll() is None
        finally:
            stranger.kill()


def test_a_crash_in_initdb_leaves_no_half_made_cluster(new_home):
    home = new_home
    half = home / "pg" / f"{postgres.DRAFT}half"
    half.mkdir(parents=True)
    (half / "PG_VERSION").write_text("18")
    assert local.start(home, broker=False, fast=True).broker_url is None
    assert sorted(path.name for path in (home / "pg").iterdir()) == ["data", "password"]


def test_a_data_directory_may_have_a_long_path_with_spaces(make_home, tmp_path):
    long = tmp_path / ("long " * 30) / "home"
    assert len(str(long)) > 150
    home = make_home(long)
    servers = local.start(home, fast=True)
    write_both(servers, 1)
    assert read_both(servers) == ([1], [1])


@pytest.mark.skipif(os.geteuid() != 0, reason="only root has a folder that the servers' user cannot enter")
def test_root_runs_the_servers_below_a_folder_that_their_user_cannot_enter(make_home, tmp_path, monkeypatch):
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)
    # Like a venv below /root: the user cannot reach the programs either, so DIMS copies them.
    site = closed / "site-packages"
    wheel = binaries.postgres_bin(tmp_path / "none", None).parents[1]
    shutil.copytree(wheel / "pginstall18", site / wheel.name / "pginstall18")
    shutil.copytree(wheel.with_name(f"{wheel.name}.libs"), site / f"{wheel.name}.libs")
    program = site / "valkey-server"
    shutil.copy2(binaries.valkey_binary(None), program)
    runtimes = Path(tempfile.mkdtemp(prefix="dims-runtimes-"))  # pytest's own folders are closed to others
    runtimes.chmod(0o755)
    monkeypatch.setattr(binaries, "RUNTIMES", runtimes)
    monkeypatch.setattr(binaries, "_valkey_programs", lambda: iter([program]))
    monkeypatch.setattr(binaries, "_postgres_folders", lambda: iter([site / wheel.name / "pginstall18" / "bin"]))
    home = make_home(closed / "home")
    try:
        servers = local.start(home, fast=True)
        write_both(servers, 1)
        assert read_both(servers) == ([1], [1])
        assert {psutil.Process(pid).uids().real for pid in pids(home).values()} == {unprivileged_user(home).uid}
        copies = sorted(runtimes.iterdir())
        assert [copy.name.split("-")[1] for copy in copies] == ["pginstall18", "valkey"]
        assert closed.stat().st_mode & 0o777 == 0o700
        local.stop(home)
        local.start(home, fast=True)
        assert sorted(runtimes.iterdir()) == copies
    finally:
        local.stop(home)
        shutil.rmtree(runtimes)
        shutil.rmtree(site)


def test_a_failed_start_reports_the_reason_and_leaves_no_server_running(home):
    local.start(home, fast=True)
    local.stop(home)
    for file in (home / "valkey" / "appendonlydir").glob("*.manifest"):
        file.write_text("nonsense\n")
    with pytest.raises(ServiceError, match=r"(?s)Valkey did not start.*valkey\.log.*manifest"):
        local.start(home, fast=True)
    assert works_in(home) == []


def test_concurrent_callers_get_the_same_servers(home):
    matches = []
    threads = [threading.Thread(target=lambda: matches.append(local.start(home, fast=True))) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(matches) == 3
    assert len({*matches}) == 1
    assert len(process.find_in_folder(("valkey-server",), home / "valkey")) == 1


def test_commands_share_a_temporary_database_and_the_last_one_stops_it(home):
    with local.temporary_database(home, fast=True) as first:
        with local.temporary_database(home, fast=True) as second:
            assert first == second
        assert local.running(home).database_url == first
    assert local.running(home) is None
    first_out = local.temporary_database(home, fast=True)
    last_out = local.temporary_database(home, fast=True)
    first_out.__enter__()
    with last_out as url:
        first_out.__exit__(None, None, None)
        assert local.running(home).database_url == url
        assert local.end_stack(home, 5) == [
            "PostgreSQL keeps running: another command uses it and stops it when it ends."
        ]
    assert local.running(home) is None
    assert works_in(home) == []


def test_a_temporary_database_keeps_running_if_it_was_started_or_is_held(home):
    with local.temporary_database(home, fast=True), local.hold_home(home):
        pass
    assert local.running(home) is None
    with local.temporary_database(home, fast=True):
        hold = local.hold_home(home)
        hold.__enter__()
    assert local.running(home) is not None
    hold.__exit__(None, None, None)
    local.start(home, broker=False, fast=True)
    with local.temporary_database(home, fast=True):
        pass
    assert local.running(home) is not None


ENDLESS = f"{sys.executable} -c 'import time; time.sleep(600)'"


@contextmanager
def supervised(home, procfile, cwd, **options):
    """A supervisor in a thread, and the sentences that it has reported so far."""
    sentences: list[str] = []
    stop = threading.Event()
    options = {"fast": True, "backoff": QUICK, "grace": 5.0} | options
    env = {"PATH": os.environ["PATH"]}
    supervisor = local.Supervisor(home, procfile, env, cwd, sentences.append, **options)
    thread = threading.Thread(target=supervisor.run, args=[stop])
    with local.hold_home(home):
        thread.start()
        try:
            yield sentences
        finally:
            stop.set()
            thread.join(30)
            assert not thread.is_alive()


def states(home):
    return {running.name: running.state for running in local.stack_status(home)}


def test_the_supervisor_starts_restarts_and_stops_in_order(home, tmp_path):
    procfile = (
        f"one: {ENDLESS}\n"
        "dies: python -c 'import os, sys; print(os.environ[\"DIMS_DATABASE_URL\"][:10]); sys.exit(3)'\n"
        "absent: no-such-program --at-all\n"
        f"two: {ENDLESS}\n"
    )
    with supervised(home, procfile, tmp_path) as sentences:
        until(lambda: sum("dies ended with code 3" in line for line in sentences) >= 4)
        waits = [line.rsplit(" in ", 1)[1] for line in sentences if line.startswith("dies ended")]
        assert waits[:4] == ["0.1 s.", "0.2 s.", "0.4 s.", "0.4 s."]
        assert all(str(home / "logs" / "dies.log") in line for line in sentences if line.startswith("dies ended"))
        matches = states(home)
        assert matches.pop("dies") in {"running", "waiting"}
        assert matches == {
            "postgres": "running",
            "valkey": "running",
            "one": "running",
            "absent": "missing",
            "two": "running",
        }
        before = len(sentences)
    ends = [line.split()[0] for line in sentences[before:] if "(pid" in line and "started" not in line]
    assert [name for name in ends if name != "dies"] == ["two", "one", "Valkey", "PostgreSQL"]
    assert [line for line in sentences if line.startswith("absent")] == [
        "absent does not run: the program 'no-such-program' is not installed."
    ]
    assert (home / "logs" / "dies.log").read_text().startswith("postgresql\npostgresql\n")
    assert {*states(home).values()} == {"stopped", "missing"}
    assert works_in(home) == []


def test_the_supervisor_restarts_the_servers(home, tmp_path):
    with supervised(home, f"one: {ENDLESS}", tmp_path) as sentences:
        until(lambda: any(line.startswith("one started") for line in sentences))
        before = pids(home)
        for name in ("postgres", "valkey"):
            os.kill(before[name], signal.SIGKILL)
        until(lambda: {"PostgreSQL runs again", "Valkey runs again"} <= {line[: line.find(" (")] for line in sentences})
        after = pids(home)
        assert after["one"] == before["one"]
        assert after["postgres"] != before["postgres"]
        assert {running.name: running.restarts for running in local.stack_status(home)} == {
            "postgres": 1,
            "valkey": 1,
            "one": 0,
        }


def test_a_process_that_ignores_sigterm_is_killed_with_its_children(home, tmp_path):
    script = tmp_path / "deaf.py"
    script.write_text(
        "import signal, subprocess, time\n"
        "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "subprocess.Popen(['sleep', '600'])\n"
        "subprocess.Popen(['sleep', '600'], start_new_session=True)\n"
        "print('up', flush=True)\n"
        "time.sleep(600)\n"
    )
    log = home / "logs" / "deaf.log"
    with supervised(home, f"deaf: python {script}", tmp_path, database=False, broker=False, grace=0.3) as sentences:
        until(lambda: log.exists() and "up" in log.read_text())
        assert len(works_in(home)) == 3
    assert sentences[-1].endswith("ended by signal 9 (SIGKILL).")
    assert works_in(home) == []


SUPERVISOR = """
import signal, sys, threading
from pathlib import Path
from dims_worker import local
home, stop = Path(sys.argv[1]), threading.Event()
signal.signal(signal.SIGTERM, lambda *_: stop.set())
procfile = "one: sleep 600\\ntwo: python -c 'import subprocess; subprocess.run([\\"sleep\\", \\"600\\"])'"
with local.hold_home(home):
    local.Supervisor(home, procfile, {"PATH": "/usr/bin:/bin"}, home, print, fast=True).run(stop)
"""


@contextmanager
def up(home):
    """A supervisor in its own process, like `dims up`."""
    env = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT)}
    home.mkdir(exist_ok=True)
    with (home / "up.log").open("ab") as log:
        child = subprocess.Popen([sys.executable, "-c", SUPERVISOR, str(home)], env=env, stdout=log, stderr=log)
    try:
        wanted = {"postgres", "valkey", "one", "two"}
        until(lambda: child.poll() is not None or {n for n, s in states(home).items() if s == "running"} == wanted)
        assert child.poll() is None, (home / "up.log").read_text()
        yield child
    finally:
        child.kill()
        child.wait()


def test_end_stack_ends_a_supervisor_and_everything_it_runs(home):
    with up(home) as child:
        assert local.lock_owner(home) == child.pid
        with pytest.raises(ServiceError, match=str(child.pid)), local.hold_home(home):
            pass
        sentences = local.end_stack(home, 30)
        assert [line.split()[0] for line in sentences] == ["two", "one", "Valkey", "PostgreSQL", "The"]
        assert child.wait(5) == 0
    assert local.lock_owner(home) is None
    assert works_in(home) == []


def test_the_next_supervisor_and_end_stack_clean_up_after_a_killed_one(home):
    with up(home) as first:
        first.kill()
        first.wait()
        orphans = pids(home)
        assert states(home)["one"] == "orphan"
        with up(home) as second:
            after = pids(home)
            # The servers keep running. The processes are ended and started again.
            assert {name for name in after if after[name] == orphans[name]} == {"postgres", "valkey"}
            assert process.Identity.of(orphans["two"]) is None
            second.kill()
            second.wait()
        assert local.lock_owner(home) is None
        started = time.monotonic()
        sentences = local.end_stack(home, 30)
        assert time.monotonic() - started < 15
    assert [line.split()[0] for line in sentences] == ["two", "one", "Valkey", "PostgreSQL"]
    assert works_in(home) == []
    assert local.end_stack(home, 30) == []
