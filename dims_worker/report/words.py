"""What all reports for people say with the same words: values, changes, states, times."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from dims_worker.report.standing import Standing
from dims_worker.store.requests import Request
from dims_worker.wording import NOTHING, count, number, value_text


def value(one: Standing, of: Any, now: datetime) -> str:
    """A value of a metric with its unit, an age at `now`; `-` where there was never one."""
    return value_text(of, one.unit, one.declared, now) if one.measured else NOTHING


def instant(one: Standing, of: Any) -> str:
    """The same where it must not change while nothing is measured: an age as the moment it counts from."""
    if one.declared.is_age and isinstance(of, str):
        return f"since {when(datetime.fromisoformat(of))}"
    return value(one, of, datetime.now(UTC)) if one.measured else NOTHING


def change(one: Standing) -> str:
    """What a metric went up or down by: `+1,230`, `-0.4 GB`; words where it is no number; `-` where it is an age."""
    if one.before is None or not one.compared:
        return NOTHING
    by = one.change
    if by is None:
        return "as before" if one.before.value == one.state.value else "another"
    if by == 0:
        return "0"
    # As few decimals as the value has, and yet never a 0 that is none
    shown = number(abs(by), one.declared.precision)
    if not shown.strip("0.,"):
        shown = f"{abs(by):.2g}"
    return f"{'+' if by > 0 else '-'}{shown}"


def states(one: Standing, *, lasting: bool = False) -> list[str]:
    """What is the matter with a metric, worst first; nothing where it is well. `lasting`: only what does not come
    about by the mere passing of time."""
    found = [f"waits: request {one.request.id}"] if one.request else []
    found += ["failed"] if one.failed else []
    found += ["beyond its limit"] if one.broken and not (lasting and one.declared.is_age) else []
    found += [] if lasting or not one.stale else ["stale"]
    found += [str(one.state.status)] if one.drifted and not one.request else []
    found += [] if one.measured or one.failed else ["not measured yet"]
    return found


def decide(request: Request) -> str:
    """The command that accepts what waits."""
    return f"dims approvals approve {request.id} --version {request.version}"


def when(time: datetime) -> str:
    """`2026-11-25 14:03 UTC`."""
    return f"{time.astimezone(UTC):%Y-%m-%d %H:%M} UTC"


def short(time: datetime | None) -> str:
    """The same without the zone, where a page says once that times are UTC; `never`."""
    return f"{time.astimezone(UTC):%Y-%m-%d %H:%M}" if time else "never"


def day(time: datetime) -> str:
    return f"{time.astimezone(UTC):%Y-%m-%d}"


def verdict(health: dict[str, list[str]]) -> str:
    """A report's first sentence: `1 value waits for a person; 4 metrics could not be measured.`; where nothing is to
    be done, whether values drifted."""
    said = []
    for word, one, many in (
        ("waiting", "value waits for a person", "values wait for a person"),
        ("failed", "metric could not be measured", "metrics could not be measured"),
        ("beyond limits", "metric is beyond its limit", "metrics are beyond their limits"),
        ("stale", "metric is stale", "metrics are stale"),
        ("unmeasured", "metric was never measured", "metrics were never measured"),
    ):
        if health[word]:
            said.append(f"{len(health[word]):,} {one if len(health[word]) == 1 else many}")
    if said:
        return f"{'; '.join(said)}."
    drifted = len(health["drifted"])
    return f"Nothing needs a person; {metrics(drifted)} drifted." if drifted else "All is well."


def metrics(number_of: int) -> str:
    return count(number_of, "metric")
