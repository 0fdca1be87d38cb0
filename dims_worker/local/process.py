"""One process: who it is for certain, how it is started, how it is ended.

A pid alone says nothing, for the kernel uses pids again. An `Identity` is a pid and the moment of its birth.
On Linux that is the boot's id and the start time in clock ticks since boot (proc(5), /proc/PID/stat, field
22): psutil's `create_time` adds the wall clock's idea of the boot, which moves when the clock is set.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from dims_worker.errors import ServiceError
from dims_worker.local.server_user import ServerUser

if TYPE_CHECKING:
    import psutil

MARK = "DIMS_SUPERVISED_BY"
"""Every process of a Procfile carries this variable, with the path of its home as the value."""

_children: dict[int, subprocess.Popen[bytes]] = {}
"""Servers that this very process started. They outlive it; while it lives it must reap them."""


@dataclass(frozen=True, slots=True)
class Identity:
    """A process, for certain. `started` is in seconds since 1970, for people only."""

    pid: int
    birth: str
    started: float = field(compare=False)

    @classmethod
    def of(cls, pid: int) -> Identity | None:
        """The process that has this pid now; None when there is none, or only its zombie."""
        birth = _birth(pid)
        if birth is None:
            reaped(pid)  # now that it has ended for certain: asked before, it might end in between
            return None
        psutil = load_psutil()
        try:
            return cls(pid, birth, psutil.Process(pid).create_time())
        except psutil.NoSuchProcess:
            return None

    @classmethod
    def from_json(cls, value: Mapping[str, Any] | None) -> Identity | None:
        """What `to_json` wrote; None for anything else."""
        if not value or not value.get("pid"):
            return None
        return cls(int(value["pid"]), str(value["birth"]), float(value["started"]))

    def to_json(self) -> dict[str, Any]:
        return {"pid": self.pid, "birth": self.birth, "started": self.started}

    def alive(self) -> bool:
        """Does this process still run? A zombie does not, nor does another that has got its pid."""
        alive = _birth(self.pid) == self.birth
        if not alive:
            reaped(self.pid)
        return alive

    def send(self, number: signal.Signals) -> bool:
        """Send a signal, if the process is still this one; False when it is gone."""
        if not self.alive():
            return False
        try:
            os.kill(self.pid, number)
        except ProcessLookupError:
            return False
        return True

    def gone(self, patience: float) -> bool:
        """Wait until it has ended, for at most `patience` seconds."""
        return wait_until(lambda: not self.alive(), patience)

    def end(self, *steps: tuple[signal.Signals, float]) -> bool:
        """Send each signal in turn and wait its seconds, until the process has ended; say whether it has."""
        for number, patience in steps:
            if not self.send(number) or self.gone(patience):
                return True
        return not self.alive()


def wait_until(true: Callable[[], bool], patience: float) -> bool:
    """Ask until it is true, for at most `patience` seconds."""
    deadline = time.monotonic() + patience
    while not true():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


def reaped(pid: int) -> int | None:
    """Take note of the end of a server that this process started; its exit code, if it has ended."""
    child = _children.get(pid)
    if child is None or child.poll() is None:
        return None
    _children.pop(pid, None)
    return child.returncode


def _birth(pid: int) -> str | None:
    """When the process with this pid was born, as a text that no other process has had."""
    if not sys.platform.startswith("linux"):
        psutil = load_psutil()
        try:
            process = psutil.Process(pid)
            return None if process.status() == psutil.STATUS_ZOMBIE else f"{process.create_time():.2f}"
        except psutil.NoSuchProcess:
            return None
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="utf-8").strip()
    except (FileNotFoundError, ProcessLookupError):
        return None
    # The second field is the name in brackets and may hold anything, so count from the last bracket.
    fields = text.rpartition(")")[2].split()
    return None if fields[0] in "ZX" else f"{boot}:{fields[19]}"


def launch(
    argv: Sequence[str],
    *,
    log: Path,
    env: Mapping[str, str],
    cwd: Path | None = None,
    stdin: IO[Any] | None = None,
    account: ServerUser | None = None,
    pass_fds: Iterable[int] = (),
) -> subprocess.Popen[bytes]:
    """Start a process in a session of its own, its output appended to `log`, running as `account`.

    Raises:
        ServiceError: it cannot be started.
    """
    # This process opens the log and the folder, so the child needs no rights on what lies above them.
    descriptor = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        return subprocess.Popen(
            argv,
            stdin=stdin or subprocess.DEVNULL,
            stdout=descriptor,
            stderr=descriptor,
            cwd=cwd,
            env=dict(env),
            start_new_session=True,
            pass_fds=tuple(pass_fds),
            user=account.uid if account else None,
            group=account.gid if account else None,
            extra_groups=[] if account else None,
        )
    except (OSError, subprocess.SubprocessError) as error:
        raise ServiceError(f"{argv[0]} cannot be started: {error}.") from error
    finally:
        os.close(descriptor)


def keep(child: subprocess.Popen[bytes]) -> Identity | None:
    """Look after a server that this process started and that may outlive it; None when it ended at once."""
    for pid in [*_children]:
        reaped(pid)  # one that was killed, and that nobody asks about any more
    _children[child.pid] = child
    return Identity.of(child.pid)


def of_folder(names: tuple[str, ...], folder: Path) -> list[psutil.Process]:
    """The processes whose program is one of `names` and that work in `folder` (a server's data folder).

    A server enters its data folder and stays there, so this tells it from every other, whatever became of
    the files that should say so.
    """
    psutil = load_psutil()
    if not folder.is_dir():
        return []
    real = str(folder.resolve())
    found = []
    for process in psutil.process_iter(["name"]):
        if process.info["name"] in names:
            try:
                if process.cwd() == real and process.status() != psutil.STATUS_ZOMBIE:
                    found.append(process)
            except (psutil.NoSuchProcess, psutil.AccessDenied):
                continue  # It is gone, or somebody else's: not ours in either case.
    return found


def family(leader: Identity) -> list[Identity]:
    """What lives of a process: itself, its descendants, and all of its session, whoever has died."""
    psutil = load_psutil()
    now = Identity.of(leader.pid)
    if now is not None and now != leader:
        return []  # The pid was used again, so its session is a stranger's.
    pids = {leader.pid} | {pid for pid in psutil.pids() if _session(pid) == leader.pid}
    if now is not None:
        try:
            pids |= {child.pid for child in psutil.Process(leader.pid).children(recursive=True)}
        except psutil.NoSuchProcess:
            pids.discard(leader.pid)
    found = (Identity.of(pid) for pid in pids)
    return [one for one in found if one and one.started >= leader.started - 1]


def marked(home: Path) -> list[Identity]:
    """The processes that some supervisor of this home started, but for this one and those it stems from."""
    psutil = load_psutil()
    mine = {os.getpid(), *(parent.pid for parent in psutil.Process().parents())}
    found = []
    for process in psutil.process_iter():
        try:
            if process.pid not in mine and process.environ().get(MARK) == str(home):
                found.append(Identity.of(process.pid))
        except (psutil.NoSuchProcess, psutil.AccessDenied, OSError):
            continue  # It is gone, or somebody else's: not ours in either case.
    return [one for one in found if one]


def end_family(leader: Identity, grace: float) -> bool:
    """End a process and all that came of it: SIGTERM to itself, `grace` seconds, then SIGKILL to the rest.

    Celery's main process tells its own children to finish their tasks; they must not be signalled as well.
    """
    before = family(leader)
    leader.end((signal.SIGTERM, grace))
    rest = [one for one in {*before, *family(leader)} if one.alive()]
    if not leader.alive():  # It went in peace: what it started has a moment to follow.
        wait_until(lambda: not any(one.alive() for one in rest), 1.0)
    for one in rest:
        one.send(signal.SIGKILL)
    return wait_until(lambda: not any(one.alive() for one in rest), 5.0)


def _session(pid: int) -> int | None:
    try:
        return os.getsid(pid)
    except (ProcessLookupError, PermissionError):
        return None


def log_tail(log: Path, lines: int = 12) -> str:
    """The last lines of a log, for an error message."""
    try:
        with log.open("rb") as file:
            file.seek(max(0, log.stat().st_size - 8192))
            text = file.read().decode("utf-8", "replace")
    except FileNotFoundError:
        return "(the log is not there)"
    return "\n".join(text.splitlines()[-lines:]) or "(the log is empty)"


def load_psutil() -> Any:
    """psutil, which only the machine that runs servers needs.

    Raises:
        ServiceError: it is not installed.
    """
    try:
        import psutil
    except ImportError as error:
        raise ServiceError(
            "Servers of one's own need psutil: install the extra `local` (see README.md). Or set DIMS_DATABASE_URL."
        ) from error
    return psutil
