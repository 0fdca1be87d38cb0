"""List a local tree in the order in which S3 lists keys, so that both can be merged."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from dims_worker.errors import MeasureError
from dims_worker.probes.base import Deadline, open_regular_file, printable_path
from dims_worker.probes.s3.pages import WHOLE, KeySpan

_BLOCK = 1 << 18
_CHECK_EVERY = 256
"""The number of files between two checks of the deadline."""


@dataclass(frozen=True, slots=True)
class LocalFile:
    """A regular file. `key` is the key of its object. A key with bytes that are not UTF-8 (see `os.fsdecode`)
    cannot exist in S3."""

    key: str
    path: str
    size: int


@dataclass(slots=True)
class LocalTree:
    """The regular files below `folder` as keys below `prefix`. Links are not followed, and `home` is left out.

    Only the names in one folder and in those above it are in memory.
    """

    folder: str
    prefix: str
    home: str
    deadline: Deadline
    span: KeySpan = WHOLE

    def files(self, wanted: Callable[[str], bool]) -> Iterator[LocalFile]:
        """Yield the files of the span whose keys are wanted, in the order of their keys. Files that vanish during the
        scan are skipped. Raises MeasureError if a folder cannot be read."""
        open_folders = [self._names(self.folder, self.prefix)]
        number = 0
        while open_folders:
            key = next(open_folders[-1], None)
            if key is None:
                open_folders.pop()
                continue
            path = f"{self.folder}/{key[len(self.prefix) :]}"
            if key.endswith("/"):
                open_folders.append(self._names(path, key))
                continue
            number += 1
            if number % _CHECK_EVERY == 0:
                self.deadline.check()
            if wanted(key) and (size := _size(path)) is not None:
                yield LocalFile(key, path, size)

    def _names(self, folder: str, before: str) -> Iterator[str]:
        """Return the sorted keys of the files in a folder, and of its folders with a trailing `/`."""
        self.deadline.check()
        names: list[str] = []
        try:
            with os.scandir(folder) as entries:
                for entry in entries:
                    if entry.is_dir(follow_symlinks=False):
                        names.append(f"{entry.name}/")
                    elif entry.is_file(follow_symlinks=False):
                        names.append(entry.name)
        except FileNotFoundError:
            if before == self.prefix:  # an empty tree would be a false result
                raise MeasureError(f"{printable_path(self.folder)} disappeared during the comparison") from None
        except OSError as error:
            raise MeasureError(f"{printable_path(folder)} cannot be read: {error.strerror}") from None
        names.sort()
        return filter(self._in_span, (before + name for name in names))

    def _in_span(self, key: str) -> bool:
        if not key.endswith("/"):
            return self.span.holds(key)
        return self.span.reaches(key) and f"{self.folder}/{key[len(self.prefix) : -1]}" != self.home


def md5(path: str, deadline: Deadline) -> str | None:
    """Return the MD5 of a file, as S3 has it for an object that was not uploaded in parts. None if the file has
    vanished. Raises MeasureError if it cannot be read."""
    digest = hashlib.md5(usedforsecurity=False)
    try:
        with open_regular_file(path) as file:
            while block := file.read(_BLOCK):
                digest.update(block)
                deadline.check()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise MeasureError(f"{printable_path(path)} cannot be read: {error.strerror}") from None
    return digest.hexdigest()


def _size(path: str) -> int | None:
    try:
        status = os.lstat(path)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise MeasureError(f"{printable_path(path)} cannot be read: {error.strerror}") from None
    return status.st_size if stat.S_ISREG(status.st_mode) else None
