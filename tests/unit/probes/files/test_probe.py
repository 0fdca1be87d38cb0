"""FilesProbe: one walk, true counts, and failed readings if something is missing or cannot be read."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Callable
from dataclasses import asdict
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from dims_worker.config import FilesMetric, FilesSource
from dims_worker.errors import MeasureError
from dims_worker.probes.base import Deadline, Reading, ScanContext, readings_by_name
from dims_worker.probes.files.probe import FilesProbe
from dims_worker.probes.git import command as git_command

PROBE = FilesProbe()
Run = Callable[..., str]
Scan = Callable[..., dict[str, Reading]]


def metric(measure: str = "count", *paths: str, **more: Any) -> FilesMetric:
    return FilesMetric(source="here", measure=measure, **({"paths": paths} if paths else {}), **more)


@pytest.fixture
def scan(context: ScanContext, deadline: Deadline) -> Scan:
    def run(path: str = ".", *, source: dict[str, Any] | None = None, **metrics: FilesMetric) -> dict[str, Reading]:
        where = FilesSource(type="files", path=path, **(source or {}))
        return readings_by_name(PROBE.scan(where, metrics, context, deadline).readings)

    return run


def tree(files: dict[str, str | bytes], root: Path) -> None:
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())


def test_each_measure(scan: Scan, tmp_path: Path) -> None:
    tree({"a.py": "1\n2\n", "b/c.py": "1\nno end", "b/d.bin": b"\n\0\n\xff", ".hid.py": ""}, tmp_path)
    for number, name in enumerate(["a.py", "b/c.py", "b/d.bin", ".hid.py"]):
        os.utime(tmp_path / name, ns=(0, 1_700_000_000_123_456_789 + number * 10**9))
    results = scan(
        count=metric("count", "**/*.py"),
        lines=metric("lines", "**/*.py"),
        all_lines=metric("lines"),
        bytes=metric("bytes"),
        kib=metric("bytes", unit="KiB"),
        newest=metric("newest_age", "b/**"),
        oldest=metric("oldest_age"),
        none=metric("count", "**/*.zip"),
        no_bytes=metric("bytes", "**/*.zip"),
        no_lines=metric("lines", "**/*.zip"),
    )
    values = {name: reading.value for name, reading in results.items()}
    assert values == {
        "count": 3,
        "lines": 3,
        "all_lines": 5,
        "bytes": 16,
        "kib": 16 / 1024,
        "none": 0,
        "no_lines": 0,
        "newest": "2023-11-14T22:13:22.123456+00:00",
        "oldest": "2023-11-14T22:13:20.123456+00:00",
        "no_bytes": 0,
    }
    assert type(values["bytes"]) is int and type(values["kib"]) is float
    assert {reading.method for reading in results.values()} == {"exact"}
    assert results["kib"].unit == "KiB"


def test_git_folders_and_exclusions_are_left_out(scan: Scan, tmp_path: Path) -> None:
    files = ["a.py", "data/x.py", "old/y.py", "sub/.git/z.py", ".git/h.py", ".dims/s.py", "sub/ok.py"]
    tree(dict.fromkeys(files, ""), tmp_path)
    results = scan(
        source={"exclude": ["data/**", "**/y.py"]},
        all=metric(),
        some=metric(exclude=["sub/**"]),
        inside=metric("count", ".dims/**"),
    )
    assert (results["all"].value, results["some"].value, results["inside"].value) == (2, 1, 0)


def test_the_data_directory_is_not_measured(scan: Scan, tmp_path: Path) -> None:
    (tmp_path / ".dims" / "pg").mkdir(parents=True)
    with pytest.raises(MeasureError, match="in the data directory of DIMS"):
        scan(".dims/pg", n=metric())


def test_symbolic_links_are_neither_counted_nor_followed(scan: Scan, tmp_path: Path) -> None:
    tree({"real/a.py": "x\n"}, tmp_path)
    (tmp_path / "real" / "loop").symlink_to("..")
    (tmp_path / "link").symlink_to("real")
    (tmp_path / "b.py").symlink_to("real/a.py")
    (tmp_path / "dangling").symlink_to("nowhere")
    os.mkfifo(tmp_path / "pipe")
    results = scan(n=metric(), linked=metric("count", "link/**"), deep=metric("lines", "link/a.py", absent=0))
    assert results["n"].value == 1
    assert "symbolic link" in str(results["linked"].error)
    assert "symbolic link" in str(results["deep"].error)  # it exists, so `absent` does not apply


def test_a_file_is_opened_once_for_all_metrics(scan: Scan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tree({"a.py": "1\n", "b.txt": "2\n"}, tmp_path)
    opened: list[str] = []
    real = os.open

    def note(path: str, *args: int) -> int:
        opened.append(path)
        return real(path, *args)

    monkeypatch.setattr(os, "open", note)
    results = scan(a=metric("lines", "**/*.py"), b=metric("lines", "*.py"), c=metric("lines", "a.py"), n=metric())
    assert [reading.value for reading in results.values()] == [1, 1, 1, 2]
    assert opened == [f"{tmp_path.resolve()}/a.py"]


# --- missing -----------------------------------------------------------------------------------------


def test_a_missing_literal_or_folder(scan: Scan, tmp_path: Path) -> None:
    tree({"a.py": "1\n2\n", "empty/x": ""}, tmp_path)
    results = scan(
        one=metric("lines", "gone.py"),
        half=metric("lines", "a.py", "gone.py"),
        folder=metric("count", "docs/**/*.md"),
        there=metric("count", "empty/**/*.md"),
        zero=metric("lines", "gone.py", absent=0),
        null=metric("lines", "gone.py", absent=None),
        rest=metric("lines", "a.py", "gone.py", absent=0),
        half_null=metric("lines", "a.py", "gone.py", absent=None),
        age=metric("newest_age", "**/*.zip"),
        age_null=metric("newest_age", "**/*.zip", absent=None),
        folder_not_file=metric("lines", "empty"),
        file_not_folder=metric("count", "a.py/**"),
    )
    assert results["one"].error == "gone.py: No such file or directory"
    assert "gone.py" in str(results["half"].error) and "a.py" not in str(results["half"].error).replace("gone.py", "")
    assert results["folder"].error == "docs: No such file or directory"
    assert results["there"].value == 0
    assert (results["zero"].value, results["zero"].method) == (0, "exact")
    assert (results["null"].value, results["null"].method) == (None, "exact")
    assert results["rest"].value == 2 and "gone.py" in results["rest"].details["absent"]
    assert (results["half_null"].value, results["half_null"].method) == (None, "exact")
    assert results["age"].error == "no file matches **/*.zip"
    assert (results["age_null"].value, results["age_null"].method) == (None, "exact")
    assert "is a folder" in str(results["folder_not_file"].error)
    assert "is not a folder" in str(results["file_not_folder"].error)


def test_a_missing_root(scan: Scan, tmp_path: Path) -> None:
    with pytest.raises(MeasureError, match=f"{tmp_path}/gone does not exist"):
        scan("gone", n=metric())
    results = scan("gone", n=metric(), zero=metric("bytes", unit="GB", absent=0))
    assert results["zero"].value == 0 and results["zero"].method == "exact"
    assert results["n"].method == "failed" and "gone" in str(results["n"].error)
    tree({"file": ""}, tmp_path)
    with pytest.raises(MeasureError, match="is not a folder"):
        scan("file", n=metric(absent=0))


# --- problems ----------------------------------------------------------------------------------------


def _refuse(monkeypatch: pytest.MonkeyPatch, what: str, ends: str, code: int) -> None:
    """Make a function of os fail for paths with this ending, because root can read any file."""
    real = getattr(os, what)

    def call(path: Any, *args: Any, **more: Any) -> Any:
        if os.fsencode(path).endswith(ends.encode()):
            raise OSError(code, os.strerror(code), path)
        return real(path, *args, **more)

    monkeypatch.setattr(os, what, call)


def test_an_unreadable_file_fails_only_line_counts(scan: Scan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tree({"a.py": "1\n", "b.py": "2\n", "c.txt": "3\n"}, tmp_path)
    _refuse(monkeypatch, "open", "b.py", errno.EACCES)
    results = scan(
        lines=metric("lines", "**/*.py"), n=metric("count", "**/*.py"), size=metric("bytes"), c=metric("lines", "*.txt")
    )
    assert results["lines"].error == "b.py: Permission denied"
    assert (results["n"].value, results["size"].value, results["c"].value) == (2, 6, 1)


def test_an_unreadable_folder_spoils_what_could_lie_in_it(
    scan: Scan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tree({"docs/a.md": "", "src/secret/a.py": "", "top.py": ""}, tmp_path)
    _refuse(monkeypatch, "scandir", "secret", errno.EACCES)
    results = scan(py=metric("count", "**/*.py"), docs=metric("count", "docs/**"), top=metric("count", "*.py"))
    assert results["py"].error == "src/secret: Permission denied"
    assert (results["docs"].value, results["top"].value) == (1, 1)


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_really_unreadable(scan: Scan, tmp_path: Path) -> None:
    tree({"a.py": "1\n", "secret/b.py": "1\n"}, tmp_path)
    (tmp_path / "a.py").chmod(0)
    (tmp_path / "secret").chmod(0)
    try:
        results = scan(top=metric("lines", "*.py"), n=metric("count", "*.py"), all=metric())
    finally:
        (tmp_path / "secret").chmod(0o700)
    assert results["n"].value == 1
    assert "a.py: Permission denied" in str(results["top"].error)
    assert "secret: Permission denied" in str(results["all"].error)


def test_files_that_vanish_during_a_scan_are_skipped_and_reported(
    scan: Scan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tree({"a.py": "1\n", "b.py": "2\n"}, tmp_path)
    _refuse(monkeypatch, "open", "b.py", errno.ENOENT)
    results = scan(lines=metric("lines", "**/*.py"), literal=metric("lines", "c.py", "a.py", absent=0))
    assert (results["lines"].value, results["lines"].details) == (1, {"vanished": 1})
    assert "vanished" not in results["literal"].details


def test_a_vanished_root_is_no_empty_tree(scan: Scan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _refuse(monkeypatch, "scandir", f"{tmp_path.name}/", errno.ENOENT)
    with pytest.raises(MeasureError, match="vanished"):
        scan(n=metric())


def test_names_that_are_not_utf8(scan: Scan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / os.fsdecode(b"caf\xe9.py")).write_bytes(b"1\n")
    assert scan(n=metric("lines", "*.py"))["n"].value == 1
    _refuse(monkeypatch, "open", ".py", errno.EIO)
    results = scan(n=metric("lines", "*.py"), gone=metric("lines", "\udce9.py"))
    assert results["n"].error == "caf\\xe9.py: Input/output error"
    json.dumps([asdict(reading) for reading in results.values()], ensure_ascii=False).encode()


def test_an_error_lists_the_first_problems(scan: Scan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tree({f"{n}.py": "" for n in range(9)}, tmp_path)
    _refuse(monkeypatch, "open", ".py", errno.EACCES)
    assert str(scan(n=metric("lines"))["n"].error).endswith(" and 6 more")


def test_a_deadline_ends_a_walk(context: ScanContext, tmp_path: Path) -> None:
    tree({"a/b": ""}, tmp_path)
    late = Deadline(timedelta(seconds=7), 0.0)
    with pytest.raises(MeasureError, match="timeout of 7 s"):
        PROBE.scan(FilesSource(type="files", path="."), {"n": metric()}, context, late)


# --- gitignore ---------------------------------------------------------------------------------------


def test_gitignore(scan: Scan, tmp_path: Path, git: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    git("init", "-q", "-b", "main")
    files = {"a.py": "1\n", "sub/b.py": "1\n", "sub/c.log": "1\n", "build/d.py": "1\n", "sub/kept.log": "1\n"}
    tree({**files, ".gitignore": "*.log\nbuild/\n", "gone.py": "", "swap/e.py": "", ".dims/s.py": ""}, tmp_path)
    git("add", "-f", "a.py", "sub/kept.log", "gone.py", "swap/e.py")
    (tmp_path / "gone.py").unlink()
    (tmp_path / "swap").rename(tmp_path / "moved")
    (tmp_path / "swap").symlink_to("moved")  # the index still has swap/e.py
    tree({"other/x.py": ""}, tmp_path)
    git("init", "-q", at="other")  # its files are in the tree, and its git does not ignore them
    monkeypatch.setenv("GIT_DIR", str(tmp_path / "other" / ".git"))
    source = {"ignore": "gitignore", "exclude": ["moved/**"]}
    results = scan(
        source=source,
        py=metric("count", "**/*.py"),
        log=metric("lines", "**/*.log"),
        all=metric("bytes"),
        ignored=metric("lines", "sub/c.log", absent=0),
    )
    assert (results["py"].value, results["log"].value, results["all"].value) == (3, 1, 2 + 2 + 2 + 13)
    assert (results["ignored"].value, results["ignored"].details["ignored_by_git"]) == (
        1,
        ["sub/c.log (.gitignore:1: *.log)"],
    )
    below = scan("sub", source=source, n=metric(), b=metric("lines", "b.py"))
    assert (below["n"].value, below["b"].value) == (2, 1)


def test_gitignore_counts_a_conflict_once(scan: Scan, tmp_path: Path, git: Run) -> None:
    git("init", "-q", "-b", "main")
    for branch, text in [("main", "0"), ("one", "1"), ("two", "2")]:
        git("checkout", "-q", "-B", branch)
        tree({"f": text}, tmp_path)
        git("add", "f")
        git("commit", "-qm", branch)
        git("checkout", "-q", "main") if branch == "one" else None
    with pytest.raises(Exception, match="merge"):
        git("merge", "-q", "one")
    assert scan(source={"ignore": "gitignore"}, n=metric("count", "f"))["n"].value == 1


def test_gitignore_without_a_repository(scan: Scan, tmp_path: Path, git: Run) -> None:
    with pytest.raises(MeasureError, match=r"not in a git repository.*gitignore"):
        scan(source={"ignore": "gitignore"}, n=metric())


def test_a_folder_that_git_could_not_open(
    scan: Scan, tmp_path: Path, git: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    git("init", "-q", "-b", "main")
    tree({"sub/docs/a.md": "", "sub/src/b.py": ""}, tmp_path)
    real = git_command.Git.records

    def records(self: Any, *args: str) -> Any:
        yield from real(self, *args)
        if args[0] == "ls-files":
            self.warnings = "warning: could not open directory 'sub/docs/x/': Permission denied\n"

    monkeypatch.setattr(git_command.Git, "records", records)
    results = scan(
        "sub", source={"ignore": "gitignore"}, docs=metric("count", "docs/**"), src=metric("count", "src/**")
    )
    assert results["docs"].error == "docs/x: Permission denied"
    assert results["src"].value == 1
