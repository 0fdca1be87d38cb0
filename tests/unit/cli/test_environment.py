"""Errors of the environment end with one sentence and a fix, and never as an internal error."""

from __future__ import annotations

import errno
import importlib
import io
import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from dims_worker.cli.environment import EXTRAS, escape_unencodable, explain_environment_error

CONFIG = "sources: {one: {type: files, path: one}}\nmetrics: {m: {a: {source: one, measure: count}}}\nwatch: [one]\n"
RUN = """
import sys
names = sys.argv.pop(1).split(",")
class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in names:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Blocker())
from dims_worker.cli.main import main
main(sys.argv[1:])
"""


def dims(
    folder: Path, *arguments: str, without: str = "-", output: int = subprocess.PIPE, env: Mapping[str, str] = {}
) -> subprocess.CompletedProcess[str]:
    (folder / "dims.yaml").write_text(CONFIG)
    return subprocess.run(
        [sys.executable, "-c", RUN, without, *arguments],
        cwd=folder,
        env={**os.environ, "DIMS_HOME": str(folder / "home"), **env},
        stdout=output,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
        timeout=120,
    )


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (
            OSError(errno.ENOSPC, "No space left on device", "/x"),
            "/x: No space left on device. Free space on its disk.",
        ),
        (OSError(errno.ENOSPC, "No space left on device"), "No space left on device. Free space"),
        (PermissionError(errno.EACCES, "Permission denied", "/x"), "/x: Permission denied. Change its owner"),
        (OSError(errno.EROFS, "Read-only file system", "/x"), "file system that is not read-only"),
        (OSError(errno.EMFILE, "Too many open files"), "ulimit -n"),
        (OSError(errno.ENOSPC, "inotify watch limit reached"), "fs.inotify.max_user_watches"),
        (OSError(errno.EMFILE, "inotify instance limit reached"), "fs.inotify.max_user_instances"),
        (OSError(errno.ENOLCK, "No locks available", "/x"), "local disk"),
        (BlockingIOError(errno.EAGAIN, "Resource temporarily unavailable"), "ulimit -u"),
        (MemoryError(), "too little free memory"),
    ],
)
def test_an_error_of_the_system_has_a_fix(error: BaseException, expected: str) -> None:
    explained = explain_environment_error(error)
    assert explained is not None
    assert expected in explained[0] and explained[1] == 3


@pytest.mark.parametrize(("extra", "module"), [(extra, name) for extra, names in EXTRAS.items() for name in names])
def test_a_missing_module_names_its_extra(extra: str, module: str) -> None:
    explained = explain_environment_error(ModuleNotFoundError("No module", name=f"{module}.part"))
    assert explained == (f"{module} is not installed. Run: pip install 'dims-worker[{extra}]'", 2)


@pytest.mark.parametrize("error", [ValueError("x"), ImportError("x", name="dims_worker.gone"), OSError("no number")])
def test_other_errors_are_internal(error: Exception) -> None:
    assert explain_environment_error(error) is None


@pytest.mark.parametrize(
    ("without", "command", "extra"),
    [
        ("watchdog", "watch", "watch"),
        ("starlette", "web", "web"),
        ("prometheus_client", "exporter", "exporter"),
        ("jupyterlab", "notebook", "notebook"),
        ("moto", "demo", "demo"),
    ],
)
def test_a_command_without_its_extra(tmp_path: Path, without: str, command: str, extra: str) -> None:
    done = dims(tmp_path, command, without=without)
    assert done.returncode == 2
    assert f"pip install 'dims-worker[{extra}]'" in done.stderr


def test_help_and_hooks_need_no_extra(tmp_path: Path) -> None:
    everything = ",".join(name for names in EXTRAS.values() for name in names)
    for arguments in (["--help"], ["hook", "--help"], ["config", "check"], ["plan", "dims.files.changed"]):
        done = dims(tmp_path, *arguments, without=everything)
        assert done.returncode == 0, (arguments, done.stderr)


@pytest.mark.parametrize("arguments", [["config", "show"], ["config", "schema"], ["--help"], ["plan", "x.y"]])
def test_a_reader_that_has_ended_is_no_error(tmp_path: Path, arguments: list[str]) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    done = dims(tmp_path, *arguments, output=writing)
    os.close(writing)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
def test_a_full_disk_below_standard_output(tmp_path: Path) -> None:
    with Path("/dev/full").open("w") as full:
        done = dims(tmp_path, "config", "show", output=full.fileno())
    assert done.returncode == 3
    assert done.stderr == "dims: a file or standard output: No space left on device. Free space on its disk.\n"


def test_characters_that_the_terminal_lacks_are_escaped() -> None:
    raw = io.BytesIO()
    stream = io.TextIOWrapper(raw, encoding="ascii")
    escape_unencodable(stream)
    stream.write(json.dumps({"é…😀": 1}, ensure_ascii=False))
    stream.flush()
    assert json.loads(raw.getvalue()) == {"é…😀": 1}


def test_a_terminal_without_unicode_shows_everything(tmp_path: Path) -> None:
    done = dims(tmp_path, "plan", "x.y…", env={"PYTHONIOENCODING": "ascii:strict"})
    assert "internal error" not in done.stderr and done.returncode in (0, 2)


@pytest.mark.parametrize("command", ["verify", "web", "up", "enqueue x.y", "watch", "metrics"])
def test_a_data_directory_that_cannot_be_created(tmp_path: Path, command: str) -> None:
    (tmp_path / "home").write_text("a file")
    done = dims(tmp_path, *command.split())
    assert done.returncode in (2, 3), done.stderr
    assert str(tmp_path / "home") in done.stderr and "internal error" not in done.stderr


def test_an_unexpected_error_of_the_system_ends_with_3(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    cli_main = importlib.import_module("dims_worker.cli.main")

    def fail(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", "/srv/nba/dims.xlsx")

    monkeypatch.setattr(cli_main.cli, "main", fail)
    with pytest.raises(SystemExit) as ended:
        cli_main.main(["metrics"])
    assert ended.value.code == 3
    assert capsys.readouterr().err == ("dims: /srv/nba/dims.xlsx: No space left on device. Free space on its disk.\n")
