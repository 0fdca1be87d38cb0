"""Provide the expected band of each metric for a day. A band is computed once a day and stored."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import asdict
from datetime import date, datetime

from sqlalchemy import Connection

from dims_worker.analysis.learning import learn_bands
from dims_worker.config import Config
from dims_worker.domain.expectation import Expectation
from dims_worker.store import expectations


def expected_bands(
    connection: Connection, config: Config, names: Collection[str], as_of: datetime
) -> dict[str, Expectation]:
    """Return the bands of these metrics for the day (UTC) of `as_of`. Metrics without one are left out.

    A band that is not stored is computed, which reads up to 400 days of the metric. Call it once before the record
    transaction, so that this transaction finds the bands stored.
    """
    wanted = {name: _definition(config, name) for name in names if _has_band(config, name)}
    if not wanted:
        return {}
    day = as_of.date()
    stored = expectations.read_bands(connection, wanted)
    bands = {
        name: Expectation(**row.band) if row.band else None
        for name, row in stored.items()
        if row.day == day and row.definition == wanted[name]
    }
    if missing := sorted(wanted.keys() - bands.keys()):
        computed = _compute(connection, config, missing, day)
        rows = (
            {"metric": name, "definition": wanted[name], "band": asdict(band) if band else None}
            for name, band in computed.items()
        )
        expectations.save_bands(connection, day, rows)
        bands |= computed
    return {name: band for name, band in bands.items() if band is not None}


def _compute(
    connection: Connection, config: Config, names: Collection[str], day: date
) -> Mapping[str, Expectation | None]:
    lessons = learn_bands(connection, {name: config.policy_of(name).min_abs for name in names}, day)
    return {name: lesson.band for name, lesson in lessons.items()}


def _has_band(config: Config, name: str) -> bool:
    if name not in config.metrics or config.metrics[name].is_age:
        return False
    return config.policy_of(name).expect == "history"


def _definition(config: Config, name: str) -> str:
    """Return what the band depends on beside the history."""
    return f"{config.definitions[name]} {config.policy_of(name).min_abs:g}"
