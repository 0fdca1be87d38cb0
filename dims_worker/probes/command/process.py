"""Run a program: in its own process group, with limited output, and never past the deadline."""

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
_MAX_OUTPUT = 1 << 20
"""Maximum bytes of output. A program that prints more is stopped."""

_TAIL = 1 << 13
"""The number of bytes that are kept from the end of the error output."""

# A program may know which project this is. It must not get the URLs and secrets of DIMS.
_SECRET = re.compile(r"DIMS_(?!(HOME|CONFIG|USER)$).*")


@dataclass(frozen=True, slots=True)
class ProgramResult:
    """How a program ended. A negative code is the signal that stopped it."""

    code: int
    output: bytes
    errors: bytes


def run_program(arguments: Sequence[str], folder: Path, deadline: Deadline) -> ProgramResult:
    """Run a program until it, and every process that keeps its output open, has ended.

    Raises MeasureError if it cannot be started, prints more than 1 MiB, or takes longer than the deadline. The
    whole process group is killed then.
    """
    deadline.check()
    with _started(arguments, folder) as process:
        output, errors = _read(process, arguments[0], deadline)
        try:  # it may have closed its output and still run
            code = process.wait(deadline.left)
        except subprocess.TimeoutExpired:
            deadline.check()
            raise
    return ProgramResult(code, output, errors)


@contextlib.contextmanager
def _started(arguments: Sequence[str], folder: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Start the program. Kill it with its process group if it still runs at the end."""
    try:
        process = subprocess.Popen(
            arguments,
            cwd=folder,
            env={name: value for name, value in os.environ.items() if not _SECRET.fullmatch(name)},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
    except FileNotFoundError:
        raise MeasureError(
            f"{arguments[0]} was not found (or the interpreter in its #! line): install it or fix `command`"
        ) from None
    except PermissionError:
        raise MeasureError(f"{arguments[0]} is not executable for this user: try chmod +x") from None
    except (OSError, ValueError) as error:  # not a program, or a NUL in an argument
        raise MeasureError(f"{arguments[0]} cannot be run: {getattr(error, 'strerror', None) or error}") from None
    try:
        yield process
    finally:
        if process.returncode is None:  # not waited for yet, so the process group still has this number
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        for pipe in (process.stdout, process.stderr):
            if pipe is not None:
                pipe.close()


def _read(process: subprocess.Popen[bytes], name: str, deadline: Deadline) -> tuple[bytes, bytes]:
    """Read the output and the end of the error output, until both are closed."""
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
            if len(read[process.stdout]) > _MAX_OUTPUT:
                raise MeasureError(f"{name} printed more than {_MAX_OUTPUT >> 20} MiB and was stopped")
    return read[process.stdout], read[process.stderr]
