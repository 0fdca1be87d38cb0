"""What the first page is asked for: what its address says, and whom that finds."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from starlette.datastructures import QueryParams

from dims_worker.analysis.health import MetricHealth, group_by_health
from dims_worker.config import Config, load_config
from dims_worker.store.approval_requests import ApprovalRequest
from dims_worker.store.metric_states import MetricState
from dims_worker.web.metric_filter import LONGEST, STATE_FILTERS, MetricFilter

NOW = datetime(2026, 3, 1, tzinfo=UTC)
PROJECT = """
sources: {lake: {type: s3, bucket: b}}
metrics:
  raw: {objects: {source: lake, measure: count, description: 'Objects of the Straße'}}
  parsed: {objects: {source: lake, measure: count, description: 'Parsed objects'}}
"""


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Config:
    folder: Path = tmp_path_factory.mktemp("filter")
    (folder / "dims.yaml").write_text(PROJECT, encoding="utf-8")
    return load_config(folder / "dims.yaml", {}, folder)


def filtered(said: str) -> MetricFilter:
    return MetricFilter.of(QueryParams(said))


@pytest.mark.parametrize(
    ("said", "found"),
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
def test_every_word_is_in_the_name_or_the_description(config: Config, said: str, found: list[str]) -> None:
    assert [name for name in config.metrics if filtered(said).names(config, name)] == found


def test_the_address_says_what_was_asked() -> None:
    assert filtered("").address == "/" and not filtered("q=&category=&state=")
    asked = filtered("q=+a%26b%23++c+&state=failed")
    assert asked.address == "/?q=a%26b%23++c&state=failed" and asked
    assert filtered(asked.address.removeprefix("/?")) == asked
    assert len(filtered("q=" + "x" * 5000).q) == LONGEST


def standing(config: Config, state: MetricState | None = None, **more: Any) -> MetricHealth:
    good = MetricState("raw.objects", "lake", value=5, as_of=NOW, status="ok", requested_gen=1, measured_gen=1)
    base = MetricHealth(
        "raw.objects", config.metrics["raw.objects"], "lake", state or good, False, False, None, None, None, ()
    )
    return replace(base, **more)


def test_each_state_finds_its_own(config: Config) -> None:
    good = standing(config)
    request: ApprovalRequest = object()  # type: ignore[assignment]
    ones = {
        "waiting": replace(good, request=request),
        "failed": replace(good, state=replace(good.state, error="no")),
        "limit": replace(good, broken="5 is more than 4"),
        "stale": replace(good, stale=True),
        "drifted": replace(good, state=replace(good.state, status="major")),
        "unmeasured": standing(config, MetricState("raw.objects", "lake")),
        "due": replace(good, state=replace(good.state, requested_gen=2)),
        "well": good,
    }
    assert ones.keys() == STATE_FILTERS.keys()
    for name, one in ones.items():
        found = [word for word in STATE_FILTERS if MetricFilter(state=word).states(one)]
        assert found == [name] + (["well"] if name == "due" else []), name
        assert MetricFilter().states(one) and not MetricFilter(state="no such state").states(one)
    assert sum(map(len, group_by_health(ones.values()).values())) == 7  # each but well
