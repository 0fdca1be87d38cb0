"""The largest events that anyone can send end as stored or rejected. Ingest never raises, and loses none of them."""

from __future__ import annotations

import json

import pytest

from benchmarks.event_limits import envelope, large_data
from dims_worker.events import MAX_BYTES
from dims_worker.pipeline.ingest import ReceivedEnvelope, store_events
from dims_worker.store.engine import transaction
from tests.integration.helpers import Flow

REJECTED = {"large decimals", "nested lists", "empty objects", "a string that does not end"}


def stored_as(flow: Flow, raw: bytes) -> str:
    with transaction(flow.engine) as connection:
        store_events(connection, flow.planner, [ReceivedEnvelope("1-0", raw)])
    (row,) = flow.rows("SELECT outcome, reason FROM dims_event_log")
    assert (row.reason is not None) is (row.outcome == "rejected")
    return str(row.outcome)


@pytest.mark.parametrize("name", large_data())
def test_an_event_with_large_data_is_stored_or_rejected(name: str, flow: Flow) -> None:
    assert (stored_as(flow, envelope(large_data()[name])) == "rejected") is (name in REJECTED)


@pytest.mark.parametrize(
    ("data", "rejected"),
    [
        ({"root": "/p", "paths": ["data/" + "raw/" * 50_000 + "x.csv"]}, True),
        ({"root": "/p" * 100_000}, True),
        ({"root": "/p", "paths": ["p" * 4096]}, False),
        ({"root": "/p", "paths": ["n" * 1500]}, False),
        ({"bucket": "b", "key": "k" * 1024}, False),
        ({"bucket": "b", "key": "k" * 1025}, True),
        ({"root": "/p", "paths": ["a"] * 50_000}, False),
        ({"bucket": "b", "keys": ["a//b"] * 30_000}, False),
    ],
    ids=["a path", "a root", "4,096 bytes", "1,500 bytes", "1,024 bytes", "1,025 bytes", "paths", "keys"],
)
def test_long_paths_and_keys_are_stored_or_rejected(data: object, rejected: bool, flow: Flow) -> None:
    assert (stored_as(flow, envelope(json.dumps(data))) == "rejected") is rejected


def test_a_request_with_many_names_and_patterns_is_stored_or_rejected(flow: Flow) -> None:
    names = [f"m.n{number}" for number in range(20_000)]
    raw = envelope(json.dumps({"metrics": names})).replace(b"dims.files.changed", b"dims.verify.requested")
    assert len(raw) < MAX_BYTES
    assert stored_as(flow, raw) == "planned"
