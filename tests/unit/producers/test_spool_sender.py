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


def test_a_ring_is_served_at_once_and_else_every_few_seconds(spool: Spool, broker) -> None:
    outbox = SpoolSender(spool, lambda: broker.url)
    put(spool, "1")
    assert outbox.work(100.0)
    assert outbox.due() == 100.0 + RETRY
    outbox.ring(100.1)
    assert outbox.due() == 100.1 + GATHER
    put(spool, "2")
    assert outbox.work(100.1) and [e.id for e in broker.events()] == ["1", "2"]
    trips = broker.trips
    outbox.ring(101.0)
    assert outbox.work(101.0) and broker.trips == trips  # nothing waits: the broker is not asked


def test_a_broker_that_is_away_is_asked_ever_more_rarely_and_told_once(spool: Spool, broker, caplog) -> None:
    outbox = SpoolSender(spool, lambda: broker.url)
    put(spool, "1")
    broker.away()
    waits = []
    for _ in range(6):
        assert not outbox.work(0.0)
        outbox.ring(0.0)
        waits.append(outbox.due())
    assert waits == [0.5, 1.0, 2.0, 4.0, 5.0, 5.0]
    assert caplog.text.count("events wait in") == 1 and "secret" not in caplog.text
    broker.away(False)
    assert outbox.work(10.0) and outbox.due() == 15.0
    assert [e.id for e in broker.events()] == ["1"]


def test_while_the_broker_is_away_nothing_is_read_in_vain(spool: Spool, broker, monkeypatch) -> None:
    reads: list[int] = []

    def read(files: Sequence[SpoolFile]) -> list[Event | EventError | None]:
        reads.append(len(files))
        return read_events(files)

    monkeypatch.setitem(READERS, ".json", read)
    outbox = SpoolSender(spool, lambda: broker.url)
    for i in range(3):
        put(spool, str(i))
    broker.away()
    for _ in range(5):
        assert not outbox.work(0.0)
    assert reads == [3]
    broker.away(False)
    assert outbox.work(0.0) and reads == [3, 3] and [e.id for e in broker.events()] == ["0", "1", "2"]


def test_a_url_may_come_to_be_known_later(spool: Spool, broker) -> None:
    known: list[str] = []

    def url() -> str:
        if not known:
            raise ConfigError("no broker is known")
        return known[0]

    outbox = SpoolSender(spool, url)
    put(spool, "1")
    assert not outbox.work(0.0)
    known.append(broker.url)
    assert outbox.work(1.0) and len(spool) == 0
