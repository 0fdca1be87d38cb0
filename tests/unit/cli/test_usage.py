"""`dims` without any server: help, usage, the configuration's commands, `dims plan` and `dims init`."""

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
class Said:
    """How a command ended, and what it printed."""

    code: int
    out: str
    err: str


Dims = Callable[..., Said]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder to stand in; no variable of DIMS's is set, and there is no server to be reached."""
    for name in os.environ:
        if name.startswith("DIMS_"):
            monkeypatch.delenv(name)
    made = tmp_path / "here"
    made.mkdir()
    (made / ".git").mkdir()  # where the search for a configuration ends
    monkeypatch.chdir(made)
    return made


@pytest.fixture
def dims(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Dims:
    """`dims` in this process, through the same door as the command."""

    def run(*arguments: str, env: Mapping[str, str] | None = None) -> Said:
        for name, value in (env or {}).items():
            monkeypatch.setenv(name, value)
        out, err = io.StringIO(), io.StringIO()
        with redirect_stdout(out), redirect_stderr(err), pytest.raises(SystemExit) as ended:
            main(list(arguments))
        assert isinstance(ended.value.code, int)
        return Said(ended.value.code, out.getvalue(), err.getvalue())

    return run


@pytest.fixture
def configured(folder: Path) -> Path:
    (folder / "dims.yaml").write_text(TEXT)
    return folder


# --- help and usage -------------------------------------------------------------------------------------


def test_a_look_has_one_form(dims: Dims):
    said = dims("verify", "--json", "--format", "junit")
    assert said.code == 2
    assert "say --json or --format junit, not both" in said.err


def test_help_groups_the_commands(dims: Dims):
    said = dims("--help")
    assert said.code == 0
    lines = said.out.splitlines()
    places = [lines.index(f"{title}:") for title in SECTIONS]
    assert list(SECTIONS) == ["Start", "Look", "Decide", "Report", "Operate"]
    assert places == sorted(places)
    for title, start, end in zip(SECTIONS, places, [*places[1:], len(lines)], strict=True):
        listed = {
            line.split()[0] for line in lines[start + 1 : end] if line.startswith("  ") and line.strip()[0] != "-"
        }
        assert set(SECTIONS[title]) <= listed
    assert dims("-h").out == said.out
    assert dims().out.strip() == said.out.strip()  # `dims` alone helps


@pytest.mark.parametrize("command", [name for commands in SECTIONS.values() for name in commands])
def test_every_command_helps(command: str, dims: Dims):
    said = dims(command, "--help")
    assert (said.code, said.err) == (0, "")
    assert said.out.startswith(f"Usage: dims {command}")
    made = cli.get_command(None, command)  # type: ignore[arg-type]
    assert made is not None and made.name == command
    assert made.get_short_help_str(90)


def test_version(dims: Dims):
    said = dims("--version")
    assert (said.code, said.out.strip()) == (0, f"dims, version {__version__}")


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["frobnicate"], "No such command 'frobnicate'"),
        (["--frobnicate"], "No such option"),
        (["verify", "--fail-on", "none"], "'none' is not one of 'low', 'medium', 'high', 'urgent'"),
        (["events", "--limit", "0"], "0 is not in the range"),
        (["plan"], "Missing argument 'TYPE'"),
        (["config", "frobnicate"], "No such command 'frobnicate'"),
    ],
)
def test_wrong_usage_is_2(arguments: list[str], told: str, dims: Dims):
    said = dims(*arguments)
    assert said.code == 2
    assert told in said.err
    assert said.out == ""


@pytest.mark.parametrize(
    "arguments", [["config", "check"], ["config", "show"], ["plan", "x"], ["verify"], ["metrics"], ["history", "a.b"]]
)
def test_no_configuration_names_init(arguments: list[str], dims: Dims):
    said = dims(*arguments)
    assert (said.code, said.out) == (2, "")
    assert said.err == (
        "dims: no dims.yaml in this folder or above it. Create one with `dims init`, or name it with --config.\n"
    )  # fmt: skip


def test_the_module_is_the_command(configured: Path):
    done = subprocess.run(
        [sys.executable, "-m", "dims_worker", "frobnicate"], capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert "No such command 'frobnicate'" in done.stderr


def test_an_internal_error_is_4_and_says_where_if_asked(dims: Dims, configured: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("dims_worker.cli.session.load_config", lambda *_: 1 / 0)
    said = dims("config", "check")
    assert said.code == 4
    assert said.err == "dims: internal error: ZeroDivisionError('division by zero') (`dims --debug …` shows where)\n"
    assert "Traceback" in dims("--debug", "config", "check").err


@pytest.mark.parametrize("error", [UsageError, ConfigError, MeasureError, DatabaseUnreachable, Refused, DimsError])
def test_an_error_says_itself_and_ends_with_its_code(
    error: type[DimsError], dims: Dims, monkeypatch: pytest.MonkeyPatch
):
    def fail(*_: Any) -> None:
        raise error

    monkeypatch.setattr("dims_worker.cli.session.load_config", fail)
    codes = {UsageError: 2, ConfigError: 2, MeasureError: 3, DatabaseUnreachable: 3, Refused: 1, DimsError: 4}
    assert dims("config", "check") == Said(codes[error], "", f"dims: {error.__doc__}\n")


# --- dims config ----------------------------------------------------------------------------------------


def test_config_check_of_a_good_file(dims: Dims, configured: Path):
    said = dims("config", "check")
    assert (said.code, said.err) == (0, "")
    assert said.out == f"{configured / 'dims.yaml'}: fine: 3 sources, 5 metrics, 3 rules\n"


def test_config_check_prints_every_error(dims: Dims, folder: Path):
    (folder / "dims.yaml").write_text(
        "include: more.yaml\nsources:\n  p: {type: ftp}\nrules:\n  r: {metrics: x}\nwatch: [q]\n"
    )
    (folder / "more.yaml").write_text("metrics:\n  c:\n    a: {source: z, measure: count}\n")
    said = dims("config", "check")
    assert (said.code, said.out) == (2, "")
    assert said.err.splitlines() == [
        "dims.yaml:3: sources.p.type: must be one of s3, files, git, sql, aws, command",
        "dims.yaml:5: rules.r: needs `on` (event types) or `schedule` (cron)",
        "dims.yaml:6: watch.0: unknown source 'q'; write one of p",
        "more.yaml:3: metrics.c.a.source: unknown source 'z'; write one of p",
    ]


def test_config_is_named_by_option_or_variable(dims: Dims, folder: Path):
    (folder / "other.yaml").write_text(TEXT)
    assert dims("--config", "other.yaml", "config", "check").code == 0
    assert dims("config", "check", env={"DIMS_CONFIG": "other.yaml"}).code == 0
    said = dims("--config", "gone.yaml", "config", "check")
    assert (said.code, "gone.yaml: no such file" in said.err) == (2, True)


def test_config_schema_is_json_and_needs_no_configuration(dims: Dims):
    said = dims("config", "schema")
    assert said.code == 0
    assert json.loads(said.out) == json.loads(json.dumps(config_schema()))


def test_config_show_fills_in_and_holds_no_secret(dims: Dims, configured: Path):
    env = {"DIMS_DATABASE_URL": "postgresql://u:geheim@h/d", "DIMS_BROKER_URL": "redis://:geheim@h/0"}
    said = dims("config", "show", env=env)
    assert said.code == 0
    assert "geheim" not in said.out + said.err
    shown = json.loads(said.out)
    assert (shown["database"], shown["broker"]) == ("DIMS_DATABASE_URL", "DIMS_BROKER_URL")
    assert shown["policy"]["require_approval_pct"] == 15
    assert shown["settings"] == {
        **{"lease": "60s", "sweep": "5s", "orphan": "30s"},
        **{"history_days": 365, "snapshot_days": 90},
    }
    assert shown["sources"]["lake"]["timeout"] == "300s"
    assert shown["metrics"]["docs.lines"]["unit"] == "lines"
    assert shown["home"] == str(configured / ".dims")
    assert not (configured / ".dims").exists()  # looking makes nothing


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
    said = dims("plan", *arguments, "--json")
    assert said.code == 0
    planned = json.loads(said.out)
    assert [concern["metric"] for concern in planned["concerns"]] == metrics
    assert planned["left_alone"] == left_alone
    assert all(concern["rule"] in planned["rules"] and concern["reason"] for concern in planned["concerns"])
    table = dims("plan", *arguments)
    assert table.code == 0
    rows = [line.split()[0] for line in table.out.splitlines()[:-1] if line.strip() and "─" not in line]
    assert rows == ["metric", *metrics]
    measured = f"{len(metrics)} metric{'' if len(metrics) == 1 else 's'}"
    assert table.out.splitlines()[-1] == f"{arguments[0]} would measure {measured} and leave {left_alone} alone"
    assert not (configured / ".dims").exists()  # no server, no home


def test_plan_says_why(dims: Dims, configured: Path):
    said = dims("plan", *DOCS_ONLY)
    lines = [" ".join(line.split()) for line in said.out.splitlines()]
    assert "docs.lines git_post_commit docs/guide.md matches docs/**" in lines


def test_plan_of_what_no_rule_matches(dims: Dims, configured: Path):
    said = dims("plan", "dims.unheard")
    assert (said.code, said.out) == (0, "no rule matches dims.unheard: it would be stored as unmatched\n")
    assert json.loads(dims("plan", "dims.unheard", "--json").out) == {"rules": [], "concerns": [], "left_alone": 4}


@pytest.mark.parametrize(
    ("arguments", "told"),
    [(["x", "--key", "k"], "--key needs --bucket"), ([""], "type must be a non-empty string"),
     (["x" * 3000], "type has 3,000 characters"), (["x", "--path", "a\udcff"], "not UTF-8")],
)  # fmt: skip
def test_plan_refuses(arguments: list[str], told: str, dims: Dims, configured: Path):
    said = dims("plan", *arguments)
    assert (said.code, said.out) == (2, "")
    assert told in said.err


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
    said = dims("init")
    assert (said.code, said.err) == (0, "")
    config = load_config(None, {}, folder)
    expected = {
        *("code_base.python_files", "code_base.python_lines", "code_base.python_tests"),
        *("code_base.sql_files", "code_base.sql_lines", "code_base.cpp_files", "code_base.cpp_lines"),
        *("documentation.files", "documentation.lines", "project.files", "project.bytes"),
        *("git.commits", "git.tracked_files"),
    }  # what git ignores is not counted: no JavaScript
    assert set(config.metrics) == expected
    assert said.out.startswith(f"wrote dims.yaml: {len(expected)} metrics of 2 sources\nwrote .gitignore: .dims/")
    assert (folder / ".gitignore").read_text() == "*.js\nbuild\n.dims/\n"
    checked = dims("config", "check")
    assert (checked.code, checked.out) == (0, f"{folder / 'dims.yaml'}: fine: 2 sources, 13 metrics, 2 rules\n")
    planned = json.loads(dims("plan", *DOCS_ONLY, "--json").out)
    assert {concern["metric"] for concern in planned["concerns"]} == {
        *("documentation.files", "documentation.lines", "git.commits", "git.tracked_files"),
        *("project.files", "project.bytes"),
    }


def test_init_in_a_folder_without_git(dims: Dims, folder: Path):
    (folder / ".git").rmdir()
    write(folder, {"a.R": "", "b.go": "", "b_test.go": ""})
    said = dims("init")
    assert said.code == 0
    assert "gitignore" not in said.out
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
        "project.files",
        "project.bytes",
        "git.commits",
        "git.tracked_files",
    }
    assert (folder / ".gitignore").read_text() == ".dims/\n"


def test_init_replaces_nothing_unless_forced(dims: Dims, configured: Path):
    said = dims("init")
    assert (said.code, said.out) == (2, "")
    assert "dims.yaml is there already; `dims init --force` replaces it" in said.err
    assert (configured / "dims.yaml").read_text() == TEXT
    assert not (configured / ".gitignore").exists()
    assert dims("init", "--force").code == 0
    assert (configured / "dims.yaml").read_text() != TEXT


@pytest.mark.parametrize("line", [".dims/", ".dims", "/.dims/", "  .dims/  "])
def test_init_ignores_its_home_once(line: str, dims: Dims, folder: Path):
    repository(folder, {".gitignore": f"x\n{line}\n"})
    assert dims("init").code == 0
    assert (folder / ".gitignore").read_text() == f"x\n{line}\n"


@pytest.mark.parametrize("name", ["a\nb.py", "sp ace.py", "ü😀.py", "'quo\"te.py", "-x.py", "${HOME}.py", "* .py"])
def test_a_draft_is_valid_whatever_files_are_called(name: str, folder: Path):
    repository(folder, {name: ""})
    assert "code_base.python_files" in loaded(folder)


def loaded(folder: Path) -> Mapping[str, Any]:
    (folder / "dims.yaml").write_text(draft_config(folder))
    return load_config(None, {}, folder).metrics
