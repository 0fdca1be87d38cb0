"""Define `dims follow`: one sentence for each event, run and verdict, as they are recorded."""

from __future__ import annotations

import threading
from collections.abc import Callable

import click
from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError

from dims_worker.cli.session import Session, examples, pass_session
from dims_worker.config import Config
from dims_worker.errors import DimsError
from dims_worker.formatting import format_clock
from dims_worker.store.engine import clock, transaction
from dims_worker.text.activity import ActivityFollower

POLL_SECONDS = 0.3


def follow_until(stop: threading.Event, engine: Engine, config: Config, write: Callable[[str], None]) -> None:
    """Write a sentence for everything that is recorded, until `stop` is set.

    While the database is unreachable, it waits and says so once.
    """
    follower: ActivityFollower | None = None
    unreachable = False
    while not stop.is_set():
        try:
            with transaction(engine) as connection:
                if follower is None:
                    follower = ActivityFollower(config)
                    follower.start(connection)
                sentences = list(follower.sentences(connection))
                now = clock(connection) if unreachable else None
            for sentence in sentences:  # after the transaction: a terminal can stop the output for long
                write(sentence)
            if now is not None:
                write(f"{format_clock(now)}  the database is reachable again")
                unreachable = False
        except (DimsError, SQLAlchemyError) as error:
            if not unreachable and not stop.is_set():
                write(f"          waiting for the database: {str(error).splitlines()[0]}")
            unreachable = True
        stop.wait(POLL_SECONDS)


@click.command()
@examples("dims follow")
@pass_session
def follow(session: Session) -> None:
    """Print each event, run and verdict as it is recorded, until Ctrl-C.

    Times are UTC.
    """
    with session.database() as engine:
        stop = threading.Event()
        try:
            follow_until(stop, engine, session.config, session.print_activity)
        except KeyboardInterrupt:
            stop.set()
