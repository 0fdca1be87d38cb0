"""A small file system in memory, which a test can fill. Needs root."""

from __future__ import annotations

import errno
import os
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

CHUNK = 64 * 1024


class SmallDisk:
    """A tmpfs at a folder."""

    def __init__(self, folder: Path) -> None:
        self._filler = folder / "filler"
        self._freed = threading.Event()
        self._thread: threading.Thread | None = None

    @classmethod
    @contextmanager
    def mounted(cls, folder: Path, megabytes: int) -> Iterator[SmallDisk]:
        """Mount it, and unmount it at the end. Raises OSError with the reason if the system does not allow it."""
        if os.geteuid() != 0:
            raise PermissionError("a mount needs root")
        folder.mkdir(parents=True, exist_ok=True)
        _run("mount", "-t", "tmpfs", "-o", f"size={megabytes}m,mode=0755", "none", str(folder))
        try:
            yield cls(folder)
        finally:
            try:
                _run("umount", str(folder))
            except OSError:  # a process that is about to end still uses it
                _run("umount", "-l", str(folder))

    def fill(self) -> None:
        """Keep the disk full until `free`, also when a program removes a file."""
        self._freed.clear()
        self._thread = threading.Thread(target=self._keep_full, name="filler", daemon=True)
        self._thread.start()

    def _keep_full(self) -> None:
        while True:
            self._fill_once()
            if self._freed.wait(0.1):
                return

    def _fill_once(self) -> None:
        with self._filler.open("ab", buffering=0) as file:
            size = CHUNK
            while size:
                try:
                    file.write(b"\0" * size)
                except OSError as error:
                    if error.errno != errno.ENOSPC:
                        raise
                    size //= 2

    def free(self) -> None:
        self._freed.set()
        if self._thread:
            self._thread.join()
        self._filler.unlink(missing_ok=True)


def _run(*argv: str) -> None:
    done = subprocess.run(argv, check=False, capture_output=True, text=True, timeout=20)
    if done.returncode:
        raise OSError(f"`{' '.join(argv)}` failed: {done.stderr.strip() or done.stdout.strip()}")
