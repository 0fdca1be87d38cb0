"""Check who may read secrets and change the configuration, and which ports are free."""

from __future__ import annotations

import re
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path

from dims_worker.checks.check import Check
from dims_worker.config import Config
from dims_worker.formatting import pluralize, shell_quote
from dims_worker.local.ports import HOST, port_is_free

SECRETS = (
    "producer.env",
    "servers.json",
    "pg/password",
    "valkey/password",
    "valkey/valkey.conf",
    "web/*",
    "run/*.json",
)
"""Files of the data directory that hold passwords or tokens."""
PORTS = {"the dashboard": ("DIMS_WEB_PORT", 8420), "Flower": ("DIMS_FLOWER_PORT", 5555)}
_PASSWORD = re.compile(r"://[^/\s:@${}]+:(?![$<{…])[^@\s/]+@")


def file_access_checks(config: Config) -> Iterator[Check]:
    """Yield the checks of the permissions of the data directory and the configuration."""
    yield secrets_check(config.home)
    yield configuration_files_check(config)


def secrets_check(home: Path) -> Check:
    """Return whether only its owner can enter the data directory, or else read the secrets in it."""
    try:
        mode = home.stat().st_mode
    except OSError:
        return Check("secrets", "ok", "there is no data directory yet")
    if not mode & (stat.S_IXGRP | stat.S_IXOTH | stat.S_IRGRP | stat.S_IROTH):
        return Check("secrets", "ok", "only the owner of the data directory can enter it")
    open_files = [path for pattern in SECRETS for path in sorted(home.glob(pattern)) if _is_open(path)]
    if open_files:
        names = " ".join(shell_quote(str(path)) for path in open_files)
        summary = f"other users can read {pluralize(len(open_files), 'file')} with secrets, such as {open_files[0]}"
        return Check("secrets", "problem", summary, f"chmod 600 {names}")
    if mode & stat.S_IWOTH:
        fix = f"chmod 700 {shell_quote(str(home))}"
        return Check("secrets", "problem", f"every user can write to {home}, so anyone can send events", fix)
    return Check("secrets", "ok", "only their owner can read the files with secrets")


def _is_open(path: Path) -> bool:
    try:
        return path.is_file() and bool(path.stat().st_mode & (stat.S_IRGRP | stat.S_IROTH))
    except OSError:
        return False


def configuration_files_check(config: Config) -> Check:
    """Return whether others could change the configuration, which names programs, and whether it holds a password."""
    for file in config.files:
        for path in (file, file.parent):
            if path.stat().st_mode & stat.S_IWOTH and not path.stat().st_mode & stat.S_ISVTX:
                summary = f"every user can change {path}, and with it the programs that DIMS runs"
                return Check("configuration", "problem", summary, f"chmod o-w {shell_quote(str(path))}")
    for file in config.files:
        lines = file.read_text(encoding="utf-8", errors="replace").splitlines()
        number = next((n for n, line in enumerate(lines, 1) if _PASSWORD.search(line.partition(" #")[0])), None)
        if number is not None:
            fix = "Write ${NAME} in its place, and set the variable NAME where DIMS runs."
            return Check("configuration", "warning", f"{file}, line {number}, contains a password", fix)
    off = [name for name, channel in config.notify.channels.items() if not channel.on]
    if off:
        fix = "Set the variable that the channel's `url` names, or remove the channel."
        return Check("configuration", "warning", f"channels without a URL send nothing: {', '.join(off)}", fix)
    return Check("configuration", "ok", f"{config.file} is valid")


def ports_check(env: Mapping[str, str], *, running: bool) -> Check:
    """Return whether the ports of the dashboard and Flower are free, unless `dims up` runs here and uses them."""
    if running:
        return Check("ports", "ok", "in use by this installation")
    taken = []
    for name, (variable, default) in PORTS.items():
        wanted = env.get(variable, "").strip()
        port = int(wanted) if wanted.isdigit() else default
        if wanted != "0" and not port_is_free(port):
            taken.append((name, port, variable, bool(wanted)))
    if not taken:
        return Check("ports", "ok", "the ports of the dashboard and Flower are free")
    summary = ", ".join(f"{HOST}:{port} ({name})" for name, port, _, _ in taken)
    if fixed := [variable for _, _, variable, is_set in taken if is_set]:
        fix = f"Set {' and '.join(fixed)} to another port, or end the program that uses it."
        return Check("ports", "warning", f"another program listens at {summary}", fix)
    return Check("ports", "ok", f"another program listens at {summary}, so `dims up` takes a free port")
