"""file-inventory on sample trees: descriptions of files, odd names, one pass, stable reports."""

from __future__ import annotations

import json
import os
import re
import subprocess
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from dims_worker.config import load_config
from dims_worker.workflows import WorkflowOutcome, render_report, run_workflow, write_report
from dims_worker.workflows.file_inventory import entry as reading

Inventory = Callable[..., WorkflowOutcome]

PYTHON = '''#!/usr/bin/env python3
# -*- coding: utf-8 -*-
"""Fetch the `upcoming` games,
from the feed.

More."""
from __future__ import annotations
import os, json.decoder
import pandas as pd
from . import neighbour
from helpers import x
import shared.thing
if True:
    try:
        import boto3
    except ImportError:
        from sqlalchemy.orm import Session
class Game: ...
async def fetch(): ...
def parse():
    import requests
    def inner(): ...
'''
SQL = """-- ====================
-- Master schema: games and teams
-- ====================
-- CREATE TABLE not_me ();
/* create table nor_me (); */
CREATE TABLE IF NOT EXISTS public.games (id int);
create or replace view "Wide View" as select 1;
CREATE MATERIALIZED VIEW mv AS SELECT 1;
CREATE OR REPLACE FUNCTION plus_minus(a int) RETURNS int AS $$ $$;
"""
SHELL = (
    "#!/bin/bash\n# Copyright 2020 Me\n#\n# Runs the daily predictions\n# for all games.\nset -e\n"
    "log() {\n  :\n}\nfunction main {\n  log\n}\n"
)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    folder = tmp_path / "tree"
    folder.mkdir()
    return folder


@pytest.fixture
def inventory(tree: Path, tmp_path: Path) -> Inventory:
    def make(source: str = "", workflow: str = "") -> WorkflowOutcome:
        (tmp_path / "dims.yaml").write_text(
            f"sources: {{project: {{type: files, path: '{tree}'{source}}}}}\n"
            "metrics: {code: {files: {source: project, measure: count}, lines: {source: project, measure: lines}}}\n"
            f"workflows: {{file_inventory: {{source: project{workflow}}}}}\n"
            "rules: {}\n"
        )
        return run_workflow(load_config(None, {"DIMS_HOME": str(tmp_path / "home")}, tmp_path), "file-inventory")

    return make


def write(tree: Path, files: Mapping[str, str | bytes]) -> None:
    for name, content in files.items():
        path = Path(os.fsdecode(os.fsencode(str(tree)) + b"/" + os.fsencode(name)))
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)


def files_of(outcome: WorkflowOutcome) -> dict[str, dict[str, Any]]:
    return {file["path"]: file for file in outcome.result["files"]}


def listed(outcome: WorkflowOutcome) -> list[str]:
    return re.findall(r"^- `.*$", render_report(outcome.result), re.MULTILINE)


def test_python(tree: Path, inventory: Inventory) -> None:
    write(tree, {"scripts/ml/fetch.py": PYTHON, "scripts/ml/helpers.py": "", "shared/thing.py": ""})
    file = files_of(inventory())["scripts/ml/fetch.py"]
    assert file["kind"] == "Python"
    assert file["category"] == "scripts"
    assert file["lines"] == PYTHON.count("\n")
    assert file["bytes"] == len(PYTHON)
    assert file["purpose"] == "Fetch the `upcoming` games, from the feed."
    assert file["names"] == ["class Game", "fetch()", "parse()"]
    assert file["imports"] == {
        "packages": ["boto3", "pandas", "requests", "sqlalchemy"],
        "standard": ["json", "os"],
        "local": ["helpers", "shared"],
    }
    assert file["notes"] == []


def test_sql_shell_documents_and_configuration(tree: Path, inventory: Inventory) -> None:
    write(
        tree,
        {
            "sql/master.sql": SQL,
            "run.sh": SHELL,
            "docs/guide.md": "---\ntitle: no\n---\n<!-- no -->\n\n# The [guide](x.md) #\ntext\n",
            "docs/set.md": "Guide of all\n===\n",
            "docs/r.rst": "=====\nTitle\n=====\n",
            "dims.yaml": "# What is measured\na: 1\n",
            "package.json": '{\n  "name": "x",\n  "description": "A package"\n}\n',
            "Makefile": "# Build it\nall:\n",
            "requirements-dev.txt": "# For work\nx\n",
            "bin/tool": "#!/usr/bin/env python\n'''A tool.'''\n",
            "bin/notes": "nothing\n",
            ".env": "# the password is hunter2\nA=1\n",
            "a.csv": "1,2\n",
            "n.ipynb": json.dumps({"cells": [{"cell_type": "markdown", "source": ["# Explore\n"]}]}),
        },
    )
    outcome = inventory()
    actual = files_of(outcome)
    purposes = {path: file["purpose"] for path, file in actual.items()}
    assert purposes == {
        "sql/master.sql": "Master schema: games and teams",
        "run.sh": "Runs the daily predictions for all games.",
        "docs/guide.md": "The guide",
        "docs/set.md": "Guide of all",
        "docs/r.rst": "Title",
        "dims.yaml": "What is measured",
        "package.json": "x",
        "Makefile": "Build it",
        "requirements-dev.txt": "For work",
        "bin/tool": "A tool.",
        ".env": None,
        "n.ipynb": "Explore",
    }
    assert actual["sql/master.sql"]["names"] == [
        *("table public.games", 'view "Wide View"', "view mv", "function plus_minus"),
    ]
    assert actual["run.sh"]["names"] == ["log()", "main()"]
    assert outcome.result["others"] == 2
    built = {path for path, file in actual.items() if file["category"] == "build"}
    assert built == {"Makefile", "requirements-dev.txt", "package.json"}


def test_totals_by_category_and_kind(tree: Path, inventory: Inventory) -> None:
    write(tree, {"a.py": "1\n", "b.py": "1\n2\n", "tests/test_a.py": "1\n", "c.sql": "x", "README.md": "# A\n"})
    result = inventory().result
    assert result["totals"] == {"files": 5, "lines": 5, "bytes": 2 + 4 + 2 + 1 + 4}
    assert {name: part["files"] for name, part in result["categories"].items()} == {
        "scripts": 2,
        "sql": 1,
        "tests": 1,
        "documentation": 1,
    }
    assert result["kinds"]["Python"] == {"files": 3, "lines": 4, "bytes": 8}
    assert result["stale_after"] == "7 days"


def test_at_most_eight_names(tree: Path, inventory: Inventory) -> None:
    write(tree, {"a.py": "".join(f"def f{n}(): ...\n" for n in range(11))})
    outcome = inventory()
    file = files_of(outcome)["a.py"]
    assert len(file["names"]) == 8
    assert file["more_names"] == 3
    assert "and 3 more" in render_report(outcome.result)


def test_caches_and_excluded_files_are_left_out(tree: Path, inventory: Inventory) -> None:
    write(
        tree,
        {
            "a.py": "",
            "data/x.py": "",
            "src/data/kept.py": "",
            "backup/x.py": "",
            "x/backups/x.sql": "",
            **{
                "__pycache__/x.py": "",
                "deep/node_modules/m/x.js": "",
                ".venv/x.py": "",
                "a.py.bak": "",
                "cache/c.py": "",
            },
            ".git/hooks/x.py": "",
            "mine/x.py": "",
            "left/y.py": "",
        },
    )
    outcome = inventory(
        ", exclude: [mine/**]", ", exclude: [left/**, data/**, '**/backup/**', '**/backups/**', '**/cache/**']"
    )
    assert list(files_of(outcome)) == ["a.py", "src/data/kept.py"]


def git(tree: Path, *arguments: str, date: str = "2025-10-02T23:30:00-0500") -> None:
    who = {f"GIT_{role}_{what}": "x" for role in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
    env = {**os.environ, **who, "GIT_COMMITTER_DATE": date, "GIT_AUTHOR_DATE": date, "GIT_CONFIG_GLOBAL": os.devnull}
    subprocess.run(["git", "-C", str(tree), *arguments], check=True, env=env, capture_output=True)


def test_the_date_is_that_of_the_last_commit(tree: Path, inventory: Inventory) -> None:
    git(tree, "init", "-q", "-b", "main")
    write(
        tree,
        {"sub/old.py": "1", "sub/new\n.py": "1", "sub/\x01é.py": "1", ".gitignore": "ignored.py\n", "ignored.py": ""},
    )
    git(tree, "add", "-A")
    git(tree, "commit", "-qm", "one")
    git(tree, "commit", "-qm", "empty", "--allow-empty", date="2025-11-01T12:00:00Z")
    write(tree, {"sub/new\n.py": "2"})
    git(tree, "commit", "-qam", "two", date="2026-01-05T12:00:00Z")
    git(tree, "commit", "-qm", "empty", "--allow-empty", date="2026-02-01T12:00:00Z")
    write(tree, {"sub/untracked.py": ""})
    os.utime(tree / "sub/untracked.py", (0, 86400 * 365))
    outcome = inventory(", ignore: gitignore")
    assert {path: file["changed"] for path, file in files_of(outcome).items()} == {
        "sub/\x01é.py": "2025-10-03",
        "sub/new\n.py": "2026-01-05",
        "sub/old.py": "2025-10-03",
        "sub/untracked.py": "1971-01-01",
        ".gitignore": "2025-10-03",
    }
    assert outcome.result["dates"] is None


def test_a_source_that_is_a_folder_of_a_repository(tree: Path, tmp_path: Path, inventory: Inventory) -> None:
    git(tmp_path, "init", "-q", "-b", "main")
    write(tree, {"a.py": "", "deep/b.py": ""})
    git(tmp_path, "add", "-A")
    git(tmp_path, "commit", "-qm", "one")
    actual = files_of(inventory(", ignore: gitignore"))
    assert {path: file["changed"] for path, file in actual.items()} == {"a.py": "2025-10-03", "deep/b.py": "2025-10-03"}


def test_without_a_repository_dates_are_modification_times(tree: Path, inventory: Inventory) -> None:
    write(tree, {"a.py": ""})
    os.utime(tree / "a.py", (0, 86400))
    outcome = inventory()
    assert files_of(outcome)["a.py"]["changed"] == "1970-01-02"
    assert "not in a git repository" in outcome.result["dates"]
    assert "Dates are modification times, not dates of commits" in render_report(outcome.result)


def test_unreadable_files_are_reported_and_not_fatal(
    tree: Path, inventory: Inventory, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(
        tree,
        {
            "broken.py": "import os\n\ndef f(:\n    pass\nclass G: ...\n",
            "nul.py": b"x = 1\n\0\n",
            "latin.py": "# -*- coding: latin-1 -*-\n'''Größe'''\n".encode("latin-1"),
            "bad.py": b"'''\xff'''\n",
            "utf16.sql": "-- Schema\n".encode("utf-16"),
            "latin.sql": "-- Größe\n".encode("latin-1"),
            "bom.md": b"\xef\xbb\xbf# Title\n",
            "dos.md": b"# Title\r\n\r\nx\r\n",
            "deep.py": "(" * 5000 + ")" * 5000,
            "surrogate.py": "'''a\\ud800b'''\n",
            "warns.py": "x = '\\d'\n",
            "notebook.ipynb": "{",
            "secret.py": "'''s'''\n",
        },
    )
    original = os.open

    def refusing(path: Any, *arguments: Any, **more: Any) -> int:
        if str(path).endswith("secret.py"):
            raise PermissionError(13, "Permission denied")
        return original(path, *arguments, **more)

    monkeypatch.setattr(os, "open", refusing)
    outcome = inventory()
    actual = files_of(outcome)
    assert actual["broken.py"]["names"] == ["f()", "class G"]
    assert actual["broken.py"]["imports"]["standard"] == ["os"]
    assert actual["broken.py"]["notes"] == ["syntax error in line 3: invalid syntax"]
    assert "null bytes" in actual["nul.py"]["notes"][0]
    assert actual["latin.py"]["purpose"] == "Größe"
    assert actual["bad.py"]["notes"][0].startswith("syntax error")
    assert actual["utf16.sql"]["purpose"] == "Schema"
    assert (actual["latin.sql"]["purpose"], actual["latin.sql"]["notes"]) == ("Größe", ["is not UTF-8"])
    assert actual["bom.md"]["purpose"] == actual["dos.md"]["purpose"] == "Title"
    assert actual["deep.py"]["notes"]
    assert actual["surrogate.py"]["purpose"] == "a\\ud800b"
    assert actual["warns.py"]["notes"] == []
    assert actual["secret.py"]["lines"] is None
    assert actual["secret.py"]["notes"] == ["cannot be read: Permission denied"]
    assert outcome.result["attention"][0] == "1 file cannot be read: secret.py."
    assert outcome.result["attention"][1].startswith("4 Python files cannot be parsed: bad.py, broken.py")
    text = render_report(outcome.result)
    text.encode()
    json.dumps(outcome.result).encode()
    assert text.index("Needs attention") < text.index("Totals")
    assert outcome.scanned.readings[0].value == "attention"


def test_huge_files_are_analyzed_in_part_and_counted_in_full(tree: Path, inventory: Inventory) -> None:
    line = "INSERT INTO t VALUES (1);\n"
    write(tree, {"dump.sql": "-- A dump\n" + line * 60_000, "big.json": "1" * 300_000, "big.py": "x = 1\n" * 200_000})
    actual = files_of(inventory())
    assert list(actual) == ["big.py", "dump.sql"]
    assert actual["dump.sql"]["lines"] == 60_001
    assert actual["dump.sql"]["purpose"] == "A dump"
    assert "only the first" in actual["dump.sql"]["notes"][0]
    assert actual["big.py"]["lines"] == 200_000
    assert len(actual["big.py"]["notes"]) == 2


@pytest.mark.parametrize(
    "name, content",
    [
        *(("a.py", b"(\n" * 130_000), ("b.py", b"x = 1\n" * 40_000), ("c.py", b"  " * 500_000 + b"\n((")),
        *(("a.md", b"[x" * 500_000), ("b.md", b"<x" * 500_000), ("c.md", b"\n" * 1_000_000)),
        *(("a.yml", b"name: " + b" " * 1_000_000), ("b.yml", b"name" + b"\n" * 1_000_000)),
        *(("a.sh", b"\t" * 1_000_000), ("b.sh", b"f" * 1_000_000), ("c.sh", b"function " * 100_000)),
        *(("a.sql", b"create " * 150_000), ("b.sql", b"/*" * 500_000), ("c.sql", b"create table " + b"a." * 400_000)),
        *(("d.sql", b"create temp " * 80_000), ("e.sql", b"create table " + b" " * 1_000_000)),
        *(("a.js", b"/*" * 500_000), ("a.ipynb", b"[" * 500_000), ("a.txt", b"=" * 200_000)),
    ],
)
def test_no_content_takes_long(tree: Path, inventory: Inventory, name: str, content: bytes) -> None:
    write(tree, {name: content})
    before = time.perf_counter()
    assert name in files_of(inventory())
    assert time.perf_counter() - before < 60  # a pattern that backtracks would take hours


NAMES = ["a|b.py", "new\nline.py", "tick`s``.py", "🏀 x.py", "\udcff.py", "- list.py", "#h.py", "a\tb.py", "<b>.py"]
NAMES += ["\u2028.py", "\u202e.py", "[x](y).py", "*.py", "_a_.py", "\\|.py", " x .py", "\x85.py", "x.py\x0b.py"]


def test_files_with_odd_names_have_one_line_each(tree: Path, inventory: Inventory) -> None:
    write(tree, {f"d/{name}": "'''- `x`\n\n- `y` | z'''\n" for name in NAMES})
    outcome = inventory()
    assert len(outcome.result["files"]) == len(NAMES)
    text = render_report(outcome.result)
    text.encode()  # all valid UTF-8
    json.dumps(outcome.result, ensure_ascii=False).encode()
    assert len(listed(outcome)) == len(NAMES)
    entries = [line for line in text.splitlines() if line.startswith("-")]
    assert entries == listed(outcome)
    assert any("`d/new\\nline.py`" in entry for entry in entries)
    assert any("`` d/tick`s```.py ``" in entry or "``` d/tick`s``.py ```" in entry for entry in entries)


def test_links_pipes_and_vanishing_files(tree: Path, inventory: Inventory, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tree, {"a.py": "", "b.py": ""})
    (tree / "link.py").symlink_to("a.py")
    (tree / "loop").symlink_to(".")
    os.mkfifo(tree / "pipe.py")
    original = reading.read_file

    def late(root: str, path: str, deadline: Any) -> Any:
        (tree / "b.py").unlink(missing_ok=True)
        return original(root, path, deadline)

    monkeypatch.setattr("dims_worker.workflows.file_inventory.workflow.read_file", late)
    assert list(files_of(inventory())) == ["a.py"]


def test_a_missing_tree_is_not_an_empty_one(tree: Path, inventory: Inventory) -> None:
    tree.rmdir()
    outcome = inventory(workflow=", metrics: ['code.*']")
    assert "does not exist" in outcome.unreached["project"]
    assert [reading.method for reading in outcome.scanned.readings] == ["failed"] * 3
    text = render_report(outcome.result)
    assert "does not exist" in text
    assert "0 files" not in text


def test_an_empty_tree(tree: Path, inventory: Inventory) -> None:
    outcome = inventory()
    assert outcome.unreached == {}
    assert "0 files, 0 lines" in render_report(outcome.result)


def test_configured_metrics_are_measured_in_the_run(tree: Path, inventory: Inventory) -> None:
    write(tree, {"a.py": "1\n2\n", "b.txt": "x\n"})
    readings = {
        reading.metric: reading.value for reading in inventory(workflow=", metrics: ['code.*']").scanned.readings
    }
    assert readings == {"workflow.file-inventory": "ok", "code.files": 2, "code.lines": 3}


def test_the_report_lists_every_file_except_itself(tree: Path, inventory: Inventory) -> None:
    write(tree, {"a.py": "'''- `no entry`'''\n", "docs/b.md": "# B\n"})
    outcome = inventory()
    assert write_report(tree / "FILE_INVENTORY.md", outcome.result)
    before = (tree / "FILE_INVENTORY.md").read_bytes()
    again = inventory()
    assert list(files_of(again)) == ["a.py", "docs/b.md"]
    os.utime(tree / "FILE_INVENTORY.md", (0, 0))
    assert not write_report(tree / "FILE_INVENTORY.md", {**again.result, "generated_at": "2999-01-01T00:00:00+00:00"})
    assert (tree / "FILE_INVENTORY.md").read_bytes() == before
    assert (tree / "FILE_INVENTORY.md").stat().st_mtime > 0
    write(tree, {"c.py": ""})
    assert write_report(tree / "FILE_INVENTORY.md", inventory().result)
    assert len(re.findall("^- `", (tree / "FILE_INVENTORY.md").read_text(), re.MULTILINE)) == 3


def test_each_of_4000_files_is_read_once(tree: Path, inventory: Inventory, monkeypatch: pytest.MonkeyPatch) -> None:
    body = PYTHON + "".join(
        f"def g{n}(a, b=1):\n    '''D.'''\n    return [a + b for _ in range({n})]\n\n" for n in range(20)
    )
    write(tree, {f"p{n % 40}/m{n}.py": body for n in range(2500)})
    write(tree, {f"docs/d{n}.md": f"# Doc {n}\n" + "text\n" * 100 for n in range(1000)})
    write(tree, {f"sql/s{n}.sql": SQL * 10 for n in range(500)})
    git(tree, "init", "-q")
    git(tree, "add", "-A")
    git(tree, "commit", "-qm", "all")
    reads: list[str] = []

    original = reading.read_file

    def counted(root: str, path: str, deadline: Any) -> Any:
        reads.append(path)
        return original(root, path, deadline)

    monkeypatch.setattr("dims_worker.workflows.file_inventory.workflow.read_file", counted)
    outcome = inventory(", ignore: gitignore")
    text = render_report(outcome.result)
    assert len(outcome.result["files"]) == 4000
    assert len(re.findall("^- `", text, re.MULTILINE)) == 4000
    assert len(reads) == len(set(reads)) == 4000
