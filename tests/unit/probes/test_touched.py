"""Which changes concern which metrics."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from dims_worker.config import FilesMetric, FilesSource, GitMetric, GitSource, S3Metric, S3Source
from dims_worker.probes import probe_for
from dims_worker.probes.base import KeysChanged, PathsChanged, ScanContext


def files(
    context: ScanContext, root: str, *changed: str, paths: Any = ("**",), at: str = "proj", **more: Any
) -> str | None:
    source = FilesSource(type="files", path=at, exclude=more.pop("source_exclude", ()), ignore=more.pop("ignore", None))
    metric = FilesMetric(source="x", measure="count", paths=paths, **more)
    change = PathsChanged(root, changed)
    return probe_for("files").touched(source, metric, change, context)


@pytest.mark.parametrize(
    ("root", "changed", "paths", "reason"),
    [
        ("proj", ["docs/a.md"], ["docs/**/*.md"], "docs/a.md matches docs/**/*.md"),
        ("proj", ["a.py", "docs/b/a.md"], ["*.txt", "docs/**/*.md"], "docs/b/a.md matches docs/**/*.md"),
        ("proj", ["src/a.py"], ["docs/**/*.md"], None),
        ("proj", [], ["docs/**/*.md"], "unknown paths changed"),
        ("proj", ["docs"], ["docs/**/*.md"], "docs changed, and docs/**/*.md may match below it"),
        ("proj", ["a"], ["a/b/c.py"], "a changed, and a/b/c.py may match below it"),
        ("proj", ["a/b/c"], ["a/b/c.py"], None),
        ("proj", ["Makefile"], ["**/*.py"], None),  # without a trailing / it is not a folder
        ("proj", ["src/"], ["**/*.py"], "src/ changed, and **/*.py may match below it"),
        ("proj", ["src/"], ["docs/**"], None),
        ("proj", ["./docs//a.md"], ["docs/*.md"], "docs/a.md matches docs/*.md"),
        ("proj", ["docs/../src/a.md"], ["docs/*.md"], None),
        ("proj", ["../other/a.md"], ["**"], None),
        ("proj", [""], ["docs/*.md"], "itself changed"),
        ("proj", ["."], ["docs/*.md"], "itself changed"),
        ("proj", [".git/index", "sub/.git/HEAD"], ["**"], None),
        ("proj", [".github/a.yml"], ["**"], ".github/a.yml matches **"),
        ("proj", [".dims/spool/x"], ["**"], None),
        # A root above, below, beside
        ("", ["proj/docs/a.md"], ["docs/*.md"], "docs/a.md matches docs/*.md"),
        ("", ["docs/a.md", "projx/docs/a.md"], ["docs/*.md"], None),
        ("", [], ["docs/*.md"], "unknown paths changed"),
        ("", ["proj"], ["docs/*.md"], "itself changed"),
        ("proj/docs", ["a.md"], ["docs/*.md"], "docs/a.md matches docs/*.md"),
        ("proj/docs", ["a.md"], ["*.md"], None),
        ("proj/docs", [""], ["docs/*.md"], "docs/ changed, and docs/*.md may match below it"),
        ("projx", ["docs/a.md"], ["**"], None),
        ("projx", [], ["**"], None),
        ("pro", [], ["**"], None),
    ],
)
def test_files(tmp_path: Path, root: str, changed: list[str], paths: list[str], reason: str | None) -> None:
    context = ScanContext(tmp_path, tmp_path / "proj" / ".dims")
    text = files(context, str(tmp_path / root), *changed, paths=paths)
    assert text == reason or (reason == "itself changed" and text == f"{tmp_path}/proj itself changed")


def test_files_exclusions(tmp_path: Path) -> None:
    context = ScanContext(tmp_path, tmp_path / ".dims")
    root = str(tmp_path / "proj")
    assert files(context, root, "data/a.py", source_exclude=["data/**"]) is None
    assert files(context, root, "data/a.py", exclude=["data/**"]) is None
    assert files(context, root, "data/sub/", paths=["**/*.py"], exclude=["data/**"]) is None
    assert files(context, root, "datax/a.py", exclude=["data/**"])


def test_files_gitignore(tmp_path: Path) -> None:
    context = ScanContext(tmp_path, tmp_path / ".dims")
    root = str(tmp_path / "proj")
    assert files(context, root, "sub/.gitignore", paths=["*.py"], ignore="gitignore") == "sub/.gitignore changed"
    assert files(context, root, "sub/.gitignore", paths=["*.py"]) is None
    assert files(context, str(tmp_path), ".gitignore", paths=["*.py"], ignore="gitignore")
    assert files(context, str(tmp_path), "beside/.gitignore", paths=["*.py"], ignore="gitignore") is None


def test_files_below_a_symbolic_link(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    context = ScanContext(tmp_path, tmp_path / ".dims")
    assert files(context, str(tmp_path / "link"), "a.md", at="real")
    assert files(context, str(tmp_path / "real"), "a.md", at="link")


def test_names_that_are_not_utf8_are_escaped(tmp_path: Path) -> None:
    context = ScanContext(tmp_path, tmp_path / ".dims")
    assert files(context, str(tmp_path / "proj"), "\udcff.md", paths=["*.md"]) == "\\xff.md matches *.md"


def test_changes_in_the_data_directory_touch_nothing(tmp_path: Path) -> None:
    context = ScanContext(tmp_path, tmp_path / "proj")
    assert files(context, str(tmp_path / "proj"), "a.md") is None


def test_git(tmp_path: Path) -> None:
    context = ScanContext(tmp_path, tmp_path / ".dims")
    source = GitSource(type="git", path="repo")

    def touched(metric: GitMetric, *changed: str, root: str = "repo", history: bool = True) -> str | None:
        change = PathsChanged(str(tmp_path / root), changed, history=history)
        return probe_for("git").touched(source, metric, change, context)

    commits = GitMetric(source="x", measure="commits")
    tracked = GitMetric(source="x", measure="tracked_files", paths=["docs/**"])
    assert touched(commits, "a.py") == touched(commits) == "the history changed"
    assert touched(commits, "a.py", history=False) is None
    assert touched(commits, "a.py", root="other") is None
    assert touched(tracked, "docs/a.md") == "docs/a.md matches docs/**"
    assert touched(tracked, "a.py") is None
    assert touched(tracked) == "unknown paths changed"
    assert touched(tracked, "docs/a.md", history=False) is None
    assert touched(tracked, "docs/a.md", root="other") is None


@pytest.mark.parametrize(
    ("metric", "keys", "reason"),
    [
        ({"prefix": "a/"}, ["b/x", "a/x y+%é"], "key a/x y+%é is under a/"),
        ({"prefix": "a/"}, ["b/x", "ab"], None),
        ({"prefix": "a/"}, [], "unknown keys changed"),
        ({}, ["x"], "key x changed"),
        ({"prefix": ["a/", "b/"], "suffix": ".csv"}, ["b/x.csv"], "key b/x.csv is under b/"),
        ({"prefix": "a/", "suffix": ".csv"}, ["a/x.json"], None),
        ({"prefix": "a/", "match": "*.csv"}, ["a/deep/x.csv"], "key a/deep/x.csv is under a/"),
        ({"prefix": "a/", "match": "2013/*.csv"}, ["a/2013/x.csv"], "key a/2013/x.csv is under a/"),
        ({"prefix": "a/", "match": "2013/*.csv"}, ["a/2012/2013/x.csv"], None),
        ({"prefix": "a", "match": "2013/*.csv"}, ["a/2013/x.csv"], "key a/2013/x.csv is under a"),
        ({"prefix": "a/", "smaller_than": 1}, ["a/x"], "key a/x is under a/"),
    ],
)
def test_s3(tmp_path: Path, metric: dict[str, Any], keys: list[str], reason: str | None) -> None:
    context = ScanContext(tmp_path, tmp_path / ".dims")
    source = S3Source(type="s3", bucket="lake")
    wanted = S3Metric(source="lake", measure="count", **metric)
    assert probe_for("s3").touched(source, wanted, KeysChanged("lake", tuple(keys)), context) == reason
    assert probe_for("s3").touched(source, wanted, KeysChanged("other", tuple(keys)), context) is None


def test_importing_the_probes_loads_no_driver() -> None:
    code = "import sys, dims_worker.probes; print([m for m in ('boto3', 'botocore') if m in sys.modules])"
    root = Path(__file__).parents[3]
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
