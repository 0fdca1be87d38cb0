"""Claims, leases and epochs: one run at a time, later events stay due, and a run without its lease changes nothing."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import timedelta

import pytest

from dims_worker.config import Config
from dims_worker.domain.run import Run
from dims_worker.pipeline import verify
from dims_worker.pipeline.record import record_run
from dims_worker.probes import scan
from dims_worker.probes.base import Deadline, ScanContext, ScanResult
from dims_worker.store import leases, metric_states
from dims_worker.store.engine import transaction
from dims_worker.store.leases import Claim
from tests.integration.helpers import CONFIG, LEASE, Down, Flow, Threads, outcome, reading

EXPIRE = "UPDATE dims_sources SET lease_until = clock_timestamp() - interval '1 s'"
SECOND = timedelta(seconds=1)


def overdue(flow: Flow) -> list[str]:
    with transaction(flow.engine) as connection:
        names = [name for names in flow.config.metrics_by_source.values() for name in names]
        return [due.source for due in metric_states.due_sources(connection, names) if due.delay <= 0]


def changed(flow: Flow) -> list[tuple[object, ...]]:
    """Return all rows that a run without its lease must not change."""
    return [
        tuple(row)
        for table in ("dims_metrics", "dims_sources", "dims_approval_requests")
        for row in flow.rows(f"SELECT * FROM {table} ORDER BY 1")
    ]


# --- claims -------------------------------------------------------------------------------------------


def test_a_source_without_due_metrics_cannot_be_claimed(flow: Flow) -> None:
    assert flow.claim() is None
    flow.ask("m.b")
    assert flow.claim("one") is None
    assert flow.scalar("SELECT max(lease_epoch) FROM dims_sources") == 0


def test_a_claim_holds_the_due_metrics_and_generations_and_raises_the_epoch(flow: Flow) -> None:
    flow.ask("m.a")
    flow.ask("m.a")
    claim = flow.claim()
    assert claim is not None
    assert (claim.source, claim.epoch, claim.generations) == ("one", 1, {"m.a": 2})
    flow.record(claim, {"m.a": 1})
    assert flow.claimed("m.c").epoch == 2


def test_only_one_of_many_simultaneous_claims_succeeds(flow: Flow, beside: Threads) -> None:
    for round_ in range(5):
        flow.ask("m.a")
        claims = [outcome(one) for one in [beside(flow.claim) for _ in range(6)]]
        (won,) = [claim for claim in claims if claim is not None]
        assert won.epoch == round_ + 1
        flow.record(won, {"m.a": 1})


def test_a_claim_does_not_wait_for_a_claim_in_progress(flow: Flow) -> None:
    flow.ask("m.a", "m.b")
    with transaction(flow.engine) as connection:
        first = leases.claim_source(
            connection, "one", {"m.a": flow.config.definitions["m.a"]}, "first", LEASE, at_once=False
        )
        assert first is not None
        assert flow.claim("one") is None  # SKIP LOCKED: without waiting
        assert flow.claim("two") is not None


def test_a_source_is_not_claimed_twice_until_the_lease_expires(flow: Flow) -> None:
    first = flow.claimed("m.a")
    flow.ask("m.c")
    assert flow.claim() is None
    assert overdue(flow) == []
    flow.do(EXPIRE)
    assert overdue(flow) == ["one"]
    second = flow.claim()
    assert second is not None
    assert (second.epoch, set(second.generations)) == (first.epoch + 1, {"m.a", "m.c"})


def test_a_cooldown_defers_a_claim_and_a_person_skips_it(flow: Flow) -> None:
    flow.serve(a=1)
    flow.do("UPDATE dims_sources SET not_before = clock_timestamp() + interval '1 h' WHERE source = 'one'")
    flow.ask("m.a")
    flow.ask("m.c")
    assert flow.claim(at_once=False) is None
    assert overdue(flow) == []
    person = flow.claim(at_once=True)
    assert person is not None
    flow.do(EXPIRE)
    flow.do("UPDATE dims_sources SET not_before = clock_timestamp() WHERE source = 'one'")
    assert overdue(flow) == ["one"]
    later = flow.claim(at_once=False)
    assert later is not None
    assert later.generations == {"m.a": 2, "m.c": 1}  # all due metrics together


def test_recording_starts_the_cooldown(flow: Flow) -> None:
    claim = flow.claimed("m.a")
    with transaction(flow.engine) as connection:
        assert leases.release_lease(connection, claim, timedelta(minutes=5))
    left = flow.scalar("SELECT not_before - clock_timestamp() FROM dims_sources WHERE source = 'one'")
    assert timedelta(minutes=4) < left <= timedelta(minutes=5)


# --- leases -------------------------------------------------------------------------------------------


def test_only_the_holder_of_a_lease_can_renew_it(flow: Flow) -> None:
    claim = flow.claimed("m.a")
    flow.do(EXPIRE)
    with transaction(flow.engine) as connection:
        assert leases.renew_lease(connection, claim, LEASE)
        assert leases.is_leased(connection, "one")
    flow.do(EXPIRE)
    taken = flow.claim()
    assert taken is not None
    with transaction(flow.engine) as connection:
        assert not leases.renew_lease(connection, claim, LEASE)
        assert leases.renew_lease(connection, taken, LEASE)


def test_a_renewal_after_the_record_does_not_lease_again(flow: Flow, beside: Threads) -> None:
    """The renewal waits for the row that the record has locked, and finds that the lease has ended."""
    claim = flow.claimed("m.a")

    def renew() -> bool:
        with transaction(flow.engine) as connection:
            return leases.renew_lease(connection, claim, LEASE)

    with transaction(flow.engine) as connection:
        assert leases.release_lease(connection, claim, timedelta(0))
        late = beside(renew)
        flow.blocked()
    assert outcome(late) is False
    flow.ask("m.a")
    assert flow.claim(at_once=False) is not None


def test_a_run_recorded_after_its_lease_was_lost_changes_only_the_history(flow: Flow) -> None:
    flow.serve(a=1, c=1)
    slow = flow.claimed("m.a", "m.c")
    flow.do(EXPIRE)
    quick = flow.claim()
    flow.record(quick, {"m.a": 2, "m.c": 2})
    before = changed(flow)
    run = flow.record(slow, {"m.a": 99, "m.c": 99})
    assert run.status == "superseded"
    assert {item.outcome for item in run.items} == {"superseded"}
    assert changed(flow) == before
    (row,) = flow.rows("SELECT * FROM dims_metrics_history WHERE run_id = :r AND metric = 'm.a'", r=run.run_id)
    assert (row.value, row.outcome, row.generation) == (99, "superseded", None)


def test_a_run_that_lost_its_lease_does_not_end_the_new_lease(flow: Flow) -> None:
    slow = flow.claimed("m.a")
    flow.do(EXPIRE)
    quick = flow.claim()
    assert flow.record(slow, {"m.a": 99}).status == "superseded"
    assert flow.record(quick, {"m.a": 2}).status == "ok"
    assert flow.state("m.a").value == 2


def test_recording_twice_under_one_claim_changes_nothing_the_second_time(flow: Flow) -> None:
    claim = flow.claimed("m.a")
    flow.record(claim, {"m.a": 1})
    assert flow.record(claim, {"m.a": 2}).status == "superseded"
    assert flow.state("m.a").value == 1


def test_a_run_with_an_expired_lease_that_is_still_free_is_recorded(flow: Flow) -> None:
    claim = flow.claimed("m.a")
    flow.do(EXPIRE)
    assert flow.record(claim, {"m.a": 1}).status == "ok"
    state = flow.state("m.a")
    assert (state.value, state.due) == (1, False)


def test_a_run_is_recorded_whole_or_not_at_all(flow: Flow, monkeypatch: pytest.MonkeyPatch) -> None:
    claim = flow.claimed("m.a")
    before = changed(flow)
    with monkeypatch.context() as patch:
        patch.setattr("dims_worker.pipeline.record.insert_readings", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            flow.record(claim, {"m.a": 1})
    assert changed(flow) == before
    assert flow.rows("SELECT * FROM dims_verification_runs") == []
    assert flow.record(claim, {"m.a": 1}).status == "ok"


# --- what is due --------------------------------------------------------------------------------------


def test_an_event_during_a_measurement_leaves_the_metric_due(flow: Flow) -> None:
    claim = flow.claimed("m.a")
    flow.ask("m.a")
    flow.record(claim, {"m.a": 1})
    state = flow.state("m.a")
    assert (state.requested_gen, state.measured_gen, state.value) == (2, 1, 1)
    again = flow.claim()
    assert again is not None
    flow.record(again, {"m.a": 2})
    assert not flow.state("m.a").due


def test_a_run_records_the_epoch_of_its_claim(flow: Flow) -> None:
    flow.record(flow.claimed("m.a"), {"m.a": 1})
    claim = flow.claimed("m.a")
    run = flow.record(claim, {"m.a": 2})
    (row,) = flow.rows(f"SELECT lease_epoch FROM dims_verification_runs WHERE run_id = {run.run_id}")
    assert row.lease_epoch == claim.epoch == 2


def test_serving_runs_are_the_first_with_the_generation_of_each_metric(flow: Flow) -> None:
    first = flow.record(flow.claimed("m.a"), {"m.a": 1})
    second = flow.record(flow.claimed("m.a"), {"m.a": 2})
    other = flow.record(flow.claimed("m.b"), {"m.b": 1})

    def served_by(**generations: int) -> list[int]:
        wanted = {f"m.{name}": generation for name, generation in generations.items()}
        with transaction(flow.engine) as connection:
            return [run.run_id for run in leases.serving_runs(connection, wanted)]

    assert served_by(a=1) == [first.run_id]
    assert served_by(a=2) == [second.run_id]
    assert served_by(a=2, b=1) == [second.run_id, other.run_id]
    assert served_by(a=3) == served_by(b=2) == []


def test_an_event_stored_during_a_record_is_not_lost(flow: Flow, beside: Threads) -> None:
    claim = flow.claimed("m.a")
    with transaction(flow.engine) as connection:
        record_run(connection, flow.config, flow.measured({"m.a": 1}, claim))
        event = beside(flow.ask, "m.a")
        flow.blocked()
    outcome(event)
    assert flow.state("m.a").due


def test_a_failure_leaves_the_metric_due_and_doubles_its_back_off(flow: Flow) -> None:
    flow.serve(a=7)
    flow.ask("m.a")
    waits = []
    for number in range(1, 10):
        claim = flow.claim(at_once=True)
        assert claim is not None
        run = flow.record(claim, {"m.a": Down("the disk is away")})
        assert (run.status, run.items[0].outcome) == ("partial", "failed")
        state = flow.state("m.a")
        assert (state.due, state.failures, state.error) == (True, number, "the disk is away")
        assert (state.value, state.baseline, state.status) == (7, 7, "new")
        waits.append(
            flow.scalar(
                "SELECT round(extract(epoch FROM not_before - now()) / 10) FROM dims_metrics m WHERE metric = 'm.a'"
            )
        )
        assert flow.claim(at_once=False) is None  # backs off
        assert overdue(flow) == []
    assert waits == [1, 2, 4, 8, 16, 32, 64, 90, 90]
    flow.record(flow.claim(), {"m.a": 7})
    state = flow.state("m.a")
    assert (state.due, state.failures, state.error, state.not_before) == (False, 0, None, None)


def test_the_back_off_of_a_metric_does_not_delay_other_metrics(flow: Flow) -> None:
    claim = flow.claimed("m.a", "m.c")
    flow.record(claim, {"m.a": Down("away"), "m.c": 1})
    assert flow.claim(at_once=False) is None
    flow.ask("m.c")
    again = flow.claim(at_once=False)
    assert again is not None
    assert set(again.generations) == {"m.c"}


def test_an_older_reading_is_superseded_and_the_metric_stays_due(flow: Flow) -> None:
    flow.serve(a=1)
    claim = flow.claimed("m.a")
    flow.look(a=5)  # started later, recorded earlier
    before = flow.state("m.a")
    (item,) = flow.record(claim, {"m.a": 2}).items[:1]
    assert item.outcome == "superseded"
    assert flow.state("m.a") == replace(before, attempts=0)  # the worker is alive
    assert before.due
    flow.record(flow.claim(), {"m.a": 5})
    assert not flow.state("m.a").due


def test_the_time_of_a_baseline_never_goes_back(flow: Flow) -> None:
    flow.serve(a=1)
    newest = flow.state("m.a").baseline_as_of
    assert newest is not None
    for as_of in (newest, newest - SECOND):
        flow.record(flow.claimed("m.a"), {"m.a": 2}, as_of)
        flow.do(EXPIRE)
        state = flow.state("m.a")
        assert (state.baseline, state.baseline_as_of, state.due) == (1, newest, True)


# --- checks without a lease ---------------------------------------------------------------------------------------


def test_a_check_sets_only_a_first_baseline_and_no_generation(flow: Flow) -> None:
    flow.ask("m.a")
    assert flow.look(a=10)["m.a"].outcome == "accepted"
    first = flow.state("m.a")
    assert (first.baseline, first.measured_gen, first.due) == (10, 0, True)
    item = flow.look(a=20)["m.a"]
    assert (item.outcome, item.status, item.drift_pct, item.baseline) == ("looked", "extreme", 100.0, 10)
    second = flow.state("m.a")
    assert (second.value, second.baseline, second.baseline_as_of) == (20, 10, first.baseline_as_of)
    assert second.measured_gen == 0


def test_a_check_with_critical_drift_opens_and_withdraws_no_request(flow: Flow) -> None:
    flow.serve(c=100)
    assert flow.look(c=150)["m.c"].outcome == "looked"
    assert flow.states_of_requests() == []
    flow.serve(c=150)
    flow.look(c=100)
    assert flow.states_of_requests() == ["open"]


def test_a_failed_check_starts_no_back_off_and_keeps_the_baseline(flow: Flow) -> None:
    flow.serve(a=1)
    flow.ask("m.a")
    run = flow.record(None, {"m.a": Down("no credentials")})
    assert run.status == "partial"
    state = flow.state("m.a")
    assert (state.baseline, state.value, state.error, state.failures, state.not_before) == (
        *(1, 1, "no credentials"),
        *(0, None),
    )


def test_a_check_and_a_simultaneous_run_in_both_orders(flow: Flow) -> None:
    flow.serve(a=1)
    earlier = flow.clock()
    claim = flow.claimed("m.a")
    flow.record(claim, {"m.a": 2})  # started later, recorded first
    assert flow.look(earlier, a=1)["m.a"].outcome == "superseded"
    state = flow.state("m.a")
    assert (state.value, state.baseline, state.due) == (2, 2, False)
    claim = flow.claimed("m.a")
    flow.record(claim, {"m.a": 3})
    assert flow.look(a=4)["m.a"].outcome == "looked"
    assert (flow.state("m.a").value, flow.state("m.a").baseline) == (4, 3)


# --- verify.serve -------------------------------------------------------------------------------------


@dataclass
class ScanHere:
    """A scan in the process of the test, so that a probe can call the test."""

    config: Config
    source: str
    names: Iterable[str]
    known: Mapping[str, str] | None = None

    def result(self, stop: object = None) -> ScanResult:
        metrics = {name: self.config.metrics[name] for name in self.names}
        return scan.scan_source(self.config, self.source, metrics, Deadline.after(LEASE), self.known)[0]


class Fake:
    """A probe that returns the values of the test, and calls the test while it measures."""

    def __init__(self, flow: Flow, monkeypatch: pytest.MonkeyPatch) -> None:
        self.flow = flow
        self.follows_state = False
        self.meanwhile: Callable[[], object] = lambda: None
        self.scans: list[set[str]] = []
        monkeypatch.setattr(scan, "probe_for", lambda _: self)
        monkeypatch.setattr(verify, "start_scan", ScanHere)

    def scan(self, source: object, metrics: dict[str, object], context: ScanContext, deadline: Deadline) -> ScanResult:
        self.scans.append(set(metrics))
        self.meanwhile()
        return ScanResult(tuple(reading(name, len(self.scans)) for name in metrics), 3)

    def serve(self) -> Run | None:
        return verify.measure_due(self.flow.engine, self.flow.config, "one", at_once=True)


@pytest.fixture
def fake(flow: Flow, monkeypatch: pytest.MonkeyPatch) -> Fake:
    return Fake(flow, monkeypatch)


def test_one_pass_measures_the_due_metrics_and_no_others(flow: Flow, fake: Fake) -> None:
    assert fake.serve() is None
    flow.ask("m.a")
    run = fake.serve()
    assert run is not None
    assert (fake.scans, run.api_calls, run.trigger) == ([{"m.a"}], 3, "event")
    flow.ask("m.a", "m.c")
    fake.serve()
    assert fake.scans[1:] == [{"m.a", "m.c"}]
    assert fake.serve() is None


def test_an_event_during_a_pass_leads_to_a_second_pass(flow: Flow, fake: Fake) -> None:
    flow.ask("m.a")
    fake.meanwhile = lambda: len(fake.scans) > 1 or flow.ask("m.a")
    assert fake.serve()
    assert fake.serve()
    assert fake.serve() is None
    assert flow.state("m.a").value == 2


def test_a_slow_pass_keeps_its_lease(make_flow: Callable[[str], Flow], monkeypatch: pytest.MonkeyPatch) -> None:
    flow = make_flow(CONFIG + "settings: {lease: 300ms}")
    fake = Fake(flow, monkeypatch)
    flow.ask("m.a")
    rivals: list[Claim | None] = []

    def slow() -> None:
        time.sleep(0.6)
        rivals.append(flow.claim())

    fake.meanwhile = slow
    run = fake.serve()
    assert run is not None
    assert run.status == "ok"
    assert rivals == [None]


def test_a_probe_that_raises_or_omits_a_metric_gives_failed_readings(
    flow: Flow, fake: Fake, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    flow.ask("m.a", "m.c")
    monkeypatch.setattr(fake, "scan", lambda *_: ScanResult((reading("m.a", 1),), 1))
    run = fake.serve()
    assert run is not None
    assert {item.metric: item.error for item in run.items if item.metric in ("m.a", "m.c")} == {
        "m.a": None,
        "m.c": "internal error: the probe returned no reading",
    }

    def breaks(*_: object) -> ScanResult:
        raise RuntimeError("a defect")

    monkeypatch.setattr(fake, "scan", breaks)
    run = fake.serve()
    assert run is not None
    assert (run.status, run.items[0].error) == (
        "partial",
        "internal error in the files probe: RuntimeError('a defect')",
    )
    assert "failed with an unexpected error" in caplog.text


def test_a_check_scans_each_source_once_with_the_inputs_of_derived_metrics(flow: Flow, fake: Fake) -> None:
    run = verify.check_now(flow.engine, flow.config, ["m.sum"])
    assert sorted(map(sorted, fake.scans)) == [["m.a"], ["m.b"]]
    assert {item.metric for item in run.items} == {"m.a", "m.b", "m.sum"}
    assert run.api_calls == 6
