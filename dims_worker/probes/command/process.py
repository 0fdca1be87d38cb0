"""Running a program: in a group of its own, with bounded output, and never past the deadline."""

from __future__ import annotations

import contextlib
import os
import re
import selectors
import signal
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from dims_worker.errors import MeasureError
from dims_worker.probes.base import Deadline

_BLOCK = 1 << 16
_MOST = 1 << 20
"""Bytes of output; a program that prints more is stopped."""

_TAIL = 1 << 13
"""Bytes of error output that are kept: the last ones."""

# Where DIMS keeps its own data is none of a program's business; which project this is, is.
_SECRET = re.compile(r"DIMS_(?!(HOME|CONFIG|USER)$).*")


@dataclass(frozen=True, slots=True)
class ProgramResult:
    """How a program ended. A negative code is the signal that ended it."""

    code: int
    output: bytes
    errors: bytes


def run_program(words: Sequence[str], folder: Path, deadline: Deadline) -> ProgramResult:
    """Run a program until it, and whatever else holds its output open, has ended.

    Raises MeasureError where it cannot be started, prints more than 1 MiB, or takes longer than the deadline;
    then its whole process group is killed.
    """
    deadline.check()
    with _started(words, folder) as process:
        output, errors = _read(process, words[0], deadline)
        try:  # it may have closed its output and go on
            code = process.wait(deadline.left)
        except subprocess.TimeoutExpired:
            deadline.check()
            raise
    return ProgramResult(code, output, errors)


@contextlib.contextmanager
def _started(words: Sequence[str], folder: Path) -> Iterator[subprocess.Popen[bytes]]:
    """The running program; killed with its group where it still runs at the end."""
    try:
        process = subprocess.Popen(
            words,
            cwd=folder,
            env={name: value for name, value in os.environ.items() if not _SECRET.fullmatch(name)},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
    except FileNotFoundError:
        raise MeasureError(f"{words[0]} is missing: no such program, or the one that its #! names") from None
    except PermissionError:
        raise MeasureError(f"{words[0]} may not be run: it is not executable for this user") from None
    except (OSError, ValueError) as error:  # no program at all; a NUL in a word
        raise MeasureError(f"{words[0]} cannot be run: {getattr(error, 'strerror', None) or error}") from None
    try:
        yield process
    finally:
        if process.returncode is None:  # not waited for, so the number is still its group's
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        for pipe in (process.stdout, process.stderr):
            if pipe is not None:
                pipe.close()


def _read(process: subprocess.Popen[bytes], name: str, deadline: Deadline) -> tuple[bytes, bytes]:
    """What it prints, and the end of what it complains, until both are closed."""
    assert process.stdout is not None and process.stderr is not None
    read = {process.stdout: b"", process.stderr: b""}
    with selectors.DefaultSelector() as ready:
        for pipe in read:
            ready.register(pipe, selectors.EVENT_READ)
        while ready.get_map():
            events = ready.select(deadline.left)
            deadline.check()
            for key, _ in events:
                pipe = process.stdout if key.fileobj is process.stdout else process.stderr
                block = os.read(key.fd, _BLOCK)
                if not block:
                    ready.unregister(pipe)
                read[pipe] += block
            read[process.stderr] = read[process.stderr][-_TAIL:]
            if len(read[process.stdout]) > _MOST:
                raise MeasureError(f"{name} printed more than {_MOST >> 20} MiB and was stopped")
    return read[process.stdout], read[process.stderr]
