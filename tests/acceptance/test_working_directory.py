"""DIMS never imports from the working directory, whatever modules and packages a project has in its root."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import sysconfig
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import GIT_ENV, Project, wait_for

REPO = Path(__file__).parents[2]
PROGRAMS = Path(sys.executable).parent
CONFIG = """\
sources:
  code: {type: git, path: ., cooldown: 0s}
metrics:
  code:
    commits: {source: code, measure: commits}
rules:
  commits: {on: dims.git.commit}
"""
PACKAGES = ("producers", "config", "schema", "dims_worker", "dims_producers")
MODULES = ("redis", "yaml", "click", "celery", "kombu", "sqlalchemy", "flower", "shelve", "starlette", "watchdog")
HOSTILE = 'raise RuntimeError("imported from the working directory")\n'
PROCESSES = {"ingest", "worker", "slow-worker", "beat", "flower", "watch", "web"}


@pytest.fixture
def hostile(project: Project) -> Project:
    """A project whose root holds packages and modules that hide DIMS and what it needs, and raise on import."""
    files = {f"{name}/__init__.py": HOSTILE for name in PACKAGES} | {f"{name}.py": HOSTILE for name in MODULES}
    project.commit("Begin", {**files, "config/dims.yaml": CONFIG})
    return project


def run(project: Project, *command: str | Path) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, **GIT_ENV, **project.env}
    return subprocess.run(
        command, cwd=project.folder, env=env, capture_output=True, text=True, timeout=120, check=False
    )


@pytest.fixture
def stack(hostile: Project) -> Iterator[Project]:
    """The hostile project with `dims up` running in it."""
    started = run(hostile, PROGRAMS / "dims", "up", "--detach")
    try:
        assert started.returncode == 0, started.stdout + started.stderr
        yield hostile
    finally:
        ended = run(hostile, PROGRAMS / "dims", "down")
        assert ended.returncode == 0, ended.stdout + ended.stderr


def status(project: Project) -> dict[str, tuple[str, int]]:
    """The state and the number of restarts of each process of the Procfile."""
    answer = json.loads(run(project, PROGRAMS / "dims", "status", "--json").stdout)
    return {p["name"]: (p["state"], p["restarts"]) for p in answer["processes"] if p["name"] in PROCESSES}


def value(project: Project) -> float | None:
    answer = json.loads(run(project, PROGRAMS / "dims", "metrics", "--json").stdout)
    return next(metric["value"] for metric in answer["metrics"] if metric["metric"] == "code.commits")


def test_dims_up_runs_every_process_and_measures_a_commit_in_a_hostile_project(stack: Project) -> None:
    installed = run(stack, PROGRAMS / "dims", "hook", "install")
    assert installed.returncode == 0, installed.stderr
    stack.commit("Add a file", {"file.txt": "text\n"})
    commits = int(stack.git("rev-list", "--count", "HEAD"))
    wait_for(lambda: value(stack) == commits, 60)
    time.sleep(3)  # a process that cannot import its modules ends within this time, and would have been restarted
    assert status(stack) == dict.fromkeys(PROCESSES, ("running", 0))
    logs = {path: path.read_text(errors="replace") for path in Path(stack.env["DIMS_HOME"], "logs").glob("*.log")}
    assert {f"{name}.log" for name in PROCESSES} <= {path.name for path in logs}
    assert [path for path, text in logs.items() if "imported from the working directory" in text] == []


def test_the_hook_sends_a_commit_by_itself_in_a_hostile_project(hostile: Project) -> None:
    """Without `dims watch` the hook starts Python in the folder that is committed to."""
    assert run(hostile, PROGRAMS / "dims", "migrate").returncode == 0
    assert run(hostile, PROGRAMS / "dims", "hook", "install").returncode == 0
    hostile.commit("Add a file", {"file.txt": "text\n"})
    spool = Path(hostile.env["DIMS_HOME"]) / "spool" / "new"
    wait_for(lambda: spool.is_dir() and not any(spool.iterdir()), 30)


def test_the_notebook_runs_in_a_hostile_project(hostile: Project) -> None:
    assert run(hostile, PROGRAMS / "dims", "migrate").returncode == 0
    assert run(hostile, PROGRAMS / "dims", "verify").returncode == 0
    done = run(hostile, PROGRAMS / "dims", "notebook", "export", "-o", "notebook.html")
    assert done.returncode == 0, done.stdout + done.stderr
    assert (hostile.folder / "notebook.html").is_file()


@pytest.mark.parametrize(
    "command",
    [
        ("-P", "-m", "dims_worker", "config", "check"),
        ("-P", "-m", "dims_worker.worker", "report"),
        ("-P", "-m", "dims_producers.enqueue", "commits"),
    ],
)
def test_python_with_p_imports_nothing_from_the_working_directory(hostile: Project, command: tuple[str, ...]) -> None:
    done = run(hostile, sys.executable, *command)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    "command",
    [
        (sys.executable, "-m", "dims_worker", "config", "check"),
        (PROGRAMS / "celery", "-A", "dims_worker.tasks", "report"),
    ],
)
def test_a_command_by_hand_imports_no_dependency_from_the_working_directory(
    project: Project, command: tuple[str | Path, ...]
) -> None:
    """Python and Celery themselves take the module that is named on their command line from the project."""
    files = {f"{name}.py": HOSTILE for name in MODULES} | {f"{name}/__init__.py": HOSTILE for name in PACKAGES[:3]}
    project.write({**files, "config/dims.yaml": CONFIG})
    done = run(project, *command)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of this checkout, built without network."""
    pytest.importorskip("hatchling", reason="building the wheel needs hatchling, of the extra `dev`")
    folder = tmp_path_factory.mktemp("wheel")
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "wheel", "--quiet", "--no-index"]
    subprocess.run([*pip, "--no-deps", "--no-build-isolation", "--wheel-dir", folder, REPO], check=True, timeout=300)
    (found,) = folder.glob("*.whl")
    return found


def test_the_wheel_owns_two_top_level_names(wheel: Path) -> None:
    names = {name.split("/")[0] for name in zipfile.ZipFile(wheel).namelist()}
    assert {name for name in names if not name.endswith(".dist-info")} == {"dims_worker", "dims_producers"}


def test_the_installed_wheel_runs_in_a_hostile_project(wheel: Path, hostile: Project, tmp_path: Path) -> None:
    fresh = tmp_path / "fresh"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", fresh], check=True)
    python = fresh / "bin" / "python"
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--python", str(python), "install", "--quiet"]
    subprocess.run([*pip, "--no-index", "--no-deps", wheel], check=True, timeout=300)
    # The dependencies come from this environment. Its own .pth files, and so this checkout, are not read there.
    (site,) = fresh.glob("lib/python*/site-packages")
    (site / "dependencies.pth").write_text(f"{sysconfig.get_path('purelib')}\n")

    place = run(
        hostile, python, "-I", "-c", "import dims_worker, dims_producers as p; print(dims_worker.__file__, p.__file__)"
    )
    assert all(Path(file).is_relative_to(site) for file in place.stdout.split()), place.stdout + place.stderr
    assert len(place.stdout.split()) == 2
    for command in (["dims", "config", "check"], ["dims", "migrate"], ["dims", "verify"], ["dims-enqueue", "commits"]):
        done = run(hostile, fresh / "bin" / command[0], *command[1:])
        assert done.returncode == 0, done.stdout + done.stderr
