"""A configuration and git repositories for the checks."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from dims_worker.config import Config, load_config
from tests.conftest import GIT_ENV

GIT_PROJECT = """
sources:
  code: {type: git, path: .}
metrics:
  code:
    commits: {source: code, measure: commits}
rules:
  committed: {on: "dims.git.*"}
"""


@pytest.fixture(autouse=True)
def _plain_git(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith(("GIT_", "DIMS_"))]:
        monkeypatch.delenv(name)
    for name, value in GIT_ENV.items():
        monkeypatch.setenv(name, value)


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A git repository with a dims.yaml that has one git source: the repository itself."""
    folder = tmp_path / "project"
    folder.mkdir()
    git(folder, "init", "-q", "-b", "main")
    (folder / "dims.yaml").write_text(GIT_PROJECT)
    return folder


@pytest.fixture
def load() -> Iterator[Callable[..., Config]]:
    """Return a function that loads the dims.yaml of a folder, or writes a new one first."""

    def read(folder: Path, text: str | None = None, env: dict[str, str] | None = None) -> Config:
        folder.mkdir(exist_ok=True)
        if text is not None:
            (folder / "dims.yaml").write_text(text)
        return load_config(None, env or {}, folder)

    yield read


def git(folder: Path, *arguments: str) -> str:
    done = subprocess.run(["git", "-C", str(folder), *arguments], check=True, capture_output=True, text=True)
    return done.stdout.strip()
