"""Which critical metrics no event and no schedule judges."""

from __future__ import annotations

from pathlib import Path

import pytest

from dims_worker.config import load_config
from dims_worker.domain.unjudged import unjudged_metrics

SOURCES = """
sources:
  lake: {type: s3, bucket: lake}
  project: {type: files, path: project}
  archives: {type: files, path: /nowhere/archives}
  repo: {type: git, path: project}
  warehouse: {type: sql, url: "postgresql://127.0.0.1:1/none"}
  tool: {type: command}
metrics:
  m:
    s3: {source: lake, measure: count, prefix: raw/}
    files: {source: project, measure: count}
    archives: {source: archives, measure: bytes}
    commits: {source: repo, measure: commits}
    rows: {source: warehouse, query: SELECT 1}
    tool: {source: tool, command: [echo, "1"]}
    off: {source: tool, command: [echo, "1"], enabled: false}
    noise: {source: tool, command: [echo, "2"], critical: false}
    cost: {derive: m.s3 + m.twice}
    twice: {derive: 2 * m.rows}
policy: {critical: true}
watch: [project]
workflows:
  gap_analysis: {warehouse: warehouse, metrics: m.rows}
  local_inventory: {metrics: m.archives}
"""
ALL = {"m.s3", "m.files", "m.archives", "m.commits", "m.rows", "m.tool", "m.cost", "m.twice"}
OF_ROWS = {"m.rows", "m.cost", "m.twice"}
"""`cost` reads `s3` and `rows`, and `twice` reads `rows`."""


@pytest.mark.parametrize(
    ("rules", "judged"),
    [
        ("{}", set()),
        ("{a: {schedule: '0 0 * * *'}}", ALL),
        ("{a: {schedule: '0 0 * * *', metrics: m.cost}}", OF_ROWS | {"m.s3"}),
        ("{a: {on: 'com.amazonaws.s3.*'}}", {"m.s3"}),
        ("{a: {on: 'com.amazonaws.s3.ObjectCreated:*', metrics: '*'}}", ALL),
        ("{a: {on: 'dims.git.*'}}", {"m.files", "m.commits"}),
        ("{a: {on: dims.git.commit, metrics: m.rows}}", {"m.rows", "m.twice"}),
        ("{a: {on: dims.files.changed}}", {"m.files"}),
        ("{a: {on: dims.scraper.complete}}", ALL),
        ("{a: {on: '*'}}", ALL),
        ("{a: {on: x.y, metrics: m.rows}, b: {on: 'com.amazonaws.s3.*'}}", OF_ROWS | {"m.s3"}),
        ("{a: {on: x.y, sources: [warehouse, tool]}}", {"m.rows", "m.twice", "m.tool"}),
        ("{a: {schedule: '0 0 * * *', workflows: [audit]}}", {"m.rows", "m.twice", "m.archives"}),
        ("{a: {on: 'com.amazonaws.s3.*', workflows: [gap-analysis]}}", {"m.rows", "m.twice"}),
    ],
)
def test_critical_metrics_that_nothing_judges(tmp_path: Path, rules: str, judged: set[str]) -> None:
    (tmp_path / "dims.yaml").write_text(f"{SOURCES}rules: {rules}\n")
    found = [each.metric for each in unjudged_metrics(load_config(None, {"DIMS_DATABASE_URL": ""}, tmp_path))]
    assert set(found) == ALL - judged and len(found) == len(set(found))


def test_a_derived_metric_names_the_inputs_that_nothing_measures(tmp_path: Path) -> None:
    (tmp_path / "dims.yaml").write_text(f"{SOURCES}rules: {{a: {{on: 'com.amazonaws.s3.*'}}}}\n")
    found = {
        each.metric: str(each) for each in unjudged_metrics(load_config(None, {"DIMS_DATABASE_URL": ""}, tmp_path))
    }
    assert found["m.cost"] == "m.cost (no rule measures its input m.rows)"
    assert found["m.rows"] == "m.rows"
