from __future__ import annotations

import errno
import logging
import os
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from dims_producers import spool_limit
from dims_producers.spool import FULL, READERS, Spool, spool_and_send
from dims_producers.spool_file import SpoolFile
from dims_worker.errors import BrokerUnreachable, EventError, SpoolFull
from dims_worker.events import Event

NOW = datetime(2026, 11, 22, 9, tzinfo=UTC)


def event(id: str, **data: object) -> Event:
    return Event.new("t", "p", now=NOW, id=id, data=data)


class Sent(list[str]):
    """Collects the ids of the sent events, and the sizes of the batches."""

    def __init__(self) -> None:
        super().__init__()
        self.sizes: list[int] = []

    def __call__(self, events: Sequence[Event]) -> None:
        self.sizes.append(len(events))
        self.extend(e.id for e in events)


def test_stored_events_are_sent_in_order_and_removed(spool: Spool) -> None:
    assert len(spool) == 0
    for i in range(20):
        spool.put(event(str(i)))
    assert len(spool) == 20
    sent = Sent()
    assert spool.flush(sent) == 20
    assert sent == [str(i) for i in range(20)]
    assert len(spool) == 0 and not list(spool.tmp.iterdir())


def test_events_are_sent_in_order_of_arrival_not_of_names(spool: Spool) -> None:
    first, second = spool.put(event("1")), spool.put(event("2"))
    os.utime(first, ns=(10**18, 2 * 10**18))
    os.utime(second, ns=(10**18, 10**18))
    sent = Sent()
    spool.flush(sent)
    assert sent == ["2", "1"]


def test_batches_have_at_most_a_thousand_events_and_a_mebibyte(spool: Spool, monkeypatch) -> None:
    monkeypatch.setattr(os, "fsync", lambda fd: None)
    for i in range(1100):
        spool.put(event(str(i)))
    sent = Sent()
    assert spool.flush(sent) == 1100
    assert sent.sizes == [1000, 100]
    for i in range(9):
        spool.put(event(str(i), fill="x" * 200_000))
    sent = Sent()
    assert spool.flush(sent) == 9
    assert sent.sizes == [5, 4]


def test_a_failed_send_keeps_the_batch_and_what_follows(spool: Spool, monkeypatch) -> None:
    monkeypatch.setattr("dims_producers.spool.BATCH", 2)
    for i in range(5):
        spool.put(event(str(i)))
    sent = Sent()

    def flaky(events: Sequence[Event]) -> None:
        if sent:
            raise BrokerUnreachable
        sent(events)

    with pytest.raises(BrokerUnreachable):
        spool.flush(flaky)
    assert sent == ["0", "1"] and len(spool) == 3
    again = Sent()
    assert spool.flush(again) == 3 and again == ["2", "3", "4"]


def test_invalid_files_are_moved_to_bad_and_block_nothing(spool: Spool, caplog) -> None:
    spool.make()
    whole = event("whole").to_json()
    (spool.new / "1.json").write_text(whole[: len(whole) // 2])
    (spool.new / "2.txt").write_text("what is this")
    (spool.new / "3.json").write_bytes(b"\xff\xfe")
    (spool.new / "4.json").mkdir()
    os.mkfifo(spool.new / "5.json")
    (spool.new / "6.json").symlink_to("/dev/zero")
    (spool.new / ".hidden").touch()
    (spool.new / "7.json").write_text("")
    (spool.tmp / "torn.json").write_text("half")
    spool.put(event("good"))
    sent = Sent()
    with caplog.at_level(logging.WARNING):
        assert spool.flush(sent) == 1
    assert sent == ["good"]
    assert len(list(spool.bad.iterdir())) == 7 and len(spool) == 0
    assert caplog.text.count(", moved to ") == 7
    assert [p.name for p in spool.tmp.iterdir()] == ["torn.json"]


def test_bad_files_of_one_name_do_not_overwrite_each_other(spool: Spool) -> None:
    spool.make()
    for text in ("a", "b"):
        (spool.new / "x.json").write_text(text)
        spool.flush(Sent())
    assert sorted(p.read_text() for p in spool.bad.iterdir()) == ["a", "b"]


def test_old_incomplete_files_are_removed(spool: Spool) -> None:
    spool.make()
    (spool.tmp / "old").touch()
    os.utime(spool.tmp / "old", (0, 0))
    (spool.tmp / "young").touch()
    spool.flush(Sent())
    assert [p.name for p in spool.tmp.iterdir()] == ["young"]


def test_an_incomplete_file_stays(spool: Spool) -> None:
    spool.make()
    (spool.new / "x.git").touch()
    assert spool.flush(Sent()) == 0
    assert len(spool) == 1


def test_files_of_two_kinds_are_read_together_and_sent_in_order(spool: Spool, monkeypatch) -> None:
    groups: list[list[str]] = []

    def read(files: Sequence[SpoolFile]) -> list[Event | EventError | None]:
        groups.append([file.raw.decode() for file in files])
        assert all(file.written == (spool.new / file.name).stat().st_mtime_ns for file in files)
        kinds: dict[bytes, EventError | None] = {b"bad": EventError("bad"), b"torn": None}
        return [kinds.get(file.raw, event(file.raw.decode())) for file in files]

    monkeypatch.setitem(READERS, ".git", read)
    spool.make()
    for number, name in enumerate(("e0", "n1", "bad", "e2", "torn", "n3", "e4")):
        path = spool.put(event(name)) if name[0] == "e" else spool.new / f"{name}.git"
        if name[0] != "e":
            path.write_text(name)
        os.utime(path, ns=(number * 10**9, number * 10**9))
    sent = Sent()
    assert spool.flush(sent) == 5
    assert sent == ["e0", "n1", "e2", "n3", "e4"] and sent.sizes == [5]
    assert groups == [["n1", "bad", "torn", "n3"]]
    assert [path.name for path in spool.new.iterdir()] == ["torn.git"]
    assert [path.name for path in spool.bad.iterdir()] == ["bad.git"]


def test_a_huge_file_is_moved_to_bad_unread(spool: Spool, monkeypatch) -> None:
    real = Path.read_bytes

    def read(path: Path) -> bytes:
        assert path.stat().st_size < 2**30
        return real(path)

    monkeypatch.setattr(Path, "read_bytes", read)
    spool.make()
    with (spool.new / "1.json").open("wb") as file:
        file.truncate(10 * 2**30)  # sparse
    spool.put(event("good"))
    sent = Sent()
    assert spool.flush(sent) == 1 and sent == ["good"]
    assert [path.name for path in spool.bad.iterdir()] == ["1.json"]


def test_two_processes_that_send_at_once_send_each_event_once(spool: Spool) -> None:
    for i in range(30):
        spool.put(event(str(i)))
    sent = Sent()

    def slowly(events: Sequence[Event]) -> None:
        time.sleep(0.1)
        sent(events)

    threads = [threading.Thread(target=spool.flush, args=(slowly,)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(sent, key=int) == [str(i) for i in range(30)]


def test_a_second_sender_waits_a_bounded_time(spool: Spool) -> None:
    spool.put(event("1"))
    inside, leave = threading.Event(), threading.Event()

    def hang(events: Sequence[Event]) -> None:
        inside.set()
        leave.wait(60)

    thread = threading.Thread(target=spool.flush, args=(hang,))
    thread.start()
    inside.wait(5)
    started = time.monotonic()
    assert spool.flush(Sent(), wait=0.2) == 0
    assert 0.15 < time.monotonic() - started < 30  # the first sender takes a minute
    leave.set()
    thread.join()
    assert len(spool) == 0


def test_what_arrives_during_a_flush_is_sent_by_it(spool: Spool) -> None:
    spool.put(event("1"))
    sent = Sent()

    def and_another(events: Sequence[Event]) -> None:
        if not sent:
            spool.put(event("2"))
        sent(events)

    assert spool.flush(and_another) == 2
    assert sent == ["1", "2"]


CRASH = """
import os, sys
from datetime import datetime, UTC
from pathlib import Path
from dims_worker.events import Event
from dims_producers.spool import Spool
spool = Spool(Path(sys.argv[1]))
real, calls = os.fsync, 0
def die(fd):
    global calls
    calls += 1
    if calls == int(sys.argv[2]):
        os._exit(9)
    real(fd)
os.fsync = die
for i in range(3):
    spool.put(Event.new("t", "p", now=datetime.now(UTC), id=str(i)))
    print(i, flush=True)
"""


@pytest.mark.parametrize("at", range(1, 7))
def test_a_crash_at_any_sync_loses_nothing_that_put_returned(spool: Spool, at: int) -> None:
    done = subprocess.run(
        [sys.executable, "-c", CRASH, str(spool.folder), str(at)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 9, done.stderr
    sent = Sent()
    spool.flush(sent)
    assert sent[: len(done.stdout.split())] == done.stdout.split()
    assert not spool.bad.exists()


# --- a full disk --------------------------------------------------------------------------------------


def _no_space(*_: object, **__: object) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize("call", ["os.fsync", "pathlib.Path.rename", "dims_producers.spool._sync_folder"])
def test_a_full_disk_leaves_no_file_behind(spool: Spool, monkeypatch, call: str) -> None:
    spool.put(event("before"))
    with monkeypatch.context() as patched:
        patched.setattr(call, _no_space)
        with pytest.raises(OSError, match="No space"):
            spool.put(event("lost"))
    assert len(spool) == 1 and not list(spool.tmp.iterdir())
    spool.put(event("after"))
    sent = Sent()
    assert spool.flush(sent) == 2 and sent == ["before", "after"] and not spool.bad.exists()


def test_a_file_size_limit_leaves_no_file_behind(spool: Spool) -> None:
    """The kernel accepts only 4,096 bytes of the event."""
    code = (
        "import resource, signal, sys; from pathlib import Path; from datetime import datetime, UTC\n"
        "from dims_worker.events import Event; from dims_producers.spool import Spool\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN); resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))\n"
        "try: Spool(Path(sys.argv[1])).put(Event.new('t', 'p', now=datetime.now(UTC), data={'x': 'x' * 100_000}))\n"
        "except OSError as error: print(error.strerror)\n"
    )
    done = subprocess.run([sys.executable, "-c", code, str(spool.folder)], capture_output=True, text=True, check=False)
    assert done.stdout == "File too large\n", done.stderr
    assert len(spool) == 0 and not list(spool.tmp.iterdir())


# --- the limit ----------------------------------------------------------------------------------------


def test_a_spool_with_too_many_files_refuses_until_they_are_sent(home: Path) -> None:
    spool = Spool(home / "spool", max_files=3)
    for i in range(3):
        spool.put(event(str(i)))
    for _ in range(2):
        with pytest.raises(SpoolFull, match=f"{spool.folder} is full: it holds 3 events.*dims up"):
            spool.put(event("no room"))
    with pytest.raises(OSError):  # a caller that handles a full disk handles this too
        spool.put(event("no room"))
    assert (spool.folder / FULL).exists() and len(spool) == 3
    sent = Sent()
    assert spool.flush(sent) == 3 and sent == ["0", "1", "2"]
    assert not (spool.folder / FULL).exists()
    spool.put(event("room"))


def test_a_spool_with_too_many_bytes_refuses(home: Path) -> None:
    spool = Spool(home / "spool", max_bytes=3000)
    for i in range(3):
        spool.put(event(str(i), fill="x" * 1000))
    with pytest.raises(SpoolFull, match="3,000 bytes"):
        spool.put(event("no room"))


def test_bad_files_count(home: Path) -> None:
    spool = Spool(home / "spool", max_files=2)
    spool.make()
    for i in range(2):
        (spool.new / f"{i}.json").write_text("bad")
    spool.flush(Sent())
    assert len(list(spool.bad.iterdir())) == 2 and len(spool) == 0
    with pytest.raises(SpoolFull):
        spool.put(event("no room"))


def test_notes_of_git_count_but_are_not_refused(home: Path) -> None:
    spool = Spool(home / "spool", max_files=2)
    spool.make()
    for i in range(2):
        (spool.new / f"{i}.git").touch()
    with pytest.raises(SpoolFull):
        spool.put(event("no room"))


def test_a_full_spool_is_marked_for_all_processes_and_counted_again(home: Path, monkeypatch) -> None:
    spool, large = Spool(home / "spool", max_files=2), Spool(home / "spool")
    for i in range(2):
        spool.put(event(str(i)))
    with pytest.raises(SpoolFull):
        spool.put(event("no room"))
    for path in spool.new.iterdir():
        path.unlink()  # as you do by hand
    with pytest.raises(SpoolFull):  # there is room, but it does not count yet
        large.put(event("no room"))
    os.utime(spool.folder / FULL, (time.time() - 11,) * 2)
    large.put(event("room"))
    assert not (spool.folder / FULL).exists()


def test_a_mark_from_the_future_is_ignored(home: Path) -> None:
    spool = Spool(home / "spool")
    spool.make()
    (spool.folder / FULL).touch()
    os.utime(spool.folder / FULL, (time.time() + 3600,) * 2)
    spool.put(event("room"))


def test_put_counts_rarely_and_more_often_for_large_events(home: Path, monkeypatch) -> None:
    counts: list[object] = []
    real = os.scandir

    def counted(folder: Any) -> Any:
        counts.append(folder)
        return real(folder)

    monkeypatch.setattr(os, "scandir", counted)
    monkeypatch.setattr(os, "fsync", lambda fd: None)
    chances = iter(range(10**6))
    monkeypatch.setattr("random.random", lambda: next(chances) % 1000 / 1000)
    spool = Spool(home / "spool", max_files=20_000, max_bytes=10**8)
    for i in range(1000):
        spool.put(event(str(i)))
    assert len([folder for folder in counts if folder == spool.new]) == 5  # 100 of 20,000
    counts.clear()
    for i in range(1000):
        spool.put(event(str(i), fill="x" * 20_000))
    assert len([folder for folder in counts if folder == spool.new]) == 21  # a hundredth of 10**8 each
    assert len(spool) == 2000


def test_the_default_limits(spool: Spool) -> None:
    assert (spool_limit.MAX_FILES, spool_limit.MAX_BYTES) == (100_000, 2**30)


def test_a_crash_between_sending_and_removing_sends_the_same_id_again(spool: Spool, broker) -> None:
    spool.put(event("1"))
    from dims_producers.publish import publish

    def die_after(events: Sequence[Event]) -> None:
        publish(events, broker.url)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        spool.flush(die_after)
    spool.flush(lambda events: publish(events, broker.url))
    assert [e.id for e in broker.events()] == ["1", "1"]


def test_an_event_is_stored_first_and_sent_with_those_that_wait(spool: Spool, broker) -> None:
    broker.set_unreachable()
    assert spool_and_send(event("1"), spool, broker.url) is False
    assert len(spool) == 1
    assert spool_and_send(event("2"), spool, None) is False
    broker.set_unreachable(False)
    assert spool_and_send(event("3"), spool, broker.url) is True
    assert [e.id for e in broker.events()] == ["1", "2", "3"]
    assert len(spool) == 0


def test_an_event_is_sent_directly_if_the_spool_is_broken(tmp_path: Path, broker) -> None:
    (tmp_path / "file").touch()
    nowhere = Spool(tmp_path / "file" / "spool")
    assert spool_and_send(event("1"), nowhere, broker.url) is True
    assert [e.id for e in broker.events()] == ["1"]
    with pytest.raises(OSError):
        spool_and_send(event("2"), nowhere, None)
    broker.set_unreachable()
    with pytest.raises(BrokerUnreachable):
        spool_and_send(event("3"), nowhere, broker.url)


def test_an_event_is_sent_directly_if_the_spool_is_full(home: Path, broker) -> None:
    full = Spool(home / "spool", max_files=2)
    for i in range(2):
        full.put(event(str(i)))
    with pytest.raises(SpoolFull):
        spool_and_send(event("2"), full, None)
    broker.set_unreachable()
    with pytest.raises(BrokerUnreachable):
        spool_and_send(event("3"), full, broker.url)
    broker.set_unreachable(False)
    assert spool_and_send(event("4"), full, broker.url) is True
    assert [e.id for e in broker.events()] == ["4", "0", "1"]
    assert spool_and_send(event("5"), full, broker.url) is True
    assert [e.id for e in broker.events()][3:] == ["5"] and len(full) == 0
