"""A broker database belongs to one database: the key `dims:database` names it, and DIMS refuses every other.

Two projects with one broker URL would take each other's events and wake-ups. A worker therefore checks the key before
it reads anything. The first one sets it. If the broker was restored or emptied, the next one sets it again.
"""

from __future__ import annotations

import json
from typing import Any

from redis import Redis
from redis.exceptions import NoPermissionError

from dims_producers.broker_refusal import CLUSTER
from dims_worker.errors import WrongBroker
from dims_worker.store.identity import DatabaseIdentity

DATABASE = "dims:database"
"""The key that names the database whose events and wake-ups this broker database holds."""


def require_broker(redis: Redis, identity: DatabaseIdentity) -> None:
    """Check that DIMS can use this broker, and bind it to the database if it is bound to none.

    Raises WrongBroker if it is a Redis Cluster or belongs to another database, and redis's errors.
    """
    refuse_cluster(redis)
    while (owner := bound_database(redis)) is None:
        redis.set(DATABASE, _to_json(identity), nx=True)
    if (owner.id, owner.name) != (identity.id, identity.name):
        raise WrongBroker(
            f"{_broker_of(redis)} belongs to {owner.place}, not to {identity.place}. Give each project a broker "
            "database number of its own: change the number at the end of DIMS_BROKER_URL. If the database was moved or "
            "renamed, run `dims broker bind`."
        )


def bind_broker(redis: Redis, identity: DatabaseIdentity) -> DatabaseIdentity | None:
    """Bind the broker to the database, whatever it was bound to. Return the database it was bound to before.

    Raises WrongBroker for a Redis Cluster, and redis's errors.
    """
    refuse_cluster(redis)
    before = bound_database(redis)
    redis.set(DATABASE, _to_json(identity))
    return before


def bound_database(redis: Redis) -> DatabaseIdentity | None:
    """Return the database to which the broker is bound, or None. Raises redis's errors."""
    value: Any = redis.get(DATABASE)
    if value is None:
        return None
    try:
        fields = json.loads(value)
        return DatabaseIdentity(str(fields["id"]), str(fields["name"]), str(fields["place"]))
    except (ValueError, TypeError, KeyError):
        return DatabaseIdentity("", "", f"an unknown database ({DATABASE} holds {value[:60]!r})")


def refuse_cluster(redis: Redis) -> None:
    """Raise WrongBroker if the broker is a Redis Cluster. One whose user may not run INFO is known by its replies."""
    try:
        info: Any = redis.info("cluster")
    except NoPermissionError:
        return
    if info.get("cluster_enabled"):
        raise WrongBroker(f"{_broker_of(redis)} cannot be used: {CLUSTER}.")


def _to_json(identity: DatabaseIdentity) -> str:
    return json.dumps({"id": identity.id, "name": identity.name, "place": identity.place})


def _broker_of(redis: Redis) -> str:
    options = redis.connection_pool.connection_kwargs
    place = options.get("path") or f"{options.get('host')}:{options.get('port')}"
    return f"the broker database {options.get('db', 0)} at {place}"
