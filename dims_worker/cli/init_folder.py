"""Find out what a folder contains, for its first configuration: its files, its data, and data that git ignores."""

from __future__ import annotations

import itertools
import os
import re
import subprocess
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from importlib import resources
from pathlib import Path, PurePosixPath
from typing import Any

import yaml

from dims_worker.errors import MeasureError
from dims_worker.probes import glob
from dims_worker.probes.base import Deadline
from dims_worker.probes.files.content import ContentReader
from dims_worker.probes.files.git_answers import ignored_paths
from dims_worker.probes.git.command import Git, GitError
from dims_worker.workflows.file_inventory.kinds import kind_by_name

MOST_FILES = 50_000
"""`dims init` looks at no more files. Data beyond them counts too, but cannot influence the numbers it writes."""
MOST_SECONDS = 30.0
_MOST_PATTERNS = 20
_MOST_LINKS = 5
_OFTEN, _SEVERAL = 5, 2
"""How many files of a kind make it data: of a kind that is often no data, and of a kind that DIMS does not know."""
_END = re.compile(r"[A-Za-z0-9][\w+-]{0,11}", re.ASCII)
_GLOB = re.compile(r"[*?\[]")


@dataclass(frozen=True, slots=True)
class Amount:
    """Some files: their number, and their size in bytes."""

    files: int = 0
    bytes: int = 0


@dataclass(frozen=True, slots=True)
class DataPlace:
    """Data that a source of its own measures: where it is, the patterns that match it, and how much there is."""

    name: str
    path: str
    patterns: Sequence[str]
    now: Amount


@dataclass(slots=True)
class FolderContents:
    """A folder, as `dims init` finds it. Paths are relative, with `/`. `names` are those that git does not ignore."""

    path: Path
    deadline: Deadline = field(default_factory=lambda: Deadline.after(timedelta(seconds=MOST_SECONDS)))
    kinds: Mapping[str, Any] = field(default_factory=lambda: yaml.safe_load(shipped_text("init_files.yaml")))
    in_git: bool = field(init=False)
    names: list[str] = field(init=False)
    notes: list[str] = field(default_factory=list)
    """What `dims init` could not find out, in sentences."""

    def __post_init__(self) -> None:
        self.in_git = (self.path / ".git").exists()
        self.names = list(_file_names(self))
        if len(self.names) >= MOST_FILES:
            self.notes.append(f"This folder has many files. `dims init` looked at the first {MOST_FILES:,}.")

    def amount(self, patterns: Sequence[str], exclude: Sequence[str] = ()) -> Amount:
        """Return the number and the size of the files that match."""
        return _amount(self, self.path, filter(glob.matcher(tuple(patterns), tuple(exclude)), self.names))


def shipped_text(name: str) -> str:
    """Return the text of a file that is installed beside this module."""
    return resources.files(__package__).joinpath(name).read_text(encoding="utf-8")


def data_patterns(folder: FolderContents) -> list[str]:
    """Return the patterns of data files: the usual ones, and those of other files that the folder has."""
    usual = [f"**/*.{end}" for end in folder.kinds["data"]]
    ends, rest = _data_ends(folder.names, folder.kinds)
    return list(dict.fromkeys([*usual, *(f"**/*.{end}" for end in sorted(ends)), *_whole_folders(rest, folder)]))


def _data_ends(names: Iterable[str], kinds: Mapping[str, Any]) -> tuple[set[str], list[str]]:
    """Return the ends of names that mean data here, and the files without such an end that may be data too."""
    no_data = glob.matcher(tuple(kinds["not_data"]))
    by_end: dict[str, list[str]] = defaultdict(list)
    for name in names:
        if not no_data(name):
            by_end[_end_of(name)].append(name)
    ends: set[str] = set()
    rest: list[str] = []
    for end, members in by_end.items():
        candidates, least = _candidates(end, members, kinds)
        if _END.fullmatch(end) and len(candidates) >= least:
            ends.add(end)
        else:
            rest += candidates
    return ends, rest


def _end_of(name: str) -> str:
    """Return what follows the last dot of a file name, or "" without a dot."""
    before, _, end = name.rpartition("/")[2].rpartition(".")
    return end if before else ""


def _candidates(end: str, names: list[str], kinds: Mapping[str, Any]) -> tuple[list[str], int]:
    """Return the files of one end that may be data, and how many it takes until they are."""
    low = end.lower()
    if low in kinds["never_data"]:
        return [], 1
    if low in kinds["data"]:
        return names, 1
    if low in kinds["sometimes_data"]:
        return names, _OFTEN
    return [name for name in names if kind_by_name(name) is None], _SEVERAL


def _whole_folders(names: Iterable[str], folder: FolderContents) -> Iterator[str]:
    """Yield the patterns of the top folders that have data without the end of a data file."""
    mixed = {name.partition("/")[0] for name in folder.names if kind_by_name(name) is not None}
    for top, number in Counter(name.partition("/")[0] for name in names if "/" in name).items():
        usual = top.lower() in folder.kinds["data_folders"]
        if _printable(top) and (usual or (number >= _OFTEN and top not in mixed)):
            yield f"{_escaped(top)}/**"


def ignored_data(folder: FolderContents) -> DataPlace | None:
    """Return the data that git ignores, or would ignore if it were there. None without any."""
    if not folder.in_git:
        return None
    exclude = (*folder.kinds["packages"], *folder.kinds["results"])
    try:
        patterns = list(dict.fromkeys([*_ignored_patterns(folder, exclude), *_patterns_to_come(folder)]))
    except MeasureError as error:
        folder.notes.append(f"`dims init` could not find out which data git ignores: {error}.")
        return None
    if not patterns:
        return None
    inside = glob.matcher(tuple(patterns), exclude)
    tops = {glob.folder_of(pattern) for pattern in patterns}
    walked = {name for top in tops for name in _walk(folder, folder.path, top, exclude) if inside(name)}
    tracked = set(folder.names)
    return DataPlace("ignored", ".", patterns, _amount(folder, folder.path, sorted(walked - tracked)))


def _ignored_patterns(folder: FolderContents, exclude: Sequence[str]) -> list[str]:
    """Return patterns of what git ignores now and is data. Raises GitError.

    If they are too many, they name no place, and so also match data that git does not ignore.
    """
    left_out, is_data = glob.matcher(tuple(exclude)), _usual_data(folder)
    folders: dict[str, str] = {}
    files: dict[str, str] = {}
    for path in ignored_paths(str(folder.path), folder.deadline):
        name = path.rstrip("/")
        if not _printable(name) or left_out(f"{name}/x" if path.endswith("/") else name):
            continue
        if not path.endswith("/"):
            if is_data(name):
                end = f"*.{_end_of(name)}"
                files[f"{_escaped(name.partition('/')[0])}/**/{end}" if "/" in name else end] = f"**/{end}"
        elif _has_data(folder, name, list(_walk(folder, folder.path, name, exclude))):
            folders[f"{_escaped(name)}/**"] = f"**/{_escaped(name.rpartition('/')[2])}/**"
    found = [*_few(folders), *_few(files)]
    return found if len(found) <= 2 * _MOST_PATTERNS else [f"**/*.{end}" for end in folder.kinds["data"]]


def _few(patterns: Mapping[str, str]) -> list[str]:
    """Return the patterns, or the general ones that they map to if they are many."""
    return list(patterns if len(patterns) <= _MOST_PATTERNS else dict.fromkeys(patterns.values()))


def _usual_data(folder: FolderContents) -> glob.Test:
    """Return the test whether a path is a data file by its name."""
    return glob.matcher(tuple(f"**/*.{end}" for end in folder.kinds["data"]), tuple(folder.kinds["not_data"]))


def _has_data(folder: FolderContents, path: str, names: Sequence[str]) -> bool:
    """Return whether a folder has data, by its name and those of its files."""
    usual = path.rpartition("/")[2].lower() in folder.kinds["data_folders"]
    if not names or f"{path}/pyvenv.cfg" in names:  # a virtual environment of any name
        return False
    return usual or any(map(_usual_data(folder), names)) or bool(_data_ends(names, folder.kinds)[0])


def _patterns_to_come(folder: FolderContents) -> Iterator[str]:
    """Yield patterns of data that git would ignore if it were there. Raises GitError."""
    folders = [name for name in folder.kinds["data_folders"] if not (folder.path / name).is_symlink()]
    ends = ("csv", "parquet", "jsonl")
    candidates = {f"{name}/x": f"{name}/**" for name in folders} | {f"x.{end}": f"**/*.{end}" for end in ends}
    git = Git(str(folder.path), folder.deadline)
    try:
        ignored = git.text("check-ignore", "--", *candidates).splitlines()
    except GitError as error:
        if error.output:
            raise
        return  # the exit code 1 without a message means that git ignores none of them
    yield from (candidates[name] for name in ignored)


def linked_data(folder: FolderContents) -> list[DataPlace]:
    """Return the folders elsewhere to which symbolic links in the folder lead, if they have data.

    DIMS follows no link inside a source, so each needs a source of its own.
    """
    places: list[DataPlace] = []
    taken = {"project", "repo"}
    for entry in sorted(folder.path.iterdir()):
        if len(places) == _MOST_LINKS or entry.name.startswith(".") or not (entry.is_symlink() and entry.is_dir()):
            continue
        target, own = entry.resolve(), folder.path.resolve()
        if target.is_relative_to(own) or own.is_relative_to(target) or not _printable(entry.name):
            continue
        names = list(_walk(folder, target, "", folder.kinds["packages"]))
        if _has_data(folder, entry.name, names):
            name = "linked_" + (re.sub(r"[^a-z0-9]+", "_", entry.name.lower()).strip("_") or "data")
            while name in taken:
                name += "_2"
            taken.add(name)
            places.append(DataPlace(name, entry.name, ["**"], _amount(folder, target, names)))
    return places


def _escaped(path: str) -> str:
    """Return the pattern that matches exactly this path."""
    return _GLOB.sub(lambda match: f"[{match[0]}]", path)


def _printable(name: str) -> bool:
    """Return whether a name is UTF-8 text, so that it can be written to a configuration."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def _file_names(folder: FolderContents) -> Iterable[str]:
    """Return names of files in the folder: those that git does not ignore, or the first ones of a walk."""
    if folder.in_git:
        command = ["git", "-C", str(folder.path), "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
        listed = subprocess.run(command, capture_output=True, check=False, timeout=60)
        if listed.returncode == 0:
            names = dict.fromkeys(os.fsdecode(listed.stdout).split("\0")[:-1])  # a conflict lists a file three times
            files = (name for name in names if not name.endswith("/"))  # another repository is one name
            return itertools.islice(files, MOST_FILES)
    return _walk(folder, folder.path, "", folder.kinds["packages"])


def _walk(folder: FolderContents, root: Path, below: str, exclude: Sequence[str]) -> Iterator[str]:
    """Yield the paths of the first files below a folder of `root`, without those that `exclude` covers."""
    return itertools.islice(_walked(folder, root, below, glob.cover(tuple(exclude))), MOST_FILES)


def _walked(folder: FolderContents, root: Path, below: str, covered: glob.Test) -> Iterator[str]:
    for place, folders, files in os.walk(root / below):
        if folder.deadline.over:
            return
        relative = PurePosixPath(Path(place).relative_to(root)).as_posix()
        before = "" if relative == "." else f"{relative}/"
        folders[:] = sorted(name for name in folders if name not in (".git", ".dims") and not covered(before + name))
        yield from (before + name for name in sorted(files))


def _amount(folder: FolderContents, root: Path, names: Iterable[str]) -> Amount:
    """Return the number and the size of these files. A pointer of Git LFS or git-annex has the size of its content."""
    reader = ContentReader(folder.deadline)
    files = size = 0
    for name in itertools.islice(names, MOST_FILES):
        place = root / name
        try:
            own = place.lstat().st_size
            content = reader.pointer(str(place), own) if place.is_file() and not place.is_symlink() else None
        except (OSError, MeasureError):
            continue  # a file that is gone or cannot be read does not count, and measuring it reports the problem
        if content is not None:
            files += 1
            size += own if content.size is None else content.size
    return Amount(files, size)
