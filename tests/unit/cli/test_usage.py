"""Test `dims` without servers: help, usage, `dims config`, `dims plan` and `dims init`."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from dims_worker import __version__
from dims_worker.cli.init_template import draft_config
from dims_worker.cli.main import SECTIONS, cli, main
from dims_worker.config import config_schema, load_config
from dims_worker.errors import ConfigError, DatabaseUnreachable, DimsError, MeasureError, Refused, UsageError

TEXT = """
sources:
  project: {type: files, path: "."}
  repo: {type: git, path: "."}
  lake: {type: s3, bucket: lake}
metrics:
  code:
    python: {source: project, measure: lines, paths: "**/*.py"}
    twice: {derive: code.python * 2}
  docs:
    lines: {source: project, measure: lines, paths: "docs/**", critical: true}
  git:
    commits: {source: repo, measure: commits}
  s3:
    raw: {source: lake, prefix: raw/, measure: count}
rules:
  git_post_commit: {on: "dims.git.*"}
  s3_upload: {on: "com.amazonaws.s3.*"}
  scraper_complete: {on: dims.scraper.complete, metrics: "code.*"}
"""
DOCS_ONLY = ("dims.git.commit", "--path", "docs/guide.md")


@dataclass
class Result:
    """The exit code and the output of a command."""

    code: int
    out: str
    err: str


Dims = Callable[..., Result]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Change to an empty folder. No variable of DIMS is set, and no server is reachable."""
    for name in os.environ:
        if name.startswith("DIMS_"):
            monkeypatch.delenv(name)
    folder = tmp_path / "here"
    folder.mkdir()
    (folder / ".git").mkdir()  # the search for a configuration stops here
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture
def dims(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Dims:
    """Run `dims` in this process, through the entry point of the command."""

    def run(*arguments: str, env: Mapping[str, str] | None = None) -> Result:
        for name, value in (env or {}).items():
            monkeypatch.setenv(name, value)
        out, err = io.StringIO(), io.StringIO()
        with redirect_stdout(out), redirect_stderr(err), pytest.raises(SystemExit) as ended:
            main(list(arguments))
        assert isinstance(ended.value.code, int)
        return Result(ended.value.code, out.getvalue(), err.getvalue())

    return run


@pytest.fixture
def configured(folder: Path) -> Path:
    (folder / "dims.yaml").write_text(TEXT)
    return folder


# --- help and usage -------------------------------------------------------------------------------------


def test_json_and_another_format_exclude_each_other(dims: Dims):
    result = dims("verify", "--json", "--format", "junit")
    assert result.code == 2
    assert "--json and --format junit exclude each other. Use one of them." in result.err


def test_the_help_lists_the_commands_in_sections(dims: Dims):
    result = dims("--help")
    assert result.code == 0
    lines = result.out.splitlines()
    places = [lines.index(f"{title}:") for title in SECTIONS]
    assert list(SECTIONS) == ["Start", "Look", "Decide", "Report", "Operate"]
    assert places == sorted(places)
    for title, start, end in zip(SECTIONS, places, [*places[1:], len(lines)], strict=True):
        listed = {
            line.split()[0] for line in lines[start + 1 : end] if line.startswith("  ") and line.strip()[0] != "-"
        }
        assert set(SECTIONS[title]) <= listed
    assert dims("-h").out == result.out
    assert dims().out.strip() == result.out.strip()  # `dims` alone prints the help


@pytest.mark.parametrize("command", [name for commands in SECTIONS.values() for name in commands])
def test_every_command_prints_its_help(command: str, dims: Dims):
    result = dims(command, "--help")
    assert (result.code, result.err) == (0, "")
    assert result.out.startswith(f"Usage: dims {command}")
    loaded = cli.get_command(None, command)  # type: ignore[arg-type]
    assert loaded is not None and loaded.name == command


def test_version(dims: Dims):
    result = dims("--version")
    assert (result.code, result.out.strip()) == (0, f"dims, version {__version__}")


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["frobnicate"], "No such command 'frobnicate'"),
        (["--frobnicate"], "No such option"),
        (["verify", "--fail-on", "none"], "'none' is not one of 'low', 'medium', 'high', 'urgent'"),
        (["events", "--limit", "0"], "0 is not in the range"),
        (["plan"], "Missing argument 'TYPE'"),
        (["config", "frobnicate"], "No such command 'frobnicate'"),
    ],
)
def test_wrong_usage_ends_with_code_2(arguments: list[str], expected: str, dims: Dims):
    result = dims(*arguments)
    assert result.code == 2
    assert expected in result.err
    assert result.out == ""


@pytest.mark.parametrize(
    "arguments", [["config", "check"], ["config", "show"], ["plan", "x"], ["verify"], ["metrics"], ["history", "a.b"]]
)
def test_without_a_configuration_the_error_names_init(arguments: list[str], dims: Dims):
    result = dims(*arguments)
    assert (result.code, result.out) == (2, "")
    assert (
        result.err
        == "dims: no dims.yaml in this folder or above it. Create one with `dims init`, or name it with --config.\n"
    )


def test_the_module_runs_the_command(configured: Path):
    done = subprocess.run(
        [sys.executable, "-m", "dims_worker", "frobnicate"], capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert "No such command 'frobnicate'" in done.stderr


def test_an_internal_error_is_4_and_shows_a_traceback_with_debug(
    dims: Dims, configured: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("dims_worker.cli.session.load_config", lambda *_: 1 / 0)
    result = dims("config", "check")
    assert result.code == 4
    assert (
        result.err
        == "dims: internal error: ZeroDivisionError('division by zero'). Run `dims --debug ...` to see where.\n"
    )
    assert "Traceback" in dims("--debug", "config", "check").err


@pytest.mark.parametrize("error", [UsageError, ConfigError, MeasureError, DatabaseUnreachable, Refused, DimsError])
def test_an_error_prints_its_message_and_ends_with_its_code(
    error: type[DimsError], dims: Dims, monkeypatch: pytest.MonkeyPatch
):
    def fail(*_: Any) -> None:
        raise error

    monkeypatch.setattr("dims_worker.cli.session.load_config", fail)
    codes = {UsageError: 2, ConfigError: 2, MeasureError: 3, DatabaseUnreachable: 3, Refused: 1, DimsError: 4}
    assert dims("config", "check") == Result(codes[error], "", f"dims: {error.__doc__}\n")


# --- dims config ----------------------------------------------------------------------------------------


def test_config_check_of_a_good_file(dims: Dims, configured: Path):
    result = dims("config", "check")
    assert (result.code, result.err) == (0, "")
    assert result.out == f"{configured / 'dims.yaml'} is valid: 3 sources, 5 metrics, 3 rules\n"


def test_config_check_prints_every_error(dims: Dims, folder: Path):
    (folder / "dims.yaml").write_text(
        "include: more.yaml\nsources:\n  p: {type: ftp}\nrules:\n  r: {metrics: x}\nwatch: [q]\n"
    )
    (folder / "more.yaml").write_text("metrics:\n  c:\n    a: {source: z, measure: count}\n")
    result = dims("config", "check")
    assert (result.code, result.out) == (2, "")
    assert result.err.splitlines() == [
        "dims.yaml:3: sources.p.type: must be one of s3, files, git, sql, aws, command",
        "dims.yaml:5: rules.r: needs `on` (event types) or `schedule` (cron)",
        "dims.yaml:6: watch.0: unknown source 'q'; write one of p",
        "more.yaml:3: metrics.c.a.source: unknown source 'z'; write one of p",
    ]


def test_config_is_named_by_option_or_variable(dims: Dims, folder: Path):
    (folder / "other.yaml").write_text(TEXT)
    assert dims("--config", "other.yaml", "config", "check").code == 0
    assert dims("config", "check", env={"DIMS_CONFIG": "other.yaml"}).code == 0
    result = dims("--config", "gone.yaml", "config", "check")
    assert (result.code, "gone.yaml: no such file" in result.err) == (2, True)


def test_config_schema_is_json_and_needs_no_configuration(dims: Dims):
    result = dims("config", "schema")
    assert result.code == 0
    assert json.loads(result.out) == json.loads(json.dumps(config_schema()))


def test_config_show_fills_in_and_holds_no_secret(dims: Dims, configured: Path):
    env = {"DIMS_DATABASE_URL": "postgresql://u:geheim@h/d", "DIMS_BROKER_URL": "redis://:geheim@h/0"}
    result = dims("config", "show", env=env)
    assert result.code == 0
    assert "geheim" not in result.out + result.err
    shown = json.loads(result.out)
    assert (shown["database"], shown["broker"]) == ("DIMS_DATABASE_URL", "DIMS_BROKER_URL")
    assert shown["policy"]["require_approval_pct"] == 15
    assert shown["settings"] == {
        "lease": "60s",
        "sweep": "5s",
        "orphan": "30s",
        "history_days": 365,
        "snapshot_days": 90,
    }
    assert shown["sources"]["lake"]["timeout"] == "300s"
    assert shown["metrics"]["docs.lines"]["unit"] == "lines"
    assert shown["home"] == str(configured / ".dims")
    assert not (configured / ".dims").exists()  # the command creates nothing


# --- dims plan ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "metrics", "left_alone"),
    [
        (DOCS_ONLY, ["docs.lines", "git.commits"], 2),
        (("dims.git.commit",), ["code.python", "docs.lines", "git.commits"], 1),
        (("dims.git.commit", "--path", "a.py", "--path", "docs/x"), ["code.python", "docs.lines", "git.commits"], 1),
        (("com.amazonaws.s3.ObjectCreated:Put", "--bucket", "lake", "--key", "raw/x"), ["s3.raw"], 3),
        (("com.amazonaws.s3.ObjectCreated:Put", "--bucket", "lake", "--key", "x"), [], 4),
        (("com.amazonaws.s3.ObjectCreated:Put", "--bucket", "pond"), [], 4),
        (("scraper_complete",), ["code.python"], 3),
    ],
)
def test_plan(arguments: tuple[str, ...], metrics: list[str], left_alone: int, dims: Dims, configured: Path):
    result = dims("plan", *arguments, "--json")
    assert result.code == 0
    planned = json.loads(result.out)
    assert [concern["metric"] for concern in planned["concerns"]] == metrics
    assert planned["left_alone"] == left_alone
    assert all(concern["rule"] in planned["rules"] and concern["reason"] for concern in planned["concerns"])
    table = dims("plan", *arguments)
    assert table.code == 0
    rows = [line.split()[0] for line in table.out.splitlines()[:-1] if line.strip() and "─" not in line]
    assert rows == ["metric", *metrics]
    measured = f"{len(metrics)} metric{'' if len(metrics) == 1 else 's'}"
    assert table.out.splitlines()[-1] == f"{arguments[0]} would measure {measured} and leave {left_alone} alone"
    assert not (configured / ".dims").exists()  # no server was started


def test_plan_prints_the_reasons(dims: Dims, configured: Path):
    result = dims("plan", *DOCS_ONLY)
    lines = [" ".join(line.split()) for line in result.out.splitlines()]
    assert "docs.lines git_post_commit docs/guide.md matches docs/**" in lines


def test_plan_of_an_event_that_no_rule_matches(dims: Dims, configured: Path):
    result = dims("plan", "dims.unknown")
    assert (result.code, result.out) == (0, "no rule matches dims.unknown: it would be stored as unmatched\n")
    assert json.loads(dims("plan", "dims.unknown", "--json").out) == {"rules": [], "concerns": [], "left_alone": 4}


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["x", "--key", "k"], "--key needs --bucket"),
        ([""], "type must be a non-empty string"),
        (["x" * 3000], "type has 3,000 characters"),
        (["x", "--path", "a\udcff"], "not UTF-8"),
    ],
)
def test_plan_refuses_wrong_arguments(arguments: list[str], expected: str, dims: Dims, configured: Path):
    result = dims("plan", *arguments)
    assert (result.code, result.out) == (2, "")
    assert expected in result.err


# --- dims init ------------------------------------------------------------------------------------------

FILES = {"src/a.py": "1\n", "tests/test_a.py": "1\n", "q.sql": "", "docs/x.md": "", "docs/y.rst": "", "lib/x.cc": ""}


def repository(folder: Path, files: Mapping[str, str]) -> None:
    (folder / ".git").rmdir()
    subprocess.run(["git", "init", "-q", str(folder)], check=True)
    write(folder, files)


def write(folder: Path, files: Mapping[str, str]) -> None:
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)


def test_init_in_a_repository(dims: Dims, folder: Path):
    repository(folder, {**FILES, ".gitignore": "*.js\nbuild", "made.js": ""})
    result = dims("init")
    assert (result.code, result.err) == (0, "")
    config = load_config(None, {}, folder)
    expected = {
        *("code_base.python_files", "code_base.python_lines", "code_base.python_tests"),
        *("code_base.sql_files", "code_base.sql_lines", "code_base.cpp_files", "code_base.cpp_lines"),
        *("documentation.files", "documentation.lines", "project.files", "project.bytes"),
        *("data.files", "data.bytes", "git.commits"),
    }  # what git ignores is not counted: no JavaScript
    assert set(config.metrics) == expected
    assert result.out.startswith(
        f"wrote dims.yaml: {len(expected)} metrics of 2 sources\nwrote .gitignore: git now ignores .dims/"
    )
    assert (folder / ".gitignore").read_text() == "*.js\nbuild\n.dims/\n"
    checked = dims("config", "check")
    assert (checked.code, checked.out) == (0, f"{folder / 'dims.yaml'} is valid: 2 sources, 14 metrics, 3 rules\n")
    planned = json.loads(dims("plan", *DOCS_ONLY, "--json").out)
    assert {concern["metric"] for concern in planned["concerns"]} == {
        *("documentation.files", "documentation.lines", "git.commits"),
        *("project.files", "project.bytes"),
    }


def test_init_in_a_folder_without_git(dims: Dims, folder: Path):
    (folder / ".git").rmdir()
    write(folder, {"a.R": "", "b.go": "", "b_test.go": ""})
    result = dims("init")
    assert result.code == 0
    assert "gitignore" not in result.out
    assert not (folder / ".gitignore").exists()
    config = load_config(None, {}, folder)
    assert set(config.sources) == {"project"}
    assert {name for name in config.metrics if name.startswith("code_base")} == {
        *("code_base.go_files", "code_base.go_lines", "code_base.go_tests"),
        *("code_base.r_files", "code_base.r_lines"),
    }
    assert dims("config", "check").code == 0


def test_init_in_an_empty_repository(dims: Dims, folder: Path):
    repository(folder, {})
    assert dims("init").code == 0
    assert set(load_config(None, {}, folder).metrics) == {
        "data.files",
        "data.bytes",
        "project.files",
        "project.bytes",
        "git.commits",
    }
    assert (folder / ".gitignore").read_text() == ".dims/\n"


def test_init_replaces_nothing_unless_forced(dims: Dims, configured: Path):
    result = dims("init")
    assert (result.code, result.out) == (2, "")
    assert "dims.yaml already exists (5 metrics of 3 sources). Add to that file" in result.err
    assert "or replace it with `dims init --force`." in result.err
    assert (configured / "dims.yaml").read_text() == TEXT
    assert not (configured / ".gitignore").exists()
    assert dims("init", "--force").code == 0
    assert (configured / "dims.yaml").read_text() != TEXT


@pytest.mark.parametrize("line", [".dims/", ".dims", "/.dims/", "  .dims/  "])
def test_init_adds_the_data_directory_to_gitignore_once(line: str, dims: Dims, folder: Path):
    repository(folder, {".gitignore": f"x\n{line}\n"})
    assert dims("init").code == 0
    assert (folder / ".gitignore").read_text() == f"x\n{line}\n"


@pytest.mark.parametrize("name", ["a\nb.py", "sp ace.py", "ü😀.py", "'quo\"te.py", "-x.py", "${HOME}.py", "* .py"])
def test_a_draft_is_valid_with_any_file_names(name: str, folder: Path):
    repository(folder, {name: ""})
    assert "code_base.python_files" in loaded(folder)


def loaded(folder: Path) -> Mapping[str, Any]:
    (folder / "dims.yaml").write_text(draft_config(folder))
    return load_config(None, {}, folder).metrics
