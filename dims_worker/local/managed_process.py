"""One process of the Procfile, as its supervisor sees it: running, waiting for a restart, or missing."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dims_worker.local import process
from dims_worker.local.process import Identity
from dims_worker.local.procfile import Backoff, ProcfileEntry, expand

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
        self.popen = process.launch([program, *argv[1:]], log=self.log, env=env, cwd=cwd)
        self.identity = Identity.of(self.popen.pid)
        self.began = now
        self.restarts += 1
        self.state = RUNNING
        return f"{self.name} started (pid {self.popen.pid}, log: {self.log})."

    def check(self, now: float) -> str | None:
        """Return a sentence if the process has ended since the last check. It is due again after its back-off."""
        if self.state != RUNNING or self.popen is None:
            return None
        code = self.popen.poll()
        if code is None:
            return None
        lived = now - self.began
        if self.identity is not None:
            process.end_family(self.identity, 0.0)  # Children that are left would get in the way of the next one.
        self.failures, wait = self.backoff.after(self.failures, lived)
        self.due = now + wait
        self.state = WAITING
        self.popen = self.identity = None
        return (
            f"{self.name} ended {describe(code)} after {lived:.0f} s (log: {self.log}). DIMS restarts it in {wait:g} s."
        )

    def stop(self, grace: float) -> str | None:
        """End the process and its children, within `grace` seconds and a few. Return a sentence if it ran."""
        running, self.popen = self.popen, None
        self.state = MISSING if self.state == MISSING else STOPPED
        if running is None:
            return None
        done = True
        if self.identity is not None:
            # One SIGTERM only. A second one makes Celery drop the tasks that it was about to finish.
            done = process.end_family(self.identity, grace)
        running.wait()
        self.identity = None
        rest = "" if done else ", but some of its child processes still run"
        return f"{self.name} (pid {running.pid}) ended {describe(running.returncode)}{rest}."

    def to_json(self) -> dict[str, Any]:
        """Return the entry of this process in processes.json."""
        identity = self.identity.to_json() if self.identity else {"pid": None}
        return {"name": self.name, "state": self.state, "restarts": max(0, self.restarts), **identity}


def describe(code: int) -> str:
    """Return an exit code in words: `with code 3`, `by signal 9 (SIGKILL)`."""
    if code >= 0:
        return f"with code {code}"
    try:
        return f"by signal {-code} ({signal.Signals(-code).name})"
    except ValueError:
        return f"by signal {-code}"
