"""Find the data directory: the folder `.dims` that holds the spool, the servers and the settings of a machine."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

NAME = ".dims"


def find_home(env: Mapping[str, str], cwd: Path) -> Path | None:
    """Return `DIMS_HOME` of `env`, else the `.dims` of `cwd` or of its nearest parent that has one, else None.

    The path is absolute. A `DIMS_HOME` need not exist yet.
    """
    if named := env.get("DIMS_HOME"):
        return Path(os.path.abspath(cwd / Path(named).expanduser()))  # noqa: PTH100 - keeps symbolic links
    folder = Path(os.path.abspath(cwd))  # noqa: PTH100
    return next((up / NAME for up in (folder, *folder.parents) if (up / NAME).is_dir()), None)


def spool_folder(home: Path) -> Path:
    """Return the folder of the spool in a data directory."""
    return home / "spool"
