"""Write a first configuration for a folder."""

from __future__ import annotations

import itertools
import os
import subprocess
from collections.abc import Iterable
from importlib import resources
from pathlib import Path, PurePosixPath

import yaml


def draft_config(folder: Path) -> str:
    """Return the text of a dims.yaml that measures what `folder` contains."""
    from jinja2 import Template  # only `dims init` needs it

    in_git = (folder / ".git").exists()
    suffixes = {PurePosixPath(name).suffix for name in _file_names(folder, in_git)}
    kinds = yaml.safe_load(_shipped_text("init_languages.yaml"))
    present = {language: kind for language, kind in kinds["code"].items() if _matching(kind["files"], suffixes)}
    template = Template(_shipped_text("init.yaml.jinja"), trim_blocks=True, keep_trailing_newline=True)
    return str(template.render(in_git=in_git, languages=present, documents=_matching(kinds["documents"], suffixes)))


def _shipped_text(name: str) -> str:
    return resources.files(__package__).joinpath(name).read_text(encoding="utf-8")


def _matching(patterns: Iterable[str], suffixes: set[str]) -> list[str]:
    """Return the patterns that end with one of the suffixes."""
    return [pattern for pattern in patterns if PurePosixPath(pattern).suffix in suffixes]


def _file_names(folder: Path, in_git: bool) -> Iterable[str]:
    """Return names of files in the folder: those that git does not ignore, or the first 50,000."""
    if in_git:
        command = ["git", "-C", str(folder), "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
        listed = subprocess.run(command, capture_output=True, check=False, timeout=60)
        if listed.returncode == 0:
            return os.fsdecode(listed.stdout).split("\0")[:-1]
    names = (name for _, folders, files in os.walk(folder) if not folders.sort() for name in files)
    return list(itertools.islice(names, 50_000))
