"""`dims follow`: one plain sentence for each event, run and verdict, as they are recorded."""

from __future__ import annotations

import threading
from collections.abc import Callable

import click
from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError

from dims_worker.cli.session import Session, pass_session
from dims_worker.config import Config
from dims_worker.errors import DimsError
from dims_worker.formatting import format_clock
from dims_worker.store.engine import clock, transaction
from dims_worker.text.activity import ActivityFollower

PERIOD = 0.3
"""Seconds between two looks at the database."""


def follow_until(stop: threading.Event, engine: Engine, config: Config, say: Callable[[str], None]) -> None:
    """Tell what happens until `stop` is set. A database that is away is waited for, and said once."""
    follower: ActivityFollower | None = None
    away = False
    while not stop.is_set():
        try:
            with transaction(engine) as connection:
                if follower is None:
                    follower = ActivityFollower(config)
                    follower.start(connection)
                for sentence in follower.sentences(connection):
                    say(sentence)
                if away:
                    say(f"{format_clock(clock(connection))}  the database is back")
                    away = False
        except (DimsError, SQLAlchemyError) as error:
            if not away and not stop.is_set():
                say(f"          waiting for the database: {str(error).splitlines()[0]}")
            away = True
        stop.wait(PERIOD)


@click.command()
@pass_session
def follow(session: Session) -> None:
    """Tell what happens, one plain sentence per event, run and verdict, until Ctrl-C. Times are UTC."""
    config = session.config
    with session.database() as engine:
        stop = threading.Event()
        try:
            follow_until(stop, engine, config, session.tell)
        except KeyboardInterrupt:
            stop.set()
