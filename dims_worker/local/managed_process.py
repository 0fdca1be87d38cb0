"""One process of the Procfile, as its supervisor sees it: running, waiting to run again, or given up."""

from __future__ import annotations

import shutil
import signal
import subprocess
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
    """A process and what became of it. All times are monotonic seconds, given as `now`."""

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
        """Start it; a sentence about what happened. A program that is not found is not tried again.

        Raises:
            ConfigError: a variable of its command is not set.
            ServiceError: the program is there and cannot be run.
        """
        argv = expand(self.entry.words, env)
        program = shutil.which(argv[0], path=env.get("PATH"))
        if program is None and "/" in argv[0]:
            program = shutil.which(str(cwd / argv[0]))
        if program is None:
            self.state = MISSING
            return f"{self.name} is not started: there is no program {argv[0]!r} here."
        self.popen = process.launch([program, *argv[1:]], log=self.log, env=env, cwd=cwd)
        self.identity = Identity.of(self.popen.pid)
        self.began = now
        self.restarts += 1
        self.state = RUNNING
        return f"{self.name} runs (pid {self.popen.pid}); its log is {self.log}."

    def ended(self, now: float) -> str | None:
        """A sentence if it has ended since it was last asked; it is then due again after its back-off."""
        if self.state != RUNNING or self.popen is None:
            return None
        code = self.popen.poll()
        if code is None:
            return None
        lived = now - self.began
        if self.identity is not None:
            process.end_family(self.identity, 0.0)  # What it left behind would stand in its successor's way.
        self.failures, wait = self.backoff.after(self.failures, lived)
        self.due = now + wait
        self.state = WAITING
        self.popen = self.identity = None
        return (
            f"{self.name} ended {describe(code)} after {lived:.0f} s; its log is {self.log}; "
            f"it is started again in {wait:g} s."
        )

    def stop(self, grace: float) -> str | None:
        """End it and all that came of it, within `grace` seconds and a few; a sentence if it ran."""
        running, self.popen = self.popen, None
        self.state = MISSING if self.state == MISSING else STOPPED
        if running is None:
            return None
        done = True
        if self.identity is not None:
            # SIGTERM once: a second one makes Celery drop the tasks that it was about to finish.
            done = process.end_family(self.identity, grace)
        running.wait()
        self.identity = None
        how = describe(running.returncode)
        return f"{self.name} (pid {running.pid}) ended {how}{'' if done else ', and left processes behind'}."

    def note(self) -> dict[str, Any]:
        """What processes.json says of it."""
        known = self.identity.to_json() if self.identity else {"pid": None}
        return {"name": self.name, "state": self.state, "restarts": max(0, self.restarts), **known}


def describe(code: int) -> str:
    """An exit code in words: `with code 3`, `by signal 9 (SIGKILL)`."""
    if code >= 0:
        return f"with code {code}"
    try:
        return f"by signal {-code} ({signal.Signals(-code).name})"
    except ValueError:
        return f"by signal {-code}"
