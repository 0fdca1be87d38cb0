"""The home: the folder `.dims` where a machine keeps its spool, its servers and its settings."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

NAME = ".dims"


def find_home(env: Mapping[str, str], cwd: Path) -> Path | None:
    """`DIMS_HOME` of `env`, else the `.dims` of `cwd` or of its nearest parent that has one, else None.

    The answer is absolute; a `DIMS_HOME` need not exist yet.
    """
    if named := env.get("DIMS_HOME"):
        return Path(os.path.abspath(cwd / Path(named).expanduser()))  # noqa: PTH100 - links are kept
    folder = Path(os.path.abspath(cwd))  # noqa: PTH100
    return next((up / NAME for up in (folder, *folder.parents) if (up / NAME).is_dir()), None)


def spool_folder(home: Path) -> Path:
    """Where the spool of a home lies."""
    return home / "spool"
