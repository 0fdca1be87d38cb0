"""Activity reaches every open page through one database listener, and lost notifications are made up for."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
from sqlalchemy import Engine, create_engine, make_url, text
from sqlalchemy.event import listen, remove

from dims_worker.pipeline.ingest import store_events
from dims_worker.store.listener import APPLICATION_NAME, NOTIFY_CHANNEL, subscribe, wait_for_notification
from dims_worker.store.runs import insert_run
from dims_worker.web import live_hub, live_updates
from dims_worker.web.live_hub import LiveHub
from tests.conftest import wait_for
from tests.integration.helpers import NOW, Flow, event, received
from tests.integration.web.serving import Served, serving

HOSTILE = "x\n\ndata: <script>alert(1)</script>\u202e"


@pytest.fixture
def served(flow: Flow) -> Iterator[Served]:
    with serving(flow.engine, flow.config) as served_site:
        yield served_site


@pytest.fixture
def statements() -> Iterator[list[str]]:
    """The statements of the listener's thread from now on."""
    statements: list[str] = []

    def note(connection: object, cursor: object, statement: str, *_: object) -> None:
        if threading.current_thread().name == "live":
            statements.append(statement)

    listen(Engine, "before_cursor_execute", note)
    yield statements
    remove(Engine, "before_cursor_execute", note)


def listeners(engine: Engine) -> int:
    with engine.connect() as connection:
        query = "SELECT count(*) FROM pg_stat_activity WHERE application_name = :name AND datname = current_database()"
        return int(connection.execute(text(query), {"name": APPLICATION_NAME}).scalar_one())


@pytest.fixture
def without_polling(monkeypatch: pytest.MonkeyPatch) -> None:
    """The hub reads the database only after a notification."""
    monkeypatch.setattr(live_hub, "POLL_SECONDS", 3600.0)


def test_two_hundred_open_pages_share_one_listener_and_its_queries(
    without_polling: None, served: Served, flow: Flow, statements: list[str]
) -> None:
    first = served.live()
    statements.clear()
    flow.store(event("dims.scraper.complete", id="one"))
    first.until('"id": 1')
    wait_for(lambda: statements)
    alone = len(statements)
    pages = [first, *(served.live() for _ in range(199))]
    assert len(served.hub.streams) == 200
    statements.clear()
    flow.store(event("dims.scraper.complete", id="two"))
    for page in pages:
        page.until('"id": 2')
    assert 0 < len(statements) <= alone < 10
    assert listeners(flow.engine) == 1
    assert {json.dumps(page.activity[-1]) for page in pages} == {json.dumps(first.activity[-1])}
    assert first.activity[-1]["events"] and first.activity[-1]["metrics"] == ["m.a", "m.b", "m.c", "m.e"]
    assert "dims.scraper.complete" in first.activity[-1]["sentences"][0]


def test_a_run_and_a_decision_are_sent_too(without_polling: None, served: Served, flow: Flow) -> None:
    page = served.live()
    flow.serve(a=10, c=10)
    page.until('"runs": [1]')
    flow.serve(c=900)
    page.until('"open": 1')
    assert "waits for approval: request 1 (dims approvals approve 1)" in page.received.decode()
    columns = "kind, value, unit, as_of, baseline_version, severity, reason"
    flow.do(
        f"INSERT INTO dims_approval_requests (metric, state, {columns})"
        f" SELECT 'm.b', 'approved', {columns} FROM dims_approval_requests"
    )
    page.until('"metrics": ["m.b"]')  # decided when it was created, like a baseline that is set by hand
    flow.do("UPDATE dims_approval_requests SET state = 'approved', decided_at = now() WHERE state = 'open'")
    page.until('"metrics": ["m.c"], "open": 0')


@pytest.fixture
def frequent_polling(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live_hub, "POLL_SECONDS", 0.2)


def test_one_transaction_notifies_once_a_table_and_a_rollback_never(flow: Flow) -> None:
    ear, wake = socket.socketpair()
    with ear, wake, subscribe(flow.engine) as connection:
        raw: Any = connection.connection.dbapi_connection
        with flow.engine.begin() as writing:
            for number in range(3):
                kept = writing.begin_nested()
                insert_run(writing, {"trigger": "verify", "source": "one", "status": "ok", "started_at": NOW})
                kept.rollback() if number == 1 else kept.commit()
            store_events(
                writing, flow.planner, received(event("dims.scraper.complete"), event("dims.scraper.complete"))
            )
        connection.execute(text("SELECT 1"))
        assert sorted(message.payload for message in raw.notifies) == ["dims_event_log", "dims_verification_runs"]
        assert {message.channel for message in raw.notifies} == {NOTIFY_CHANNEL}
        connection.rollback()
        assert wait_for_notification(connection, 0, ear) and not wait_for_notification(connection, 0, ear)
        flow.look(a=1)
        with pytest.raises(ZeroDivisionError), flow.engine.begin() as writing:
            insert_run(writing, {"trigger": "verify", "source": "one", "status": "ok", "started_at": NOW})
            raise ZeroDivisionError
        assert wait_for_notification(connection, 10, ear)
        assert not wait_for_notification(connection, 0, ear)


def test_a_lost_notification_delays_an_update_by_one_poll(frequent_polling: None, served: Served, flow: Flow) -> None:
    with flow.engine.begin() as connection:
        connection.execute(text("ALTER TABLE dims_event_log DISABLE TRIGGER dims_notify_change"))
    page = served.live()
    flow.store(event("dims.scraper.complete"))
    page.until("event: activity")


def test_a_burst_makes_few_messages_that_cover_all_events(served: Served, flow: Flow) -> None:
    page = served.live()
    begun = time.monotonic()
    for batch in range(50):
        flow.store(*(event("dims.scraper.complete", id=f"burst-{batch}-{n}") for n in range(200)))
    flow.store(event("dims.scraper.complete", id="the-last"))
    with flow.engine.connect() as connection:
        last = connection.execute(text("SELECT max(seq) FROM dims_event_log")).scalar_one()
    page.until(f"{last}]")
    took = time.monotonic() - begun
    assert len(page.activity) <= took / live_hub.MIN_SECONDS + 2
    assert all(
        len(message["sentences"]) <= live_hub.MAX_LISTED and len(message["events"]) <= live_hub.MAX_LISTED
        for message in page.activity
    )
    assert max(len(message["events"]) for message in page.activity) == live_hub.MAX_LISTED


def test_an_unreachable_database_is_reported_once_and_so_is_its_return(
    monkeypatch: pytest.MonkeyPatch, served: Served, flow: Flow
) -> None:
    monkeypatch.setattr(live_hub, "RETRY_SECONDS", (0.05, 0.1))
    page = served.live()
    name = make_url(flow.engine.url).database
    admin = create_engine(make_url(flow.engine.url).set(database="postgres"), isolation_level="AUTOCOMMIT")
    with admin.connect() as connection:
        connection.execute(text(f"ALTER DATABASE {name} ALLOW_CONNECTIONS false"))
        connection.execute(
            text("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = :n"), {"n": name}
        )
        page.until("event: unreachable")
        late = served.open()
        late.until("event: unreachable")
        connection.execute(text(f"ALTER DATABASE {name} ALLOW_CONNECTIONS true"))
    admin.dispose()
    page.received = page.received.split(b"event: unreachable")[1]
    page.until("event: connected")
    late.until("event: connected")
    assert b"event: unreachable" not in page.received
    flow.engine.dispose()
    flow.store(event("dims.scraper.complete"))
    page.until("event: activity")


def test_closing_ends_every_stream_at_once(served: Served) -> None:
    pages = [served.live() for _ in range(20)]
    served.hub.close()
    for page in pages:
        page.until("0\r\n\r\n")
    wait_for(lambda: not served.hub.streams)
    served.open().until("HTTP/1.1 503")  # a page that connects too late
    assert served.hub.subscribe().qsize() == 2  # a new stream ends at once


def test_the_stream_of_a_closed_page_is_removed(served: Served) -> None:
    page = served.live()
    page.connection.close()
    wait_for(lambda: not served.hub.streams)


def test_activity_while_a_page_loads_is_not_lost(served: Served, flow: Flow) -> None:
    page = served.live()
    flow.store(event("dims.scraper.complete"))
    page.until("event: activity")
    late = served.open("/live?age=60000")
    late.until("event: missed")
    assert b"missed" not in page.received
    for odd in ("-1", "x", "9" * 40, "%C2%B2"):
        served.open(f"/live?age={odd}").until("event: connected")


def test_hostile_texts_stay_within_their_message(served: Served, flow: Flow) -> None:
    page = served.live()
    flow.store(event(f"dims.{HOSTILE[:30]}", path=HOSTILE))
    with flow.engine.begin() as connection:
        row = {"trigger": "event", "source": HOSTILE, "status": "ok", "started_at": NOW}
        insert_run(connection, row)
    page.until('"runs": [1]')
    hostile = [line for line in page.received.decode().splitlines() if "alert(1)" in line]
    assert hostile and all(line.startswith("data: {") for line in hostile)
    assert any("<script>" in sentence for message in page.activity for sentence in message["sentences"])
    assert "\u202e" not in json.dumps(page.activity, ensure_ascii=False)


def test_streams_are_limited_and_need_the_right_to_read(monkeypatch: pytest.MonkeyPatch, served: Served) -> None:
    monkeypatch.setattr(live_updates, "MAX_STREAMS", 2)
    for _ in range(2):
        served.live()
    third = served.open()
    third.until("HTTP/1.1 503")
    third.until("retry-after")
    stranger = served.open(cookie=False)
    stranger.until("HTTP/1.1 303")
    head = served.open(method="HEAD")
    head.until("HTTP/1.1")


def test_a_stream_ends_after_its_time(monkeypatch: pytest.MonkeyPatch, served: Served) -> None:
    monkeypatch.setattr(live_updates, "MAX_SECONDS", 0.3)
    monkeypatch.setattr(live_updates, "PING_SECONDS", 0.05)
    page = served.open()
    page.until("0\r\n\r\n")
    assert page.received.count(b"event: connected") > 1  # it repeats its state without activity


def test_a_stream_ends_with_the_session_that_opened_it(monkeypatch: pytest.MonkeyPatch, flow: Flow) -> None:
    monkeypatch.setattr(live_updates, "PING_SECONDS", 0.05)
    with serving(flow.engine, flow.config, session="2s") as served:
        page = served.live()
        page.until("event: connected")
        page.until("0\r\n\r\n")
        served.open().until("HTTP/1.1 303")
    with serving(flow.engine, flow.config, session="2s", read="anyone") as served:
        page = served.live()
        page.read(3)
        assert not page.ended and b"0\r\n\r\n" not in page.received


def test_a_slow_page_is_notified_that_it_missed_messages(flow: Flow) -> None:
    hub = LiveHub(flow.engine, flow.config)
    slow, quick = hub.subscribe(), hub.subscribe()
    hub._deliver(live_hub.CONNECTED)
    heard: list[bytes | None] = []
    for number in range(live_hub.QUEUE_SIZE + 5):
        hub._deliver(live_hub.sse_frame("activity", {"id": number}))
        while not quick.empty():
            heard.append(quick.get_nowait())
    assert len(heard) == live_hub.QUEUE_SIZE + 7 and live_hub.MISSED not in heard
    kept = [slow.get_nowait() for _ in range(slow.qsize())]
    assert kept[:2] == [live_hub.CONNECTED, live_hub.MISSED] and kept[-1] == heard[-1]
    assert slow.maxsize == live_hub.QUEUE_SIZE
