"""An outage is logged when it begins and when it ends, however many parts notice it and however it flaps."""

from __future__ import annotations

import pytest

from dims_worker.broker.outage_log import BROKER, FLAPPING, SHORT_OUTAGE, OutageLog


class Clock:
    now = 1_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def outages(clock: Clock) -> OutageLog:
    return OutageLog(clock)


def test_many_failures_of_two_parts_are_one_line_and_one_when_both_work(
    outages: OutageLog, caplog: pytest.LogCaptureFixture
) -> None:
    for _ in range(50):
        outages.failed(BROKER, "tasks", "refused")
        outages.failed(BROKER, "consumer", "refused")
    outages.succeeded(BROKER, "tasks")
    assert outages.is_out(BROKER)
    outages.succeeded(BROKER, "consumer")
    first, last = (record.getMessage() for record in caplog.records)
    assert "unreachable or refuses" in first
    assert "is back" in last


def test_a_server_that_refuses_every_other_command_is_logged_once(
    outages: OutageLog, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    for _ in range(30):
        outages.failed(BROKER, "tasks", "refused")
        clock.now += 1
        outages.succeeded(BROKER, "tasks")
    assert len(caplog.records) == 2


def test_an_outage_long_after_another_is_logged_again(
    outages: OutageLog, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    for _ in range(2):
        outages.failed(BROKER, "tasks", "refused")
        outages.succeeded(BROKER, "tasks")
        clock.now += FLAPPING
    assert len(caplog.records) == 4


def test_only_an_outage_that_lasts_is_the_problem_of_its_process(outages: OutageLog, clock: Clock) -> None:
    assert outages.problem(BROKER) is None
    outages.failed(BROKER, "tasks", "refused")
    assert outages.problem(BROKER) is None
    clock.now += SHORT_OUTAGE
    assert outages.problem(BROKER) == "it cannot use the broker"
    outages.succeeded(BROKER, "tasks")
    assert outages.problem(BROKER) is None
