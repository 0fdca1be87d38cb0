"""Learn the expected band of metrics from the values that teach."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date

from sqlalchemy import Connection

from dims_worker.domain.expectation import HORIZON, MIN_VALUES, Expectation, expected_band
from dims_worker.store.expectations import DailyValues, metrics_with_recoveries, teaching_values


@dataclass(frozen=True, slots=True)
class Lesson:
    """A band, and the values that it was learned from. `band` is None if they are too few.

    `with_recovered`: the values of drifts that recovered are among them. `with_unbanded`: those of drifts that began
    without a band.
    """

    band: Expectation | None
    values: DailyValues
    with_recovered: bool = False
    with_unbanded: bool = False


def learn_bands(connection: Connection, metrics: Mapping[str, float], day: date) -> dict[str, Lesson]:
    """Learn the bands of a day. `metrics` has the `min_abs` of each metric.

    A flow also learns from drifts that recovered. It comes back every day, whatever it was, so its usual exceptions
    would never teach, and each of them would be an incident again. A stock does not: a loss that was repaired is not
    normal. A flow with too few values that teach learns from the drifts that began without a band, too. Otherwise it
    would never get a band, because there would always be such a drift. It still lasts until the value is back.
    """
    lessons = _learn(connection, metrics, day)
    few = {name: metrics[name] for name, lesson in lessons.items() if len(lesson.values) < MIN_VALUES}
    lessons |= _flows(_learn(connection, few, day, with_unbanded=True))
    recovered = metrics_with_recoveries(connection, list(metrics), day, HORIZON)
    for unbanded in (False, True):
        names = {name: metrics[name] for name in recovered if lessons[name].with_unbanded == unbanded}
        lessons |= _flows(_learn(connection, names, day, with_recovered=True, with_unbanded=unbanded))
    return lessons


def _flows(lessons: Mapping[str, Lesson]) -> dict[str, Lesson]:
    """Return the lessons of the metrics that are flows."""
    return {name: each for name, each in lessons.items() if each.band is not None and each.band.kind == "flow"}


def _learn(
    connection: Connection,
    metrics: Mapping[str, float],
    day: date,
    *,
    with_recovered: bool = False,
    with_unbanded: bool = False,
) -> dict[str, Lesson]:
    if not metrics:
        return {}
    known = teaching_values(
        connection, list(metrics), day, HORIZON, with_recovered=with_recovered, with_unbanded=with_unbanded
    )
    values = {name: known.get(name, []) for name in metrics}
    return {
        name: Lesson(expected_band(values[name], day, min_abs), values[name], with_recovered, with_unbanded)
        for name, min_abs in metrics.items()
    }
