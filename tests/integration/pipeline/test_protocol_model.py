"""The protocol under everything that can happen to it: no reachable state in which an event has no later measurement.

Hypothesis plays the world, the producers, the processes, the people and bad luck against the real code
(`ingest.drain`, `verify.serve`, `verify.look`, `dims verify --update`, `approvals.decide`, the doorman), on a real
PostgreSQL and a real stream. A small made world (world.py) stands beside it and knows the truth. After each step the
tables are held against it (laws.py); at the end all goes calm, and everything that happened must have been measured.

Time does not pass by itself: leases, back-offs and cooldowns end where a step says so. Every process (process.py)
halts before each transaction, before it acknowledges, and before it reads the world; there it waits, is let on, or
dies. What happens inside one transaction is for PostgreSQL, and for the tests beside this one.

The same walks are taken each time. `DIMS_MODEL=5000` takes so many new ones instead; pytest prints the seed of one
that fails.
"""

from __future__ import annotations

import logging
import os
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from redis import Redis
from redis.exceptions import ResponseError
from sqlalchemy import Engine, text

from dims_worker.approvals import decisions
from dims_worker.broker import event_stream
from dims_worker.broker.queues import HELP_REQUESTED, INGEST, VERIFY
from dims_worker.cli import verify as command
from dims_worker.config import Config, load_config
from dims_worker.domain.plan import Planner
from dims_worker.errors import DatabaseUnreachable, Refused
from dims_worker.events import SCRAPER_COMPLETE, STREAM, VERIFY_REQUESTED, Event
from dims_worker.pipeline import verify
from dims_worker.store import approval_requests
from dims_worker.store.approval_requests import ApprovalRequest
from dims_worker.store.engine import transaction
from dims_worker.store.models import metadata
from tests.integration.helpers import NOW
from tests.integration.pipeline import invariants
from tests.integration.pipeline.claims import Claims, Worker
from tests.integration.pipeline.invariants import Tables
from tests.integration.pipeline.wakeups import AWAY, Bells
from tests.integration.pipeline.world import CONFIG, CONFIGS, MEASURED, Scan, World
from tests.integration.stepped_process import HaltingRedis, current, halt, halting

NEW_WALKS = int(os.environ.get("DIMS_MODEL", "0"))
WALKS = settings(
    max_examples=NEW_WALKS or 80,
    stateful_step_count=40,
    derandomize=not NEW_WALKS,
    database=None,
    deadline=None,
    print_blob=True,
    report_multiple_bugs=False,
    phases=set(Phase) - {Phase.explain},
    suppress_health_check=list(HealthCheck),
)

VALUES = (100, 104, 110, 114, 120, 200)
"""So that a step may be minor, moderate, major or extreme, and need a person or not."""
ADA = decisions.Decider("ada", "option")
SOURCES = st.sampled_from(["one", "two"])
NAMED = st.sets(st.sampled_from(["m.a", "m.b", "m.c", "m.sum"]), min_size=1)
OLDER = st.booleans()
"""Whether a process started before the configuration last changed."""
FAR = st.booleans()
"""Whether a process is let on to its end, or to its next halt."""

_sleep = time.sleep


@dataclass(frozen=True)
class Stage:
    """What all walks share: the servers, and the configurations."""

    engine: Engine
    redis: Redis
    configs: dict[str, Config]

    def clear(self) -> None:
        with self.engine.begin() as connection:
            for table in reversed(metadata.sorted_tables):
                connection.execute(table.delete())
        self.redis.flushdb()


class Protocol(RuleBasedStateMachine):
    """One walk. A bell may be lost, late or doubled: so any may be answered at any time, rung or not. Only the calm
    at the end counts on those that are really rung."""

    events = Bundle("events")
    processes = Bundle("processes")

    def __init__(self, stage: Stage) -> None:
        super().__init__()
        stage.clear()
        self.stage, self.engine, self.redis = stage, stage.engine, stage.redis
        self.config = self.older = stage.configs["plain"]
        self.world = World()
        self.bells = Bells(stage.engine, stage.redis)
        self.alive: list[Worker] = []
        self.numbers: Counter[str] = Counter()
        self.told: dict[str, Event] = {}
        """Every event of the producers, by id. Each is sent at least once in the end."""
        self.sent: set[str] = set()
        self.rubbish = 0
        self.claims = Claims()
        self.seen: ApprovalRequest | None = None
        self.approved: str | None = None
        self.patches = ExitStack()
        self.patches.enter_context(self.claims.noted())
        for where, name, what in [
            *(
                (event_stream, "BATCH", 2),
                (event_stream, "STALE_CONSUMER_MS", -1),
            ),  # every consumer has been silent for long
            (event_stream, "consumer_name", lambda: process.name if (process := current()) else "nobody"),
            (verify, "start_scan", lambda config, _, names: Scan(self.world, config, tuple(names))),
            (time, "sleep", lambda seconds: halt("sleep") if current() else _sleep(seconds)),
        ]:
            self.patches.enter_context(patch.object(where, name, what))
        self.doorman(takes_in=True)
        self.before = self.tables()

    @initialize(measured=st.booleans())
    def begin(self, measured: bool) -> None:
        """Either nothing was ever measured, or everything was."""
        if measured:
            self.calm_down()

    # --- the world and its producers ------------------------------------------------------------------

    @rule(
        target=events,
        changes=st.dictionaries(st.sampled_from(MEASURED), st.sampled_from(VALUES), max_size=3),
        vaguely=st.booleans(),
        times=st.sampled_from([1, 1, 1, 2, 0]),
    )
    def something_changes(self, changes: dict[str, int], vaguely: bool, times: int) -> str:
        """The world changes; a producer tells of it, now or later, once or twice, and says what changed or not."""
        self.world.values |= changes
        id = self.numbered("e")
        kind = SCRAPER_COMPLETE if vaguely else VERIFY_REQUESTED
        self.told[id] = Event.new(kind, "p", now=NOW, id=id, data={"metrics": sorted(changes)})
        for _ in range(times):
            self.send(id)
        return id

    @rule(id=events)
    def send(self, id: str) -> None:
        """For the first time or again, in whatever order."""
        if self.append(self.told[id].to_json()):
            self.sent.add(id)

    @rule(ahead=st.sampled_from(["99999999999999-0", f"{2**64 - 1}-{2**64 - 1}"]))
    def somebody_chooses_an_id_far_ahead(self, ahead: str) -> None:
        self.rubbish += self.append(self.numbered("rubbish"), ahead)

    def append(self, envelope: str, id: str = "*") -> bool:
        """False: the stream's last id is beyond this one, or the largest there is; a producer keeps its event."""
        try:
            self.redis.xadd(STREAM, {b"event": envelope.encode()}, id=id)
        except ResponseError as error:
            assert "ID" in str(error)
            return False
        return True

    @rule(metric=st.sampled_from(MEASURED))
    def goes_away_or_comes_back(self, metric: str) -> None:
        self.world.away ^= {metric}

    @rule(metric=st.sampled_from(MEASURED))
    def becomes_deadly_or_harmless(self, metric: str) -> None:
        self.world.deadly ^= {metric}

    # --- processes ------------------------------------------------------------------------------------

    def room(self) -> bool:
        return sum(process.alive for process in self.alive) < 6

    @precondition(room)
    @rule(target=processes, takes_in=st.booleans(), far=FAR)
    def doorman(self, takes_in: bool = False, far: bool = True) -> Worker:
        """A worker starts, and its doorman makes a round: register, mend, sweep, take in what has come."""
        config = self.config
        return self.start(self.numbered("doorman"), lambda: self.bells.round(config, takes_in=takes_in), far)

    @precondition(room)
    @rule(target=processes, reborn=st.booleans(), far=FAR)
    def ingest(self, reborn: bool = False, far: bool = True) -> Worker:
        """A bell for ingest is answered, by a new process or by one with the name of one that died."""
        config, names = self.config, {process.name for process in self.alive if process.alive}
        name = "ingest" if reborn and "ingest" not in names else self.numbered("ingest")
        return self.start(name, lambda: self.bells.answer(config, INGEST), far)

    @precondition(room)
    @rule(target=processes, source=SOURCES, older=OLDER, far=FAR)
    def serve(self, source: str, older: bool, far: bool) -> Worker:
        """A bell for a source is answered."""
        config = self.older if older else self.config
        return self.start(self.numbered("worker"), lambda: self.bells.answer(config, VERIFY, source), far)

    @precondition(room)
    @rule(target=processes, names=NAMED, older=OLDER, far=FAR)
    def look(self, names: set[str], older: bool, far: bool) -> Worker:
        """`dims verify`."""
        config = self.older if older else self.config
        return self.start(self.numbered("look"), lambda: verify.check_now(self.engine, config, sorted(names)), far)

    @precondition(room)
    @rule(target=processes, names=NAMED, far=FAR)
    def update(self, names: set[str], far: bool) -> Worker:
        """`dims verify --update`. Where another measures, it waits for that one."""
        config, wanted = self.config, frozenset(names)
        return self.start(self.numbered("update"), lambda: command.request(self.engine, config, wanted), far)

    def start(self, name: str, call: Callable[[], object], far: bool) -> Worker:
        process = Worker(name, call)
        self.alive = [*(one for one in self.alive if one.alive), process]
        process.go_on()  # to where it first touches anything
        self.let_on(process, far)
        return process

    @rule(process=processes, far=FAR)
    def let_on(self, process: Worker, far: bool) -> None:
        """To its next halt, or to its end."""
        process.go_on()
        while far and process.alive and process.halted_at != "sleep":
            process.go_on()
        self.claims.ended(process)

    @rule(process=processes)
    def kill(self, process: Worker) -> None:
        process.kill()
        self.claims.ended(process)

    @rule(process=processes)
    def database_is_away(self, process: Worker) -> None:
        """For the one transaction that it is about to begin."""
        if process.halted_at == "BEGIN":
            process.trouble(DatabaseUnreachable(AWAY))
            self.claims.ended(process)

    @rule(process=processes)
    def renew(self, process: Worker) -> None:
        """The thread that renews the lease of a living process does so."""
        self.claims.renew(self.engine, process)

    # --- time, people, configurations -----------------------------------------------------------------

    @rule(source=SOURCES)
    def lease_runs_out(self, source: str) -> None:
        """Its holder is slow, or dead."""
        self.claims.holders.pop(source, None)
        self.do("UPDATE dims_sources SET lease_until = clock_timestamp() - interval '1 s' "
                "WHERE source = :source AND lease_until IS NOT NULL", source=source)  # fmt: skip

    @rule()
    def time_passes(self) -> None:
        """Cooldowns and back-offs end, a bell's key is forgotten, whoever holds entries has been silent for long."""
        self.claims.waiting.clear()
        for table in ("dims_sources", "dims_metrics"):
            self.do(f"UPDATE {table} SET not_before = clock_timestamp() - interval '1 s' WHERE not_before IS NOT NULL")
        self.redis.delete(HELP_REQUESTED)
        for held in self.redis.xpending_range(STREAM, event_stream.GROUP, "-", "+", 1000):
            self.redis.xclaim(
                STREAM, event_stream.GROUP, held["consumer"], 0, [held["message_id"]], idle=10**8, justid=True
            )

    @rule(metric=st.sampled_from(["m.c", "m.ratio"]))
    def a_reviewer_looks(self, metric: str) -> None:
        with transaction(self.engine) as connection:
            self.seen = approval_requests.open_requests(connection, [metric]).get(metric)

    @precondition(lambda self: self.seen)
    @rule(choice=st.sampled_from(["approved", "rejected"]))
    def a_reviewer_decides(self, choice: decisions.Choice) -> None:
        """On what was seen, however long ago."""
        assert self.seen
        try:
            decisions.decide_request(
                self.engine, self.config, str(self.seen.id), choice, version=self.seen.version, person=ADA, note=None
            )
        except Refused:
            return
        if choice == "approved":
            self.approved = self.seen.metric
            assert self.tables().states[self.approved].baseline == self.seen.value

    @rule(name=st.sampled_from(sorted(CONFIGS)))
    def configure(self, name: str) -> None:
        """What takes events in is started anew with another configuration; what measures or looks may go on."""
        for process in self.alive:
            if process.name.startswith(("doorman", "ingest", "update")):
                self.kill(process)
        self.older, self.config = self.config, self.stage.configs[name]
        self.doorman(takes_in=True)

    # --- what must always be so -----------------------------------------------------------------------

    @invariant()
    def holds(self) -> None:
        before, now = self.before, self.tables()
        invariants.nothing_goes_back(before, now)
        invariants.generations_are_raised_by_new_events_alone(before, now)
        invariants.no_baseline_moves_far_without_a_person(self.config, before, now, self.approved)
        invariants.requests_are_about_the_baseline(now)
        unstored = self.no_event_is_lost_or_stored_twice(now)
        planner = Planner(self.config)
        told = {name for id in unstored for name in planner.plan(self.told[id]).metrics}
        invariants.what_is_not_due_is_true(self.config, now, self.world, told)
        self.claims.attempts_are_claims_that_were_lost(self.alive, now.states)
        self.before, self.approved = now, None

    def no_event_is_lost_or_stored_twice(self, now: Tables) -> set[str]:
        """Returns the events that are not stored yet."""
        stored = now.stored("p")
        assert set(stored.values()) <= {1}
        entries = {fields[b"event"] for _, fields in self.redis.xrange(STREAM)}
        for id in self.sent - set(stored):
            assert self.told[id].to_json().encode() in entries, f"{id} is neither in the stream nor in the database"
        return set(self.told) - set(stored)

    # --- the calm at the end --------------------------------------------------------------------------

    def teardown(self) -> None:
        try:
            self.end()
        finally:
            for process in self.alive:
                process.kill()
            self.patches.close()

    def end(self) -> None:
        """Every event is sent. What is deadly or away hinders nobody else, then it is no longer so. Last, who was
        slow awakes, and spoils nothing."""
        for _ in range(3):  # where the stream takes no more, it is mended once it is empty
            for id in sorted(set(self.told) - self.sent):
                self.send(id)
            self.calm_down()
        assert set(self.told) == self.sent
        self.world.deadly.clear()
        self.world.away.clear()
        self.calm_down()
        for process in self.alive:
            process.finish()
            self.claims.ended(process)
        self.calm_down()

    def calm_down(self) -> None:
        """The bells of before are lost, and time passes: sweeps ring, workers serve, until all is measured."""
        self.bells.rung.clear()
        for _ in range(40):
            self.time_passes()
            for source in ("one", "two"):
                self.lease_runs_out(source)
            self.doorman()
            if not self.bells.rung or (not self.redis.xlen(STREAM) and self.tables().due <= self.world.hindered):
                break
            while self.bells.rung:
                bell = self.bells.take()
                self.start(self.numbered("calm"), lambda bell=bell: self.bells.answer(self.config, *bell), far=True)
        if set(self.told) == self.sent:
            self.all_is_measured()

    def all_is_measured(self) -> None:
        now = self.tables()
        assert not self.redis.xlen(STREAM)
        assert not self.redis.xpending(STREAM, event_stream.GROUP)["pending"]
        assert set(now.stored("p")) == self.sent
        assert sum(row.outcome == "rejected" for row in now.log) == self.rubbish
        invariants.all_is_measured(self.config, now, self.world)
        self.holds()

    # --- asking ---------------------------------------------------------------------------------------

    def tables(self) -> Tables:
        return Tables.of(self.engine)

    def numbered(self, what: str) -> str:
        self.numbers[what] += 1
        return f"{what}{self.numbers[what]}"

    def do(self, statement: str, **parameters: Any) -> None:
        with transaction(self.engine) as connection:
            connection.execute(text(statement), parameters)


@pytest.fixture
def stage(
    engine: Engine, database_url: str, broker_url: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> Iterator[Stage]:
    caplog.set_level(logging.ERROR)
    configs = {}
    for name, rest in CONFIGS.items():
        (tmp_path / "dims.yaml").write_text(CONFIG + rest.lstrip("\n"))
        configs[name] = replace(load_config(None, {}, tmp_path), database_url=database_url, broker_url=broker_url)
    with HaltingRedis.from_url(broker_url) as redis, halting(engine):
        yield Stage(engine, redis, configs)


def test_no_event_is_without_a_later_measurement(stage: Stage) -> None:
    run_state_machine_as_test(lambda: Protocol(stage), settings=WALKS)
