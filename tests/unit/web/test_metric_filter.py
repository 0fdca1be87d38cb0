"""The filter of the overview: its address, and the metrics that match."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from starlette.datastructures import QueryParams

from dims_worker.analysis.health import MetricHealth, group_by_health
from dims_worker.config import Config, load_config
from dims_worker.domain.health import metric_health
from dims_worker.store.incidents import Incident
from dims_worker.store.metric_states import MetricState
from dims_worker.web.metric_filter import LONGEST, STATE_FILTERS, MetricFilter

NOW = datetime(2026, 3, 1, tzinfo=UTC)
PROJECT = """
sources: {lake: {type: s3, bucket: b}}
metrics:
  raw: {objects: {source: lake, measure: count, description: 'Objects of the Straße', min: 0}}
  parsed: {objects: {source: lake, measure: count, description: 'Parsed objects'}}
"""


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Config:
    folder: Path = tmp_path_factory.mktemp("filter")
    (folder / "dims.yaml").write_text(PROJECT, encoding="utf-8")
    return load_config(folder / "dims.yaml", {}, folder)


def filtered(query: str) -> MetricFilter:
    return MetricFilter.of(QueryParams(query))


@pytest.mark.parametrize(
    ("query", "matching"),
    [
        ("", ["raw.objects", "parsed.objects"]),
        ("q=OBJECTS", ["raw.objects", "parsed.objects"]),
        ("q=objects+raw", ["raw.objects"]),
        ("q=strasse", ["raw.objects"]),
        ("q=parsed+stra", []),
        ("category=parsed", ["parsed.objects"]),
        ("category=pars", []),
        ("category=raw&q=parsed", []),
        ("q=%25", []),
    ],
)
def test_a_match_has_every_word_in_its_name_or_description(config: Config, query: str, matching: list[str]) -> None:
    assert [name for name in config.metrics if filtered(query).matches_name(config, name)] == matching


def test_the_address_contains_the_filter() -> None:
    assert filtered("").address == "/" and not filtered("q=&category=&state=")
    result = filtered("q=+a%26b%23++c+&state=failed")
    assert result.address == "/?q=a%26b%23++c&state=failed" and result
    assert filtered(result.address.removeprefix("/?")) == result
    assert len(filtered("q=" + "x" * 5000).q) == LONGEST


def make_health(config: Config, incidents: Sequence[Incident] = (), now: datetime = NOW, **state: Any) -> MetricHealth:
    good = {"value": 5, "baseline": 5, "as_of": NOW, "baseline_as_of": NOW, "status": "ok"}
    known = MetricState("raw.objects", "lake", **(good | {"requested_gen": 1, "measured_gen": 1} | state))
    health = metric_health(config, known, incidents, now)
    return MetricHealth(
        "raw.objects", config.metrics["raw.objects"], "lake", known, False, health, health, None, None, ()
    )


def make_incident(kind: str) -> Incident:
    fields = dict.fromkeys(Incident.__slots__) | {"metric": "raw.objects", "state": "open", "severity": "high"}
    return Incident(
        **(
            fields
            | {"kind": kind, "reason": "down 40 %", "value": 3, "anchor": 5, "opened_at": NOW, "flaps": 0, "request": 4}
        )
    )


def test_each_state_finds_its_metrics(config: Config) -> None:
    by_state = {
        "failing": make_health(config, error="no"),
        "waiting": make_health(config, [make_incident("approval")]),
        "limit": make_health(config, value=-1),
        "drifted": make_health(config, [make_incident("drift")]),
        "stale": make_health(config, now=NOW + timedelta(days=30)),
        "overdue": make_health(config, requested_gen=2, due_since=NOW - timedelta(days=1)),
        "new": make_health(config, as_of=None, value=None),
        "due": make_health(config, requested_gen=2),
        "ok": make_health(config),
    }
    assert by_state.keys() == STATE_FILTERS.keys()
    also = {"due": ["ok"], "overdue": ["due"]}
    for name, health in by_state.items():
        matching = {word for word in STATE_FILTERS if MetricFilter(state=word).matches_state(health)}
        assert matching == {name, *also.get(name, [])}, name
        assert MetricFilter().matches_state(health) and not MetricFilter(state="no such state").matches_state(health)
    assert sum(map(len, group_by_health(by_state.values()).values())) == 9  # all but `ok`, and `overdue` is also `due`


def test_the_names_in_older_bookmarks_still_work(config: Config) -> None:
    failing, good = make_health(config, error="no"), make_health(config)
    new = make_health(config, status="new")
    unmeasured = make_health(config, as_of=None, value=None)
    found = {
        name: [health for health in (failing, good, new, unmeasured) if MetricFilter(state=name).matches_state(health)]
        for name in ("failed", "well", "unmeasured")
    }
    assert found == {"failed": [failing], "well": [good, new], "unmeasured": [unmeasured]}
