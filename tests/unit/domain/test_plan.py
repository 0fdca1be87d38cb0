"""Which metrics an event concerns, and why, in tables for a small project."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from dims_worker.config import Config, load_config
from dims_worker.domain.plan import MAX_STEPS, Planner, change_of, explain_plan
from dims_worker.events import Event
from dims_worker.probes.base import KeysChanged, PathsChanged
from dims_worker.probes.files.probe import FilesProbe

NOW = datetime(2026, 11, 22, 9, tzinfo=UTC)
TEXT = """
sources:
  project: {type: files, path: ".", exclude: "vendor/**"}
  sub: {type: files, path: sub}
  repo: {type: git, path: "."}
  lake: {type: s3, bucket: lake}
metrics:
  code:
    python: {source: project, measure: lines, paths: "**/*.py"}
    sql: {source: project, measure: lines, paths: "**/*.sql"}
    total: {derive: code.python + code.sql}
    off: {source: project, measure: count, paths: "**/*.py", enabled: false}
  docs:
    lines: {source: project, measure: lines, paths: "docs/**/*.md"}
  sub:
    files: {source: sub, measure: count}
  git:
    commits: {source: repo, measure: commits}
    tracked: {source: repo, measure: tracked_files, paths: "**/*.py"}
  s3:
    all: {source: lake, measure: count}
    raw: {source: lake, prefix: raw/, match: "*.json", measure: count}
rules:
  git_post_commit: {on: "dims.git.*"}
  s3_upload: {on: "com.amazonaws.s3.*"}
  files_changed: {on: dims.files.changed}
  scraper_complete: {on: dims.scraper.complete, metrics: ["s3.*", code.total]}
  nightly: {on: custom.night, metrics: "*"}
  named_off: {on: custom.off, metrics: [code.off]}
  anything: {on: custom.any}
"""
FILES = {"code.python", "code.sql", "docs.lines", "sub.files"}
S3 = {"s3.all", "s3.raw"}
ALL = FILES | S3 | {"git.commits", "git.tracked"}


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Config:
    folder = tmp_path_factory.mktemp("project")
    (folder / "dims.yaml").write_text(TEXT)
    return load_config(None, {"DIMS_DATABASE_URL": ""}, folder)


@pytest.fixture(scope="module")
def planner(config: Config) -> Planner:
    return Planner(config)


def event(kind: str, subject: str | None = None, **data: Any) -> Event:
    return Event.new(kind, "test", now=NOW, subject=subject, data=data)


CONCERNED: list[tuple[str, str, dict[str, Any], set[str]]] = [
    # case                      type                  data ({root} is the project's folder)               metrics
    (
        "a commit of docs alone",
        "dims.git.commit",
        {"root": "{root}", "paths": ["docs/a/b.md"]},
        {"docs.lines", "git.commits"},
    ),
    (
        "a commit of code",
        "dims.git.commit",
        {"root": "{root}", "paths": ["a.py"]},
        {"code.python", "git.commits", "git.tracked"},
    ),
    (
        "a commit of both",
        "dims.git.merge",
        {"root": "{root}", "paths": ["a.py", "docs/x.md"]},
        {"code.python", "docs.lines", "git.commits", "git.tracked"},
    ),
    ("markdown elsewhere", "dims.git.commit", {"root": "{root}", "paths": ["README.md"]}, {"git.commits"}),
    ("what a source leaves out", "dims.files.changed", {"root": "{root}", "paths": ["vendor/a.py"]}, set()),
    ("a saved file, no commit", "dims.files.changed", {"root": "{root}", "paths": ["a.sql"]}, {"code.sql"}),
    ("unknown paths", "dims.files.changed", {"root": "{root}", "paths": []}, FILES),
    ("no paths at all", "dims.git.rewrite", {"root": "{root}"}, FILES | {"git.commits", "git.tracked"}),
    ("paths that are no texts", "dims.files.changed", {"root": "{root}", "paths": ["a.sql", 5]}, FILES),
    ("paths that are no list", "dims.files.changed", {"root": "{root}", "paths": "a.sql"}, FILES),
    ("another tree", "dims.git.commit", {"root": "/elsewhere", "paths": ["a.py"]}, set()),
    ("another tree, unknown", "dims.git.commit", {"root": "/elsewhere"}, set()),
    ("a tree beside, same name", "dims.git.commit", {"root": "{root}2", "paths": ["a.py"]}, set()),
    ("a nested root", "dims.files.changed", {"root": "{root}/sub", "paths": ["x.sql"]}, {"code.sql", "sub.files"}),
    ("a nested root, unknown", "dims.files.changed", {"root": "{root}/sub"}, FILES),
    ("below a nested source", "dims.files.changed", {"root": "{root}", "paths": ["sub/x.txt"]}, {"sub.files"}),
    ("beside a nested source", "dims.files.changed", {"root": "{root}", "paths": ["subs/x.txt"]}, set()),
    ("DIMS's own home", "dims.files.changed", {"root": "{root}", "paths": [".dims/run/x.py"]}, set()),
    ("git's own folder", "dims.files.changed", {"root": "{root}", "paths": [".git/x.py"]}, set()),
    ("a root that is none", "dims.git.commit", {"root": 5, "paths": ["a.py"]}, ALL),
    ("an upload", "com.amazonaws.s3.ObjectCreated:Put", {"bucket": "lake", "key": "raw/a.json"}, S3),
    ("an upload elsewhere", "com.amazonaws.s3.ObjectCreated:Put", {"bucket": "lake", "key": "x/a.json"}, {"s3.all"}),
    (
        "an upload of another kind",
        "com.amazonaws.s3.ObjectCreated:Put",
        {"bucket": "lake", "key": "raw/a.csv"},
        {"s3.all"},
    ),
    (
        "a removal of several",
        "com.amazonaws.s3.ObjectRemoved:Delete",
        {"bucket": "lake", "keys": ["a", "raw/b.json"]},
        S3,
    ),
    ("unknown keys", "com.amazonaws.s3.ObjectCreated:Put", {"bucket": "lake"}, S3),
    ("another bucket", "com.amazonaws.s3.ObjectCreated:Put", {"bucket": "pond", "key": "raw/a.json"}, set()),
    ("no bucket: unknown", "com.amazonaws.s3.ObjectCreated:Put", {}, ALL),
    ("a rule's metrics", "dims.scraper.complete", {"games": 12}, S3 | {"code.python", "code.sql"}),
    ("a rule's name as a type", "scraper_complete", {}, S3 | {"code.python", "code.sql"}),
    (
        "metrics, and what changed",
        "dims.scraper.complete",
        {"bucket": "lake", "key": "x"},
        {"s3.all", "code.python", "code.sql"},
    ),
    ("metrics, another bucket", "dims.scraper.complete", {"bucket": "pond"}, {"code.python", "code.sql"}),
    ("metrics, paths of docs", "dims.scraper.complete", {"root": "{root}", "paths": ["docs/a.md"]}, S3),
    ("all metrics", "custom.night", {}, ALL),
    ("a disabled one by name", "custom.off", {}, {"code.off"}),
    ("no metrics, no change", "custom.any", {"note": "x"}, ALL),
    ("no metrics, a change", "custom.any", {"root": "{root}", "paths": ["a.sql"]}, {"code.sql"}),
    (
        "requested",
        "dims.verify.requested",
        {"metrics": ["git.*", "code.total"]},
        {"git.commits", "git.tracked", "code.python", "code.sql"},
    ),
    ("requested, disabled", "dims.verify.requested", {"metrics": ["code.off"]}, {"code.off"}),
    ("requested, unknown", "dims.verify.requested", {"metrics": ["nope.*"]}, set()),
    ("requested nothing", "dims.verify.requested", {}, set()),
    ("requested wrongly", "dims.verify.requested", {"metrics": "git.*"}, set()),
]


@pytest.mark.parametrize("case", CONCERNED, ids=lambda case: case[0])
def test_what_an_event_concerns(case: tuple[str, str, dict[str, Any], set[str]], config: Config, planner: Planner):
    _, kind, data, expected = case
    data = {**data, "root": data["root"].replace("{root}", str(config.project))} if "{root}" in str(data) else data
    happened = event(kind, **data)
    planned = planner.plan(happened)
    assert set(planned.metrics) == expected
    assert list(planned.metrics) == sorted(expected)
    assert all(concern.reason for concern in planned.planned)
    assert planner.plan(happened) == planned == Planner(config).plan(happened)  # the same each time
    reasons = explain_plan(config, happened)
    assert {name for name, reason in reasons.items() if reason} == expected
    assert set(reasons) == ALL | {"code.off"}


@pytest.mark.parametrize("kind", ["dims.git", "dims.filesXchanged", "DIMS.GIT.COMMIT", "scraper", "code.total", "x"])
def test_an_event_without_a_rule_is_unmatched(kind: str, config: Config, planner: Planner):
    planned = planner.plan(event(kind, root=str(config.project)))
    assert (planned.rules, planned.planned) == ((), ())


@pytest.mark.parametrize(
    ("kind", "data", "reasons"),
    [
        (
            "dims.git.commit",
            {"paths": ["docs/a.md"]},
            {"docs.lines": "docs/a.md matches docs/**/*.md", "git.commits": "the history changed"},
        ),
        ("dims.scraper.complete", {"paths": ["x"]}, {"s3.all": "the rule names it", "s3.raw": "the rule names it"}),
    ],
)
def test_reasons(kind: str, data: dict[str, Any], reasons: dict[str, str], config: Config, planner: Planner):
    planned = planner.plan(event(kind, root=str(config.project), **data))
    assert {concern.metric: concern.reason for concern in planned.planned} == reasons


def test_an_event_without_data_has_a_reason(planner: Planner):
    assert {c.reason for c in planner.plan(event("custom.night")).planned} == {"the event does not say what changed"}
    requested = planner.plan(event("dims.verify.requested", metrics=["git.commits"]))
    assert (requested.rules, requested.planned[0].rule, requested.planned[0].reason) == (
        ("request",),
        "request",
        "was requested",
    )


def test_the_first_matching_rule_of_a_metric_is_named(tmp_path: Path):
    rules = "rules: {b: {on: 'x.*', metrics: c.b}, a: {on: x.y, metrics: [c.a, c.b]}, z: {on: other}}\n"
    metrics = "metrics: {c: {a: {source: p, measure: count}, b: {source: p, measure: lines}}}\n"
    (tmp_path / "dims.yaml").write_text("sources: {p: {type: files, path: .}}\n" + metrics + rules)
    planned = Planner(load_config(None, {}, tmp_path)).plan(event("x.y"))
    assert planned.rules == ("b", "a")
    assert [(concern.metric, concern.rule) for concern in planned.planned] == [("c.a", "a"), ("c.b", "b")]


def test_a_link_to_the_project_is_the_project(config: Config, planner: Planner, tmp_path: Path):
    link = tmp_path / "link"
    link.symlink_to(config.project)
    assert set(planner.plan(event("dims.files.changed", root=str(link), paths=["a.sql"])).metrics) == {"code.sql"}


@pytest.mark.parametrize(
    ("kind", "subject", "data", "change"),
    [
        ("dims.git.commit", None, {"root": "/r", "paths": ["a"]}, PathsChanged("/r", ("a",), history=True)),
        (
            "dims.git.refs_changed",
            None,
            {"root": "/r", "paths": [".git"], "worktrees": ["/w"]},
            PathsChanged("/r", (".git",), history=True, worktrees=("/w",)),
        ),
        ("dims.files.changed", None, {"root": "/r", "paths": ["a"]}, PathsChanged("/r", ("a",))),
        ("x", None, {"root": "/r"}, PathsChanged("/r")),
        ("com.amazonaws.s3.x", "k", {"bucket": "b"}, KeysChanged("b", ("k",))),
        ("com.amazonaws.s3.x", "k", {"bucket": "b", "key": "other"}, KeysChanged("b", ("other",))),
        ("com.amazonaws.s3.x", None, {"bucket": "b", "keys": ["k", "l"]}, KeysChanged("b", ("k", "l"))),
        ("com.amazonaws.s3.x", None, {"bucket": "b", "keys": ["k", None]}, KeysChanged("b")),
        ("x", None, {"bucket": "b"}, KeysChanged("b")),
        ("com.amazonaws.s3.x", "k", {}, None),
        ("com.amazonaws.s3.x", "k", {"bucket": 5}, None),
        ("x", None, {"root": ""}, None),
        ("x", None, {"paths": ["a"]}, None),
        ("x", None, {}, None),
    ],
)
def test_change_of(kind: str, subject: str | None, data: dict[str, Any], change: PathsChanged | KeysChanged | None):
    assert change_of(event(kind, subject, **data)) == change


def test_planning_opens_no_file_and_changes_no_data(config: Config, planner: Planner, monkeypatch: pytest.MonkeyPatch):
    """Planning opens and lists no file, and it does not change the data of the event."""

    def forbidden(*_: Any, **__: Any) -> None:
        raise AssertionError("planning reads no file")

    for name in ("builtins.open", "os.listdir", "os.scandir", "socket.socket.connect"):
        monkeypatch.setattr(name, forbidden)
    data = {"root": str(config.project), "paths": ["sub/y.py"]}
    before = json.dumps(data)
    happened = event("dims.git.commit", **data)
    assert set(planner.plan(happened).metrics) == {"code.python", "sub.files", "git.commits", "git.tracked"}
    assert json.dumps(happened.data) == before


def test_the_cache_of_event_types_is_bounded(planner: Planner):
    for number in range(10_050):
        assert planner.plan(event_of(f"made.up.{number}")).rules == ()
    assert len(planner._rules_of) <= 10_001


def event_of(kind: str) -> Event:
    return Event("1", "test", kind, NOW)


# --- a bounded number of steps --------------------------------------------------------------------------


def test_a_list_with_more_paths_than_dims_compares_is_unknown() -> None:
    event = Event.new("dims.files.changed", "p", now=NOW, data={"root": "/p", "paths": ["a"] * 1001})
    assert change_of(event) == PathsChanged("/p", ())
    event = Event.new("custom.any", "p", now=NOW, data={"bucket": "lake", "keys": ["a"] * 1001})
    assert change_of(event) == KeysChanged("lake", ())


def test_what_takes_too_many_steps_is_concerned_and_not_compared(tmp_path: Path, monkeypatch: Any) -> None:
    patterns = [f"**/{letter}*x*y*{letter * 40}*z/**" for letter in "abcdefghij"]
    metrics = {f"m{n}": {"source": "here", "measure": "count", "paths": [text]} for n, text in enumerate(patterns)}
    other = {"elsewhere": {"source": "there", "measure": "count", "paths": patterns}}
    sources = {name: {"type": "files", "path": name} for name in ("here", "there")}
    rules = {"changed": {"on": "dims.files.changed"}, "again": {"on": "dims.files.*"}}
    content = {"sources": sources, "metrics": {"c": metrics | other}, "rules": rules}
    (tmp_path / "dims.yaml").write_text(json.dumps(content))
    config = load_config(None, {}, tmp_path)
    paths = [f"{number:03}" + "/xyaaaa" * 500 for number in range(60)]
    event = Event.new("dims.files.changed", "p", now=NOW, data={"root": str(tmp_path / "here"), "paths": paths})
    compared: list[str] = []
    touched = FilesProbe.touched

    def counted(self: FilesProbe, source: Any, metric: Any, change: Any, context: Any) -> str | None:
        compared.extend([metric.paths[0]] if change.paths else [])
        return touched(self, source, metric, change, context)

    monkeypatch.setattr(FilesProbe, "touched", counted)
    plan = Planner(config).plan(event)
    allowed = MAX_STEPS // FilesProbe().steps_to_compare(
        config.sources["here"], config.metrics["c.m0"], PathsChanged("/", tuple(paths))
    )
    assert 0 <= allowed < len(patterns)
    assert compared == patterns[:allowed]  # each at most once, although two rules match
    assert plan.metrics == tuple(f"c.m{number}" for number in range(allowed, len(patterns)))  # none of `there`
    assert {planned.reason for planned in plan.planned} == {"the event names too much to compare it"}


WORKFLOWS = """
sources:
  lake: {type: s3, bucket: lake}
  local: {type: files, path: local}
  other: {type: files, path: other}
  warehouse: {type: sql, url: "postgresql://127.0.0.1:1/none"}
metrics:
  s3:
    all: {source: lake, measure: count}
    complete: {source: lake, measure: completeness, prefix: games/, expected: {source: warehouse, query: SELECT 1}}
    sync: {source: lake, measure: sync_status, local: local, pairs: [{folder: a, prefix: a/}]}
  gaps:
    games: {source: warehouse, query: SELECT 1}
    off: {source: warehouse, query: SELECT 1, enabled: false}
  local:
    size: {source: local, measure: bytes}
    total: {derive: local.size + other.size}
  other:
    size: {source: other, measure: bytes}
workflows:
  gap_analysis: {warehouse: warehouse, metrics: ["gaps.*"]}
  local_inventory: {metrics: local.total}
  sync_status: {metric: s3.sync}
  audit: {metrics: s3.all}
rules:
  audit: {schedule: "0 0 1 * *", workflows: [audit]}
  sync: {schedule: "0 9 * * *", workflows: [sync-status]}
  scraped: {on: dims.scraper.complete, sources: [warehouse]}
  local: {on: dims.files.changed, sources: [local]}
  uploaded: {on: "com.amazonaws.s3.*", workflows: [gap-analysis]}
"""


@pytest.fixture(scope="module")
def with_workflows(tmp_path_factory: pytest.TempPathFactory) -> Planner:
    folder = tmp_path_factory.mktemp("workflows")
    (folder / "dims.yaml").write_text(WORKFLOWS)
    return Planner(load_config(None, {"DIMS_DATABASE_URL": ""}, folder))


PARTS = {"gaps.games", "local.size", "other.size", "s3.sync", "s3.all"}


@pytest.mark.parametrize(
    ("kind", "data", "concerned"),
    [
        ("dims.schedule.tick", {"rule": "audit"}, {"workflow.audit"} | PARTS),
        ("audit", {}, {"workflow.audit"} | PARTS),
        ("dims.schedule.tick", {"rule": "sync"}, {"workflow.sync-status", "s3.sync"}),
        ("dims.workflow.requested", {"workflow": "all"}, {"workflow.audit"} | PARTS),
        (
            "dims.workflow.requested",
            {"workflow": "local-inventory"},
            {"workflow.local-inventory", "local.size", "other.size"},
        ),
        ("dims.workflow.requested", {"workflow": "audit", "check": True}, {"workflow.audit"}),
        ("dims.workflow.requested", {"workflow": "aws-inventory"}, set()),
        ("dims.workflow.requested", {"workflow": ["audit"]}, set()),
        ("dims.workflow.requested", {}, set()),
        ("dims.scraper.complete", {}, {"gaps.games", "s3.complete"}),
        ("dims.scraper.complete", {"bucket": "lake", "keys": ["x/1"]}, {"gaps.games", "s3.complete"}),
        ("dims.files.changed", {"root": "{root}/local", "paths": ["a"]}, {"local.size"}),
        ("dims.files.changed", {"root": "{root}/other", "paths": ["a"]}, set()),
        ("com.amazonaws.s3.ObjectCreated:Put", {"bucket": "lake", "key": "x"}, {"workflow.gap-analysis", "gaps.games"}),
    ],
)
def test_metrics_of_workflows_and_sources_are_due(
    with_workflows: Planner, kind: str, data: dict[str, Any], concerned: set[str]
) -> None:
    root = str(with_workflows.config.project)
    filled = json.loads(json.dumps(data).replace("{root}", root))
    assert set(with_workflows.plan(event(kind, **filled)).metrics) == concerned


def test_the_plan_says_which_workflow_measures_a_metric(with_workflows: Planner) -> None:
    reasons = {each.metric: each.reason for each in with_workflows.plan(event("audit")).planned}
    assert reasons["workflow.audit"] == "the rule runs it"
    assert reasons["s3.all"] == "the workflow audit measures it"
    scraped = {each.metric: each.reason for each in with_workflows.plan(event("dims.scraper.complete")).planned}
    assert scraped == {"gaps.games": "the event does not say what changed", "s3.complete": "it reads warehouse"}
