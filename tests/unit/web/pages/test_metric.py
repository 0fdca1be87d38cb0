"""The definition and the links on the page of a metric."""

from __future__ import annotations

from pathlib import Path

import yaml

from dims_worker.config import Config, load_config
from dims_worker.web.pages.metric import definition_lines, formula_links

CONFIG = """
sources:
  one: {type: files, path: one}
prices: {disk: 0.023}
metrics:
  m:
    a: {source: one, measure: count, critical: true, description: "<b> all", paths: ["*.md", "é/**"]}
    b: {source: one, measure: entries}
    cost: {derive: "m.a * prices.disk + m.a / 2"}
    twice: {derive: "m.cost * 2", unit: USD}
"""


def make_config(tmp_path: Path) -> Config:
    (tmp_path / "dims.yaml").write_text(CONFIG)
    return load_config(None, {}, tmp_path)


def test_a_definition_is_the_configuration_without_the_policy(tmp_path: Path) -> None:
    lines = definition_lines(make_config(tmp_path), "m.a")
    parsed = yaml.safe_load("\n".join(lines))
    assert parsed == {"m": {"a": {"source": "one", "measure": "count", "paths": ["*.md", "é/**"]}}}
    assert definition_lines(make_config(tmp_path), "m.gone") == []


def test_a_formula_links_the_metrics_it_reads_and_no_price(tmp_path: Path) -> None:
    config = make_config(tmp_path)
    assert formula_links(config, "m.cost") == ({"m.a": "m.a"}, ["m.twice"])
    assert formula_links(config, "m.a") == ({}, ["m.cost"])
    assert formula_links(config, "m.gone") == ({}, [])
