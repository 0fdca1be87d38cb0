"""A report's file: written whole or not at all, and left alone where it says the same already."""

from __future__ import annotations

import filecmp
import os
from collections.abc import Callable
from pathlib import Path

from dims_worker.errors import UsageError


def write_atomically(path: Path, write: Callable[[Path], object]) -> bool:
    """Have `write` fill a draft beside the file, and put it in the file's place. False: it says the same already.

    Raises UsageError, with the reason, where it cannot be written there.
    """
    try:
        if path.is_dir():
            raise UsageError(f"the report cannot be written to {path}: it is a folder; name a file")
        path = path.resolve()  # a link stays one
        if path.exists() and not path.is_file():  # a pipe, /dev/stdout: to be written to, not to be replaced
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
        raise UsageError(f"the report cannot be written to {path}: {error.strerror or error}") from None
    return True


def write_text_atomically(path: Path, text: str) -> bool:
    """The same of a text. A line ends as the text says, on every system."""
    return write_atomically(path, lambda draft: draft.write_text(text, encoding="utf-8", newline=""))
