"""Measure how well the expected band separates incidents from ordinary days, on daily histories of real repositories.

    python -m benchmarks.expectation FOLDER

FOLDER holds CSV files with the columns date, tracked_files, tracked_bytes and commits. Each column is a series. DIMS
replays it day by day: a judge sees the values accepted so far, and returns the band in which the next one is normal.
An ordinary value outside the band is a false alarm. A person accepts it, so it is in the history the next day.

Then DIMS changes copies of each series: it loses a part, grows suddenly, steps up or down, leaks for ten days, or falls
silent. Such an incident is recognized if one of its values is outside the band. A value inside is believed, and enters
the history. The benchmark prints the recall of each judge, and its false alarms in a year of one series.

Without a folder, it uses synthetic series.
"""

from __future__ import annotations

import csv
import math
import random
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import date, timedelta
from pathlib import Path

from dims_worker.domain.expectation import expected_band
from tests.fixtures.daily_series import KINDS, daily_series

History = Sequence[tuple[date, float]]
Band = tuple[float, float]
Judge = Callable[[History, date], Band | None]

FIRST_DAY = 60
"""Earlier days only teach."""
LATEST = 730
"""How many days of each series count."""
SHORTEST = 300
"""A shorter series is left out, and so is one with less than one commit on the median day of the last year."""
KNOWN = 200
"""How many days before an incident the judge knows."""
LEAK = 10
EACH = 6
SEED = 7
MIN_RECALL, MAX_ALARMS = 0.95, 2.5
TIMED, CALLS = 400, 200
MAX_MICROSECONDS = 1000


@dataclass(frozen=True)
class Series:
    """The values of a metric, one a day, oldest first. A flow counts the events of a day."""

    name: str
    values: list[tuple[date, float]]
    flow: bool

    @property
    def years(self) -> float:
        """The years in which alarms count."""
        return (len(self.values) - FIRST_DAY) / 365


@dataclass(frozen=True)
class Incident:
    """From the day with this position on, `values` replace those of the series."""

    kind: str
    start: int
    values: list[int]


@dataclass
class Score:
    """What a judge recognized, by kind of incident, and how often it was wrong about ordinary days."""

    years: float = 0.0
    alarms: int = 0
    recognized: dict[str, int] = field(default_factory=dict)
    incidents: dict[str, int] = field(default_factory=dict)

    @property
    def recall(self) -> float:
        return sum(self.recognized.values()) / sum(self.incidents.values())

    @property
    def alarms_a_year(self) -> float:
        return self.alarms / self.years

    def __str__(self) -> str:
        kinds = ", ".join(f"{kind} {self.recognized[kind] / total:.2f}" for kind, total in self.incidents.items())
        return f"recall {self.recall:.3f} at {self.alarms_a_year:.1f} false alarms a series-year ({kinds})"


def band(history: History, day: date) -> Band | None:
    """Return the band of the product."""
    expected = expected_band(history, day)
    return (expected.low, expected.high) if expected else None


def fixed_share(history: History, _day: date) -> Band:
    """Return the last value plus or minus 15 %."""
    last = history[-1][1]
    return last - 0.15 * abs(last), last + 0.15 * abs(last)


def z_score(history: History, day: date) -> Band | None:
    """Return the mean of the last 14 days plus or minus three standard deviations."""
    return _three_sigmas([value for when, value in history if (day - when).days <= 14])


def z_score_weekday(history: History, day: date) -> Band | None:
    """Return the same for the same weekday in the last 60 values."""
    return _three_sigmas([value for when, value in history[-60:] if when.weekday() == day.weekday()])


def _three_sigmas(values: list[float]) -> Band | None:
    if len(values) < 3:
        return None
    mean, deviation = statistics.mean(values), statistics.pstdev(values)
    return mean - 3 * deviation, mean + 3 * deviation


JUDGES: dict[str, Judge] = {
    "the last value, 15 %": fixed_share,
    "z-score, 14 days": z_score,
    "z-score, weekday": z_score_weekday,
    "expected band": band,
}


def read_series(folder: Path) -> Iterator[Series]:
    """Read the series of a folder. Raises FileNotFoundError if it has no CSV file."""
    files = sorted(folder.glob("*.csv"))
    if not files:
        raise FileNotFoundError(f"{folder} has no CSV files. Name a folder with the columns date, tracked_files, ...")
    for file in files:
        with file.open(newline="") as lines:
            rows = list(csv.DictReader(lines))
        for column in ("tracked_files", "tracked_bytes", "commits"):
            values = [(date.fromisoformat(row["date"]), int(row[column])) for row in rows]
            flow = column == "commits"
            rare = flow and statistics.median(value for _, value in values[-365:]) < 1
            if len(values) >= SHORTEST and not rare:
                yield Series(f"{file.stem}.{column}", [*values[-LATEST:]], flow)


def synthetic_series() -> Iterator[Series]:
    """Return series of each synthetic kind."""
    for kind in KINDS:
        for seed in range(3):
            yield Series(f"{kind}.{seed}", daily_series(kind, seed, 500), flow="flow" in kind)


def make_incident(series: Series, kind: str, chance: random.Random) -> Incident | None:
    """Return an incident of this kind on a day by chance, or None if it would be none on that day."""
    start = chance.randrange(FIRST_DAY + 30, len(series.values) - 15)
    values = [value for _, value in series.values]
    if kind == "silence":
        weekdays = [values[start - 7 * weeks] for weeks in range(1, 9)]
        return Incident(kind, start, [0]) if series.flow and min(weekdays) >= 3 else None
    usual = statistics.median(values[start - 28 : start])
    share = math.exp(chance.uniform(math.log(0.02), math.log(0.95)))
    if kind == "leak":
        daily = chance.uniform(0.005, 0.03)
        factors = [(1 - daily) ** (days + 1) for days in range(LEAK)]
    elif kind == "step":
        factors = [1 + (share if chance.random() < 0.5 else -share)]
    else:
        factors = [1 - share if kind == "loss" else 1 + share]
    if series.flow and (usual < 5 or kind == "leak"):
        return None  # a share of a few commits is less than they vary by chance
    true = values[start : start + len(factors)]
    changed = [round(value * factor) for value, factor in zip(true, factors, strict=True)]
    largest = max(abs(after - before) for before, after in zip(true, changed, strict=True))
    return Incident(kind, start, changed) if largest >= max(2, 0.01 * usual) else None


def count_alarms(series: Series, judge: Judge) -> int:
    """Return on how many ordinary days the value is outside the band.

    An ordinary value is in the history the next day, inside the band or outside. So the history of a day is the
    series before it.
    """
    return sum(
        _is_outside(judge(series.values[:place], day), value)
        for place, (day, value) in enumerate(series.values)
        if place >= FIRST_DAY
    )


def is_recognized(series: Series, incident: Incident, judge: Judge) -> bool:
    """Return whether a value of the incident is outside the band. The values before it are believed."""
    history = series.values[max(0, incident.start - KNOWN) : incident.start]
    for (day, _), value in zip(series.values[incident.start :], incident.values, strict=False):
        if _is_outside(judge(history, day), value):
            return True
        history.append((day, value))
    return False


def _is_outside(judged: Band | None, value: float) -> bool:
    return judged is not None and not judged[0] <= value <= judged[1]


def score(judge: Judge, data: Sequence[Series], each: int = EACH, seed: int = SEED) -> Score:
    """Replay all series, with `each` incidents of each kind in each series."""
    chance = random.Random(seed)
    result = Score()
    for series in data:
        result.years += series.years
        result.alarms += count_alarms(series, judge)
        for kind in ("loss", "double", "step", "leak", "silence"):
            for _ in range(each):
                if incident := make_incident(series, kind, chance):
                    result.incidents[kind] = result.incidents.get(kind, 0) + 1
                    recognized = is_recognized(series, incident, judge)
                    result.recognized[kind] = result.recognized.get(kind, 0) + recognized
    return result


def _microseconds(judge: Judge, history: History) -> float:
    """Return the median time of a call."""
    took = []
    day = history[-1][0] + timedelta(days=1)
    for _ in range(CALLS):
        begun = time.perf_counter()
        judge(history, day)
        took.append(time.perf_counter() - begun)
    return statistics.median(took) * 1e6


def main(folder: str | None = None) -> None:
    """Print the score of each judge, and the time of a call."""
    data = list(read_series(Path(folder)) if folder else synthetic_series())
    kind = "series" if folder else "synthetic series"
    print(f"expectation, {len(data)} {kind} of {sum(len(series.values) for series in data):,} days:")
    for name, judge in JUDGES.items():
        result = score(judge, data)
        print(f"  {name:22} {result}")
    met = result.recall >= MIN_RECALL and result.alarms_a_year <= MAX_ALARMS
    limit = f"a recall of {MIN_RECALL:g} at {MAX_ALARMS:g} false alarms"
    if folder:  # the synthetic series are harder than the limit assumes
        print(f"  {'within' if met else 'OUTSIDE'} the limit of {limit}")
    longest = [
        [(day, float(value)) for day, value in series.values[-TIMED:]] for series in data if len(series.values) >= TIMED
    ]
    plain, product = (max(_microseconds(judge, history) for history in longest) for judge in (z_score_weekday, band))
    print(
        f"  {TIMED} values: at most {product:.0f} µs a call, {product / plain:.0f} times a z-score by weekday "
        f"({plain:.0f} µs); {'within' if product <= MAX_MICROSECONDS else 'OVER'} the limit of {MAX_MICROSECONDS} µs"
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
