"""FilesProbe: one walk, true counts, and failed where something is missing or cannot be read."""

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
def scan(around: ScanContext, deadline: Deadline) -> Scan:
    def run(path: str = ".", *, source: dict[str, Any] | None = None, **metrics: FilesMetric) -> dict[str, Reading]:
        where = FilesSource(type="files", path=path, **(source or {}))
        return readings_by_name(PROBE.scan(where, metrics, around, deadline).readings)

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
    found = scan(
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
    values = {name: reading.value for name, reading in found.items()}
    assert values == {
        **{"count": 3, "lines": 3, "all_lines": 5, "bytes": 16, "kib": 16 / 1024, "none": 0, "no_lines": 0},
        "newest": "2023-11-14T22:13:22.123456+00:00",
        "oldest": "2023-11-14T22:13:20.123456+00:00",
        "no_bytes": 0,
    }
    assert type(values["bytes"]) is int and type(values["kib"]) is float
    assert {reading.method for reading in found.values()} == {"exact"}
    assert found["kib"].unit == "KiB"


def test_left_out(scan: Scan, tmp_path: Path) -> None:
    files = ["a.py", "data/x.py", "old/y.py", "sub/.git/z.py", ".git/h.py", ".dims/s.py", "sub/ok.py"]
    tree(dict.fromkeys(files, ""), tmp_path)
    found = scan(
        source={"exclude": ["data/**", "**/y.py"]},
        all=metric(),
        some=metric(exclude=["sub/**"]),
        inside=metric("count", ".dims/**"),
    )
    assert (found["all"].value, found["some"].value, found["inside"].value) == (2, 1, 0)


def test_the_home_itself_is_refused(scan: Scan, tmp_path: Path) -> None:
    (tmp_path / ".dims" / "pg").mkdir(parents=True)
    with pytest.raises(MeasureError, match="own home"):
        scan(".dims/pg", n=metric())


def test_symbolic_links_are_neither_counted_nor_followed(scan: Scan, tmp_path: Path) -> None:
    tree({"real/a.py": "x\n"}, tmp_path)
    (tmp_path / "real" / "loop").symlink_to("..")
    (tmp_path / "link").symlink_to("real")
    (tmp_path / "b.py").symlink_to("real/a.py")
    (tmp_path / "dangling").symlink_to("nowhere")
    os.mkfifo(tmp_path / "pipe")
    found = scan(n=metric(), linked=metric("count", "link/**"), deep=metric("lines", "link/a.py", absent=0))
    assert found["n"].value == 1
    assert "symbolic link" in str(found["linked"].error)
    assert "symbolic link" in str(found["deep"].error)  # it is there, so `absent` says nothing of it


def test_one_open_however_many_want_the_lines(scan: Scan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tree({"a.py": "1\n", "b.txt": "2\n"}, tmp_path)
    opened: list[str] = []
    real = os.open

    def note(path: str, *args: int) -> int:
        opened.append(path)
        return real(path, *args)

    monkeypatch.setattr(os, "open", note)
    found = scan(a=metric("lines", "**/*.py"), b=metric("lines", "*.py"), c=metric("lines", "a.py"), n=metric())
    assert [reading.value for reading in found.values()] == [1, 1, 1, 2]
    assert opened == [f"{tmp_path.resolve()}/a.py"]


# --- missing -----------------------------------------------------------------------------------------


def test_a_missing_literal_or_folder(scan: Scan, tmp_path: Path) -> None:
    tree({"a.py": "1\n2\n", "empty/x": ""}, tmp_path)
    found = scan(
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
    assert found["one"].error == "gone.py: No such file or directory"
    assert "gone.py" in str(found["half"].error) and "a.py" not in str(found["half"].error).replace("gone.py", "")
    assert found["folder"].error == "docs: No such file or directory"
    assert found["there"].value == 0
    assert (found["zero"].value, found["zero"].method) == (0, "exact")
    assert (found["null"].value, found["null"].method) == (None, "exact")
    assert found["rest"].value == 2 and "gone.py" in found["rest"].details["absent"]
    assert (found["half_null"].value, found["half_null"].method) == (None, "exact")
    assert found["age"].error == "no file matches **/*.zip"
    assert (found["age_null"].value, found["age_null"].method) == (None, "exact")
    assert "is a folder" in str(found["folder_not_file"].error)
    assert "is no folder" in str(found["file_not_folder"].error)


def test_a_missing_root(scan: Scan, tmp_path: Path) -> None:
    with pytest.raises(MeasureError, match=f"{tmp_path}/gone does not exist"):
        scan("gone", n=metric())
    found = scan("gone", n=metric(), zero=metric("bytes", unit="GB", absent=0))
    assert found["zero"].value == 0 and found["zero"].method == "exact"
    assert found["n"].method == "failed" and "gone" in str(found["n"].error)
    tree({"file": ""}, tmp_path)
    with pytest.raises(MeasureError, match="is no folder"):
        scan("file", n=metric(absent=0))


# --- trouble -----------------------------------------------------------------------------------------


def _refuse(monkeypatch: pytest.MonkeyPatch, what: str, ends: str, code: int) -> None:
    """Let a function of os fail for the paths with this end: root reads whatever its mode."""
    real = getattr(os, what)

    def call(path: Any, *args: Any, **more: Any) -> Any:
        if os.fsencode(path).endswith(ends.encode()):
            raise OSError(code, os.strerror(code), path)
        return real(path, *args, **more)

    monkeypatch.setattr(os, what, call)


def test_an_unreadable_file_spoils_lines_alone(scan: Scan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tree({"a.py": "1\n", "b.py": "2\n", "c.txt": "3\n"}, tmp_path)
    _refuse(monkeypatch, "open", "b.py", errno.EACCES)
    found = scan(
        lines=metric("lines", "**/*.py"), n=metric("count", "**/*.py"), size=metric("bytes"), c=metric("lines", "*.txt")
    )
    assert found["lines"].error == "b.py: Permission denied"
    assert (found["n"].value, found["size"].value, found["c"].value) == (2, 6, 1)


def test_an_unreadable_folder_spoils_what_could_lie_in_it(
    scan: Scan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tree({"docs/a.md": "", "src/secret/a.py": "", "top.py": ""}, tmp_path)
    _refuse(monkeypatch, "scandir", "secret", errno.EACCES)
    found = scan(py=metric("count", "**/*.py"), docs=metric("count", "docs/**"), top=metric("count", "*.py"))
    assert found["py"].error == "src/secret: Permission denied"
    assert (found["docs"].value, found["top"].value) == (1, 1)


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_really_unreadable(scan: Scan, tmp_path: Path) -> None:
    tree({"a.py": "1\n", "secret/b.py": "1\n"}, tmp_path)
    (tmp_path / "a.py").chmod(0)
    (tmp_path / "secret").chmod(0)
    try:
        found = scan(top=metric("lines", "*.py"), n=metric("count", "*.py"), all=metric())
    finally:
        (tmp_path / "secret").chmod(0o700)
    assert found["n"].value == 1
    assert "a.py: Permission denied" in str(found["top"].error)
    assert "secret: Permission denied" in str(found["all"].error)


def test_what_vanishes_meanwhile_is_skipped_and_said(
    scan: Scan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tree({"a.py": "1\n", "b.py": "2\n"}, tmp_path)
    _refuse(monkeypatch, "open", "b.py", errno.ENOENT)
    found = scan(lines=metric("lines", "**/*.py"), literal=metric("lines", "c.py", "a.py", absent=0))
    assert (found["lines"].value, found["lines"].details) == (1, {"vanished": 1})
    assert "vanished" not in found["literal"].details


def test_a_vanished_root_is_no_empty_tree(scan: Scan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _refuse(monkeypatch, "scandir", f"{tmp_path.name}/", errno.ENOENT)
    with pytest.raises(MeasureError, match="vanished"):
        scan(n=metric())


def test_names_that_are_no_utf8(scan: Scan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / os.fsdecode(b"caf\xe9.py")).write_bytes(b"1\n")
    assert scan(n=metric("lines", "*.py"))["n"].value == 1
    _refuse(monkeypatch, "open", ".py", errno.EIO)
    found = scan(n=metric("lines", "*.py"), gone=metric("lines", "\udce9.py"))
    assert found["n"].error == "caf\\xe9.py: Input/output error"
    json.dumps([asdict(reading) for reading in found.values()], ensure_ascii=False).encode()


def test_many_troubles_are_named_in_part(scan: Scan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tree({f"{n}.py": "" for n in range(9)}, tmp_path)
    _refuse(monkeypatch, "open", ".py", errno.EACCES)
    assert str(scan(n=metric("lines"))["n"].error).endswith(" and 6 more")


def test_a_deadline_ends_a_walk(around: ScanContext, tmp_path: Path) -> None:
    tree({"a/b": ""}, tmp_path)
    late = Deadline(timedelta(seconds=7), 0.0)
    with pytest.raises(MeasureError, match="timeout of 7 s"):
        PROBE.scan(FilesSource(type="files", path="."), {"n": metric()}, around, late)


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
    git("init", "-q", at="other")  # another repository's files are its own
    monkeypatch.setenv("GIT_DIR", str(tmp_path / "other" / ".git"))
    source = {"ignore": "gitignore", "exclude": ["moved/**"]}
    found = scan(
        source=source,
        py=metric("count", "**/*.py"),
        log=metric("lines", "**/*.log"),
        all=metric("bytes"),
        ignored=metric("lines", "sub/c.log", absent=0),
    )
    assert (found["py"].value, found["log"].value, found["all"].value) == (2, 1, 2 + 2 + 2 + 13)
    assert "left out" in str(found["ignored"].error)
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
    found = scan("sub", source={"ignore": "gitignore"}, docs=metric("count", "docs/**"), src=metric("count", "src/**"))
    assert found["docs"].error == "docs/x: Permission denied"
    assert found["src"].value == 1
