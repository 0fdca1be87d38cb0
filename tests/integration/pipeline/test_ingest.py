"""Invariants 1 and 2: an event is stored once, together with the metrics that it makes due. No entry is lost."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from redis import Redis
from sqlalchemy import create_engine, text

from dims_worker.broker import event_stream
from dims_worker.broker.event_stream import GROUP, ensure_group
from dims_worker.domain.plan import Planner
from dims_worker.errors import DatabaseRefused, DatabaseUnreachable
from dims_worker.events import MAX_BYTES, STREAM, Event
from dims_worker.pipeline import ingest
from dims_worker.pipeline.ingest import IngestResult, ReceivedEnvelope, ingest_stream, store_events
from dims_worker.store.engine import transaction
from tests.integration.helpers import Down, Flow, Threads, event, outcome, received, request

SCRAPED = "dims.scraper.complete"


def ingest_all(redis: Redis, flow: Flow) -> IngestResult:
    return ingest_stream(redis, flow.engine, flow.planner)


def claim_at_once(flow: Flow) -> None:
    """Let entries of another consumer be claimed at once."""
    settings = flow.config.settings.model_copy(update={"orphan": timedelta(0)})
    flow.planner = Planner(replace(flow.config, settings=settings))


def send(redis: Redis, *entries: Event | bytes) -> list[bytes]:
    return [
        redis.xadd(STREAM, {b"event": entry.to_json().encode() if isinstance(entry, Event) else entry})  # type: ignore[misc]
        for entry in entries
    ]


def generations(flow: Flow) -> dict[str, int]:
    rows = flow.rows("SELECT metric, requested_gen FROM dims_metrics WHERE requested_gen > 0 ORDER BY metric")
    return {row.metric: row.requested_gen for row in rows}


def log(flow: Flow) -> list[tuple[str | None, str]]:
    return [(row.event_id, row.outcome) for row in flow.rows("SELECT * FROM dims_event_log ORDER BY seq")]


# --- once ---------------------------------------------------------------------------------------------


def test_the_same_event_five_times_is_one_row_and_one_generation(redis: Redis, flow: Flow) -> None:
    same = request("m.a", id="e")
    for event_ in (same, same):  # each in a batch of its own
        send(redis, event_)
        ingest_all(redis, flow)
    send(redis, same, same, same)  # and three in one
    assert ingest_all(redis, flow).known == 3
    assert log(flow) == [("e", "planned")]
    assert generations(flow) == {"m.a": 1}
    assert redis.xlen(STREAM) == 0


def test_the_same_event_is_the_same_however_its_envelope_is_written(flow: Flow) -> None:
    plain = request("m.a", id="e")
    fields = json.loads(plain.to_json())
    fields["time"] = "2026-11-22T10:00:00+01:00"
    other = json.dumps(dict(reversed(fields.items())), indent=1)
    with transaction(flow.engine) as connection:
        store_events(
            connection,
            flow.planner,
            [ReceivedEnvelope("1-1", plain.to_json().encode()), ReceivedEnvelope("1-2", other.encode())],
        )
    assert log(flow) == [("e", "planned")]


def test_a_known_id_with_another_payload_is_stored_beside_the_first_and_makes_due_again(flow: Flow) -> None:
    flow.store(request("m.a", id="e"))
    assert flow.store(request("m.a", "m.b", id="e")).stored == 1
    assert log(flow) == [("e", "planned"), ("e", "planned")]
    assert generations(flow) == {"m.a": 2, "m.b": 1}


def test_the_same_id_of_another_producer_is_another_event(flow: Flow) -> None:
    flow.store(event(SCRAPED, id="e", producer="p"), event(SCRAPED, id="e", producer="q"))
    assert log(flow) == [("e", "planned"), ("e", "planned")]


def test_an_event_that_no_rule_matches_is_kept_as_unmatched(flow: Flow) -> None:
    assert flow.store(event("dims.git.commit", id="e")).unmatched == 1
    assert log(flow) == [("e", "unmatched")]
    assert generations(flow) == {}


def test_a_rejected_event_is_kept_once_for_its_entry_with_the_reason_and_a_repaired_one_is_stored(flow: Flow) -> None:
    repaired = request("m.a", id="e")
    bad = repaired.to_json().replace('"1.0"', '"0.3"').encode()
    for _ in range(2):  # the same entry, delivered twice
        with transaction(flow.engine) as connection:
            store_events(connection, flow.planner, [ReceivedEnvelope("7-1", bad)])
    assert generations(flow) == {}
    (row,) = flow.rows("SELECT * FROM dims_event_log")
    assert (row.outcome, row.stream_id, row.producer, row.event_id) == ("rejected", "7-1", None, None)
    assert 'specversion must be "1.0"' in row.reason
    assert row.payload == bad.decode()
    flow.store(repaired)
    assert generations(flow) == {"m.a": 1}


def test_rejected_envelopes_without_a_stream_entry_are_all_kept(flow: Flow) -> None:
    for payload in (b"one", b"two"):
        with transaction(flow.engine) as connection:
            store_events(connection, flow.planner, [ReceivedEnvelope("", payload)])
    assert len(log(flow)) == 2


HOSTILE = {
    "NUL": b'{"specversion":"1.0","id":"a\\u0000b","source":"p","type":"t","time":"2026-01-01T00:00:00Z"}',
    "raw NUL": b"\0\0\0",
    "10 MB": b'{"id": "' + b"x" * 10_000_000 + b'"}',
    "not UTF-8": b'{"id": "\xff\xfe"}',
    "surrogate": b'{"specversion":"1.0","id":"\\ud800","source":"p","type":"t","time":"2026-01-01T00:00:00Z"}',
    "depth": b"[" * 100_000,
    "a number as long as a book": b'{"id": ' + b"9" * 5_000 + b"}",
    "infinity": b'{"specversion":"1.0","id":"i","source":"p","type":"t","time":"2026-01-01T00:00Z","data":{"":1e999}}',
    "nothing": b"",
    "no object": b"[1]",
    "another year": b'{"specversion":"1.0","id":"i","source":"p","type":"t","time":"0001-01-01T00:00:00+14:00"}',
}


def test_hostile_entries_are_rejected_and_do_not_stop_others(redis: Redis, flow: Flow) -> None:
    for number, payload in enumerate(HOSTILE.values()):
        send(redis, payload, request("m.a", id=f"good-{number}"))
    redis.xadd(STREAM, {b"evnt": b"an entry without a field `event`"})
    send(redis, request("m.b", id="last"))
    result = ingest_all(redis, flow)
    assert (result.rejected, result.stored) == (len(HOSTILE) + 1, len(HOSTILE) + 1)
    assert generations(flow) == {"m.a": 1, "m.b": 1}
    for row in flow.rows("SELECT * FROM dims_event_log WHERE outcome = 'rejected'"):
        assert row.reason
        assert len(row.payload) <= ingest.MAX_PAYLOAD
        assert len(row.reason) <= ingest.MAX_PAYLOAD
    assert redis.xlen(STREAM) == 0


def test_the_longest_accepted_envelope_is_stored_whole(flow: Flow) -> None:
    room = MAX_BYTES - len(request("m.a", id="e").to_json()) - 10
    data: dict[str, Any] = {"metrics": ["m.a"], "x": "é" * (room // 2)}
    flow.store(event("dims.verify.requested", id="e", **data))
    assert flow.scalar("SELECT data FROM dims_event_log") == data


# --- together -----------------------------------------------------------------------------------------


def test_a_batch_raises_each_metric_once_and_links_its_events_to_that_generation(flow: Flow) -> None:
    result = flow.store(request("m.a", id="1"), request("m.a", "m.b", id="2"), request("m.a", id="3"))
    assert result.generations == generations(flow) == {"m.a": 1, "m.b": 1}
    assert result.sources.keys() == {"one", "two"}
    batches = flow.rows(
        "SELECT DISTINCT k.metric, k.generation FROM dims_ingest_batches k JOIN dims_event_log USING (batch_id)"
    )
    assert sorted(tuple(row) for row in batches) == [("m.a", 1), ("m.b", 1)]


def test_only_inserted_rows_raise_generations(flow: Flow) -> None:
    flow.store(request("m.a", id="old"))
    result = flow.store(request("m.a", id="old"), request("m.b", id="new"))
    assert (result.stored, result.known, set(result.sources)) == (1, 1, {"two"})
    assert generations(flow) == {"m.a": 1, "m.b": 1}


def test_the_same_event_twice_in_one_batch_counts_once(flow: Flow) -> None:
    same = ReceivedEnvelope(
        "", request("m.a", id="e").to_json().encode()
    )  # without a stream id, nothing distinguishes the two
    with transaction(flow.engine) as connection:
        result = store_events(connection, flow.planner, [same, same])
    assert (result.stored, result.known, result.sources["one"].events) == (1, 1, 1)
    assert (log(flow), generations(flow)) == ([("e", "planned")], {"m.a": 1})


def test_an_event_during_a_scan_keeps_its_metric_due_since_the_scan_began(flow: Flow) -> None:
    claim = flow.claimed("m.a")
    flow.ask("m.a")
    flow.record(claim, {"m.a": 1})
    state = flow.state("m.a")
    assert (state.due, state.due_since) == (True, claim.as_of)
    again = flow.claim()
    assert again is not None
    flow.record(again, {"m.a": 1})
    state = flow.state("m.a")
    assert (state.due, state.due_since) == (False, None)


def test_no_event_is_stored_if_its_metrics_cannot_be_made_due(
    redis: Redis, flow: Flow, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("between the two halves")

    send(redis, request("m.a", id="e"))
    with monkeypatch.context() as patch:
        patch.setattr(ingest, "raise_generations", broken)
        with pytest.raises(RuntimeError):
            ingest_all(redis, flow)
    assert log(flow) == []
    assert redis.xlen(STREAM) == 1
    assert ingest_all(redis, flow).stored == 1  # ours and unfinished: read again
    assert (log(flow), generations(flow), redis.xlen(STREAM)) == ([("e", "planned")], {"m.a": 1}, 0)


def test_a_derived_metric_has_no_generation_but_its_inputs_have(flow: Flow) -> None:
    flow.ask("m.ratio")
    assert generations(flow) == {"m.a": 1, "m.b": 1, "m.e": 1}


def test_metrics_configured_after_the_start_get_rows_with_their_first_event(
    flow: Flow, make_flow: Callable[[str], Flow]
) -> None:
    flow.do("DELETE FROM dims_metrics WHERE metric IN ('m.b', 'm.sum')")
    flow.ask("m.a", "m.b")
    assert generations(flow) == {"m.a": 1, "m.b": 2}  # a new metric is due anyway
    assert flow.scalar("SELECT count(*) FROM dims_metrics WHERE metric = 'm.sum'") == 1


def test_two_batches_lock_their_metrics_in_one_order(flow: Flow, beside: Threads) -> None:
    newest = "SELECT metric FROM dims_metrics ORDER BY ctid DESC LIMIT 1"
    while flow.scalar(newest) != "m.a":  # the first by name must be the last row of the table
        flow.do("UPDATE dims_metrics SET failures = 0 WHERE metric = 'm.a'")
    flow.do("ANALYZE dims_metrics")
    with transaction(flow.engine) as held:
        held.execute(text("SELECT 1 FROM dims_metrics WHERE metric = 'm.a' FOR UPDATE"))
        other = beside(flow.ask, "m.e", "m.a", "m.c")
        flow.blocked()
        # it waits for its first name, and has not locked the later ones
        held.execute(text("SELECT 1 FROM dims_metrics WHERE metric IN ('m.c', 'm.e') FOR UPDATE NOWAIT"))
    assert isinstance(outcome(other), IngestResult)
    assert generations(flow) == {"m.a": 1, "m.c": 1, "m.e": 1}


def test_two_batches_with_the_same_events_in_opposite_orders_do_not_deadlock(flow: Flow, beside: Threads) -> None:
    first, second = request("m.a", id="1"), request("m.a", id="2")
    with transaction(flow.engine) as connection:
        store_events(connection, flow.planner, received(first))
        other = beside(flow.store, second, first)
        flow.blocked()
        store_events(connection, flow.planner, received(second))
    assert outcome(other).known == 2
    assert sorted(log(flow)) == [("1", "planned"), ("2", "planned")]


def test_the_log_keeps_the_order_of_a_batch(flow: Flow) -> None:
    flow.store(*(request("m.a", id=name) for name in ("z", "b", "y", "a")))
    assert [name for name, _ in log(flow)] == ["z", "b", "y", "a"]


def test_two_batches_that_share_metrics_raise_one_generation_each(flow: Flow, beside: Threads) -> None:
    calls = [beside(flow.ask, *names) for _ in range(10) for names in (("m.a", "m.e"), ("m.e", "m.b", "m.a"))]
    assert all(isinstance(outcome(call), IngestResult) for call in calls)
    assert generations(flow) == {"m.a": 20, "m.b": 10, "m.e": 20}


# --- from the stream ----------------------------------------------------------------------------------


def test_entries_sent_before_the_group_existed_are_read(redis: Redis, flow: Flow) -> None:
    send(redis, request("m.a", id="early"))
    assert ingest_all(redis, flow).stored == 1
    ensure_group(redis)  # it exists already


def test_more_than_a_batch_is_ingested_at_once(redis: Redis, flow: Flow, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(event_stream, "BATCH", 3)
    send(redis, *(request("m.a") for _ in range(10)))
    assert ingest_all(redis, flow).stored == 10
    assert generations(flow) == {"m.a": 4}


def test_entries_of_a_dead_consumer_are_claimed_by_the_next(
    redis: Redis, flow: Flow, monkeypatch: pytest.MonkeyPatch
) -> None:
    ensure_group(redis)
    send(redis, *(request("m.a", id=str(number)) for number in range(3)))
    redis.xreadgroup(GROUP, "dead:1", {STREAM: ">"}, count=2)
    assert ingest_all(redis, flow).stored == 1  # the other consumer may still be working on the two
    claim_at_once(flow)
    assert ingest_all(redis, flow).stored == 2
    assert sorted(log(flow)) == [("0", "planned"), ("1", "planned"), ("2", "planned")]
    assert (redis.xlen(STREAM), redis.xpending(STREAM, GROUP)["pending"]) == (0, 0)


def test_unfinished_entries_of_this_consumer_are_read_again(redis: Redis, flow: Flow) -> None:
    ensure_group(redis)
    send(redis, request("m.a", id="e"))
    redis.xreadgroup(GROUP, event_stream.consumer_name(), {STREAM: ">"})
    assert ingest_all(redis, flow).stored == 1
    assert redis.xlen(STREAM) == 0


def test_an_entry_that_was_deleted_after_it_was_read_is_no_event(
    redis: Redis, flow: Flow, monkeypatch: pytest.MonkeyPatch
) -> None:
    claim_at_once(flow)
    ensure_group(redis)
    keys = send(redis, request("m.a", id="gone"), request("m.a", id="gone too"), request("m.a", id="stays"))
    redis.xreadgroup(GROUP, event_stream.consumer_name(), {STREAM: ">"}, count=1)
    redis.xreadgroup(GROUP, "dead:1", {STREAM: ">"}, count=1)
    redis.xdel(STREAM, *keys[:2])
    ingest_all(redis, flow)
    assert log(flow) == [("stays", "planned")]
    assert redis.xpending(STREAM, GROUP)["pending"] == 0


def test_an_entry_is_acknowledged_only_after_the_commit(redis: Redis, flow: Flow) -> None:
    send(redis, request("m.a", id="e"))
    nowhere = create_engine("postgresql+psycopg2://nouser@127.0.0.1:1/nowhere")
    with pytest.raises(DatabaseUnreachable):
        ingest_stream(redis, nowhere, flow.planner)
    assert (redis.xlen(STREAM), redis.xpending(STREAM, GROUP)["pending"]) == (1, 1)
    assert ingest_all(redis, flow).stored == 1
    assert redis.xlen(STREAM) == 0


@pytest.mark.parametrize(
    "code",
    ["40P01", "53100", "53200", "55P03", "57014", "58030", "XX000"],
    ids=["deadlock", "disk full", "out of memory", "lock timeout", "cancelled", "I/O error", "internal error"],
)
def test_an_error_of_the_database_itself_rejects_no_event(redis: Redis, flow: Flow, code: str) -> None:
    """The events wait in the stream, and are stored once the problem is solved."""
    flow.do(f"""
        CREATE FUNCTION problem() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            RAISE EXCEPTION 'problem' USING ERRCODE = '{code}';
        END $$;
        CREATE TRIGGER problem BEFORE INSERT ON dims_event_log
            FOR EACH ROW WHEN (NEW.outcome <> 'rejected') EXECUTE FUNCTION problem();
    """)
    send(redis, request("m.a", id="one"), request("m.b", id="other"))
    with pytest.raises(DatabaseRefused, match="problem"):
        ingest_all(redis, flow)
    assert (log(flow), generations(flow), redis.xlen(STREAM)) == ([], {}, 2)
    flow.do("DROP TRIGGER problem ON dims_event_log")
    assert ingest_all(redis, flow).stored == 2
    assert (log(flow), redis.xlen(STREAM)) == ([("one", "planned"), ("other", "planned")], 0)


def test_entries_that_could_not_be_stored_may_be_claimed_at_once(
    redis: Redis, flow: Flow, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The database was unreachable for a moment. The next process claims the entries."""
    send(redis, request("m.a", id="e"))
    nowhere = create_engine("postgresql+psycopg2://nouser@127.0.0.1:1/nowhere")
    with pytest.raises(DatabaseUnreachable):
        ingest_stream(redis, nowhere, flow.planner)
    monkeypatch.setattr(event_stream, "consumer_name", lambda: "another:1")
    assert ingest_all(redis, flow).stored == 1


def test_a_crash_between_commit_and_acknowledgement_stores_nothing_twice(
    redis: Redis, flow: Flow, monkeypatch: pytest.MonkeyPatch
) -> None:
    send(redis, request("m.a", id="e"), b"rejected")

    def dies(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(event_stream, "acknowledge", dies)
        with pytest.raises(KeyboardInterrupt):
            ingest_all(redis, flow)
    assert (len(log(flow)), redis.xlen(STREAM)) == (2, 2)
    assert ingest_all(redis, flow).known == 2
    assert (len(log(flow)), redis.xlen(STREAM), generations(flow)) == (2, 0, {"m.a": 1})


def test_a_rule_without_metrics_concerns_the_metrics_that_read_what_changed(flow: Flow) -> None:
    root = flow.config.project
    flow.store(event("dims.files.changed", root=str(root / "one"), paths=["x"]))
    assert generations(flow) == {"m.a": 1, "m.c": 1}
    flow.store(event("dims.files.changed", root=str(root / "two"), paths=[]))  # unknown paths concern all
    assert generations(flow) == {"m.a": 1, "m.b": 1, "m.c": 1, "m.e": 1}


def test_an_event_during_a_failure_is_served_by_the_first_good_reading(flow: Flow) -> None:
    """An event is served by the first good reading of its metric after it."""
    from dims_worker.store.events import find_events, served_metrics

    flow.store(request("m.a", id="e"))
    claim = flow.claim()
    flow.record(claim, {"m.a": Down("away")})
    with transaction(flow.engine) as connection:
        (found,) = find_events(connection, "e")
        assert [item.outcome for item in served_metrics(connection, found)] == ["failed"]
    good = flow.record(flow.claim(), {"m.a": 5})
    flow.serve(a=6)
    with transaction(flow.engine) as connection:
        assert [(item.run_id, item.value) for item in served_metrics(connection, found)] == [(good.run_id, 5)]
