"""DIMS: an event-driven Data Inventory Management System. See README.md."""

import os
import sys

__version__ = "0.2.0"


def ignore_working_directory() -> None:
    """Take the working directory off the module search path. An entry point calls this before it imports anything.

    `python -m` and `celery -A` put it first, and a project may have a `redis.py` or a package `config` of its own.
    It stays where DIMS itself is imported from it (a checkout).
    """
    cwd, own = os.path.realpath(os.curdir), os.path.realpath(os.path.dirname(os.path.dirname(__file__)))  # noqa: PTH120
    if cwd != own:
        sys.path[:] = [entry for entry in sys.path if os.path.realpath(entry or os.curdir) != cwd]
