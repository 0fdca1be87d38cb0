"""Write a report file whole or not at all."""

from __future__ import annotations

import filecmp
import os
from collections.abc import Callable
from pathlib import Path

from dims_worker.errors import UsageError, reason_and_fix


def write_atomically(path: Path, write: Callable[[Path], object]) -> bool:
    """Let `write` fill a draft in the same folder, then replace the file with it.

    Returns False where the file has the same content already; it is not touched then. Raises UsageError where the file
    cannot be written.
    """
    try:
        if path.is_dir():
            raise UsageError(f"the report cannot be written to {path}: it is a folder. Name a file in it.")
        path = path.resolve()  # a symbolic link stays one
        if path.exists() and not path.is_file():  # a pipe or /dev/stdout cannot be replaced
            write(path)
            return True
        path.parent.mkdir(parents=True, exist_ok=True)
        draft = path.with_name(f".{path.name}.{os.getpid()}")
        try:
            write(draft)
            if path.is_file() and filecmp.cmp(draft, path, shallow=False):
                return False
            draft.replace(path)
        finally:
            draft.unlink(missing_ok=True)
    except OSError as error:
        raise UsageError(f"the report cannot be written to {path}: {reason_and_fix(error)}") from None
    return True


def write_text_atomically(path: Path, text: str) -> bool:
    """Write a text as `write_atomically` does, with the same line ends on every system."""
    return write_atomically(path, lambda draft: draft.write_text(text, encoding="utf-8", newline=""))
