"""What the patterns of a selection name and a pass did not count: it does not exist, or something leaves it out."""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass, field

from dims_worker.probes.base import Deadline, printable_path
from dims_worker.probes.files.git_answers import ignoring_rule, uninitialized
from dims_worker.probes.files.selection import Selection
from dims_worker.probes.git.command import GitError


@dataclass(frozen=True, slots=True)
class NotCounted:
    """The paths that were not counted, each with its reason: what does not exist, and what exists."""

    absent: tuple[str, ...]
    wrong: tuple[str, ...]


@dataclass(slots=True)
class NamedPaths:
    """Looks for the named paths of selections below `root`. With `use_git`, rules of git may leave them out."""

    root: str
    use_git: bool
    deadline: Deadline
    _rules: dict[str, str | None] = field(default_factory=dict)

    def not_counted(self, selection: Selection) -> NotCounted:
        """Return which paths the pass did not count, and why."""
        absent: list[str] = []
        wrong: list[str] = []
        for path in sorted(selection.named - selection.literals) + sorted(selection.folders):
            try:
                reason = self._reason(path, selection)
            except (FileNotFoundError, NotADirectoryError) as error:
                absent.append(f"{printable_path(path)}: {error.strerror}")
            except OSError as error:
                wrong.append(f"{printable_path(path)}: {error.strerror}")
            else:
                if reason:
                    wrong.append(f"{printable_path(path)}: {reason}")
        absent += [uninitialized(path) for path in selection.uninitialized if _names_below(selection, path)]
        if self.use_git and not selection.count:
            wrong += self._ignored_folders(selection)
        return NotCounted(tuple(absent), tuple(wrong))

    def _reason(self, path: str, selection: Selection) -> str | None:
        """Return why the file or folder at a path was not counted, or None for a folder that was. Raises OSError."""
        place = f"{self.root}/{path}"
        wanted_folder = path in selection.folders
        mode = os.lstat(place).st_mode
        if os.path.realpath(place) != os.path.normpath(place):
            return "is a symbolic link or in one, and links are not followed"
        if path not in selection.entered and not self._is_spelled(path):
            return "has another spelling on the disk. Upper and lower case are different in patterns"
        if stat.S_ISDIR(mode) == wanted_folder:
            return None if wanted_folder else "is left out: ignored, excluded, or not a regular file"
        return "is not a folder" if wanted_folder else "is a folder: write `/**` at the end to count all files in it"

    def _is_spelled(self, path: str) -> bool:
        """Return whether the folders above list each name of a path. A file system may ignore the case of letters."""
        folder = self.root
        for name in path.split("/"):
            if name not in os.listdir(folder):  # noqa: PTH208 - the pass works with str
                return False
            folder = f"{folder}/{name}"
        return True

    def _ignored_folders(self, selection: Selection) -> list[str]:
        """Return the named folders that git ignores as a whole, so that the patterns can never match."""
        wrong = []
        for folder in sorted(selection.starts):
            if rule := self._rule(folder):
                name = printable_path(folder or self.root)
                wrong.append(f"{name}: git ignores it ({rule}). Remove this rule, or `ignore: gitignore`")
        return wrong

    def _rule(self, folder: str) -> str | None:
        """Return the rule by which git ignores a folder or one above it, or None.

        The repository that contains a folder decides. A folder in the tree may be a repository of its own.
        """
        if folder not in self._rules:
            above = folder and self._rule(folder.rpartition("/")[0])
            self._rules[folder] = above or self._own_rule(f"{self.root}/{folder}".rstrip("/"), is_root=not folder)
        return self._rules[folder]

    def _own_rule(self, place: str, *, is_root: bool) -> str | None:
        if not os.path.isdir(place):  # noqa: PTH112 - the pass works with str
            return None
        if is_root and os.path.lexists(f"{place}/.git"):
            return None  # no rule of a repository is about its top folder
        parent, _, name = place.rpartition("/")
        try:
            return ignoring_rule(parent or "/", name, self.deadline)
        except GitError as error:
            return str(error)


def _names_below(selection: Selection, folder: str) -> bool:
    return any(f"{path}/".startswith(f"{folder}/") for path in selection.named | selection.folders)
