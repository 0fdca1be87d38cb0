"""Run git: in one folder, without variables that point it elsewhere, and never past the deadline."""

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
from dims_worker.formatting import shell_quote
from dims_worker.probes.base import Deadline, printable_path

_BLOCK = 1 << 16

# Variables that configure git itself. In a hook, other GIT_ variables point git at the hook's repository.
_KEPT = re.compile(r"GIT_(EXEC_PATH|TEMPLATE_DIR|CONFIG_(GLOBAL|SYSTEM|NOSYSTEM|COUNT|KEY_\d+|VALUE_\d+))")


_MISSING_OBJECT = re.compile(
    r"bad object|unable to read tree|cannot read commit object|[Cc]ould not read [0-9a-f]{40}|missing (tree|commit)"
)


class GitError(MeasureError):
    """Git is missing, or a call failed. `output` is its error output."""

    def __init__(self, message: str, output: str) -> None:
        super().__init__(message)
        self.output = output


class Git:
    """Git in `folder` (absolute). `warnings` is the error output of the last call."""

    def __init__(self, folder: str, deadline: Deadline) -> None:
        self.folder = folder
        self.deadline = deadline
        self.warnings = ""

    def text(self, *args: str) -> str:
        """Return the output of a call, stripped. Raises as `records` does."""
        return b"\0".join(self.records(*args)).decode(errors="replace").strip()

    def records(self, *args: str) -> Iterator[bytes]:
        """Yield the output of a call, split at NULs. The output is never in memory as a whole.

        Raises MeasureError if the deadline is over (the process group of git is killed then), and GitError if
        git is missing or fails.
        """
        self.deadline.check()
        # The configuration of a repository could run a program as file system monitor
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
                raise GitError("git is not installed, or not on the PATH", "") from None
            with _killed_after(process, self.deadline) as output:
                yield from _cut(output)
            errors.seek(0)
            self.warnings = errors.read(1 << 20).decode(errors="replace")
        if process.returncode:
            raise GitError(_explain(self.folder, self.warnings, process.returncode), self.warnings)


def _environment() -> dict[str, str]:
    kept = {k: v for k, v in os.environ.items() if not k.startswith("GIT_") or _KEPT.fullmatch(k)}
    # LC_ALL=C: DIMS parses the messages. Optional locks would disturb a user who works in the repository. A partial
    # clone would fetch what it lacks: an old git refuses that only if no protocol is allowed.
    return kept | {
        "LC_ALL": "C",
        "GIT_OPTIONAL_LOCKS": "0",
        "GIT_TERMINAL_PROMPT": "0",
        "GIT_NO_LAZY_FETCH": "1",
        "GIT_ALLOW_PROTOCOL": "",
    }


@contextlib.contextmanager
def _killed_after(process: subprocess.Popen[bytes], deadline: Deadline) -> Iterator[IO[bytes]]:
    """Yield the output. Kill the process group when the deadline is over or the reader stops."""

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
        timer.join()  # after wait(), another process may have the same number
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


def _explain(folder: str, output: str, code: int) -> str:
    """Return why git failed, with the fix if it is known."""
    place = printable_path(folder)
    if "dubious ownership" in output:
        return (
            f"git does not trust {place}, which belongs to another user (dubious ownership). If you trust it: "
            f"git config --global --add safe.directory {shell_quote(folder)}"
        )
    if "promisor remote" in output or "lazy fetching disabled" in output:
        return (
            f"{place} is a partial clone, and this needs objects that it lacks. DIMS never fetches. To fetch all: "
            f"git config --unset remote.origin.partialclonefilter && git fetch --refetch"
        )
    if _MISSING_OBJECT.search(output):
        return f"{place} is damaged, because an object is missing: {last_line(output)}. Run git fsck there"
    if "not a git repository" in output:
        return f"{place} is not in a git repository. Set `path` to one, or create one with git init"
    return f"git failed in {place}: {last_line(output) or f'exit code {code}'}"


def last_line(output: str) -> str:
    """Return the line with the reason: the last `fatal:` or `error:`, otherwise the last line."""
    lines: Sequence[str] = [line.strip() for line in output.splitlines() if line.strip()]
    reasons = [line for line in lines if line.startswith(("fatal:", "error:"))]
    return (reasons or lines or [""])[-1][:500]
