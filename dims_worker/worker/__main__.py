"""`python -P -m dims_worker.worker ...` runs `celery -A dims_worker.tasks ...` without the working directory's modules."""

# isort: off
from dims_worker.worker import isolation  # noqa: F401 - before anything else is imported

import sys

from celery.__main__ import main

if __name__ == "__main__":
    sys.argv[1:1] = ["-A", "dims_worker.tasks"]
    main()
