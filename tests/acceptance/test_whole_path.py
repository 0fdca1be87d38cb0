"""Test the whole path: a commit and an upload go through a worker into PostgreSQL."""

from __future__ import annotations

from collections.abc import Callable

from sqlalchemy import Engine, text

from tests.conftest import Lake, Project, Worker, wait_for

CONFIG = """
settings: {lease: 5s, sweep: 1s}
sources:
  project: {type: files, path: ".", ignore: gitignore}
  repo: {type: git, path: "."}
  lake: {type: s3, bucket: lake}
metrics:
  code_base:
    python_files: {source: project, measure: count, paths: "**/*.py"}
    python_lines: {source: project, measure: lines, paths: "**/*.py"}
  documentation:
    markdown_files: {source: project, measure: count, paths: "docs/**/*.md"}
  git:
    commits: {source: repo, measure: commits}
  s3_storage:
    raw_objects: {source: lake, prefix: raw/, measure: count, critical: true}
    other_objects: {source: lake, prefix: other/, measure: count}
rules:
  git_post_commit: {on: "dims.git.*"}
  s3_upload_complete: {on: "com.amazonaws.s3.*"}
"""


def _value(engine: Engine, metric: str) -> object:
    with engine.connect() as connection:
        return connection.execute(text("SELECT value FROM dims_metrics WHERE metric = :m"), {"m": metric}).scalar()


def _served(engine: Engine) -> bool:
    with engine.connect() as connection:
        query = "SELECT count(*) > 0 AND bool_and(requested_gen = measured_gen) FROM dims_metrics WHERE source <> ''"
        return bool(connection.execute(text(query)).scalar())


def test_a_commit_and_an_upload_are_measured_and_recorded(
    project: Project, engine: Engine, lake: Lake, start_worker: Callable[..., Worker]
) -> None:
    lake.put("lake", {f"raw/{n}": b"x" for n in range(10)})
    project.env |= lake.env
    project.commit("Begin", {"dims.yaml": CONFIG, "a.py": "x = 1\n", "docs/a.md": "# A\n"})
    project.dims("hook", "install", check=True)
    start_worker()
    wait_for(lambda: _served(engine))
    assert _value(engine, "s3_storage.raw_objects") == 10

    sha = project.commit("More documents", {"docs/b.md": "# B\n"})
    wait_for(lambda: _value(engine, "documentation.markdown_files") == 2)
    wait_for(lambda: _served(engine))
    story = project.dims("events", "show", sha[:8], check=True).stdout
    assert "documentation.markdown_files" in story
    assert "left alone: 4 metrics: code_base.python_files, code_base.python_lines" in story
    with engine.connect() as connection:
        measured = connection.execute(
            text("SELECT metric, count(*) FROM dims_metrics_history GROUP BY metric")
        ).fetchall()
    counts = {row[0]: row[1] for row in measured}
    assert counts["code_base.python_files"] == 1
    assert counts["documentation.markdown_files"] == 2
