"""Flower's options for DIMS (https://flower.readthedocs.io/en/latest/config.html).

`dims up` and docker-compose.yml pass this file to Flower. DIMS_FLOWER_CONFIG names another one. Flower ignores a name
that it does not know, so a test checks the effect of each option on a real Flower.
"""

import os
from pathlib import Path

from dims_worker.errors import ConfigError
from dims_worker.local.flower import flower_access, format_task_arguments

# --- where it listens, and who may sign in: DIMS_FLOWER_ADDRESS, DIMS_FLOWER_PORT, DIMS_FLOWER_AUTH ---------

try:
    _access = flower_access(os.environ)
except ConfigError as error:
    raise SystemExit(f"flower: {error}") from None

address = _access.address
port = _access.port
unix_socket = ""  # any user of the machine could open it
if _access.auth:
    basic_auth = list(_access.auth)
read_only = not _access.auth  # without a password Flower's API refuses every call, so its buttons would not work

# --- what it keeps, in $DIMS_HOME/run, which only its owner can read ----------------------------------------

_run = Path(os.environ.get("DIMS_HOME") or ".dims").expanduser().absolute() / "run"
_run.mkdir(mode=0o700, parents=True, exist_ok=True)

persistent = True
db = str(_run / "flower")
state_save_interval = 60_000  # milliseconds: after a kill -9, the last minute is missing
max_tasks = 10_000
purge_offline_workers = 86_400  # seconds

# --- what a row of the task table shows -----------------------------------------------------------------------

natural_time = True
tasks_columns = "received,name,args,kwargs,result,state,runtime,worker,uuid"  # a cell shows about 50 characters
format_task = format_task_arguments
