"""List the files that git does not ignore, in a repository and in the repositories inside it."""

from __future__ import annotations

import os
import posixpath
import stat
from collections.abc import Iterator
from dataclasses import dataclass, field

from dims_worker.errors import MeasureError
from dims_worker.probes import glob
from dims_worker.probes.base import printable_path
from dims_worker.probes.changed_paths import is_never_measured
from dims_worker.probes.files.git_answers import missing_index, uninitialized, unopened_folders
from dims_worker.probes.files.selection import Selection, Selections, add_entered, add_problem
from dims_worker.probes.files.tree import Tree
from dims_worker.probes.git.command import Git, GitError

_CHECK_EVERY = 256
_LIST = ("ls-files", "-z", "-t", "--stage", "--cached", "--others", "--exclude-standard")
_OTHER, _SKIPPED = b"?", b"S"
"""The tags of a file that is not in the index, and of one that a sparse checkout leaves out. See git-ls-files(1)."""
_SUBMODULE, _LINK = b"160000", b"120000"
"""The modes of an entry of the index that stands for a commit of another repository, and of a symbolic link."""


@dataclass(frozen=True, slots=True)
class _Listed:
    """An entry of `git ls-files`. `path` starts at the folder in which git ran."""

    tag: bytes
    mode: bytes
    path: bytes


def list_with_git(tree: Tree, selections: Selections) -> None:
    """Fill the selections from the regular files that git does not ignore, tracked or not.

    Git lists a clone, a submodule or a linked worktree in the tree as one entry. Its files are listed by its own git,
    with its own rules. A file that a pattern names without a wildcard counts even if git ignores it. Raises
    MeasureError if the root is in no repository, or git is missing.
    """
    try:
        GitListing(tree, selections).run()
    except GitError as error:
        raise MeasureError(f"{error} (`ignore: gitignore` needs git. Remove it to count all files)") from None


@dataclass(slots=True)
class GitListing:
    """One pass over a tree with git. `_folders` are the selections that the files of a folder can belong to."""

    tree: Tree
    selections: Selections
    _folders: dict[str, Selections] = field(default_factory=dict)
    _waiting: list[str] = field(default_factory=list)
    """The repositories that are not listed yet, as paths from the root of the tree."""
    _repositories: set[str] = field(default_factory=lambda: {""})

    def run(self) -> None:
        """Fill the selections. Raises GitError if git cannot list the outermost repository."""
        self._folders[""] = self.selections
        self._list("")
        while self._waiting:
            folder = self._waiting.pop()
            try:
                self._list(folder)
            except GitError as error:
                for each in self._folder(folder):
                    each.problems.append(f"{printable_path(folder)}: {error}")
        for folder, active in self._folders.items():
            if active:
                self.tree.check_folder(folder, active)
        for each in self.selections:
            self._add_ignored(each)

    def _list(self, folder: str) -> None:
        """Add the files of the repository at a folder, and note the repositories in it."""
        git = Git(f"{self.tree.base}/{folder}", self.tree.deadline)
        is_indexed = False
        above = f"{folder}/" if folder else ""
        for number, listed in enumerate(_entries(git)):
            if number % _CHECK_EVERY == 0:
                self.tree.refresh_time()
            is_indexed = is_indexed or listed.tag != _OTHER
            path = above + os.fsdecode(listed.path)
            if path.endswith("/"):
                self._add_repository(path)
            elif listed.mode == _SUBMODULE:
                self._add_submodule(path)
            else:
                self._add_listed(path, listed)
        warnings = git.warnings
        active = self._folder(folder)
        if not is_indexed and (reason := missing_index(git)):
            for each in active:
                each.problems.append(reason)
        for below, reason in unopened_folders(git, warnings):
            self._add_unopened(active, posixpath.join(folder, below) if below else folder, reason)

    def _add_unopened(self, active: Selections, folder: str, reason: str) -> None:
        for each in active:
            if not folder or each.enters(folder):
                each.problems.append(f"{folder or self.tree.root}: {reason}")

    def _add_repository(self, path: str) -> None:
        """Note a repository whose files are to be listed, if a selection can enter it."""
        path = posixpath.normpath(path)
        if path in self._repositories:
            return
        self._repositories.add(path)
        active = [] if self._is_left_out(path) else self._folder(path)
        for each in active:
            each.repositories.append(path)
        if active:
            self._waiting.append(path)

    def _add_submodule(self, path: str) -> None:
        """Note a submodule: a repository, or a place where git has not put one yet."""
        place = f"{self.tree.base}/{path}"
        if os.path.lexists(f"{place}/.git"):
            self._add_repository(path)
            return
        if self._is_left_out(path):
            return
        active = [each for each in self._folder(path.rpartition("/")[0]) if each.enters(path)]
        try:
            has_files = bool(os.listdir(place))  # noqa: PTH208 - the pass works with str
        except (FileNotFoundError, NotADirectoryError):
            has_files = False
        except OSError as error:
            add_problem(active, path, error)
            return
        for each in active:
            (each.problems if has_files else each.uninitialized).append(uninitialized(path) if has_files else path)

    def _is_left_out(self, folder: str) -> bool:
        """Return whether the source excludes all files below a folder."""
        return glob.cover(self.tree.exclude)(folder) or is_never_measured(self.tree.root, folder, self.tree.home)

    def _folder(self, folder: str) -> Selections:
        """Return the selections that a folder's files can belong to. None do if the folder, or one above it, was
        replaced with a symbolic link, which the index of git does not show."""
        if folder not in self._folders:
            above = self._folder(folder.rpartition("/")[0])
            active: Selections = [each for each in above if each.enters(folder)]
            try:
                if active and not stat.S_ISDIR(os.lstat(f"{self.tree.base}/{folder}").st_mode):
                    active = ()
            except (FileNotFoundError, NotADirectoryError):
                active = ()
            except OSError as error:
                add_problem(active, folder, error)
                active = ()
            self._folders[folder] = active
            add_entered(active, folder)
        return self._folders[folder]

    def _add_listed(self, path: str, listed: _Listed) -> None:
        if listed.tag == _SKIPPED and not os.path.lexists(f"{self.tree.base}/{path}"):
            if not self._is_unwanted(path):
                for each in self.selections:
                    each.not_checked_out += each.matches(path)
            return
        active = self._folder(path.rpartition("/")[0])
        wanted = [each for each in active if each.matches(path)]
        may_be_link = listed.mode == _LINK or listed.tag == _OTHER
        if (wanted or (active and may_be_link)) and not self._is_unwanted(path):
            self._add_path(path, wanted, active)

    def _is_unwanted(self, path: str) -> bool:
        return self.tree.excluded(path) or is_never_measured(self.tree.root, path, self.tree.home)

    def _add_path(self, path: str, wanted: Selections, active: Selections) -> None:
        try:
            status = os.lstat(f"{self.tree.base}/{path}")
        except FileNotFoundError:
            return  # deleted, but still in the index
        except OSError as error:
            add_problem(wanted, path, error)
            return
        if stat.S_ISREG(status.st_mode):
            if wanted:
                self.tree.add_file(path, wanted, status)
        elif stat.S_ISLNK(status.st_mode):
            self.tree.add_link(path, active)

    def _add_ignored(self, selection: Selection) -> None:
        """Add the files that the patterns name without a wildcard, and that git ignores."""
        for path in sorted(selection.named - selection.literals):
            place = f"{self.tree.base}/{path}"
            if self._is_unwanted(path) or not selection.matches(path):
                continue
            if os.path.realpath(place) == os.path.normpath(place) and os.path.isfile(place):  # noqa: PTH113
                self._add_path(path, [selection], [])
                selection.ignored |= selection.literals & {path}


def _entries(git: Git) -> Iterator[_Listed]:
    """Yield what git lists, each path once: a conflict has up to three entries, one after the other."""
    previous = b""
    for record in git.records(*_LIST):
        tag, rest = record[:1], record[2:]
        entry = _Listed(tag, b"", rest) if tag == _OTHER else _Listed(tag, rest[:6], rest.partition(b"\t")[2])
        if entry.path != previous:
            yield entry
        previous = entry.path
