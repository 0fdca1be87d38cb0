"""Running git: in one folder, without the variables that would mislead it, and never past the deadline."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import tempfile
import threading
from collections.abc import Iterator, Sequence
from typing import IO

from dims_worker.errors import MeasureError
from dims_worker.probes.base import Deadline, printable_path

_BLOCK = 1 << 16

# What says how git is to run at all; other GIT_ variables point a hook's git at its own repository.
_KEPT = re.compile(r"GIT_(EXEC_PATH|TEMPLATE_DIR|CONFIG_(GLOBAL|SYSTEM|NOSYSTEM|COUNT|KEY_\d+|VALUE_\d+))")


class GitFailed(MeasureError):
    """Git is missing or refused. `said` is what it wrote."""

    def __init__(self, message: str, said: str) -> None:
        super().__init__(message)
        self.said = said


class Git:
    """Git in `folder` (absolute). `warnings` is what the last call wrote to its error output."""

    def __init__(self, folder: str, deadline: Deadline) -> None:
        self.folder = folder
        self.deadline = deadline
        self.warnings = ""

    def text(self, *args: str) -> str:
        """What a call prints, stripped. Raises as `records` does."""
        return b"\0".join(self.records(*args)).decode(errors="replace").strip()

    def records(self, *args: str) -> Iterator[bytes]:
        """What a call prints, cut at NULs, as it comes; it is never held as a whole.

        Raises MeasureError where the deadline is over (then git's process group is killed), GitFailed where
        git is missing or refuses.
        """
        self.deadline.check()
        # A config of the repository could name a program to be run as file system monitor
        command = ["git", "-c", "core.fsmonitor=false", "--no-pager", "-C", self.folder, *args]
        with tempfile.TemporaryFile() as errors:
            try:
                process = subprocess.Popen(
                    command,
                    env=_environment(),
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.PIPE,
                    stderr=errors,
                    start_new_session=True,
                )
            except FileNotFoundError:
                raise GitFailed("git is not installed: there is no `git` on the PATH", "") from None
            with _killed_after(process, self.deadline) as output:
                yield from _cut(output)
            errors.seek(0)
            self.warnings = errors.read(1 << 20).decode(errors="replace")
        if process.returncode:
            raise GitFailed(_plain(self.folder, self.warnings, process.returncode), self.warnings)


def _environment() -> dict[str, str]:
    kept = {k: v for k, v in os.environ.items() if not k.startswith("GIT_") or _KEPT.fullmatch(k)}
    # LC_ALL=C: what git says is read. Optional locks would disturb a user who works in the repository.
    return kept | {"LC_ALL": "C", "GIT_OPTIONAL_LOCKS": "0", "GIT_TERMINAL_PROMPT": "0"}


@contextlib.contextmanager
def _killed_after(process: subprocess.Popen[bytes], deadline: Deadline) -> Iterator[IO[bytes]]:
    """The process's output; with the deadline over, or the reader gone, its whole group is killed."""

    def kill() -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)

    assert process.stdout is not None
    timer = threading.Timer(deadline.left, kill)
    timer.daemon = True
    timer.start()
    try:
        yield process.stdout
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(deadline.left)
    finally:
        timer.cancel()
        timer.join()  # never kill once the process is waited for: its number may be another's by then
        if process.returncode is None:
            kill()
        process.stdout.close()
        process.wait()
    deadline.check()


def _cut(output: IO[bytes]) -> Iterator[bytes]:
    rest = b""
    while block := output.read(_BLOCK):
        *records, rest = (rest + block).split(b"\0")
        yield from records
    if rest:
        yield rest


def _plain(folder: str, said: str, code: int) -> str:
    """Git's refusal, with the remedy where there is a usual one."""
    place = printable_path(folder)
    if "dubious ownership" in said:
        return (
            f"git does not trust {place}, which belongs to another user; "
            f"if you do: git config --global --add safe.directory '{place}' (dubious ownership)"
        )
    if "not a git repository" in said:
        return f"{place} is not in a git repository; name one in `path`, or make one with git init"
    return f"git failed in {place}: {last_line(said) or f'exit code {code}'}"


def last_line(said: str) -> str:
    """The line in which git says why: the last `fatal:` or `error:`, else the last one."""
    lines: Sequence[str] = [line.strip() for line in said.splitlines() if line.strip()]
    blamed = [line for line in lines if line.startswith(("fatal:", "error:"))]
    return (blamed or lines or [""])[-1][:500]
