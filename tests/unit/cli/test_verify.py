"""Which metrics the options of `dims verify` select."""

from __future__ import annotations

from pathlib import Path

import pytest

from dims_worker.cli.session import Session
from dims_worker.cli.verify import select_metrics
from dims_worker.errors import NotFound

CONFIG = """
sources: {p: {type: files, path: .}}
metrics:
  code: {files: {source: p, measure: count}, lines: {source: p, measure: lines}}
  docs: {files: {source: p, measure: count}}
"""


@pytest.fixture
def session(tmp_path: Path) -> Session:
    (tmp_path / "dims.yaml").write_text(CONFIG)
    return Session(None, {}, tmp_path)


def test_categories_and_patterns_add_up(session: Session) -> None:
    assert select_metrics(session, ["code"], []) == {"code.files", "code.lines"}
    assert select_metrics(session, ["docs"], ["code.l*"]) == {"docs.files", "code.lines"}
    assert select_metrics(session, [], []) == {"code.files", "code.lines", "docs.files"}


def test_an_unknown_category_is_an_error_that_lists_the_categories(session: Session) -> None:
    with pytest.raises(NotFound, match=r"there is no category nope\. The categories are code, docs\."):
        select_metrics(session, ["nope"], [])


def test_a_pattern_that_matches_nothing_is_an_error(session: Session) -> None:
    with pytest.raises(NotFound, match=r"no metric is called x\.y\. List the metrics"):
        select_metrics(session, [], ["x.y"])
