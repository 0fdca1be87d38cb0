"""One process of the Procfile, as its supervisor sees it: running, waiting for a restart, or missing."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

from dims_worker.local import process
from dims_worker.local.process import Identity
from dims_worker.local.procfile import Backoff, ProcfileEntry, expand
from dims_worker.local.stall import EXIT_STALLED

RUNNING = "running"
WAITING = "waiting"
MISSING = "missing"
STOPPED = "stopped"


@dataclass(slots=True)
class ManagedProcess:
    """A process and its state. All times are monotonic seconds, given as `now`."""

    entry: ProcfileEntry
    backoff: Backoff
    log: Path
    state: str = STOPPED
    popen: subprocess.Popen[bytes] | None = None
    identity: Identity | None = None
    began: float = 0.0
    due: float = 0.0
    failures: int = 0
    restarts: int = -1
    reason: str | None = None
    """Why it was last restarted."""
    leftover: Identity | None = None
    """A process that has ended, and whose children must end before the next one starts."""

    @property
    def name(self) -> str:
        return self.entry.name

    def start(self, env: Mapping[str, str], cwd: Path, now: float) -> str:
        """Start the process and return a sentence about it. A missing program is not tried again.

        Raises:
            ConfigError: a variable of its command is not set.
            ServiceError: the program exists but cannot be run.
        """
        argv = expand(self.entry.words, env)
        program = sys.executable if argv[0] == "python" else shutil.which(argv[0], path=env.get("PATH"))
        if program is None and "/" in argv[0]:
            program = shutil.which(str(cwd / argv[0]))
        if program is None:
            self.state = MISSING
            return f"{self.name} does not run: the program {argv[0]!r} is not installed."
        self._end_leftover()
        popen = process.launch([program, *argv[1:]], log=self.log, env=env, cwd=cwd)
        try:
            self.identity = Identity.of(popen.pid)
        except OSError:  # too many open files: without an identity, its children could not be ended
            popen.kill()
            popen.wait()
            raise
        self.popen = popen
        self.began = now
        self.restarts += 1
        self.state = RUNNING
        return f"{self.name} started (pid {self.popen.pid}, log: {self.log})."

    def _end_leftover(self) -> None:
        """End the children of the process before: they would get in the way of the next one."""
        if self.leftover is not None:
            process.end_family(self.leftover, 0.0)
            self.leftover = None

    def check(self, now: float, problems: Mapping[int, str] = MappingProxyType({})) -> str | None:
        """Return a sentence if the process has ended since the last check. It is due again after its back-off.

        `problems` says, by pid, why processes made no progress.
        """
        if self.state != RUNNING or self.popen is None:
            return None
        code = self.popen.poll()
        if code is None:
            return None
        lived, pid = now - self.began, self.popen.pid
        self.leftover = self.identity
        self.failures, wait = self.backoff.after(self.failures, lived)
        self.due = now + wait
        self.state = WAITING
        self.popen = self.identity = None
        with suppress(OSError):  # too many open files: the next start tries again
            self._end_leftover()
        why = f", because it made no progress: {problems.get(pid, 'its log says why')}" if code == EXIT_STALLED else ""
        self.reason = f"it ended {describe(code)} after {lived:.0f} s{why}"
        return f"{self.name} {self.reason.removeprefix('it ')} (log: {self.log}). DIMS restarts it in {wait:g} s."

    def end_silent(self, reason: str, grace: float, now: float) -> str | None:
        """End a process that hangs, and let it start again at once. Return a sentence if it ran."""
        popen = self.popen
        if popen is None or self.identity is None:
            return None
        process.end_family(self.identity, grace)
        popen.wait()
        self.popen = self.identity = None
        self.start_again(reason, now)
        return f"{self.name} (pid {popen.pid}) hangs: {reason} (log: {self.log}). DIMS ended it and restarts it."

    def start_again(self, reason: str, now: float) -> None:
        """Let the process, which does not run, start at the next check."""
        self.state, self.due, self.reason = WAITING, now, reason

    def postpone(self, reason: str, longest: float, now: float) -> float:
        """Note that it could not be started. Return the seconds until the next attempt, at most `longest`."""
        self.failures, wait = self.backoff.after(self.failures, 0.0)
        wait = min(wait, longest)
        self.state, self.due, self.reason = WAITING, now + wait, reason
        return wait

    def stop(self, grace: float) -> str | None:
        """End the process and its children, within `grace` seconds and a few. Return a sentence if it ran."""
        running, self.popen = self.popen, None
        self.state = MISSING if self.state == MISSING else STOPPED
        if running is None:
            self._end_leftover()
            return None
        done = True
        self.leftover, self.identity = self.identity, None
        if self.leftover is not None:
            # One SIGTERM only. A second one makes Celery drop the tasks that it was about to finish.
            done = process.end_family(self.leftover, grace)
        running.wait()
        self.leftover = None
        rest = "" if done else ", but some of its child processes still run"
        return f"{self.name} (pid {running.pid}) ended {describe(running.returncode)}{rest}."

    def to_json(self) -> dict[str, Any]:
        """Return the entry of this process in processes.json."""
        identity = self.identity.to_json() if self.identity else {"pid": None}
        return {
            "name": self.name,
            "state": self.state,
            "restarts": max(0, self.restarts),
            "reason": self.reason,
            **identity,
        }


def describe(code: int) -> str:
    """Return an exit code in words: `with code 3`, `by signal 9 (SIGKILL)`."""
    if code >= 0:
        return f"with code {code}"
    try:
        return f"by signal {-code} ({signal.Signals(-code).name})"
    except ValueError:
        return f"by signal {-code}"
