"""Fixtures of the unit tests of probes: a project folder, a deadline, git repositories."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest

from dims_worker.probes.base import Deadline, ScanContext

Run = Callable[..., str]


@pytest.fixture
def context(tmp_path: Path) -> ScanContext:
    return ScanContext(tmp_path, tmp_path / ".dims")


@pytest.fixture
def deadline() -> Deadline:
    return Deadline.after(timedelta(seconds=30))


@pytest.fixture
def git(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs git in a folder below tmp_path, without the configuration of the user."""
    for name in [name for name in os.environ if name.startswith("GIT_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", os.devnull)
    monkeypatch.setenv("GIT_CONFIG_NOSYSTEM", "1")

    def run(*args: str, at: str = "", date: str = "2025-10-02T12:00:00Z") -> str:
        identity = {f"GIT_{role}_{what}": f"t{what}" for role in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
        dates = {"GIT_AUTHOR_DATE": "2001-01-01T00:00:00Z", "GIT_COMMITTER_DATE": date}
        env = {**os.environ, **identity, **dates}
        done = subprocess.run(
            ["git", "-C", str(tmp_path / at), *args], env=env, capture_output=True, text=True, check=True
        )
        return done.stdout

    return run
