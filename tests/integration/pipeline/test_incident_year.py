"""Months of daily values cause few messages. Each loss stays visible until it is back or a person closes it."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from dims_worker.config import load_config
from dims_worker.domain.approvers import Decider
from dims_worker.incidents.decisions import close_incident
from dims_worker.incidents.overdue import Sweep, sweep_incidents
from dims_worker.notifications.sender import queue_overdue, send_pending
from dims_worker.pipeline.record import prepare_record, record_run
from dims_worker.store.engine import transaction
from dims_worker.store.incidents import open_incidents
from tests.fixtures.daily_series import daily_series
from tests.fixtures.receivers import Receiver
from tests.integration.helpers import Flow

START = datetime(2024, 1, 1, 12, tzinfo=UTC)
DAYS = 80
SERIES = {
    "m.bytes": [value for _, value in daily_series("repository stock", 2, DAYS)],
    "m.rows": [value for _, value in daily_series("growing stock", 1, DAYS)],
    "m.uploads": [value for _, value in daily_series("weekday flow", 1, DAYS)],
    "m.files": [value for _, value in daily_series("rare step stock", 1, DAYS)],
}
PROJECT = """
sources: {one: {type: files, path: one}}
policy: {categories: {m: {direction: down}}}
metrics:
  m:
    bytes: {source: one, measure: count, critical: true}
    rows: {source: one, measure: count, critical: true}
    files: {source: one, measure: count}
    # At first, its weekends look like losses
    uploads: {source: one, measure: count, thresholds: {moderate: 50, major: 200, extreme: 400}}
notify: {channels: {ops: {url: "${URL:-}"}}}
"""


class Replay:
    """Records a day of all metrics at a time that the test chooses, and sends what waits."""

    def __init__(self, flow: Flow) -> None:
        self.flow = flow
        self.sent = 0

    def record(self, day: int, **changed: float) -> None:
        now = START + timedelta(days=day)
        values = {name: values[day] for name, values in SERIES.items()}
        values |= {f"m.{name}": value for name, value in changed.items()}
        measured = self.flow.measured(values, self.flow.claimed(*values), now)
        with transaction(self.flow.engine) as connection:
            prepare_record(connection, self.flow.config, measured)
        with transaction(self.flow.engine) as connection:
            assert record_run(connection, self.flow.config, measured, now).status == "ok"
        with transaction(self.flow.engine) as connection:
            sweep_incidents(connection, self.flow.config, Sweep(now, now - timedelta(hours=1)))
            queue_overdue(connection, self.flow.config, now)
        result = send_pending(self.flow.engine, self.flow.config, "ops", now=now)
        assert result.error is None
        self.sent += result.sent

    def visible(self) -> dict[str, str]:
        with transaction(self.flow.engine) as connection:
            return {incident.metric: incident.kind for incident in open_incidents(connection)}

    def close(self, metric: str) -> None:
        with transaction(self.flow.engine) as connection:
            (number,) = (incident.id for incident in open_incidents(connection, [metric]))
        person = Decider("anna", "option")
        close_incident(self.flow.engine, self.flow.config, number, version=None, person=person, reason="moved")


@pytest.fixture
def replay(make_flow: Callable[[str], Flow], receiver: Receiver, tmp_path: Path) -> Replay:
    flow = make_flow(PROJECT)
    flow.config = load_config(None, {"URL": receiver.url}, tmp_path)
    return Replay(flow)


def test_a_loss_is_visible_until_it_is_back_and_ordinary_days_are_quiet(replay: Replay, receiver: Receiver) -> None:
    for day in range(60):
        replay.record(day)
    assert replay.visible() == {}
    ordinary = replay.sent
    assert ordinary <= 4  # in a year of one metric
    for day in range(60, 72):  # a third of all stocks is lost
        replay.record(day, **{name: SERIES[f"m.{name}"][day] * 0.65 for name in ("bytes", "rows", "files")})
        assert replay.visible() == {"m.bytes": "approval", "m.rows": "approval", "m.files": "drift"}
    assert replay.sent - ordinary == 3  # one about each, in twelve days
    replay.record(72)
    assert replay.visible() == {}
    assert replay.sent - ordinary == 6
    assert receiver.titles[-1].startswith("DIMS: 3 resolved")  # all metrics of a run are in one message
    for day in range(73, DAYS):
        replay.record(day)
    assert replay.visible() == {}
    assert replay.sent - ordinary <= 8


def test_a_loss_that_a_person_closes_as_expected_is_the_new_level(replay: Replay) -> None:
    for day in range(30):
        replay.record(day)
    lower = SERIES["m.files"][0] * 0.6
    for day in range(30, 35):
        replay.record(day, files=lower)
        assert replay.visible() == {"m.files": "drift"}
    replay.close("m.files")
    for day in range(35, 40):
        replay.record(day, files=lower + day)
        assert replay.visible() == {}
    replay.record(40, files=lower * 0.6)
    assert replay.visible() == {"m.files": "drift"}
