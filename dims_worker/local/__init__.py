"""The local stack: the servers and processes of one machine, all in `$DIMS_HOME`. Start, find, stop, lend, supervise.

Drivers and psutil are imported where they are used, so importing this package is cheap.
"""

from __future__ import annotations

from dims_worker.local.home import DataDirectory
from dims_worker.local.home_lock import hold_home, lock_owner
from dims_worker.local.procfile import Backoff
from dims_worker.local.servers import ServerUrls, existing, remember_broker, running, start, stop, temporary_database
from dims_worker.local.stack_status import ProcessStatus, end_stack, stack_status
from dims_worker.local.supervisor import Supervisor, describe_error

__all__ = [
    "Backoff",
    "DataDirectory",
    "ProcessStatus",
    "ServerUrls",
    "Supervisor",
    "describe_error",
    "end_stack",
    "existing",
    "hold_home",
    "lock_owner",
    "remember_broker",
    "running",
    "stack_status",
    "start",
    "stop",
    "temporary_database",
]
