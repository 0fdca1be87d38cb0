"""A process that stores and sends events is killed at random moments. No event is lost after `put` has returned."""

from __future__ import annotations

import random
import subprocess
import sys
import time
from collections import defaultdict
from pathlib import Path

from dims_producers.git_hook import flush
from dims_producers.spool import Spool
from tests.conftest import REPO

ROUNDS = 20
SEED = random.randrange(10**6)

CODE = """
import random, sys
from datetime import datetime, UTC
from pathlib import Path
from dims_worker.events import Event
from dims_producers.publish import publish
from dims_producers.spool import Spool, spool_and_send
spool, url, producer = Spool(Path(sys.argv[1])), sys.argv[2], sys.argv[3]
print("begun", flush=True)
for number in range(10**6):
    event = Event.new("t", producer, now=datetime.now(UTC), data={"number": number})
    if random.random() < 0.2:
        spool_and_send(event, spool, url)
    else:
        spool.put(event)
    print(number, event.id, flush=True)
"""


def test_a_killed_process_loses_no_stored_event(home: Path, valkey) -> None:
    print(f"seed {SEED}")
    chance = random.Random(SEED)
    spool = Spool(home / "spool")
    returned: dict[str, list[tuple[int, str]]] = {}
    for number in range(ROUNDS):
        producer = f"round-{number}"
        process = subprocess.Popen(
            [sys.executable, "-c", CODE, spool.folder, valkey.url, producer],
            stdout=subprocess.PIPE,
            text=True,
            cwd=REPO,
        )
        assert process.stdout and process.stdout.readline() == "begun\n"
        time.sleep(chance.uniform(0, 0.3))
        process.kill()
        lines = process.stdout.read().splitlines(keepends=True)
        process.wait(10)
        process.stdout.close()
        whole = [line.split() for line in lines if line.endswith("\n")]
        returned[producer] = [(int(number), id) for number, id in whole]
    assert sum(map(len, returned.values())) > ROUNDS
    flush(home, {"DIMS_BROKER_URL": valkey.url})
    assert len(spool) == 0 and not spool.bad.exists()

    arrived: dict[str, list[tuple[int, str]]] = defaultdict(list)
    for event in valkey.events():
        entry = (event.data["number"], event.id)
        if entry not in arrived[event.producer]:  # twice with the same id counts once
            arrived[event.producer].append(entry)
    for producer, reported in returned.items():
        got = arrived.get(producer, [])
        assert set(reported) <= set(got), producer
        assert [number for number, _ in got] == list(range(len(got))), producer  # in order, and each with one id
        assert len(got) <= len(reported) + 1, producer  # the last one may be stored before `put` returned
    drafts = list(spool.tmp.iterdir())
    assert len(drafts) <= ROUNDS
