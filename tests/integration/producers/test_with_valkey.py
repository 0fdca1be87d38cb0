"""Hook, spool, command and broker together, with real git, real processes and a real Valkey."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

import pytest

from dims_producers import git_hook
from dims_producers.git_hook import SENDER, flush, install
from dims_producers.publish import publish
from dims_producers.spool import Spool
from dims_worker.errors import BrokerUnreachable
from dims_worker.events import Event


def event(id: str) -> Event:
    return Event.new("t", "p", now=datetime(2026, 1, 1, tzinfo=UTC), id=id, data={"x": "ü😀"})


def test_publish_works_over_tcp_and_a_socket(valkey) -> None:
    assert len(publish([event("1"), event("2")], valkey.url)) == 2
    assert len(publish([event("3")], valkey.socket_url)) == 1
    assert valkey.events() == [event("1"), event("2"), event("3")]


@pytest.mark.parametrize("url", ["redis://:wrong@127.0.0.1:{port}/0", "redis://127.0.0.1:{port}/0"])
def test_a_broker_that_refuses_is_unreachable_and_the_password_is_hidden(valkey, url: str) -> None:
    with pytest.raises(BrokerUnreachable, match=f"127.0.0.1:{valkey.port}") as caught:
        publish([event("1")], url.format(port=valkey.port))
    assert "wrong@" not in str(caught.value)


def test_publish_to_a_frozen_broker_takes_a_bounded_time(valkey) -> None:
    valkey.freeze()
    with pytest.raises(BrokerUnreachable):
        publish([event("1")], valkey.url, timeout=0.4)  # without a timeout, this call would not return


def without_refs(events: list[Event]) -> list[Event]:
    """Return the events without changes of refs, which a slow machine reports before the commit that made them."""
    return [event for event in events if event.type != "dims.git.refs_changed"]


def test_a_commit_without_a_watcher_is_published(repo, home: Path, commit, valkey, until, python_processes) -> None:
    (home / "producer.env").write_text(f"DIMS_BROKER_URL={valkey.url}\n")
    install(repo, home)
    shas = [commit("one", "sub/two"), commit("three")]  # two in quick succession
    until(lambda: len(without_refs(valkey.events())) == 2)
    assert {e.id: e.data["paths"] for e in without_refs(valkey.events())} == {
        shas[0]: ["one", "sub/two"],
        shas[1]: ["three"],
    }
    until(lambda: not python_processes(str(home)))
    assert len(Spool(home / "spool")) == 0 and not (home / "spool/bad").exists()


def test_commits_while_the_broker_is_down_arrive_once_when_it_is_up(
    repo: Path, home: Path, commit, valkey, until, python_processes
) -> None:
    (home / "producer.env").write_text(f"DIMS_BROKER_URL={valkey.url}\n")
    install(repo, home)
    valkey.stop()
    first, amended = commit("a b"), commit("c", options=("--amend",))
    until(lambda: not python_processes(str(home)))
    assert len(Spool(home / "spool")) >= 3
    valkey.start()
    third = commit("d")
    until(lambda: len(without_refs(valkey.events())) >= 4)
    until(lambda: not python_processes(str(home)))
    assert [(e.type.rpartition(".")[2], e.data["commit"], e.data["paths"]) for e in without_refs(valkey.events())] == [
        ("commit", first, ["a b"]),
        ("commit", amended, ["a b", "c"]),
        ("rewrite", amended, ["c"]),
        ("commit", third, ["d"]),
    ]
    assert flush(home, {}) == 0


def test_senders_do_not_pile_up(repo: Path, home: Path, valkey, until, python_processes) -> None:
    """Without a watcher each commit would start a process. Instead, one process sends the notes of all."""
    (home / "producer.env").write_text(f"DIMS_BROKER_URL={valkey.url}\n")
    install(repo, home)
    valkey.stop()
    loop = "for i in $(seq 100); do git commit -q --allow-empty -m $i || exit 1; done; git rev-list --reverse HEAD"
    alive: list[set[int]] = []
    with subprocess.Popen(["sh", "-c", loop], cwd=repo, stdout=subprocess.PIPE, text=True) as burst:
        while burst.poll() is None:
            alive.append(set(python_processes(str(home))))
            time.sleep(0.02)
        shas = burst.stdout.read().split() if burst.stdout else []
    assert len(shas) == 100 and 100 <= len(Spool(home / "spool")) < 120
    assert max(map(len, alive)) <= 2 and len(set[int]().union(*alive)) < 50
    until(lambda: not python_processes(str(home)))
    assert not (home / "spool" / SENDER).exists()
    valkey.start()
    subprocess.run(["git", "commit", "-q", "--allow-empty", "-m", "last"], cwd=repo, check=True)
    until(lambda: len(Spool(home / "spool")) == 0)
    ids = [e.id for e in without_refs(valkey.events())]
    assert len(ids) == len(set(ids)) == 101 and set(shas) < set(ids)
    until(lambda: not python_processes(str(home)))


def test_a_note_that_arrives_while_a_sender_ends_is_sent(repo: Path, home: Path, commit, valkey) -> None:
    """A hook that still sees the sender starts none. So the sender removes its pid file, and checks once more."""
    install(repo, home, "/no/such/python")
    commit("first")
    spool = Spool(home / "spool")
    claim = spool.folder / SENDER
    claim.touch()
    seen: list[bool] = []
    late: list[str] = []
    real = git_hook.flush

    def flushed(home: Path, env: dict[str, str], *, hold: float) -> int:
        seen.append(claim.exists())
        sent = real(home, env, hold=hold)
        if not late:
            late.append(commit("late"))
        return sent

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DIMS_BROKER_URL", valkey.url)
        patch.setattr(git_hook, "flush", flushed)
        patch.setattr(os, "setsid", lambda: None)
        patch.setattr(os, "nice", lambda by: None)
        assert git_hook.main(["flush", "--background", str(home)]) == 0
    assert seen == [True, False] and valkey.events()[-1].id == late[0] and len(spool) == 0


def test_a_reset_is_sent_without_a_watcher(repo: Path, home: Path, commit, valkey, until, python_processes) -> None:
    (home / "producer.env").write_text(f"DIMS_BROKER_URL={valkey.url}\n")
    install(repo, home)
    commit("a")
    commit("b")
    subprocess.run(["git", "-C", repo, "reset", "-q", "--hard", "HEAD~1"], check=True)
    until(lambda: len(without_refs(valkey.events())) == 2 < len(valkey.events()))
    until(lambda: not python_processes(str(home)))
    assert len(Spool(home / "spool")) == 0 and not (home / "spool" / SENDER).exists()


def test_a_commit_does_not_wait_for_a_frozen_broker(repo, home: Path, commit, valkey, until, python_processes) -> None:
    (home / "producer.env").write_text(f"DIMS_BROKER_URL={valkey.url}\n")
    install(repo, home)
    commit("warm")
    until(lambda: not python_processes(str(home)))
    valkey.freeze()
    started = time.monotonic()
    commit("a")
    assert time.monotonic() - started < 1.0
    valkey.thaw()
    until(lambda: len(without_refs(valkey.events())) == 2)
    until(lambda: not python_processes(str(home)))


def test_two_processes_that_flush_at_once_send_each_event_once(home: Path, valkey) -> None:
    spool = Spool(home / "spool")
    for i in range(300):
        spool.put(event(str(i)))
    command = [sys.executable, "-m", "dims_producers.git_hook", "flush", str(home)]
    env = {**os.environ, "DIMS_BROKER_URL": valkey.url}
    both = [subprocess.Popen(command, env=env, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    outputs = sorted(process.communicate(timeout=20)[0] for process in both)
    assert [e.id for e in valkey.events()] == [str(i) for i in range(300)]
    assert sum(int(text.split()[0]) for text in outputs) == 300


def test_dims_enqueue_sends_later_what_waited_for_the_broker(home: Path, valkey) -> None:
    command = [sys.executable, "-m", "dims_producers.enqueue", "scraper_complete", "--home", str(home)]
    env = {**os.environ, "DIMS_BROKER_URL": valkey.url}
    valkey.stop()
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=True)
    assert "waits in the spool" in done.stderr or "waits in" in done.stderr
    valkey.start()
    again = subprocess.run([*command, "--data", '{"n": 1}'], env=env, capture_output=True, text=True, check=True)
    assert not again.stderr
    assert [e.id for e in valkey.events()] == [done.stdout.strip(), again.stdout.strip()]


def test_the_next_producer_also_sends_the_notes_of_git(repo: Path, home: Path, commit, valkey) -> None:
    install(repo, home, "/no/such/python")
    sha = commit("a")
    env = {**os.environ, "DIMS_BROKER_URL": valkey.url}
    command = [sys.executable, "-m", "dims_producers.enqueue", "t", "--id", "e", "--home", str(home)]
    subprocess.run(command, env=env, check=True, capture_output=True)
    assert len(Spool(home / "spool")) == 0
    assert [e.id for e in valkey.events()] == [sha, "e"]
