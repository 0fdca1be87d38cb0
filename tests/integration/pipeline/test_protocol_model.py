"""A model test of the protocol: in every reachable state, each event is followed by a later measurement.

Hypothesis plays the world, producers, processes, people and faults against the real code (`ingest_stream`,
`measure_due`, `check_now`, `dims verify --update`, `decide_request`, the dispatcher), on a real PostgreSQL and a real
stream. A small simulated world (world.py) knows the truth. After each step, invariants.py compares the tables with it.
At the end the faults stop, and everything that happened must have been measured.

Time does not pass by itself: leases, back-offs and cooldowns end when a step says so. Every process halts before each
transaction, before it acknowledges, and before it reads the world (stepped_process.py). There it waits, continues or
dies. Other tests cover what happens inside one transaction.

Each test run takes the same walks. `DIMS_MODEL=5000` takes 5000 new ones instead. pytest prints the seed of a failure.
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
from dims_worker.broker import event_stream, pending_wakeups
from dims_worker.broker.pending_wakeups import reserve_lost
from dims_worker.broker.queues import INGEST, VERIFY
from dims_worker.cli import verify as command
from dims_worker.config import Config, load_config
from dims_worker.domain.approvers import Decider
from dims_worker.domain.plan import Planner
from dims_worker.errors import DatabaseUnreachable, Refused
from dims_worker.events import SCRAPER_COMPLETE, STREAM, VERIFY_REQUESTED, Event
from dims_worker.pipeline import verify
from dims_worker.store import approval_requests
from dims_worker.store.approval_requests import ApprovalRequest
from dims_worker.store.engine import transaction
from dims_worker.store.models import database, metadata
from dims_worker.worker.wakeups import WakeupSender
from tests.integration.helpers import NOW
from tests.integration.pipeline import invariants
from tests.integration.pipeline.claims import Claims, Worker
from tests.integration.pipeline.invariants import Tables
from tests.integration.pipeline.wakeups import UNREACHABLE, Wakeups
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
"""Steps between these may be minor, moderate, major or extreme, and need approval or not."""
ADA = Decider("ada", "option")
SOURCES = st.sampled_from(["one", "two"])
NAMED = st.sets(st.sampled_from(["m.a", "m.b", "m.c", "m.sum"]), min_size=1)
OLDER = st.booleans()
"""True: the process started before the configuration last changed."""
TO_END = st.booleans()
"""True: the process runs to its end. False: to its next halt."""

_sleep = time.sleep


@dataclass(frozen=True)
class Setup:
    """What all walks share: the servers and the configurations."""

    engine: Engine
    redis: Redis
    configs: dict[str, Config]

    def clear(self) -> None:
        protected = (
            "ALTER TABLE dims_approval_requests {} TRIGGER dims_protect_decisions"  # a walk may have decided some
        )
        with self.engine.begin() as connection:
            connection.execute(text(protected.format("DISABLE")))
            for table in reversed([table for table in metadata.sorted_tables if table is not database]):
                connection.execute(table.delete())
            connection.execute(text(protected.format("ENABLE")))
        self.redis.flushdb()


class Protocol(RuleBasedStateMachine):
    """One walk. A wake-up may be lost, late or repeated, so any may be handled at any time, sent or not. Only the
    end of the walk relies on the wake-ups that were really sent."""

    events = Bundle("events")
    processes = Bundle("processes")

    def __init__(self, setup: Setup) -> None:
        super().__init__()
        setup.clear()
        self.setup, self.engine, self.redis = setup, setup.engine, setup.redis
        self.config = self.older = setup.configs["plain"]
        self.world = World()
        self.wakeups = Wakeups(setup.engine, setup.redis)
        self.alive: list[Worker] = []
        self.numbers: Counter[str] = Counter()
        self.created: dict[str, Event] = {}
        """Every event of the producers, by id. Each is sent at least once by the end."""
        self.sent: set[str] = set()
        self.malformed = 0
        self.claims = Claims()
        self.reviewed: ApprovalRequest | None = None
        self.approved: str | None = None
        self.patches = ExitStack()
        self.patches.enter_context(self.claims.observed())
        for where, name, what in [
            (event_stream, "BATCH", 2),
            (event_stream, "STALE_CONSUMER_MS", -1),  # every consumer counts as stale
            (event_stream, "consumer_name", lambda: process.name if (process := current()) else "test"),
            (verify, "start_scan", lambda config, _, names, *known: Scan(self.world, config, tuple(names))),
            # Every sweep sends every wake-up again, and none is sent by the clock, so that equal walks end equally
            (WakeupSender, "_reserve_lost", lambda sender, queue, names: reserve_lost(sender.redis, queue, names, -1)),
            (pending_wakeups, "pop_scheduled", lambda _: ([], None)),
            (time, "sleep", lambda seconds: halt("sleep") if current() else _sleep(seconds)),
        ]:
            self.patches.enter_context(patch.object(where, name, what))
        self.dispatcher(ingests=True)
        self.before = self.tables()

    @initialize(measured=st.booleans())
    def begin(self, measured: bool) -> None:
        """Start with nothing measured, or with everything measured."""
        if measured:
            self.settle()

    # --- the world and its producers ------------------------------------------------------------------

    @rule(
        target=events,
        changes=st.dictionaries(st.sampled_from(MEASURED), st.sampled_from(VALUES), max_size=3),
        unspecific=st.booleans(),
        times=st.sampled_from([1, 1, 1, 2, 0]),
    )
    def something_changes(self, changes: dict[str, int], unspecific: bool, times: int) -> str:
        """The world changes. A producer sends an event now or later, once or twice, which says what changed or not."""
        self.world.values |= changes
        id = self.numbered("e")
        kind = SCRAPER_COMPLETE if unspecific else VERIFY_REQUESTED
        self.created[id] = Event.new(kind, "p", now=NOW, id=id, data={"metrics": sorted(changes)})
        for _ in range(times):
            self.send(id)
        return id

    @rule(id=events)
    def send(self, id: str) -> None:
        """Send an event for the first time or again, in any order."""
        if self.append(self.created[id].to_json()):
            self.sent.add(id)

    @rule(ahead=st.sampled_from(["99999999999999-0", f"{2**64 - 1}-{2**64 - 1}"]))
    def a_producer_chooses_an_id_in_the_future(self, ahead: str) -> None:
        self.malformed += self.append(self.numbered("malformed"), ahead)

    def append(self, envelope: str, id: str = "*") -> bool:
        """Add an entry. False if the last id of the stream is larger: then a producer keeps its event."""
        try:
            self.redis.xadd(STREAM, {b"event": envelope.encode()}, id=id)
        except ResponseError as error:
            assert "ID" in str(error)
            return False
        return True

    @rule(metric=st.sampled_from(MEASURED))
    def becomes_unreachable_or_reachable(self, metric: str) -> None:
        self.world.unreachable ^= {metric}

    @rule(metric=st.sampled_from(MEASURED))
    def starts_or_stops_crashing(self, metric: str) -> None:
        self.world.crashing ^= {metric}

    # --- processes ------------------------------------------------------------------------------------

    def has_capacity(self) -> bool:
        return sum(process.alive for process in self.alive) < 6

    @precondition(has_capacity)
    @rule(target=processes, ingests=st.booleans(), to_end=TO_END)
    def dispatcher(self, ingests: bool = False, to_end: bool = True) -> Worker:
        """A worker starts, and its dispatcher does one round: register, repair, sweep, ingest."""
        config = self.config
        return self.start(self.numbered("dispatcher"), lambda: self.wakeups.round(config, ingests=ingests), to_end)

    @precondition(has_capacity)
    @rule(target=processes, reborn=st.booleans(), to_end=TO_END)
    def ingest(self, reborn: bool = False, to_end: bool = True) -> Worker:
        """An ingest wake-up is handled, by a new process or by one with the name of a dead one."""
        config, names = self.config, {process.name for process in self.alive if process.alive}
        name = "ingest" if reborn and "ingest" not in names else self.numbered("ingest")
        return self.start(name, lambda: self.wakeups.handle(config, INGEST), to_end)

    @precondition(has_capacity)
    @rule(target=processes, source=SOURCES, older=OLDER, to_end=TO_END)
    def serve(self, source: str, older: bool, to_end: bool) -> Worker:
        """A verify wake-up is handled."""
        config = self.older if older else self.config
        return self.start(self.numbered("worker"), lambda: self.wakeups.handle(config, VERIFY, source), to_end)

    @precondition(has_capacity)
    @rule(target=processes, names=NAMED, older=OLDER, to_end=TO_END)
    def check(self, names: set[str], older: bool, to_end: bool) -> Worker:
        """`dims verify`."""
        config = self.older if older else self.config
        return self.start(self.numbered("check"), lambda: verify.check_now(self.engine, config, sorted(names)), to_end)

    @precondition(has_capacity)
    @rule(target=processes, names=NAMED, to_end=TO_END)
    def update(self, names: set[str], to_end: bool) -> Worker:
        """`dims verify --update`. If another process measures, it waits for that process."""
        config, wanted = self.config, frozenset(names)
        return self.start(self.numbered("update"), lambda: command.request(self.engine, config, wanted), to_end)

    def start(self, name: str, call: Callable[[], object], to_end: bool) -> Worker:
        process = Worker(name, call)
        self.alive = [*(other for other in self.alive if other.alive), process]
        process.step()  # to its first halt
        self.resume(process, to_end)
        return process

    @rule(process=processes, to_end=TO_END)
    def resume(self, process: Worker, to_end: bool) -> None:
        """Run a process to its next halt, or to its end."""
        process.step()
        while to_end and process.alive and process.halted_at != "sleep":
            process.step()
        self.claims.ended(process)

    @rule(process=processes)
    def kill(self, process: Worker) -> None:
        process.kill()
        self.claims.ended(process)

    @rule(process=processes)
    def database_is_unreachable(self, process: Worker) -> None:
        """Let the next transaction of a process fail."""
        if process.halted_at == "BEGIN":
            process.fail_with(DatabaseUnreachable(UNREACHABLE))
            self.claims.ended(process)

    @rule(process=processes)
    def renew(self, process: Worker) -> None:
        """Renew the lease of a living process, as its thread does."""
        self.claims.renew(self.engine, process)

    # --- time, people, configurations -----------------------------------------------------------------

    @rule(source=SOURCES)
    def lease_expires(self, source: str) -> None:
        """The lease holder is slow or dead."""
        self.claims.holders.pop(source, None)
        self.do(
            "UPDATE dims_sources SET lease_until = clock_timestamp() - interval '1 s' "
            "WHERE source = :source AND lease_until IS NOT NULL",
            source=source,
        )

    @rule()
    def time_passes(self) -> None:
        """Cooldowns and back-offs end, and every consumer becomes idle."""
        self.claims.waiting.clear()
        for table in ("dims_sources", "dims_metrics"):
            self.do(f"UPDATE {table} SET not_before = clock_timestamp() - interval '1 s' WHERE not_before IS NOT NULL")
        for held in self.redis.xpending_range(STREAM, event_stream.GROUP, "-", "+", 1000):
            self.redis.xclaim(
                STREAM, event_stream.GROUP, held["consumer"], 0, [held["message_id"]], idle=10**8, justid=True
            )

    @rule(metric=st.sampled_from(["m.c", "m.ratio"]))
    def a_reviewer_opens_a_request(self, metric: str) -> None:
        with transaction(self.engine) as connection:
            self.reviewed = approval_requests.open_requests(connection, [metric]).get(metric)

    @precondition(lambda self: self.reviewed)
    @rule(choice=st.sampled_from(["approved", "rejected"]))
    def a_reviewer_decides(self, choice: decisions.Choice) -> None:
        """Decide on the version that the reviewer saw, however long ago."""
        assert self.reviewed
        try:
            decisions.decide_request(
                self.engine,
                self.config,
                str(self.reviewed.id),
                choice,
                version=self.reviewed.version,
                person=ADA,
                note=None,
            )
        except Refused:
            return
        if choice == "approved":
            self.approved = self.reviewed.metric
            assert self.tables().states[self.approved].baseline == self.reviewed.value

    @rule(name=st.sampled_from(sorted(CONFIGS)))
    def configure(self, name: str) -> None:
        """Restart what ingests with another configuration. Measurements and checks may continue with the old one."""
        for process in self.alive:
            if process.name.startswith(("dispatcher", "ingest", "update")):
                self.kill(process)
        self.older, self.config = self.config, self.setup.configs[name]
        self.dispatcher(ingests=True)

    # --- invariants -----------------------------------------------------------------------

    @invariant()
    def invariants_hold(self) -> None:
        before, now = self.before, self.tables()
        invariants.nothing_goes_back(before, now)
        invariants.generations_are_raised_by_new_events_alone(before, now)
        invariants.no_baseline_moves_far_without_a_person(self.config, before, now, self.approved)
        invariants.requests_are_about_the_baseline(now)
        unstored = self.no_event_is_lost_or_stored_twice(now)
        planner = Planner(self.config)
        pending = {name for id in unstored for name in planner.plan(self.created[id]).metrics}
        invariants.what_is_not_due_is_true(self.config, now, self.world, pending)
        self.claims.attempts_are_claims_that_were_lost(self.alive, now.states)
        self.before, self.approved = now, None

    def no_event_is_lost_or_stored_twice(self, now: Tables) -> set[str]:
        """Return the events that are not stored yet."""
        stored = now.stored("p")
        assert set(stored.values()) <= {1}
        entries = {fields[b"event"] for _, fields in self.redis.xrange(STREAM)}
        for id in self.sent - set(stored):
            assert self.created[id].to_json().encode() in entries, f"{id} is neither in the stream nor in the database"
        return set(self.created) - set(stored)

    # --- the end of a walk --------------------------------------------------------------------------

    def teardown(self) -> None:
        try:
            self.end()
        finally:
            for process in self.alive:
                process.kill()
            self.patches.close()

    def end(self) -> None:
        """Send every event. Crashing and unreachable metrics block no others. Then they recover. Last, slow processes
        continue, and change nothing."""
        for _ in range(3):  # a stream that accepts no more entries is repaired once it is empty
            for id in sorted(set(self.created) - self.sent):
                self.send(id)
            self.settle()
        assert set(self.created) == self.sent
        self.world.crashing.clear()
        self.world.unreachable.clear()
        self.settle()
        for process in self.alive:
            process.finish()
            self.claims.ended(process)
        self.settle()

    def settle(self) -> None:
        """Lose all wake-ups and let time pass. Sweeps send wake-ups and workers handle them, until all is measured."""
        self.wakeups.sent.clear()
        for _ in range(40):
            self.time_passes()
            for source in ("one", "two"):
                self.lease_expires(source)
            self.dispatcher()
            if not self.wakeups.sent or (not self.redis.xlen(STREAM) and self.tables().due <= self.world.unmeasurable):
                break
            while self.wakeups.sent:
                wakeup = self.wakeups.pop()
                self.start(
                    self.numbered("settle"),
                    lambda wakeup=wakeup: self.wakeups.handle(self.config, *wakeup),
                    to_end=True,
                )
        if set(self.created) == self.sent:
            self.all_is_measured()

    def all_is_measured(self) -> None:
        now = self.tables()
        assert not self.redis.xlen(STREAM)
        assert not self.redis.xpending(STREAM, event_stream.GROUP)["pending"]
        assert set(now.stored("p")) == self.sent
        assert sum(row.outcome == "rejected" for row in now.log) == self.malformed
        invariants.all_is_measured(self.config, now, self.world)
        self.invariants_hold()

    # --- helpers ---------------------------------------------------------------------------------------

    def tables(self) -> Tables:
        return Tables.of(self.engine)

    def numbered(self, what: str) -> str:
        self.numbers[what] += 1
        return f"{what}{self.numbers[what]}"

    def do(self, statement: str, **parameters: Any) -> None:
        with transaction(self.engine) as connection:
            connection.execute(text(statement), parameters)


@pytest.fixture
def setup(
    engine: Engine, database_url: str, broker_url: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> Iterator[Setup]:
    caplog.set_level(logging.ERROR)
    configs = {}
    for name, rest in CONFIGS.items():
        (tmp_path / "dims.yaml").write_text(CONFIG + rest.lstrip("\n"))
        configs[name] = replace(load_config(None, {}, tmp_path), database_url=database_url, broker_url=broker_url)
    with HaltingRedis.from_url(broker_url) as redis, halting(engine):
        yield Setup(engine, redis, configs)


def test_no_event_is_without_a_later_measurement(setup: Setup) -> None:
    run_state_machine_as_test(lambda: Protocol(setup), settings=WALKS)
