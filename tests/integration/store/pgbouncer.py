"""Run a real PgBouncer in front of the PostgreSQL of the test."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from sqlalchemy import make_url

from tests.conftest import wait_for

PROGRAM = shutil.which("pgbouncer") or shutil.which("pgbouncer", path="/usr/sbin")
needs_pgbouncer = pytest.mark.skipif(PROGRAM is None, reason="pgbouncer is not installed")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def pgbouncer(folder: Path, server_url: str, **settings: object) -> Iterator[str]:
    """Yield a URL of the same database through PgBouncer in transaction mode. `settings` go into its configuration."""
    url, port = make_url(server_url), free_port()
    folder.mkdir()
    (folder / "users.txt").write_text(f'"{url.username}" "{url.password}"\n')
    lines = {
        "listen_addr": "127.0.0.1",
        "listen_port": port,
        "unix_socket_dir": "",
        "auth_type": "scram-sha-256",
        "auth_file": folder / "users.txt",
        "pool_mode": "transaction",
        "default_pool_size": 4,
        "logfile": folder / "pgbouncer.log",
        **settings,
    }
    config = folder / "pgbouncer.ini"
    config.write_text(
        f"[databases]\n* = host={url.host} port={url.port}\n[pgbouncer]\n"
        + "".join(f"{name} = {value}\n" for name, value in lines.items())
    )
    process = subprocess.Popen([str(PROGRAM), *_as_other_user(folder), str(config)], stderr=subprocess.DEVNULL)
    try:
        wait_for(lambda: _answers(port, process), timeout=15)
        yield url.set(port=port).render_as_string(hide_password=False)
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(10)


def _as_other_user(folder: Path) -> list[str]:
    """Return the options for root, as whom PgBouncer refuses to run. Let the other user read the folder."""
    if os.geteuid() != 0:
        return []
    account = pwd.getpwnam("nobody")
    for path in (folder, *folder.iterdir()):
        os.chown(path, account.pw_uid, account.pw_gid)
    for parent in folder.parents:
        if parent.stat().st_uid == 0 and not parent.stat().st_mode & 0o001:
            parent.chmod(parent.stat().st_mode | 0o001)
    return ["-u", "nobody"]


def _answers(port: int, process: subprocess.Popen[bytes]) -> bool:
    if process.poll() is not None:
        pytest.fail(f"pgbouncer ended with {process.returncode}")
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
