"""The check of the git hooks, on real repositories. The fix of each finding makes the check pass."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from dims_producers.git_hook import HOOKS, install
from dims_producers.hook_script import script
from dims_producers.spool import Spool
from dims_worker.checks import Check
from dims_worker.checks.git_hooks import git_hook_checks
from dims_worker.config import Config
from tests.conftest import REPO
from tests.unit.checks.conftest import git
from tests.unit.producers.test_hook_places import husky

Load = Callable[..., Config]


def check(config: Config, **options: bool) -> Check:
    (found,) = git_hook_checks(config, **options)
    return found


def apply(fix: str, folder: Path) -> None:
    """Run the first line of a fix as a person would, with the dims of this checkout."""
    words = shlex.split(fix.splitlines()[0])
    if words[0] == "dims":
        words[:1] = [sys.executable, "-m", "dims_worker"]
    env = {**os.environ, "PYTHONPATH": f"{REPO}:{REPO / 'producers'}"}
    subprocess.run(words, cwd=folder, env=env, check=True, capture_output=True)


def test_hooks_that_are_not_installed_are_a_warning(project: Path, load: Load) -> None:
    found = check(load(project))
    assert (found.state, found.name) == ("warning", "hooks of code")
    assert found.summary == f"{', '.join(HOOKS)}: not installed in {project}/.git/hooks"
    assert found.fix == f"dims hook install {project}"
    apply(found.fix, project)
    assert check(load(project), run_python=True).state == "ok"


def test_an_earlier_install_with_one_hook_needs_another(project: Path, load: Load) -> None:
    install(project, project / ".dims", sys.executable)
    for name in HOOKS[1:]:
        (project / ".git/hooks" / name).unlink()
    found = check(load(project))
    assert found.state == "warning" and found.fix == f"dims hook install {project}"
    assert found.summary == f"{', '.join(HOOKS[1:])}: not installed in {project}/.git/hooks"
    apply(found.fix, project)
    assert check(load(project)).state == "ok"


def test_without_a_rule_for_commits_no_hook_is_needed(project: Path, load: Load) -> None:
    text = (project / "dims.yaml").read_text().replace('on: "dims.git.*"', 'schedule: "0 9 * * *"')
    assert check(load(project, text)).state == "ok"


def test_a_moved_project_with_hooks_of_an_earlier_version(project: Path, load: Load, tmp_path: Path) -> None:
    hook = project / ".git/hooks/post-commit"
    hook.parent.mkdir(exist_ok=True)
    hook.write_text(
        "#!/bin/sh\n# DIMS post-commit hook: an earlier version\ndims() {\n"
        f"    home={project}/.dims python={sys.executable} head=''\n    spool=$home/spool\n"
        '    mkdir -p "$spool/new" && printf x >"$spool/new/a.git"\n}\ndims\n'
    )
    hook.chmod(0o755)
    moved = project.rename(tmp_path / "moved")
    git(moved, "commit", "-q", "--allow-empty", "-m", "x")
    ghost = project / ".dims"
    assert (ghost / "spool/new/a.git").exists()
    found = check(load(moved))
    assert found.state == "problem"
    assert f"post-commit: reports to {ghost}, not to {moved}/.dims, with 1 change waiting there" in found.summary
    apply(found.fix, moved)
    assert (
        check(load(moved)).state == "ok" and len(Spool(moved / ".dims/spool")) == 1 and not len(Spool(ghost / "spool"))
    )


def test_a_moved_repository_beside_its_project(project: Path, load: Load, tmp_path: Path) -> None:
    install(project, tmp_path / "elsewhere/.dims", sys.executable)
    (tmp_path / "elsewhere").rename(tmp_path / "renamed")
    found = check(load(project))
    assert found.state == "problem"
    assert f"{tmp_path}/elsewhere/.dims, to which they report, does not exist: was the project moved?" in found.summary
    apply(found.fix, project)
    assert check(load(project)).state == "ok"


def test_hooks_that_report_to_another_data_directory(project: Path, load: Load, tmp_path: Path) -> None:
    install(project, tmp_path / "other/.dims", sys.executable)
    found = check(load(project))
    assert (found.state, found.fix) == ("problem", f"dims hook install {project}")
    assert f"they report to {tmp_path}/other/.dims, and this project uses {project}/.dims" in found.summary


def test_a_hook_that_is_not_executable(project: Path, load: Load) -> None:
    install(project, project / ".dims", sys.executable)
    hook = project / ".git/hooks/post-merge"
    hook.chmod(hook.stat().st_mode & ~(stat.S_IXUSR | stat.S_IXGRP | stat.S_IXOTH))
    found = check(load(project))
    assert (found.state, found.summary) == ("problem", "post-merge: is not executable, so git ignores it")
    apply(found.fix, project)
    assert check(load(project)).state == "ok"


def test_core_hooks_path_that_was_set_later(project: Path, load: Load, tmp_path: Path, monkeypatch) -> None:
    install(project, project / ".dims", sys.executable)
    config = tmp_path / "gitconfig"
    config.write_text(f"[core]\n  hooksPath = {tmp_path}/global hooks\n")
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(config))
    found = check(load(project))
    assert found.state == "warning"
    assert (
        f"not installed in {tmp_path}/global hooks, where `core.hooksPath` of {config} makes git look" in found.summary
    )
    apply(found.fix, project)
    assert check(load(project)).state == "ok"


def test_husky_that_was_set_up_later(project: Path, load: Load) -> None:
    install(project, project / ".dims", sys.executable)
    husky(project, git)
    found = check(load(project))
    assert found.state == "problem" and "runs only what husky writes" in found.summary
    for line in re.findall(r"to (\S+):\n  (.+)", found.fix):
        Path(line[0]).write_text(f"{line[1]}\n")
    install(project, project / ".dims", sys.executable)
    assert check(load(project)).state == "ok"


def test_another_tool_that_replaced_the_hooks(project: Path, load: Load) -> None:
    install(project, project / ".dims", sys.executable)
    (project / ".git/hooks/post-commit").write_text("#!/bin/sh\necho theirs\n")
    found = check(load(project))
    assert (found.state, "was replaced by another tool's hook" in found.summary) == ("problem", True)
    apply(found.fix, project)
    assert check(load(project)).state == "ok"


def test_pre_commit_that_runs_ours_is_fine(project: Path, load: Load) -> None:
    install(project, project / ".dims", sys.executable)
    hook = project / ".git/hooks/post-commit"
    hook.rename(hook.with_name("post-commit.legacy"))
    hook.write_text("#!/bin/sh\n# File generated by pre-commit: https://pre-commit.com\n")
    hook.chmod(0o755)
    assert check(load(project)).state == "ok"


def test_a_missing_python_and_another_version(project: Path, load: Load, tmp_path: Path) -> None:
    python = tmp_path / "python"
    python.write_text("#!/bin/sh\necho 0.1.0\n")
    python.chmod(0o755)
    install(project, project / ".dims", str(python))
    found = check(load(project), run_python=True)
    assert found.state == "warning" and f"sends with 0.1.0 of {python}" in found.summary
    assert check(load(project)).state == "ok"  # the short form starts no Python
    python.unlink()
    found = check(load(project))
    assert found.state == "problem" and f"cannot send: its Python {python} does not exist" in found.summary


def test_a_hook_of_another_version_is_a_warning(project: Path, load: Load) -> None:
    install(project, project / ".dims", sys.executable)
    hook = project / ".git/hooks/post-commit"
    hook.write_text(script("post-commit", sys.executable) + "# more\n")
    found = check(load(project))
    assert (found.state, found.summary) == ("warning", "post-commit: was written by another version of DIMS")


def test_notes_that_wait_in_the_repository(project: Path, load: Load) -> None:
    install(project, project / ".dims", sys.executable)
    (project / ".git/dims/spool/new").mkdir(parents=True)
    (project / ".git/dims/spool/new/a.git").touch()
    found = check(load(project))
    assert found.state == "warning" and f"1 change waiting in {project}/.git/dims/spool" in found.summary


def test_a_linked_worktree_is_checked_by_itself(project: Path, load: Load, tmp_path: Path) -> None:
    git(project, "commit", "-q", "--allow-empty", "-m", "x")
    install(project, project / ".dims", sys.executable)
    tree = tmp_path / "tree"
    git(project, "worktree", "add", "-q", str(tree))
    found = check(load(tree, (project / "dims.yaml").read_text()))
    assert (
        found.state == "problem"
        and f"they report to {project}/.dims, and this project uses {tree}/.dims" in found.summary
    )
    apply(found.fix, tree)
    assert check(load(tree)).state == "ok" and check(load(project)).state == "ok"


def test_several_repositories_of_one_project(project: Path, load: Load) -> None:
    for name in ("a", "b"):
        (project / name).mkdir()
        git(project / name, "init", "-q")
    text = (
        (project / "dims.yaml")
        .read_text()
        .replace(
            "sources:",
            "sources:\n  a: {type: git, path: a}\n  b: {type: git, path: b}\n  again: {type: git, path: ./a}",
        )
    )
    config = load(project, text)
    assert [found.name for found in git_hook_checks(config)] == ["hooks of a", "hooks of b", "hooks of code"]
    for found in git_hook_checks(config):
        apply(found.fix, project)
    assert {found.state for found in git_hook_checks(config)} == {"ok"}


def test_a_bare_repository_needs_another_producer(project: Path, load: Load) -> None:
    bare = project / "bare.git"
    subprocess.run(["git", "init", "-q", "--bare", bare], check=True)
    config = load(project, (project / "dims.yaml").read_text().replace("path: .", "path: bare.git"))
    found = check(config)
    assert (found.state, found.fix) == (
        "warning",
        f"Call `dims enqueue dims.git.commit` in {bare}/hooks/post-receive.",
    )
    (bare / "hooks").mkdir(exist_ok=True)
    (bare / "hooks/post-receive").write_text("#!/bin/sh\ndims enqueue dims.git.commit\n")
    assert check(config).state == "ok"


def test_a_folder_without_a_repository_is_a_warning(project: Path, load: Load) -> None:
    shutil.rmtree(project / ".git")
    found = check(load(project))
    assert found.state == "warning" and "cannot be checked" in found.summary


@pytest.mark.parametrize("name", HOOKS)
def test_each_hook_is_checked(project: Path, load: Load, name: str) -> None:
    install(project, project / ".dims", sys.executable)
    (project / ".git/hooks" / name).unlink()
    found = check(load(project))
    assert found.summary.startswith(f"{name}: not installed")
