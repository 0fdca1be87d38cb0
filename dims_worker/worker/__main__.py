"""`python -P -m dims_worker.worker ...` runs `celery -A dims_worker.tasks ...`, isolated from the working directory."""

# isort: off
from dims_worker.worker import isolation  # noqa: F401 - before anything else is imported

import sys

from celery.__main__ import main

if __name__ == "__main__":
    sys.argv[1:1] = ["-A", "dims_worker.tasks"]
    main()
