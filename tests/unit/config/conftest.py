"""A configuration from the text of a test."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from dims_worker.config import Config, load_config

Load = Callable[..., Config]


@pytest.fixture
def load_text(tmp_path: Path) -> Load:
    """Return a function that loads a dims.yaml with this text, next to other files."""

    def read(text: str, env: Mapping[str, str] | None = None, **others: str) -> Config:
        (tmp_path / ".git").mkdir(exist_ok=True)
        for name, content in {"dims": text, **others}.items():
            (tmp_path / f"{name}.yaml").write_text(content, encoding="utf-8")
        return load_config(None, env or {}, tmp_path)

    return read
