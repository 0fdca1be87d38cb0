"""Find the differences that no copy command can fix safely, and say why. Reads the names in the local folders."""

from __future__ import annotations

import os
import stat
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import lru_cache

from dims_worker.errors import MeasureError
from dims_worker.probes.base import Deadline, printable_path
from dims_worker.probes.s3.sync import KeyDifference, PairDifferences
from dims_worker.workflows.markdown import escape_invisible

_MAX_NAME = 255
_MAX_PATH = 4095
"""The most bytes of a file name, and of a path, on Linux."""
_MAX_KEY = 1024
"""The most bytes of a key."""
_CHECK_EVERY = 256
"""The number of differences between two checks of the deadline."""


def fold(name: str) -> str:
    """Return a form that is equal for names that differ only by letter case or Unicode normal form."""
    if name.isascii():
        return name.lower()
    return unicodedata.normalize("NFD", unicodedata.normalize("NFD", name).casefold())


def refused_differences(
    pairs: Sequence[PairDifferences], archived: Mapping[str, str], home: str, deadline: Deadline
) -> dict[KeyDifference, str]:
    """Return the differences without a safe command, and the reason of each.

    `archived` has the keys that cannot be read, with the reason. `home` is the data directory of DIMS.

    A command is safe if it changes nothing but the one object or file that it names, also on a file system that ignores
    letter case or Unicode normal forms. Raises MeasureError if a folder cannot be read.
    """
    files, names, keys = _NamesInTheWay(), _Collisions(), _KeyCollisions()
    for pair in pairs:
        names.add(pair)
        keys.add(pair.differences)
    refused: dict[KeyDifference, str] = {}
    for pair in pairs:
        for number, each in enumerate(pair.differences):
            if number % _CHECK_EVERY == 0:
                deadline.check()
            reason = (
                (None if each.s3 is None else archived.get(each.key))
                or _own_problem(each, each.key[len(pair.prefix) :])
                or names.problem(each, pair)
                or keys.problem(each)
                or files.problem(each, pair.folder, home)
            )
            if reason is not None:
                refused[each] = reason
    return refused


def _own_problem(difference: KeyDifference, rest: str) -> str | None:
    """Return why a key has no command, as far as the key shows. `rest` is the key after the prefix."""
    try:
        size = len(difference.key.encode())
    except UnicodeEncodeError:
        return "its name is not UTF-8, and S3 has no such keys: rename the file first"
    if rest.endswith("\n"):
        return "its name ends with a line break, so it has no command on one line"
    if difference.local is None:
        return _no_file_name(rest) or _too_long(difference.path)
    return f"its key is longer than {_MAX_KEY:,} bytes, which S3 refuses" if size > _MAX_KEY else None


def _no_file_name(rest: str) -> str | None:
    """Return why no file below a folder can have exactly this relative path."""
    parts = rest.split("/")
    problems = (
        (parts[-1] == "", "it ends with `/`, so it names a folder, but the object has content"),
        (parts[0] == "", "it begins with `/` below its prefix, so it has no path of its own in the folder"),
        ("" in parts, "it has an empty part (`//`), so another key has the same path in the folder"),
        (".." in parts, "it has the part `..`, so its path leads out of a folder"),
        ("." in parts, "it has the part `.`, so another key has the same path in the folder"),
        ("\0" in rest, "it has a NUL character, which no file name can have"),
        (
            any(len(os.fsencode(part)) > _MAX_NAME for part in parts),
            f"a part of it is longer than {_MAX_NAME} bytes, which no file name can be",
        ),
    )
    return next((reason for is_so, reason in problems if is_so), None)


def _too_long(path: str) -> str | None:
    return f"its path is longer than {_MAX_PATH:,} bytes" if len(os.fsencode(path)) > _MAX_PATH else None


def _folders(path: str, root: str) -> Iterator[str]:
    """Return the folders of a path below `root`, the highest first."""
    end = path.find("/", len(root) + 1)
    while end != -1:
        yield path[:end]
        end = path.find("/", end + 1)


class _Collisions:
    """Finds differences whose local paths are equal, or would be on a file system that ignores letter case or Unicode
    normal forms, and files whose paths are folders of others."""

    def __init__(self) -> None:
        self._paths: dict[str, set[KeyDifference]] = {}
        self._folders: dict[str, dict[str, str]] = {}

    def add(self, pair: PairDifferences) -> None:
        for each in pair.differences:
            self._paths.setdefault(fold(each.path), set()).add(each)
            self._add_folders(each.path, each.key, pair.folder)
        for key in pair.markers:
            self._add_folders(f"{pair.folder}/{key[len(pair.prefix) :]}", key, pair.folder)

    def _add_folders(self, path: str, key: str, root: str) -> None:
        for folder in _folders(path, root):
            self._folders.setdefault(fold(folder), {}).setdefault(folder, key)

    def problem(self, difference: KeyDifference, pair: PairDifferences) -> str | None:
        folded = fold(difference.path)
        for other in sorted(self._paths[folded] - {difference}, key=lambda each: each.key):
            if other.path != difference.path:
                return _variant(f"key {_quoted(other.key)}")
            if difference.local is None or other.local is None:
                return f"it has the same path in the folder as the key {_quoted(other.key)}"
        for below in self._folders.get(folded, {}).values():
            return f"it would be a file where the key {_quoted(below)} needs a folder"
        for folder in _folders(difference.path, pair.folder):
            spellings = self._folders[fold(folder)]
            for other_folder in spellings.keys() - {folder}:
                return _variant(f"key {_quoted(spellings[other_folder])}", "its folder")
        return None


class _KeyCollisions:
    """Finds local files whose keys are equal, or differ from another only by letter case or Unicode normal form."""

    def __init__(self) -> None:
        self._keys: dict[str, set[KeyDifference]] = {}

    def add(self, differences: Iterable[KeyDifference]) -> None:
        for each in differences:
            self._keys.setdefault(fold(each.key), set()).add(each)

    def problem(self, difference: KeyDifference) -> str | None:
        if difference.kind != "only_local":
            return None
        for other in sorted(self._keys[fold(difference.key)] - {difference}, key=lambda each: each.path):
            if other.key != difference.key:
                return _variant(f"key {_quoted(other.key)}")
            return f"the file {_quoted(other.path)} has the same key"
        return None


class _NamesInTheWay:
    """Finds what is in the way of a path in a local folder."""

    def __init__(self) -> None:
        self._names_of = lru_cache(64)(_names_in)

    def problem(self, difference: KeyDifference, root: str, home: str) -> str | None:
        here = root
        parts = difference.path[len(root) + 1 :].split("/")
        for number, part in enumerate(parts, 1):
            named = self._names_of(here).get(fold(part), ())
            for other in named:
                if other != part:
                    subject = "it" if number == len(parts) else "its folder"
                    return _variant(f"local name {_quoted(f'{here}/{other}')}", subject)
            if not named:
                return None
            here = f"{here}/{part}"
            if here == home:
                return "it lies in the data directory of DIMS"
            if reason := _obstacle(here, difference, is_last=number == len(parts)):
                return reason
        return None


def _obstacle(path: str, difference: KeyDifference, *, is_last: bool) -> str | None:
    """Return why a file cannot be at or below a path that exists."""
    try:
        mode = os.lstat(path).st_mode
    except FileNotFoundError:
        return None
    except OSError as error:
        return f"{_quoted(path)} cannot be read: {error.strerror}"
    name, is_folder = _quoted(path), stat.S_ISDIR(mode)
    problems = (
        (stat.S_ISLNK(mode), f"the symbolic link {name} is in its way"),
        (not is_last and not is_folder, f"{name} is a file, but its path needs a folder there"),
        (is_last and is_folder, f"{name} is a folder"),
        (is_last and not stat.S_ISREG(mode), f"{name} is not a regular file"),
        (is_last and difference.local is None, f"a file with its path exists now: {name}"),
    )
    return next((reason for is_so, reason in problems if is_so), None)


def _names_in(folder: str) -> dict[str, list[str]]:
    """Return the names in a folder by their folded form. A folder that does not exist has none. Raises MeasureError."""
    names: dict[str, list[str]] = {}
    try:
        for name in os.listdir(folder):  # noqa: PTH208 - the pass works with str
            names.setdefault(fold(name), []).append(name)
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except OSError as error:
        raise MeasureError(f"{printable_path(folder)} cannot be read: {error.strerror}") from None
    return names


def _variant(other: str, subject: str = "it") -> str:
    return f"{subject} differs from the {other} only by letter case or Unicode form"


def _quoted(name: str) -> str:
    return f"`{escape_invisible(name)}`"
