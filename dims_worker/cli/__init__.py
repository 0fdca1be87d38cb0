"""`dims`: a function a command; prints and exits."""

from dims_worker.cli.main import main

__all__ = ["main"]
