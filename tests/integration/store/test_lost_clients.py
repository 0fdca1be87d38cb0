"""A client that stops inside a transaction does not keep its locks."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest
from sqlalchemy import text

from dims_worker.errors import DatabaseBusy, DatabaseUnreachable
from dims_worker.pipeline.ingest import store_events
from dims_worker.store.engine import new_engine, transaction
from dims_worker.store.sessions import SessionSettings, allow_pauses
from tests.integration.helpers import Flow, received, request

SCRIPT = """
import sys, time
from sqlalchemy import text
from dims_worker.store.engine import new_engine, transaction
from dims_worker.store.sessions import SessionSettings
with transaction(new_engine(sys.argv[1], "dims", settings=SessionSettings(pause=float(sys.argv[2])))) as connection:
    connection.execute(text("SELECT 1 FROM dims_metrics FOR UPDATE"))
    print("locked", flush=True)
    time.sleep(3600)
"""


@pytest.fixture
def stopped_client(flow: Flow, pause: float) -> Iterator[None]:
    """A process that holds the locks of all metrics. A signal has stopped it, and it may pause for `pause` seconds."""
    url = flow.engine.url.render_as_string(hide_password=False)
    process = subprocess.Popen([sys.executable, "-c", SCRIPT, url, str(pause)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None and process.stdout.readline() == "locked\n"
    process.send_signal(signal.SIGSTOP)
    yield
    process.kill()
    process.wait()
    process.stdout.close()


@pytest.mark.parametrize("pause", [1.0])
@pytest.mark.usefixtures("stopped_client")
def test_ingest_stores_again_when_the_pause_of_a_stopped_client_is_over(flow: Flow) -> None:
    engine = new_engine(flow.engine.url, "dims", settings=SessionSettings(lock_timeout=60.0))
    with transaction(engine) as connection:  # waits for the locks
        result = store_events(connection, flow.planner, received(request("m.a")))
    engine.dispose()
    assert (result.stored, flow.state("m.a").due) == (1, True)
    assert flow.scalar("SELECT count(*) FROM pg_stat_activity WHERE state LIKE 'idle in transaction%'") == 0


@pytest.mark.parametrize("pause", [60.0])
@pytest.mark.usefixtures("stopped_client")
def test_until_then_an_attempt_ends_and_can_be_repeated(flow: Flow) -> None:
    engine = new_engine(flow.engine.url, "dims", settings=SessionSettings(lock_timeout=0.1))
    with pytest.raises(DatabaseBusy), transaction(engine) as connection:
        store_events(connection, flow.planner, received(request("m.a")))
    engine.dispose()


def test_a_client_that_paused_for_too_long_gets_one_sentence_and_a_new_session(flow: Flow) -> None:
    engine = new_engine(flow.engine.url, "dims", settings=SessionSettings(pause=0.2))
    with pytest.raises(DatabaseUnreachable) as raised, transaction(engine) as connection:
        connection.execute(text("SELECT 1"))
        time.sleep(1)
        connection.execute(text("SELECT 1"))
    assert "\n" not in str(raised.value)
    with transaction(engine) as connection:
        allow_pauses(connection)
        time.sleep(1)
        assert connection.execute(text("SELECT 1")).scalar_one() == 1
    engine.dispose()
