"""file-inventory names what it leaves out, and its numbers equal those of `find` and `git ls-files`."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Callable, Mapping
from datetime import timedelta
from pathlib import Path

import pytest

from dims_worker.config import FilesMetric, FilesSource, load_config
from dims_worker.probes.base import Deadline, ScanContext
from dims_worker.probes.files.probe import FilesProbe
from dims_worker.workflows import WorkflowOutcome, render_report, run_workflow, write_report

Inventory = Callable[..., WorkflowOutcome]
LFS = f"version https://git-lfs.github.com/spec/v1\noid sha256:{'0a' * 32}\nsize 5242880\n"


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
            "metrics: {code: {files: {source: project, measure: count}}}\n"
            f"workflows: {{file_inventory: {{source: project{workflow}}}}}\n"
            "rules: {}\n"
        )
        return run_workflow(load_config(None, {"DIMS_HOME": str(tmp_path / "home")}, tmp_path), "file-inventory")

    return make


def write(folder: Path, files: Mapping[str, str]) -> None:
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(content)


def git(folder: Path, *arguments: str, date: str = "2025-10-02T12:00:00Z") -> str:
    who = {f"GIT_{role}_{what}": "x" for role in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
    env = {**os.environ, **who, "GIT_COMMITTER_DATE": date, "GIT_AUTHOR_DATE": date, "GIT_CONFIG_GLOBAL": os.devnull}
    command = ["git", "-c", "protocol.file.allow=always", "-C", str(folder), *arguments]
    return subprocess.run(command, check=True, env=env, capture_output=True, text=True).stdout


def commit(folder: Path, *, date: str = "2025-10-02T12:00:00Z") -> None:
    git(folder, "init", "-q", "-b", "main")
    git(folder, "add", "-A")
    git(folder, "commit", "-qm", "one", date=date)


def paths_in(outcome: WorkflowOutcome) -> list[str]:
    return sorted(file["path"] for file in outcome.result["files"])


def left_out_in(outcome: WorkflowOutcome) -> list[str]:
    section = render_report(outcome.result).partition("## Left out\n\n")[2].partition("\n\n")[0]
    return section.splitlines()


def test_scripts_in_folders_for_backups_caches_and_data_are_listed(tree: Path, inventory: Inventory) -> None:
    listed = ["backup/restore.sh", "data/load.py", "data/README.md", "data/t.sql", "src/cache/lru.py", "x/backups/b.py"]
    write(tree, dict.fromkeys([*listed, "data/game.json", "data/sub/notes.txt", "data/x.csv"], "x\n"))
    outcome = inventory()
    assert paths_in(outcome) == sorted(listed)
    assert outcome.result["others"] == 3


def test_what_patterns_leave_out_is_named_and_counted(tree: Path, inventory: Inventory) -> None:
    out = ["old/a.py", "old/deep/b.sql", "old/c.csv", "venv/lib/x.py", "run.sh.bak", "s/__pycache__/a.pyc"]
    write(tree, dict.fromkeys([*out, "kept.py", "huge/z.py"], ""))
    outcome = inventory(", exclude: ['huge/**']", ", exclude: ['old/**', 'none/**']")
    assert paths_in(outcome) == ["kept.py"]
    assert outcome.result["left_out"]["patterns"][0] == {
        "pattern": "old/**",
        "files": 3,
        "scripts": 2,
        "names": ["old/a.py", "old/deep/b.sql"],
    }
    assert left_out_in(outcome) == [
        "* `old/**`: 3 files, of which 2 scripts, tests or SQL: `old/a.py`, `old/deep/b.sql`",
        "* `**/__pycache__/**`: 1 file",
        "* `**/venv/**`: 1 file, of which 1 scripts, tests or SQL: `venv/lib/x.py`",
        "* `**/*.bak`: 1 file",
        "* what the source excludes: `huge/**`",
        "* this report",
    ]


def test_links_submodules_and_sparse_files_are_named(tree: Path, inventory: Inventory, tmp_path: Path) -> None:
    write(tmp_path / "origin", {"s.py": ""})
    commit(tmp_path / "origin")
    write(tree, {"a/x.py": "", "b/y.py": "", "b/z.py": ""})
    (tree / "a/outside").symlink_to(tmp_path / "origin")
    commit(tree)
    git(tree, "submodule", "-q", "add", str(tmp_path / "origin"), "sub")
    git(tree, "commit", "-qm", "sub")
    git(tree, "submodule", "-q", "deinit", "-f", "sub")
    git(tree, "sparse-checkout", "set", "a")
    write(tree, {".git/info/exclude": "logs/\n.env\n", "logs/a.py": "", "logs/b.py": "", ".env": ""})
    outcome = inventory(", ignore: gitignore")
    assert paths_in(outcome) == [".gitmodules", "a/x.py"]
    assert left_out_in(outcome) == [
        "* what git ignores: `.env`, `logs/`",
        "* 1 symbolic link out of the tree",
        "* 2 files that a sparse checkout leaves out",
        "* `sub`, a submodule that is not initialized. Run git submodule update --init",
        "* this report",
    ]


def test_numbers_equal_those_of_git_and_find(tree: Path, inventory: Inventory, tmp_path: Path) -> None:
    write(tree, {f"p{n}/m{n}.py": "x\n" * n for n in range(9)} | {".gitignore": "ignored/\n", "ignored/i.py": "1\n"})
    write(tree / "nested", {"n.py": "1\n2\n"})
    commit(tree / "nested", date="2024-01-05T12:00:00Z")
    git(tree, "init", "-q")
    write(tree, {"untracked.py": "1\n"})
    outcome = inventory(", ignore: gitignore")
    listed = [*git(tree, "ls-files", "-co", "--exclude-standard", "*.py").split(), "nested/n.py"]
    assert [path for path in paths_in(outcome) if path.endswith(".py")] == sorted(listed)
    lines = subprocess.run(["wc", "-l", *listed], cwd=tree, check=True, capture_output=True, text=True).stdout
    assert outcome.result["kinds"]["Python"]["lines"] == int(lines.splitlines()[-1].split()[0])
    dates = {file["path"]: file["changed"] for file in outcome.result["files"]}
    assert dates["nested/n.py"] == "2024-01-05"
    command = ["find", ".", "-name", ".git", "-prune", "-o", "-type", "f", "-name", "*.py", "-print"]
    everything = subprocess.run(command, cwd=tree, check=True, capture_output=True, text=True).stdout.split()
    assert inventory().result["kinds"]["Python"]["files"] == len(everything)


def test_the_metrics_of_a_report_that_git_ignores_equal_it(tree: Path, inventory: Inventory, tmp_path: Path) -> None:
    write(tree, {"a.py": "", "docs/b.md": "", ".gitignore": "FILE_INVENTORY.md\n/reports/\n"})
    git(tree, "init", "-q")
    first = inventory(", ignore: gitignore")
    names = ("FILE_INVENTORY.md", "reports/all.md")
    metrics = {
        f"{measure}.{number}": FilesMetric(source="p", measure=measure, paths=(name,), entry="^- `")
        for number, name in enumerate(names)
        for measure in ("entries", "newest_age")
    }
    context, source = (
        ScanContext(tmp_path, tmp_path / "home"),
        FilesSource(type="files", path="tree", ignore="gitignore"),
    )
    for written in (False, True):
        for name in names if written else ():
            (tree / name).parent.mkdir(exist_ok=True)
            assert write_report(tree / name, first.result)
        found = FilesProbe().scan(source, metrics, context, Deadline.after(timedelta(seconds=30))).readings
        assert {reading.method for reading in found} == {"exact" if written else "failed"}
    assert {reading.value for reading in found if reading.metric.startswith("entries")} == {3}
    again = inventory(", ignore: gitignore")
    assert again.result["totals"] == first.result["totals"]
    assert "* what git ignores: `FILE_INVENTORY.md`, `reports/`" in left_out_in(again)


def test_pointers_have_unknown_lines_and_the_size_of_their_file(tree: Path, inventory: Inventory) -> None:
    write(tree, {"dump.sql": LFS, "a.py": "1\n"})
    outcome = inventory()
    (file,) = [file for file in outcome.result["files"] if file["path"] == "dump.sql"]
    assert (file["lines"], file["bytes"], file["purpose"]) == (None, 5_242_880, None)
    assert file["notes"] == ["is a Git LFS pointer, not the file. Run git lfs pull"]
    assert outcome.result["attention"] == [
        "1 file is a pointer, so the lines are unknown: dump.sql. Run git lfs pull, or git annex get."
    ]
    assert re.search(r"^- `dump.sql` \(SQL, lines unknown, 5.2 MB", render_report(outcome.result), re.MULTILINE)
