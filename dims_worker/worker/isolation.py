"""Importing this module keeps Celery from importing anything from the working directory.

Celery puts that folder first on `sys.path` while it loads an app, a task module or a component by name
(`celery.utils.imports.cwd_in_path`). A project's own `redis.py` or `dims_worker/` would then replace the real one.
"""

from contextlib import nullcontext

from celery.utils import imports

from dims_worker import ignore_working_directory

ignore_working_directory()
imports.cwd_in_path = nullcontext
