"""The servers and processes of one machine, all in `$DIMS_HOME`: start, find, stop, lend, supervise.

Drivers and psutil are loaded when they are used, so importing this room is cheap.
"""

from __future__ import annotations

from dims_worker.services.down import ProcessStatus, end, status
from dims_worker.services.hold import hold, holder
from dims_worker.services.home import Home
from dims_worker.services.procfile import Backoff
from dims_worker.services.servers import Servers, borrowed, remember_broker, running, start, stop
from dims_worker.services.supervisor import Supervisor

__all__ = [
    "Backoff",
    "Home",
    "ProcessStatus",
    "Servers",
    "Supervisor",
    "borrowed",
    "end",
    "hold",
    "holder",
    "remember_broker",
    "running",
    "start",
    "status",
    "stop",
]
