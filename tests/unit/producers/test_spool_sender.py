from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

from dims_producers.spool import READERS, Spool
from dims_producers.spool_file import SpoolFile, read_events
from dims_producers.spool_sender import GATHER, RETRY, SpoolSender
from dims_worker.errors import ConfigError, EventError
from dims_worker.events import Event


def put(spool: Spool, id: str) -> None:
    spool.put(Event.new("t", "p", now=datetime(2026, 1, 1, tzinfo=UTC), id=id))


def test_a_new_file_is_sent_at_once_and_others_every_few_seconds(spool: Spool, broker) -> None:
    sender = SpoolSender(spool, lambda: broker.url)
    put(spool, "1")
    assert sender.work(100.0)
    assert sender.due() == 100.0 + RETRY
    sender.wake(100.1)
    assert sender.due() == 100.1 + GATHER
    put(spool, "2")
    assert sender.work(100.1) and [e.id for e in broker.events()] == ["1", "2"]
    trips = broker.trips
    sender.wake(101.0)
    assert sender.work(101.0) and broker.trips == trips  # nothing waits, so there is no round trip


def test_an_unreachable_broker_is_tried_less_and_less_often_and_logged_once(spool: Spool, broker, caplog) -> None:
    sender = SpoolSender(spool, lambda: broker.url)
    put(spool, "1")
    broker.set_unreachable()
    waits = []
    for _ in range(6):
        assert not sender.work(0.0)
        sender.wake(0.0)
        waits.append(sender.due())
    assert waits == [0.5, 1.0, 2.0, 4.0, 5.0, 5.0]
    assert caplog.text.count("events wait in") == 1 and "secret" not in caplog.text
    broker.set_unreachable(False)
    assert sender.work(10.0) and sender.due() == 15.0
    assert [e.id for e in broker.events()] == ["1"]


def test_no_file_is_read_while_the_broker_is_unreachable(spool: Spool, broker, monkeypatch) -> None:
    reads: list[int] = []

    def read(files: Sequence[SpoolFile]) -> list[Event | EventError | None]:
        reads.append(len(files))
        return read_events(files)

    monkeypatch.setitem(READERS, ".json", read)
    sender = SpoolSender(spool, lambda: broker.url)
    for i in range(3):
        put(spool, str(i))
    broker.set_unreachable()
    for _ in range(5):
        assert not sender.work(0.0)
    assert reads == [3]
    broker.set_unreachable(False)
    assert sender.work(0.0) and reads == [3, 3] and [e.id for e in broker.events()] == ["0", "1", "2"]


def test_the_url_may_become_known_later(spool: Spool, broker) -> None:
    known: list[str] = []

    def url() -> str:
        if not known:
            raise ConfigError("no broker is known")
        return known[0]

    sender = SpoolSender(spool, url)
    put(spool, "1")
    assert not sender.work(0.0)
    known.append(broker.url)
    assert sender.work(1.0) and len(spool) == 0
