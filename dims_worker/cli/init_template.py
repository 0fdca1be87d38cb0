"""Write a first configuration for a folder: metrics for what it contains, and a policy that protects its data."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from dims_worker.cli.init_folder import (
    Amount,
    DataPlace,
    FolderContents,
    data_patterns,
    ignored_data,
    linked_data,
    shipped_text,
)
from dims_worker.config.units import BYTES
from dims_worker.probes import glob

FEW_DATA_FILES = 3
"""With at most this many data files, a loss of one is a loss of a third or more, so each one counts."""
MANY_DATA_FILES = 14
"""From this many files of about the same size on, a loss of one is less than the 15 % that wait for approval."""
SMALL = 10_000
"""A change of fewer bytes is an edit of a text, and not a loss of data."""
SMALL_PROJECT = 1_000_000
"""A change of fewer bytes of all files is ordinary, such as a notebook without its results."""


@dataclass(frozen=True, slots=True)
class DataMetrics:
    """What the template says about the metrics of one source of data: the prefix of their names, and their keys."""

    source: str
    prefix: str
    paths: str
    min_files: int
    unit: str
    min_size: float | int
    names_folder: bool
    path: str


def draft_config(path: Path) -> str:
    """Return the text of a dims.yaml that measures what a folder contains."""
    from jinja2 import Template  # only `dims init` needs it

    folder = FolderContents(path)
    kinds = folder.kinds
    suffixes = {PurePosixPath(name).suffix for name in folder.names}
    present = {language: kind for language, kind in kinds["code"].items() if _matching(kind["files"], suffixes)}
    patterns, not_data = data_patterns(folder), kinds["not_data"]
    data = folder.amount(patterns, not_data)
    ignored, linked = ignored_data(folder), linked_data(folder)
    places = [_data_metrics(each) for each in (*((ignored,) if ignored else ()), *linked)]
    template = Template(
        shipped_text("init.yaml.jinja"), trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True
    )
    return str(
        template.render(
            notes=folder.notes,
            in_git=folder.in_git,
            languages=present,
            documents=_matching(kinds["documents"], suffixes),
            data=_data_metrics(DataPlace("", ".", patterns, data)),
            not_data=_yaml_list(not_data, 8),
            packages=_yaml_list(kinds["packages"], 4),
            ignored=places[0] if ignored else None,
            ignored_exclude=_yaml_list([*kinds["packages"], *kinds["results"]], 4),
            places=places,
            paths=_yaml_value,
            text=_yaml_text,
            min_project_size=_rounded(max(SMALL_PROJECT, min_data_bytes(data)) / BYTES["kB"]),
            min_files=min_files(len(folder.names) + 1),  # with the file that `dims init` writes
        )
    )


def min_files(now: int) -> int:
    """Return `min_abs` of all files: 3 to 5, and no more than half of the present files if they are six or more.

    A change that merges or removes a few files is ordinary work.
    """
    return max(3, min(5, now // 2))


def min_data_files(now: int) -> int:
    """Return `min_abs` of data files: a loss of one file is ordinary, unless there are only a few."""
    return 1 if 0 < now <= FEW_DATA_FILES else 2


def min_data_bytes(now: Amount) -> float:
    """Return `min_abs` of the size of data files, in bytes.

    A loss of one file of up to twice the mean size is ordinary, if each file is a large part of all. So is an edit. It
    is less than half of the present size, so a loss of half is never noise.
    """
    if not now.files or not now.bytes:
        return SMALL
    edit = min(now.bytes / 4, SMALL)
    if FEW_DATA_FILES < now.files < MANY_DATA_FILES:
        return max(edit, now.bytes * min(0.4, 2 / now.files))
    return edit


def _data_metrics(place: DataPlace) -> DataMetrics:
    unit = next((unit for unit in ("GB", "MB") if place.now.bytes >= BYTES[unit]), "kB")
    return DataMetrics(
        source={"": "project", "ignored": "ignored_data"}.get(place.name, place.name),
        prefix=f"{place.name}_" if place.name else "",
        paths=_yaml_list(place.patterns, 8),
        min_files=min_data_files(place.now.files),
        unit=unit,
        min_size=_rounded(min_data_bytes(place.now) / BYTES[unit]),
        names_folder=bool(glob.folders_of(tuple(place.patterns))),
        path=place.path,
    )


def _rounded(number: float) -> float | int:
    """Return a number with two significant digits."""
    rounded = float(f"{number:.2g}")
    return int(rounded) if rounded.is_integer() else rounded


def _matching(patterns: Iterable[str], suffixes: set[str]) -> list[str]:
    """Return the patterns that end with one of the suffixes."""
    return [pattern for pattern in patterns if PurePosixPath(pattern).suffix in suffixes]


def _yaml_text(value: str) -> str:
    """Return a text as YAML that DIMS reads without a variable of the environment."""
    return json.dumps(value, ensure_ascii=False).replace("${", "$${")


def _yaml_value(patterns: Sequence[str]) -> str:
    """Return patterns as YAML in one line."""
    return f"[{', '.join(map(_yaml_text, patterns))}]" if patterns[1:] else _yaml_text(patterns[0])


def _yaml_list(patterns: Sequence[str], indent: int) -> str:
    """Return patterns as a YAML list of several lines."""
    words = [f"{_yaml_text(pattern)}," for pattern in patterns]
    words[-1] = words[-1][:-1]
    lines, line = [], ""
    for word in words:
        if line and len(line) + len(word) + indent > 110:
            lines.append(line)
            line = word
        else:
            line = f"{line} {word}".strip()
    lines.append(line)
    return "[" + f"\n{' ' * (indent + 1)}".join(lines) + "]"
