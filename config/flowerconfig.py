"""Flower's options for DIMS (https://flower.readthedocs.io/en/latest/config.html).

`dims up` and docker-compose.yml name this file to Flower; DIMS_FLOWER_CONFIG names another one. Flower takes no
notice of a name that it does not know, so a test looks at what each of these does to a real Flower.
"""

import os
from pathlib import Path

from dims_worker.errors import ConfigError
from dims_worker.local.flower import flower_access, format_task_arguments

# --- where, and for whom: DIMS_FLOWER_ADDRESS, DIMS_FLOWER_PORT, DIMS_FLOWER_AUTH ---------------------------

try:
    _access = flower_access(os.environ)
except ConfigError as error:
    raise SystemExit(f"flower: {error}") from None

address = _access.address
port = _access.port
unix_socket = ""  # any user of the machine could open it
if _access.auth:
    basic_auth = list(_access.auth)
read_only = not _access.auth  # without a password its API refuses all, so its buttons would be for nothing

# --- what is kept: below $DIMS_HOME/run, which is its owner's alone -----------------------------------------

_run = Path(os.environ.get("DIMS_HOME") or ".dims").expanduser().absolute() / "run"
_run.mkdir(mode=0o700, parents=True, exist_ok=True)

persistent = True
db = str(_run / "flower")
state_save_interval = 60_000  # milliseconds: a kill -9 costs a minute of what Flower shows
max_tasks = 10_000
purge_offline_workers = 86_400  # seconds

# --- what a row tells ------------------------------------------------------------------------------------------

natural_time = True
tasks_columns = "received,name,args,kwargs,result,state,runtime,worker,uuid"  # a cell shows some 50 characters
format_task = format_task_arguments
