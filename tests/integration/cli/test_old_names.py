"""Each command of the original DIMS works under its old name, with the exit code of the command that replaced it."""

from __future__ import annotations

import pytest
from sqlalchemy import Engine, text

from dims_worker.cli.main import OLD_COMMANDS
from tests.conftest import Project

DIMS = """
sources: {p: {type: files, path: docs}}
metrics:
  docs: {pages: {source: p, measure: count, paths: "*.md", critical: true}, bytes: {source: p, measure: bytes}}
  code: {pages: {source: p, measure: count, paths: "*.py", absent: 0}}
rules: {scraper_complete: {on: dims.scraper.complete, metrics: ["docs.*"]}}
workflows: {file_inventory: {source: p, report: FILES.md}}
"""


@pytest.fixture
def docs(project: Project) -> Project:
    project.write({"dims.yaml": DIMS, "docs/a.md": "a", "docs/b.md": "b"})
    project.dims("verify", check=True)
    return project


def with_a_request(project: Project) -> None:
    """Let a value wait for approval."""
    project.write({f"docs/{name}.md": "" for name in "cdef"})
    assert project.dims("verify", "--update").returncode == 1


def measured(output: str) -> list[str]:
    return [line.split()[0] for line in output.splitlines() if line.strip().startswith(("docs.", "code."))]


def test_verify_takes_a_category_and_a_name(docs: Project) -> None:
    old = docs.dims("verify", "--category", "docs", "--metric", "pages", check=True)
    assert measured(old.stdout) == ["docs.pages"]
    both = docs.dims("verify", "--category", "docs", "--category", "code", "--metric", "pages", check=True)
    assert measured(both.stdout) == ["docs.pages", "code.pages"]
    added = docs.dims("verify", "--category", "code", "--metric", "docs.bytes", check=True)
    assert measured(added.stdout) == ["docs.bytes", "code.pages"]
    missing = docs.dims("verify", "--category", "code", "--metric", "bytes")
    assert (missing.returncode, missing.stderr) == (
        2,
        "dims: no metric of code is called bytes. List the metrics with `dims metrics`.\n",
    )


def test_a_large_drift_has_the_same_exit_code(docs: Project) -> None:
    docs.write({f"docs/{name}.md": "" for name in "cdef"})
    assert docs.dims("verify", "--category", "docs", "--metric", "pages").returncode == 1
    assert docs.dims("verify", "-m", "docs.pages").returncode == 1


@pytest.mark.parametrize(
    ("words", "state"),
    [
        (("1", "--as", "ada"), "approved"),
        (("docs.pages", "--as", "ada"), "approved"),
        (("accept", "--id", "1", "--reviewer", "ada", "--notes", "counted"), "approved"),
        (("reject", "--id", "1", "--reviewer", "ada", "--notes", "counted"), "rejected"),
    ],
)
def test_approve_decides_a_request(docs: Project, engine: Engine, words: tuple[str, ...], state: str) -> None:
    with_a_request(docs)
    assert "docs.pages" in docs.dims("approve", "list", check=True).stdout
    review = docs.dims("approve", "review", "--id", "1", check=True).stdout
    assert "request 1, version 1: docs.pages" in review
    done = docs.dims("approve", *words, check=True)
    assert done.stdout.startswith(f"request 1 {state} by ada: docs.pages")
    with engine.connect() as connection:
        row = connection.execute(text("SELECT status, reviewed_by, review_notes FROM dims_approval_log")).one()
    assert tuple(row) == (state, "ada", "counted" if "--notes" in words else None)


def test_approve_without_a_request_is_an_error(docs: Project) -> None:
    for words in ((), ("7",), ("accept",), ("1", "2"), ("accept", "1", "--id", "1")):
        assert docs.dims("approve", *words).returncode == 2, words
    assert docs.dims("approvals", "approve", "7").returncode == 2


@pytest.mark.parametrize("words", [("scraper_complete",), ("--event-type", "scraper_complete")])
def test_events_trigger_sends_an_event(docs: Project, words: tuple[str, ...]) -> None:
    sent = docs.dims("events", "trigger", *words, "--subject", "espn", check=True)
    assert len(sent.stdout.strip()) == 36
    waiting = docs.dims("enqueue", "scraper_complete", "--wait", "--timeout", "0.2").returncode  # no worker runs
    assert docs.dims("events", "trigger", *words, "--wait", "--timeout", "0.2").returncode == waiting == 3
    assert docs.dims("events", "trigger").returncode == docs.dims("enqueue").returncode == 2


def test_info_shows_the_installation_and_its_state(docs: Project) -> None:
    new, old = docs.dims("status"), docs.dims("info")
    assert old.returncode == new.returncode == 0
    assert f"configuration    {docs.folder / 'dims.yaml'}" in old.stdout
    assert "3 metrics configured, 3 enabled" in old.stdout
    assert new.stdout.splitlines()[-1] == old.stdout.splitlines()[-1]
    docs.env["DIMS_BROKER_URL"] = "redis://127.0.0.1:1/0"
    assert docs.dims("info").returncode == docs.dims("status").returncode == 3


def test_update_is_verify_update(docs: Project, engine: Engine) -> None:
    docs.write({"docs/a.py": ""})
    assert measured(docs.dims("update", "--category", "code", "--metric", "pages").stdout) == ["code.pages"]
    with engine.connect() as connection:
        assert connection.execute(text("SELECT baseline FROM dims_metrics WHERE metric = 'code.pages'")).scalar() == 1


def test_workflows_have_numbers(docs: Project) -> None:
    assert "report: FILES.md (written)" in docs.dims("workflow", "13", check=True).stdout
    for number, name in (("45", "local"), ("46", "gap"), ("47", "aws"), ("49", "sync"), ("50", "50")):
        refused = docs.dims("workflow", number)
        assert refused.returncode == 2
        assert f"does not configure the workflow {name}" in refused.stderr


def test_the_help_lists_no_old_name(docs: Project) -> None:
    shown = docs.dims("--help", check=True).stdout + docs.dims("events", "--help", check=True).stdout
    listed = {line.split()[0] for line in shown.splitlines() if line.startswith("  ") and line.strip()}
    assert not listed & {*OLD_COMMANDS, "trigger"}
