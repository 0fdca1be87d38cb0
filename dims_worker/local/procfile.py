"""The lines of a Procfile, the variables in them, and the back-off of restarts. All functions are pure.

Format: one `NAME: COMMAND` per line. `#` begins a comment line. No shell runs the command. It is split into words like
a shell would (shlex), then `$NAME`, `${NAME}` and `${NAME:-default}` are filled in word by word. A value with spaces
stays one word.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from dims_worker.errors import ConfigError

LINE = re.compile(r"^([A-Za-z][A-Za-z0-9_-]*)\s*:\s*(\S.*)$")
VARIABLE = re.compile(r"\$(?:(\w+)|\{(\w+)(?::-([^}]*))?\})")
RESERVED = ("postgres", "valkey")


@dataclass(frozen=True, slots=True)
class ProcfileEntry:
    """One process: its name and the words of its command. Variables are not filled in yet."""

    name: str
    words: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Backoff:
    """How long to wait before a process that ended is restarted, in seconds."""

    first: float = 1.0
    longest: float = 30.0
    healthy: float = 60.0

    def after(self, failures: int, lived: float) -> tuple[int, float]:
        """Return the new number of failures in a row, and the wait, after a process ended.

        Args:
            failures: the number of failures in a row before this one.
            lived: the seconds that the process ran. A run of `healthy` seconds or more resets the count.
        """
        failures = 1 if lived >= self.healthy else failures + 1
        return failures, min(self.first * 2 ** min(failures - 1, 32), self.longest)


def parse(text: str) -> list[ProcfileEntry]:
    """Return the processes of a Procfile, in its order.

    Raises:
        ConfigError: a line is not `name: command`, a name is used twice, or a quote is not closed.
    """
    entries: dict[str, ProcfileEntry] = {}
    for number, raw in enumerate(text.splitlines(), 1):
        line = raw.strip()
        if not line or line.startswith("#"):
            continue
        match = LINE.match(line)
        if match is None:
            raise ConfigError(f"Procfile, line {number}: {line!r} is not `name: command`.")
        name, command = match.groups()
        if name in entries or name in RESERVED:
            raise ConfigError(f"Procfile, line {number}: the name {name!r} is taken. Choose another one.")
        try:
            words = tuple(shlex.split(command))
        except ValueError as error:
            raise ConfigError(f"Procfile, line {number}: {error}.") from error
        entries[name] = ProcfileEntry(name, words)
    return list(entries.values())


def expand(words: Sequence[str], env: Mapping[str, str]) -> list[str]:
    """Return the words with their variables filled in. A default replaces a variable that is unset or empty.

    Raises:
        ConfigError: a variable without a default is not set.
    """

    def value(match: re.Match[str]) -> str:
        name, default = match[1] or match[2], match[3]
        if default is not None:
            return env.get(name) or default
        if name not in env:
            raise ConfigError(f"Procfile: the variable {name} is not set. Set it, or write ${{{name}:-default}}.")
        return env[name]

    return [VARIABLE.sub(value, word) for word in words]
