"""Define `dims broker`: to which database the broker belongs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import click
from redis import Redis
from redis.exceptions import RedisError

from dims_producers.broker_refusal import broker_reason
from dims_producers.broker_url import BrokerAddress
from dims_producers.publish import connect
from dims_worker import local
from dims_worker.broker.binding import bind_broker, bound_database, refuse_cluster, require_broker
from dims_worker.cli.session import Session, examples, pass_session
from dims_worker.errors import BrokerUnreachable
from dims_worker.store.identity import database_identity

TIMEOUT = 5.0


@click.group()
@examples("dims broker show", "dims broker bind")
def broker() -> None:
    """Show or change the database of the broker.

    A broker database holds the events of one project. The first worker records its database there, and DIMS refuses
    every other one. Give each project a broker database number of its own, at the end of DIMS_BROKER_URL.
    """


@broker.command()
@examples("dims broker show")
@pass_session
def show(session: Session) -> None:
    """Show to which database the broker belongs.

    The exit code is 2 if it belongs to another database than that of this project.
    """
    with _connected(session) as redis:
        owner = bound_database(redis)
        if owner is None:
            refuse_cluster(redis)
            click.echo("the broker belongs to no database yet: the first worker records its own")
            return
        with session.database() as engine:
            require_broker(redis, database_identity(engine))
    click.echo(f"the broker belongs to {owner.place}, the database of this project")


@broker.command()
@examples("dims broker bind")
@pass_session
def bind(session: Session) -> None:
    """Record that the broker belongs to the database of this project.

    Any earlier record is replaced. Run it after you have renamed the database, or replaced it by another one. Make sure that no other project uses
    this broker database: its events would become events of this project.
    """
    with _connected(session) as redis, session.database() as engine:
        identity = database_identity(engine)
        before = bind_broker(redis, identity)
    changed = f" (before: {before.place})" if before and before != identity else ""
    click.echo(f"the broker belongs to {identity.place}{changed}")


@contextmanager
def _connected(session: Session) -> Iterator[Redis]:
    """Yield a client of the broker. Its errors become BrokerUnreachable."""
    servers = local.running(session.config.home)
    url = session.config.broker_url or (servers.broker_url if servers else None)
    if url is None:
        raise BrokerUnreachable("no broker runs here. Start it with `dims up`, or set DIMS_BROKER_URL.")
    try:
        with connect(url, TIMEOUT) as redis:
            yield redis
    except (RedisError, OSError) as error:
        place = BrokerAddress.of(url).place
        raise BrokerUnreachable(f"the broker at {place} is unreachable or refuses: {broker_reason(error)}.") from error
