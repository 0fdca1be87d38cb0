"""A local tree in the order in which S3 would list its files, so that the two can be merged."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from dims_worker.errors import MeasureError
from dims_worker.probes.base import Deadline, printable_path
from dims_worker.probes.s3.pages import WHOLE, KeySpan

_BLOCK = 1 << 18
_OFTEN = 256
"""Files between two looks at the clock."""


@dataclass(frozen=True, slots=True)
class LocalFile:
    """A regular file. `key` is what its object is called; one that holds bytes that are no UTF-8
    (`os.fsdecode`) can be the key of no object."""

    key: str
    path: str
    size: int


@dataclass(slots=True)
class LocalTree:
    """The regular files below `folder` as keys below `prefix`. Links are not followed, `home` is left out.

    In memory are the names of one folder, and of those above it, never the tree.
    """

    folder: str
    prefix: str
    home: str
    deadline: Deadline
    span: KeySpan = WHOLE

    def files(self, wanted: Callable[[str], bool]) -> Iterator[LocalFile]:
        """The files of the span whose keys are wanted, in the order of their keys. What vanishes meanwhile
        is not there. Raises MeasureError where a folder cannot be read."""
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
            if number % _OFTEN == 0:
                self.deadline.check()
            if wanted(key) and (size := _size(path)) is not None:
                yield LocalFile(key, path, size)

    def _names(self, folder: str, before: str) -> Iterator[str]:
        """The keys of a folder's files, and its folders with a last `/`, as they sort: `a-b`, `a/`, `a0`."""
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
            if before == self.prefix:  # an empty tree would be a lie
                raise MeasureError(f"{printable_path(self.folder)} vanished while it was compared") from None
        except OSError as error:
            raise MeasureError(f"{printable_path(folder)}: {error.strerror}") from None
        names.sort()
        return filter(self._lies, (before + name for name in names))

    def _lies(self, key: str) -> bool:
        if not key.endswith("/"):
            return self.span.holds(key)
        return self.span.reaches(key) and f"{self.folder}/{key[len(self.prefix) : -1]}" != self.home


def md5(path: str, deadline: Deadline) -> str | None:
    """The MD5 of a file as S3 gives it for an object put in one piece; None if it is not there any more.
    Raises MeasureError where it cannot be read."""
    digest = hashlib.md5(usedforsecurity=False)
    try:
        # What has become a symbolic link or a pipe meanwhile is neither followed nor waited for
        file = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
        try:
            while block := os.read(file, _BLOCK):
                digest.update(block)
                deadline.check()
        finally:
            os.close(file)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise MeasureError(f"{printable_path(path)}: {error.strerror}") from None
    return digest.hexdigest()


def _size(path: str) -> int | None:
    try:
        status = os.lstat(path)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise MeasureError(f"{printable_path(path)}: {error.strerror}") from None
    return status.st_size if stat.S_ISREG(status.st_mode) else None
