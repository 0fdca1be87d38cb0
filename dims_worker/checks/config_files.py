"""Find a configuration file that DIMS does not read, because it reads another one instead."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from dims_worker.checks.check import Check
from dims_worker.config import DEFAULT_FILES, Config, load_config
from dims_worker.errors import ConfigError
from dims_worker.formatting import pluralize

HIDDEN_FIX = "Move what you need into one of the two files, and delete or rename the other."
"""The fix for two default files of one project."""


def config_file_checks(config: Config, env: Mapping[str, str]) -> Iterator[Check]:
    """Yield a check if the project has two configuration files and one hides the other. Otherwise yield none."""
    if hidden := hidden_file(config, env):
        yield Check("configuration_file", "warning", hidden, HIDDEN_FIX)


def other_default_file(file: Path) -> Path | None:
    """Return the other default file of the project, if it exists: `config/dims.yaml` for `dims.yaml`, or the reverse.

    None if it is the same file under another name.
    """
    first, second = (Path(name) for name in DEFAULT_FILES)
    if file.name != first.name:
        return None
    above = [file.parent.parent / first] if file.parent.name == second.parent.name else []
    for other in (*above, file.parent / second):
        if other.is_file() and not (file.exists() and other.samefile(file)):
            return other
    return None


def hidden_file(config: Config, env: Mapping[str, str]) -> str | None:
    """Return a sentence about the two default files of the project, if one hides the other. Otherwise None."""
    other = other_default_file(config.file)
    if other is None or other.resolve() in {file.resolve() for file in config.files}:
        return None
    if other.is_relative_to(config.file.parent):
        return f"{config.file} hides {other} ({describe_file(other, env)}): DIMS reads only the first"
    return f"{other} ({describe_file(other, env)}) hides {config.file}, unless --config or DIMS_CONFIG names that file"


def describe_file(file: Path, env: Mapping[str, str]) -> str:
    """Return in words what a configuration file declares, also if it is not valid."""
    try:
        config = load_config(file.absolute(), env, file.absolute().parent)
    except ConfigError:
        return "which is not valid"
    return f"{pluralize(len(config.metrics), 'metric')} of {pluralize(len(config.sources), 'source')}"
