"""Identify, start and end processes.

A pid is not enough to identify a process, because the kernel reuses pids. An `Identity` is a pid and the moment when
the process started. On Linux that is the id of the boot and the start time in clock ticks since the boot (proc(5),
/proc/PID/stat, field 22). psutil's `create_time` depends on the wall clock, and changes when you set that clock.
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

SUPERVISED_BY = "DIMS_SUPERVISED_BY"
"""Every process of a Procfile has this environment variable. Its value is the path of the data directory."""

SERVER_ENVIRONMENT = {"PATH": "/usr/bin:/bin", "LC_ALL": "C", "TZ": "UTC"}
"""The whole environment of a server. A PGPORT or PGDATA that you have set must not reach it."""

_children: dict[int, subprocess.Popen[bytes]] = {}
"""Servers that this process started. They may outlive it. While it lives, it must reap them."""


@dataclass(frozen=True, slots=True)
class Identity:
    """A process that cannot be confused with another. `started` is in seconds since 1970, for people only."""

    pid: int
    birth: str
    started: float = field(compare=False)

    @classmethod
    def of(cls, pid: int) -> Identity | None:
        """Return the process that has this pid now, or None if there is none or only a zombie."""
        birth = _birth(pid)
        if birth is None:
            reap(pid)  # only now is it certain that it has ended
            return None
        psutil = load_psutil()
        try:
            return cls(pid, birth, psutil.Process(pid).create_time())
        except psutil.NoSuchProcess:
            return None

    @classmethod
    def from_json(cls, value: Mapping[str, Any] | None) -> Identity | None:
        """Return the identity that `to_json` wrote, or None for anything else."""
        if not value or not value.get("pid"):
            return None
        return cls(int(value["pid"]), str(value["birth"]), float(value["started"]))

    def to_json(self) -> dict[str, Any]:
        return {"pid": self.pid, "birth": self.birth, "started": self.started}

    def alive(self) -> bool:
        """Return whether this process still runs. A zombie does not, nor does another process with the same pid."""
        alive = _birth(self.pid) == self.birth
        if not alive:
            reap(self.pid)
        return alive

    def send(self, number: signal.Signals) -> bool:
        """Send a signal, if the process still runs. Return whether it does."""
        if not self.alive():
            return False
        try:
            os.kill(self.pid, number)
        except ProcessLookupError:
            return False
        return True

    def end(self, *steps: tuple[signal.Signals, float]) -> bool:
        """Send each signal and wait its seconds, until the process has ended. Return whether it has."""
        for number, patience in steps:
            if not self.send(number) or wait_until(lambda: not self.alive(), patience):
                return True
        return not self.alive()


def wait_until(condition: Callable[[], bool], patience: float) -> bool:
    """Wait at most `patience` seconds for the condition. Return whether it is true."""
    deadline = time.monotonic() + patience
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


def reap(pid: int) -> None:
    """Reap a server that this process started, if it has ended."""
    child = _children.get(pid)
    if child is not None and child.poll() is not None:
        _children.pop(pid, None)


def _birth(pid: int) -> str | None:
    """Return when the process with this pid started, as a text that no other process has. None if it is not alive."""
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
    # The second field is the program's name in brackets. It may contain anything, so count from the last bracket.
    fields = text.rpartition(")")[2].split()
    return None if fields[0] in "ZX" else f"{boot}:{fields[19]}"


def launch(
    argv: Sequence[str],
    *,
    log: Path,
    env: Mapping[str, str] = SERVER_ENVIRONMENT,
    cwd: Path | None = None,
    stdin: IO[Any] | None = None,
    account: ServerUser | None = None,
    pass_fds: Iterable[int] = (),
) -> subprocess.Popen[bytes]:
    """Start a process in its own session. It appends its output to `log` and runs as `account`.

    Raises:
        ServiceError: it cannot be started.
    """
    # This process opens the log and the folder, so the child needs no rights on the folders above them.
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
        raise ServiceError(f"cannot start {argv[0]}: {error}.") from error
    finally:
        os.close(descriptor)


def track(child: subprocess.Popen[bytes]) -> Identity | None:
    """Remember to reap a server that this process started and that may outlive it. None if it ended at once."""
    for pid in [*_children]:
        reap(pid)  # a server that was killed, and that no code checks any more
    _children[child.pid] = child
    return Identity.of(child.pid)


def find_in_folder(names: tuple[str, ...], folder: Path) -> list[psutil.Process]:
    """Return the processes whose program is one of `names` and whose working directory is `folder`.

    A server enters its data folder and stays there. So this finds it even when its pid file is missing or wrong.
    """
    psutil = load_psutil()
    if not folder.is_dir():
        return []
    real = str(folder.resolve())
    matches = []
    for process in psutil.process_iter(["name"]):
        if process.info["name"] in names:
            try:
                if process.cwd() == real and process.status() != psutil.STATUS_ZOMBIE:
                    matches.append(process)
            except (psutil.NoSuchProcess, psutil.AccessDenied):
                continue  # It has ended, or belongs to another user. Either way it is not ours.
    return matches


def find_main_process(names: tuple[str, ...], folder: Path, is_main: Callable[[list[str]], bool]) -> Identity | None:
    """Return the process of `find_in_folder` whose arguments pass the test `is_main`, and not one of its children."""
    psutil = load_psutil()
    for candidate in find_in_folder(names, folder):
        try:
            if is_main(candidate.cmdline()):
                return Identity.of(candidate.pid)
        except psutil.NoSuchProcess:
            continue
    return None


def family(leader: Identity) -> list[Identity]:
    """Return what is alive of a process, its descendants and its session, even if the process itself has ended."""
    psutil = load_psutil()
    now = Identity.of(leader.pid)
    if now is not None and now != leader:
        return []  # Another process has this pid now, so the session is not ours.
    pids = {leader.pid} | {pid for pid in psutil.pids() if _session(pid) == leader.pid}
    if now is not None:
        try:
            pids |= {child.pid for child in psutil.Process(leader.pid).children(recursive=True)}
        except psutil.NoSuchProcess:
            pids.discard(leader.pid)
    identities = (Identity.of(pid) for pid in pids)
    return [identity for identity in identities if identity and identity.started >= leader.started - 1]


def supervised(home: Path) -> list[Identity]:
    """Return the processes that a supervisor of this data directory started, except this process and its parents."""
    psutil = load_psutil()
    own = {os.getpid(), *(parent.pid for parent in psutil.Process().parents())}
    identities = []
    for process in psutil.process_iter():
        try:
            if process.pid not in own and process.environ().get(SUPERVISED_BY) == str(home):
                identities.append(Identity.of(process.pid))
        except (psutil.NoSuchProcess, psutil.AccessDenied, OSError):
            continue  # It has ended, or belongs to another user. Either way it is not ours.
    return [identity for identity in identities if identity]


def end_family(leader: Identity, grace: float) -> bool:
    """End a process and its family: SIGTERM to the process, `grace` seconds, then SIGKILL to those that are left.

    Only the process gets SIGTERM: Celery's main process lets its own children finish their tasks.
    """
    before = family(leader)
    leader.end((signal.SIGTERM, grace))
    rest = [identity for identity in {*before, *family(leader)} if identity.alive()]
    if not leader.alive():  # It ended by itself, so its children get a moment to end too.
        wait_until(lambda: not any(identity.alive() for identity in rest), 1.0)
    for identity in rest:
        identity.send(signal.SIGKILL)
    return wait_until(lambda: not any(identity.alive() for identity in rest), 5.0)


def _session(pid: int) -> int | None:
    try:
        return os.getsid(pid)
    except (ProcessLookupError, PermissionError):
        return None


def log_tail(log: Path, lines: int = 12) -> str:
    """Return the last lines of a log, for an error message."""
    try:
        with log.open("rb") as file:
            file.seek(max(0, log.stat().st_size - 8192))
            text = file.read().decode("utf-8", "replace")
    except FileNotFoundError:
        return "(there is no log)"
    return "\n".join(text.splitlines()[-lines:]) or "(the log is empty)"


def load_psutil() -> Any:
    """Import psutil. Only a machine that runs its own servers needs it.

    Raises:
        ServiceError: it is not installed.
    """
    try:
        import psutil
    except ImportError as error:
        raise ServiceError(
            "psutil is not installed, and DIMS needs it to run its own servers. "
            "Run: pip install 'dims-worker[local]'. Or set DIMS_DATABASE_URL."
        ) from error
    return psutil
