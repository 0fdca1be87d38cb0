"""A file of events: DIMS names bad lines and sends good ones, many in one round trip, in bounded memory."""

from __future__ import annotations

import io
import json
import sys
import tracemalloc
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import dims_producers.jsonl
import dims_producers.publish
from dims_producers.enqueue import event_of, main
from dims_producers.jsonl import MAX_LINE, BatchSender, events_in
from dims_producers.spool import Spool
from dims_worker.errors import EventError
from dims_worker.events import MAX_BYTES, Event

ENVELOPE = {"specversion": "1.0", "id": "e1", "source": "my:job", "type": "t", "time": "2026-11-22T09:00:00Z"}


def read(*lines: object) -> list[tuple[int, Event | EventError]]:
    raw = b"".join((line if isinstance(line, bytes) else json.dumps(line).encode()) + b"\n" for line in lines)
    return list(events_in(io.BytesIO(raw), event_of))


def test_a_line_is_an_envelope_or_the_parts_of_one() -> None:
    (_, envelope), (_, all_parts), (_, bare) = read(
        ENVELOPE | {"subject": "s", "extension": 1},
        {"type": "dims.scraper.complete", "subject": "espn", "data": {"games": 12}, "id": "mine"},
        {"type": "scraper_complete", "subject": None, "data": None, "id": None},
    )
    assert isinstance(envelope, Event) and isinstance(all_parts, Event) and isinstance(bare, Event)
    assert (envelope.id, envelope.producer, envelope.type, envelope.subject) == ("e1", "my:job", "t", "s")
    assert (all_parts.id, all_parts.subject, all_parts.data) == ("mine", "espn", {"games": 12})
    assert all_parts.producer.startswith("dims:enqueue.")
    assert uuid.UUID(bare.id) and bare.type == "scraper_complete" and bare.data == {}


@pytest.mark.parametrize(
    "line, expected",
    [
        (b"{torn", "the line is not JSON"),
        (b"\xff", "the line is not JSON"),
        (b"[" * 100_000, "the line is not JSON"),
        ([1], "must be a JSON object, not list"),
        ({}, "type must be a non-empty string"),
        ({"type": ""}, "type must be a non-empty string"),
        ({"type": "t", "subjekt": "x"}, "unknown keys 'subjekt'. Use type, subject, data, id"),
        ({"type": "t", "data": [1]}, "data must be a JSON object, not list"),
        ({"type": "t", "data": []}, "data must be a JSON object, not list"),
        ({"type": "t", "id": ""}, "id is empty"),
        ({"type": "t", "id": 5}, "id must be a non-empty string"),
        ({"type": "t", "subject": "x" * 3000}, "subject has 3,000 characters"),
        (b'{"type": "t", "data": {"x": NaN}}', "not JSON"),
        ({"type": "t", "data": {"x": "\0"}}, "NUL"),
        ({"type": "t", "data": {"x": "y" * MAX_BYTES}}, "the limit is 262,144"),
        (ENVELOPE | {"time": "yesterday"}, "time is not an RFC 3339 time"),
        (b'{"type": "t"' + b" " * MAX_LINE + b"}", "the line has more than"),
    ],
    ids=lambda value: str(value)[:30],
)
def test_a_bad_line_is_named_and_does_not_affect_others(line: object, expected: str) -> None:
    good = {"type": "t", "id": "good"}
    first, bad, last = read(good, line, good)
    assert isinstance(first[1], Event) and isinstance(last[1], Event) and (first[0], last[0]) == (1, 3)
    assert bad[0] == 2 and isinstance(bad[1], EventError) and expected in str(bad[1])


def test_blank_lines_are_skipped_and_the_last_line_needs_no_end() -> None:
    entries = list(events_in(io.BytesIO(b'\n  \r\n{"type": "t"}\r\n\n{"type": "t"}'), event_of))
    assert [number for number, event in entries if isinstance(event, Event)] == [3, 5] and len(entries) == 2


class Endless(io.RawIOBase):
    """One line of 50 MB, then a good one. Counts how many bytes were read at once."""

    def __init__(self) -> None:
        self.left = 50_000_000

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        if self.left <= 0:
            tail = b'\n{"type": "t"}\n' if self.left == 0 else b""
            self.left = -1
            buffer[: len(tail)] = tail
            return len(tail)
        size = min(len(buffer), self.left)
        buffer[:size] = b"x" * size
        self.left -= size
        return size


def test_a_huge_line_takes_little_memory() -> None:
    tracemalloc.start()
    entries = list(events_in(io.BufferedReader(Endless()), event_of))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert [number for number, _ in entries] == [1, 2] and isinstance(entries[1][1], Event)
    assert peak < 8 * MAX_LINE


# --- the command ----------------------------------------------------------------------------------------


@pytest.fixture(autouse=True)
def _here(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(home.parent)


def write(path: Path, count: int) -> Path:
    path.write_text("".join(f'{{"type": "t", "id": "{number}"}}\n' for number in range(count)))
    return path


def test_a_thousand_lines_are_sent_in_one_round_trip(
    broker: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("DIMS_BROKER_URL", broker.url)
    assert main(["--from-file", str(write(tmp_path / "many", 2500))]) == 0
    assert broker.trips == 3
    ids = [str(number) for number in range(2500)]
    assert [event.id for event in broker.events()] == ids
    assert capsys.readouterr().out.split() == ids
    assert not Path(".dims/spool").exists()


def test_at_most_one_batch_is_read_ahead(monkeypatch: pytest.MonkeyPatch, spool: Spool) -> None:
    read, trips = 0, []

    def endless() -> Iterator[tuple[int, Event]]:
        nonlocal read
        while True:
            read += 1
            yield read, event_of("t", None, {"fill": "x" * (300 if read <= 1000 else 3000)}, None)

    monkeypatch.setattr("dims_producers.jsonl.publish", lambda events, url: trips.append((read, len(events))))
    sender = BatchSender(spool, "redis://x").send(endless())
    for _ in range(1600):
        next(sender)
    (first, second, *_) = trips
    assert first == (1001, 1000)
    size = len(event_of("t", None, {"fill": "x" * 3000}, None).to_json())
    assert second[1] == 1024 * 1024 // size and second[0] == first[0] + second[1]  # a mebibyte


def test_waiting_events_are_sent_first(
    broker: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, spool: Spool
) -> None:
    monkeypatch.setenv("DIMS_BROKER_URL", broker.url)
    spool.put(event_of("t", None, None, "waiting"))
    assert main(["--from-file", str(write(tmp_path / "few", 2))]) == 0
    assert [event.id for event in broker.events()] == ["waiting", "0", "1"]


def test_a_broker_that_becomes_unreachable_between_batches(
    broker: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, spool: Spool, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("DIMS_BROKER_URL", broker.url)
    monkeypatch.setattr("dims_producers.spool.BATCH", 10)
    publish, calls = dims_producers.publish.publish, []

    def once(events: Any, url: str) -> list[str]:
        calls.append(len(events))
        broker.set_unreachable(len(calls) > 1)
        return publish(events, url)

    monkeypatch.setattr("dims_producers.jsonl.publish", once)
    assert main(["--from-file", str(write(tmp_path / "few", 35))]) == 0
    assert calls == [10, 10] and len(spool) == 25  # no further attempt
    assert len(capsys.readouterr().out.split()) == 35
    broker.set_unreachable(False)
    assert main(["t", "--id", "35"]) == 0
    assert [event.id for event in broker.events()] == [*map(str, range(36))]


def test_bad_lines_are_named_and_good_ones_are_sent(
    broker: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("DIMS_BROKER_URL", broker.url)
    lines = b'{"type": "t", "id": "1"}\n{torn\n{"type": "t", "id": "3"}\n[]\n'
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(lines)))
    assert main(["--from-file", "-"]) == 2
    out = capsys.readouterr()
    assert out.out == "1\n3\n"
    assert (
        "dims-enqueue: line 2: the line is not JSON" in out.err and "dims-enqueue: line 4: the line must be" in out.err
    )
    assert "dims-enqueue: 2 of 4 lines were not sent" in out.err
    assert [event.id for event in broker.events()] == ["1", "3"] and broker.trips == 1


@pytest.mark.parametrize("known", [True, False])
def test_events_wait_if_the_broker_is_unreachable_or_unknown(
    broker: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, spool: Spool, capsys: Any, known: bool
) -> None:
    broker.set_unreachable()
    if known:
        monkeypatch.setenv("DIMS_BROKER_URL", broker.url)
    assert main(["--from-file", str(write(tmp_path / "few", 25))]) == 0
    out = capsys.readouterr()
    assert f"events wait in {spool.folder}: " in out.err and "secret" not in out.err and len(out.out.split()) == 25
    assert len(spool) == 25 and broker.trips == known


def test_a_full_disk_matters_only_without_a_broker(
    broker: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(spool: Spool, event: Event) -> Path:
        if event.id == "0":
            return put(spool, event)
        raise OSError(28, "No space left on device")

    put = Spool.put
    monkeypatch.setattr(Spool, "put", full)
    monkeypatch.setenv("DIMS_BROKER_URL", broker.url)
    file = str(write(tmp_path / "few", 3))
    assert main(["--from-file", file]) == 0
    assert [event.id for event in broker.events()] == ["0", "1", "2"]
    broker.set_unreachable()
    capsys.readouterr()
    assert main(["--from-file", file]) == 3
    out = capsys.readouterr()
    assert "the lines after line 1 are neither sent nor stored: [Errno 28]" in out.err and out.out == "0\n"


def test_a_spool_that_cannot_be_read_does_not_block_new_events(
    broker: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def unreadable(*_: object, **__: object) -> int:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Spool, "flush", unreadable)
    monkeypatch.setenv("DIMS_BROKER_URL", broker.url)
    assert main(["--from-file", str(write(tmp_path / "few", 3))]) == 0
    assert len(broker.events()) == 3 and "cannot send what waits in" in caplog.text


@pytest.mark.parametrize(
    "argv, expected",
    [
        (["--from-file", "/no/such"], "cannot read /no/such: No such file"),
        (["--from-file", "."], "cannot read ."),
        (["t", "--from-file", "-"], "from its lines"),
        (["--from-file", "-", "--data", "{}"], "from its lines"),
        (["--from-file", "-", "--id", "x"], "from its lines"),
        ([], "give an EVENT_TYPE"),
    ],
)
def test_wrong_usage_is_exit_code_2(
    argv: list[str], expected: str, capsys: pytest.CaptureFixture[str], home: Path
) -> None:
    try:
        code = main(argv)
    except SystemExit as ended:  # argparse's own
        code = int(str(ended.code))
    assert code == 2
    out = capsys.readouterr()
    assert not out.out and expected in out.err and not (home / "spool").exists()


def test_an_empty_file_sends_nothing(broker: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: Any) -> None:
    (tmp_path / "empty").write_bytes(b"\n\n")
    assert main(["--from-file", str(tmp_path / "empty")]) == 0
    assert capsys.readouterr() == ("", "") and broker.trips == 0
