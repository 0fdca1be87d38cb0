"""Run `dims` as `python -m dims_worker`."""

from dims_worker.cli import main

main()
