"""`python -m dims_worker` is `dims`."""

from dims_worker.cli import main

main()
