"""Small questions to git: which rule ignores a path, which folders could it not read, is its index there."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator

from dims_worker.probes.base import Deadline, printable_path
from dims_worker.probes.git.command import Git, GitError

_UNOPENED = re.compile(r"^warning: could not open directory '(.*)': (.*)$", re.MULTILINE)


def ignoring_rule(folder: str, name: str, deadline: Deadline) -> str | None:
    """Return the rule by which git ignores a name in a folder, as `file:line: pattern`, or None."""
    git = Git(folder, deadline)
    try:
        answer = git.text("-c", "core.quotePath=false", "check-ignore", "-v", "--", name)
    except GitError as error:
        if error.output:
            raise
        return None  # the exit code 1 without a message means that no rule applies
    file, line, rule = answer.rpartition("\t")[0].split(":", 2)
    return None if rule.startswith("!") else f"{file}:{line}: {rule}"


def ignored_paths(folder: str, deadline: Deadline, *, whole_folders: bool = True) -> Iterator[str]:
    """Yield what git ignores below a folder of a repository. Raises GitError.

    With `whole_folders`, a folder that is ignored as a whole is one path, which ends with a `/`.
    """
    options = ("-z", "--others", "--ignored", "--exclude-standard", *(("--directory",) if whole_folders else ()))
    for raw in Git(folder, deadline).records("ls-files", *options):
        yield os.fsdecode(raw)


def unopened_folders(git: Git, warnings: str) -> Iterator[tuple[str, str]]:
    """Yield the folders that git could not read, from the folder in which it ran, and why. "" is that folder.

    Git only warns, with paths from the top of the repository.
    """
    unopened = _UNOPENED.findall(warnings)
    if not unopened:
        return
    prefix = git.text("rev-parse", "--show-prefix")
    for path, reason in unopened:
        yield path.removeprefix(prefix).rstrip("/") if path.startswith(prefix) else "", reason


def missing_index(git: Git) -> str | None:
    """Return the reason if the repository has commits, but the file with its index is missing.

    Then git does not know which of the ignored files are tracked.
    """
    index = git.text("rev-parse", "--git-path", "index")
    if os.path.lexists(os.path.join(git.folder, index)):  # noqa: PTH118 - the pass works with str
        return None
    try:
        git.text("rev-parse", "--quiet", "--verify", "HEAD^{commit}")
    except GitError:
        return None  # there is no commit yet, so there is nothing to track
    return f"the index of git is missing in {printable_path(git.folder)}. Run git reset"


def uninitialized(path: str) -> str:
    """Return the reason why git lists no files of a submodule."""
    return f"{printable_path(path)}: is a submodule that is not initialized. Run git submodule update --init"
