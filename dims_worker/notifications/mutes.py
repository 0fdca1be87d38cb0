"""Answer which metrics are muted: by a person (`dims mute`) or by a maintenance window of the configuration.

DIMS measures, judges and holds muted metrics as usual. It only sends nothing about them. `sender` leaves their
notifications out, and sends them once the mute ends.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

from sqlalchemy import Connection

from dims_worker.config import Config
from dims_worker.domain.mutes import Mute, mutes_at
from dims_worker.store.mutes import active_mutes


def mutes_of(connection: Connection, config: Config, now: datetime) -> Mapping[str, Mute]:
    """Return the mute of each metric that is muted at `now`. Workflows are named `workflow.NAME`, rules `rule:NAME`.

    Every output that shows mutes uses this. It costs one query.
    """
    return mutes_at(config, active_mutes(connection, now), now)
