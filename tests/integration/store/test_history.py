"""Trend queries on a database with a long history."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from sqlalchemy import Engine

from dims_worker.config import load_config
from dims_worker.store.engine import transaction
from dims_worker.store.history import daily_readings, metric_trend
from tests.conftest import REPO
from tests.fixtures.long_history import fill

CONFIG = load_config(REPO / "config" / "dims.yaml", {}, REPO)
HOUR = timedelta(hours=1)


def test_a_day_gives_its_last_judged_reading_and_a_trend_all(engine: Engine) -> None:
    fill(engine, CONFIG, until=datetime.now(UTC), days=40, per_day=4)
    names = ["s3_storage.total_objects", "git.book_recommendation_commits"]
    with transaction(engine) as connection:
        series = daily_readings(connection, names, 30)
        points = {name: metric_trend(connection, name, timedelta(days=30)) for name in names}
    assert list(series) == names
    for name in names:
        assert len(points[name]) == 120
        good = {one.as_of.astimezone(UTC).date(): one for one in points[name] if one.outcome != "failed"}
        days = {one.day: one for one in series[name]}
        assert len(days) == len(series[name]) == 30
        assert {day: (one.as_of, one.value) for day, one in days.items()} == {
            day: (good[day].as_of, good[day].value) for day in days
        }
    assert series[names[0]][-1].outcome == "held"
    assert type(series[names[0]][-1].value) is int
