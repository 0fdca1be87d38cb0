"""Run `dims` as `python -m dims_worker`."""

from dims_worker import ignore_working_directory

if __name__ == "__main__":
    ignore_working_directory()
    from dims_worker.cli import main

    main()
