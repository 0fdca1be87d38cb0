"""Scan processes: what is killed and when, what a scan process inherits, and what its parent gets to know."""

from __future__ import annotations

import logging
import os
import re
import signal
import socket
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from dims_worker.errors import ScanStopped
from dims_worker.probes.scan_process import child, pool
from dims_worker.probes.scan_process.pool import AT_ONCE, ProcessCall, ScanPool
from tests.conftest import wait_for
from tests.fixtures.scan_processes import alive, scan_processes

Progress = Callable[[str], None]


@pytest.fixture
def scans(monkeypatch: pytest.MonkeyPatch) -> Iterator[ScanPool]:
    monkeypatch.setattr(pool, "GRACE", 0.3)
    pool.pool_for(object())  # this ends the pool in which an earlier test of this process has measured
    scans = ScanPool("inherited")
    yield scans
    scans.kill()


def run(scans: ScanPool, function: Callable[..., Any], *arguments: Any, timeout: float = 20.0) -> ProcessCall:
    call = ProcessCall("the scan of x", function, arguments, timeout)
    scans.start(call)
    scans.wait(call)
    return call


# --- functions that run in a scan process ---------------------------------------------------------------


def identify(inherited: Any, progress: Progress, *arguments: Any) -> tuple[Any, ...]:
    return (inherited, os.getpid(), *arguments)


def hold_lock(inherited: Any, progress: Progress, length: int = 60) -> None:
    re.search("^(a+)+$", "a" * length + "b")


def sleep(inherited: Any, progress: Progress, seconds: float = 600.0) -> None:
    time.sleep(seconds)


def end_with(inherited: Any, progress: Progress, number: int) -> None:
    os.kill(os.getpid(), number)
    time.sleep(60)


def start_programs(inherited: Any, progress: Progress, file: str, *, block: bool) -> None:
    """Start a program in a session of its own, which starts another one. Then compute without an end, or wait."""
    subprocess.Popen(
        ["sh", "-c", f"sleep 700 & echo $! >{file}.part; mv {file}.part {file}; wait"], start_new_session=True
    )
    while not Path(file).exists():
        time.sleep(0.01)
    hold_lock(inherited, progress) if block else sleep(inherited, progress)


# --- limits ---------------------------------------------------------------------------------------------


def test_a_pattern_that_holds_the_lock_of_python_is_killed_after_its_timeout(scans: ScanPool) -> None:
    call = run(scans, hold_lock, timeout=0.5)
    assert call.failure is not None
    assert call.failure.crashed
    assert call.failure.reason.startswith("the scan of x took longer than its timeout of 0.5 s and was killed. It was")
    assert "a pattern such as (a+)+$ can take years" in call.failure.reason
    assert run(scans, identify).result[0] == "inherited"


def test_a_scan_that_waits_is_killed_after_its_timeout_and_is_no_crash(scans: ScanPool) -> None:
    call = run(scans, sleep, timeout=0.3)
    assert call.failure is not None
    assert not call.failure.crashed
    assert "It was waiting for a server, a file system or a program" in call.failure.reason


@pytest.mark.parametrize("block", [True, False], ids=["computing", "waiting"])
def test_what_a_killed_scan_has_started_is_killed_too(scans: ScanPool, tmp_path: Path, block: bool) -> None:
    file = tmp_path / "pid"
    call = ProcessCall("the scan of x", start_programs_blocked if block else start_programs_waiting, (str(file),), 1.0)
    scans.start(call)
    scans.wait(call)
    assert call.failure is not None
    assert not alive(int(file.read_text()))
    assert scan_processes() == []


def start_programs_blocked(inherited: Any, progress: Progress, file: str) -> None:
    start_programs(inherited, progress, file, block=True)


def start_programs_waiting(inherited: Any, progress: Progress, file: str) -> None:
    start_programs(inherited, progress, file, block=False)


def test_one_blocked_scan_delays_no_other_one(scans: ScanPool) -> None:
    blocked = ProcessCall("the scan of x", hold_lock, (), 2.0)
    others = [ProcessCall(f"the scan of {n}", identify, (n,), 20.0) for n in range(40)]
    for call in (blocked, *others):
        scans.start(call)
    for call in others:
        scans.wait(call)
    assert not blocked.done
    assert [call.result[2] for call in others] == list(range(40))
    scans.wait(blocked)
    assert blocked.failure is not None


def test_the_kernel_kills_a_scan_whose_parent_is_frozen(scans: ScanPool, monkeypatch: pytest.MonkeyPatch) -> None:
    """The parent never looks: the process ends by SIGALRM, and the parent reports the timeout all the same."""
    monkeypatch.setattr(pool, "MARGIN", -pool.GRACE)
    call = run(scans, hold_lock, timeout=0.3)
    assert call.failure is not None
    assert "longer than its timeout of 0.3 s" in call.failure.reason


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV])
def test_a_scan_process_that_dies_is_a_failure_with_its_signal(scans: ScanPool, number: int) -> None:
    call = run(scans, end_with, number)
    assert call.failure is not None
    assert call.failure.crashed
    assert f"its process ended with signal {int(number)} ({signal.Signals(number).name})" in call.failure.reason
    assert run(scans, identify, 1).result[2] == 1


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_to_all_processes_of_a_service_ends_no_scan(scans: ScanPool, number: int) -> None:
    """The parent gets the same signal, and decides."""
    assert run(scans, survive, number).result == "survived"


def survive(inherited: Any, progress: Progress, number: int) -> str:
    os.kill(os.getpid(), number)
    time.sleep(0.05)
    return "survived"


def test_a_stop_kills_every_scan(scans: ScanPool) -> None:
    calls = [ProcessCall("the scan of x", hold_lock, (), 60.0), ProcessCall("the scan of y", sleep, (), 60.0)]
    for call in calls:
        scans.start(call)
    ticks = iter([False, False, True])
    with pytest.raises(ScanStopped):
        scans.wait(calls[0], lambda: next(ticks))
    assert scan_processes() == []
    assert all(call.done and call.failure for call in calls)
    assert run(scans, identify, 1).result[2] == 1


PARENT = """
import sys, time
sys.path[:0] = {path!r}
from dims_worker.probes.scan_process.pool import ProcessCall, ScanPool
from tests.unit.probes import test_scan_process as functions
scans = ScanPool(None)
call = ProcessCall("the scan of x", getattr(functions, {function!r}), {arguments!r}, {timeout!r})
scans.start(call)
print(next(iter(scans.running)).pid, flush=True)
scans.wait(call)
"""


@pytest.mark.parametrize(("function", "timeout"), [("sleep", 600.0), ("hold_lock", 0.5)])
def test_a_scan_ends_with_its_parent(function: str, timeout: float) -> None:
    """A scan that waits ends at once. One that holds Python's lock is ended by the timer of the kernel."""
    code = textwrap.dedent(PARENT).format(path=sys.path, function=function, arguments=(), timeout=timeout)
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        time.sleep(0.3)  # it has begun, most likely. If it has not, it ends too
        parent.kill()
    wait_for(lambda: not alive(pid), timeout=30)


def test_what_a_scan_has_started_ends_with_the_parent(tmp_path: Path) -> None:
    file = tmp_path / "pid"
    code = PARENT.format(path=sys.path, function="start_programs_waiting", arguments=(str(file),), timeout=600.0)
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as parent:
        wait_for(file.exists)
        parent.kill()
    pid = int(file.read_text())
    wait_for(lambda: not alive(pid))


# --- reuse ----------------------------------------------------------------------------------------------


def test_calls_after_each_other_share_one_process(scans: ScanPool) -> None:
    assert len({run(scans, identify).result[1] for _ in range(5)}) == 1


def test_many_calls_run_in_a_bounded_number_of_processes(scans: ScanPool) -> None:
    calls = [ProcessCall(f"the scan of {n}", identify, (n,), 20.0) for n in range(100)]
    for call in calls:
        scans.start(call)
        assert len(scans.running) <= AT_ONCE
    for call in calls:
        scans.wait(call)
    assert [call.result[2] for call in calls] == list(range(100))
    assert len({call.result[1] for call in calls}) <= AT_ONCE


def test_an_idle_process_ends_and_the_next_call_starts_another(
    scans: ScanPool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(child, "IDLE", 0.05)
    first = run(scans, identify).result[1]
    wait_for(lambda: not alive(first))
    assert run(scans, identify).result[1] != first


def test_a_process_that_ends_before_it_begins_a_call_is_replaced(scans: ScanPool) -> None:
    first = run(scans, identify).result[1]
    (process,) = scans.idle
    os.kill(first, signal.SIGSTOP)  # so it takes the call, and does not begin it
    call = ProcessCall("the scan of x", identify, (7,), 20.0)
    scans.start(call)
    assert [*scans.running] == [process]
    os.kill(first, signal.SIGKILL)
    scans.wait(call)
    assert call.result[2] == 7
    assert call.result[1] != first


# --- what passes between parent and scan process --------------------------------------------------------


def test_a_scan_process_holds_none_of_the_connections_of_its_parent(scans: ScanPool) -> None:
    """A database would keep the locks of a dead worker as long as its connection is open somewhere."""
    ours, theirs = socket.socketpair()
    call = ProcessCall("the scan of x", sleep, (), 60.0)
    scans.start(call)
    wait_for(lambda: (scans._step(), call.begun)[1])
    ours.close()
    theirs.settimeout(10)
    assert theirs.recv(1) == b""
    theirs.close()


def test_the_standard_output_belongs_to_the_parent(scans: ScanPool, capfd: pytest.CaptureFixture[str]) -> None:
    assert run(scans, print_text).result is None
    out, err = capfd.readouterr()
    assert out == ""
    assert "printed" in err


def print_text(inherited: Any, progress: Progress) -> None:
    print("printed")
    os.write(1, b"printed")


def test_logs_reach_the_log_of_the_parent(scans: ScanPool, caplog: pytest.LogCaptureFixture) -> None:
    run(scans, log_problem)
    (record,) = [record for record in caplog.records if record.name == "some.probe"]
    assert record.levelname == "ERROR"
    assert "a problem of x" in record.getMessage()
    assert "ZeroDivisionError" in record.getMessage()


def log_problem(inherited: Any, progress: Progress) -> None:
    try:
        1 / 0  # noqa: B018
    except ZeroDivisionError:
        logging.getLogger("some.probe").exception("a problem of %s", "x")


def test_progress_arrives_in_order_and_before_the_result(scans: ScanPool) -> None:
    steps: list[str] = []
    call = ProcessCall("the workflow x", report_steps, (), 20.0, steps.append)
    scans.start(call)
    scans.wait(call)
    assert (steps, call.result) == (["0", "1", "2"], "done")


def report_steps(inherited: Any, progress: Progress) -> str:
    for number in range(3):
        progress(str(number))
    return "done"


def test_an_exception_fails_the_call_only(scans: ScanPool) -> None:
    call = run(scans, divide)
    assert call.failure is not None
    assert call.failure.reason == "internal error: ZeroDivisionError('division by zero')"
    call = run(scans, unpicklable)
    assert call.failure is not None
    assert "its result cannot be sent" in call.failure.reason
    assert len(scans.idle) == 1


def divide(inherited: Any, progress: Progress) -> float:
    return 1 / 0


def unpicklable(inherited: Any, progress: Progress) -> object:
    return lambda: None


def test_a_large_result_arrives_whole(scans: ScanPool) -> None:
    assert run(scans, large).result == b"x" * 20_000_000


def large(inherited: Any, progress: Progress) -> bytes:
    return b"x" * 20_000_000
