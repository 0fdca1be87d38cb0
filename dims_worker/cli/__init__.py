"""Define the `dims` command line: one module for each command or group of related commands."""

from dims_worker.cli.main import main

__all__ = ["main"]
