"""The commands of sync-status, run by a shell: afterwards only the keys without a command differ."""

from __future__ import annotations

import os
import subprocess
import sys
import unicodedata
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import boto3
import pytest

from dims_worker import workflows
from dims_worker.config import S3Source
from dims_worker.probes.base import Deadline
from dims_worker.probes.s3.sync import KeyDifference
from dims_worker.workflows.base import WorkflowContext
from dims_worker.workflows.sync_status import archived
from tests.conftest import Lake, Project

BUCKET = "keys"
NFC, NFD = unicodedata.normalize("NFC", "café.txt"), unicodedata.normalize("NFD", "café.txt")
CONFIG = """
sources:
  lake: {type: s3, bucket: keys}
metrics:
  copy:
    status: {source: lake, measure: sync_status, local: copy, pairs: [{folder: "", prefix: d/}]}
workflows:
  sync_status: {metric: copy.status, report: sync.md}
"""
# The server of the tests has no keys with a line break. The unit tests parse them.
HOSTILE = [
    *(" space .txt", "trail ", "plus+sign.txt", "pct%2Fx.txt", "tab\t.txt", "quote'\"$`!.txt"),
    *(
        "ctl\x07.txt",
        "-dash.txt",
        "-",
        "--recursive",
        "é",
        "😀.txt",
        "\uff21.txt",
        "back\\slash.txt",
        "$(touch x)",
        "~",
    ),
    *("a;b&c|d>e<f", "*", "#x", "=ls", "esc\x1b[201~id\r.txt", "\u202ertl.txt", "a\u00a0b", "{a,b}", "deep/er/[x]!1"),
]


@pytest.fixture
def sides(project: Project, lake: Lake, monkeypatch: pytest.MonkeyPatch) -> Project:
    """A project with an empty bucket, an empty folder, and a stand-in for `aws` on its PATH."""
    for name, value in lake.env.items():
        monkeypatch.setenv(name, value)
    program = project.folder.parent / "bin" / "aws"
    program.parent.mkdir()
    program.write_text(
        f'#!/bin/sh\nexec {sys.executable} -S -E {Path(__file__).with_name("copying_aws.py")} "$@"\n', encoding="utf-8"
    )
    program.chmod(0o755)
    project.env |= {**lake.env, "PATH": f"{program.parent}:{os.environ['PATH']}"}
    lake.put(BUCKET, {})
    (project.folder / "copy").mkdir()
    project.write({"dims.yaml": CONFIG})
    return project


def objects() -> dict[str, bytes]:
    from moto.s3.models import s3_backends

    return {key: stored.value for key, stored in s3_backends["123456789012"]["aws"].buckets[BUCKET].keys.items()}


def files(folder: Path) -> dict[str, bytes]:
    """Return every file below a folder by its path, and every link with where it leads."""
    found: dict[str, bytes] = {}
    for place, folders, names in os.walk(folder):
        for name in [*names, *folders]:
            path = Path(place, name)
            if path.is_symlink():
                found[str(path.relative_to(folder))] = b"-> " + os.fsencode(path.readlink())
            elif path.is_file():
                found[str(path.relative_to(folder))] = path.read_bytes()
    return found


def put_local(folder: Path, contents: Mapping[str, bytes]) -> None:
    for name, content in contents.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


def compare(project: Project) -> Mapping[str, Any]:
    outcome = workflows.run_workflow(project.config, "sync-status")
    assert outcome.unreached == {}
    return outcome.result


def run_commands(project: Project, result: Mapping[str, Any], shell: str = "sh") -> None:
    """Run each command as pasted, in an empty folder, which stays empty."""
    place = project.folder.parent / "elsewhere"
    place.mkdir(exist_ok=True)
    for command in result["commands"]:
        assert command.isprintable()
        done = subprocess.run(
            [shell, "-c", command], cwd=place, env={**os.environ, **project.env}, capture_output=True, check=False
        )
        assert (done.returncode, done.stderr) == (0, b""), (command, done.stderr)
    assert list(place.iterdir()) == []


def differing(result: Mapping[str, Any]) -> set[str]:
    return {each["key"] for kind in ("only_local", "only_s3", "different") for each in result[kind]}


def reasons(result: Mapping[str, Any]) -> dict[str, str]:
    return {each["key"].removeprefix("d/"): each["reason"] for each in result["without_command"]}


def check(project: Project, shell: str = "sh") -> Mapping[str, Any]:
    """Compare, run the commands, and compare again. Return the first result."""
    before = compare(project)
    kept, outside = objects(), {**files(project.folder.parent)}
    run_commands(project, before, shell)
    after = compare(project)
    listed = {each["key"] for each in before["without_command"]}
    assert differing(after) == listed | {each["key"] for each in before["different"]}
    assert after["commands"] == []
    assert {key: objects()[key] for key in kept} == kept  # no object has other content
    now = files(project.folder.parent)
    assert {path: now[path] for path in outside} == outside  # and no file
    new = {path for path in now.keys() - outside.keys() if not path.startswith("project/copy/")}
    assert new == set()
    return before


def test_keys_without_a_place_of_their_own(sides: Project, lake: Lake) -> None:
    """The keys of a real bucket and a local copy: links, folders, letter case, Unicode forms, odd paths."""
    long = "n" * 256
    fine = ["a.txt", "fine/deeper.txt", ".", "..."]  # three dots are a name
    unsafe = [
        *("/b.txt", "../c.txt", "sub/../e.txt", "./f.txt", "full/", "same", "//", "x/", "x//y", "x/./y", "x/.."),
        *(long, f"{long}/x", "nul\0.txt", "line\n", NFC, "Case.txt", "link/inner.txt", "dangling", "file.txt/inner"),
        *("twin.TXT", "Twin.txt", "both", "both/inner/deep", "marker", "CAPS/one.txt", "pipe", "/etc/x", "../../../up"),
    ]
    fine.remove(".")
    lake.put(BUCKET, {f"d/{name}": b"hello" for name in [*fine, *unsafe]} | {"d/marker/": b"", "d/full": b"", "e": b""})
    copy = sides.folder / "copy"
    put_local(copy, {"b.txt": b"mine", NFD: b"hello", "case.txt": b"hello", "same/inner.txt": b"hello"})
    put_local(copy, {"file.txt": b"hello", "caps/two.txt": b"hello"})
    lake.put(BUCKET, {"d/same/inner.txt": b"hello", "d/case.txt": b"hello", "d/file.txt": b"hello"})
    (sides.folder.parent / "outside").mkdir()
    (copy / "link").symlink_to(sides.folder.parent / "outside")
    (copy / "dangling").symlink_to(sides.folder.parent / "outside" / "new")
    os.mkfifo(copy / "pipe")
    result = check(sides)
    listed = reasons(result)
    named = {name.replace("\0", "\\x00") for name in unsafe} - {"both/inner/deep"}
    assert listed.keys() == {*named, "full", NFD, "caps/two.txt"}
    assert "empty part" in listed["x//y"] and "`..`" in listed["sub/../e.txt"] and "`.`" in listed["./f.txt"]
    assert "only by letter case" in listed["Case.txt"] and "Unicode form" in listed[NFC]
    assert "symbolic link" in listed["link/inner.txt"] and "is a folder" in listed["same"]
    assert "needs a folder" in listed["both"] and "names a folder" in listed["full/"]
    report = workflows.render_report(result)
    assert f"## Without a command: {len(listed)}" in report and "| `d//b.txt` | only in S3 |" in report
    assert files(sides.folder / "copy")["b.txt"] == b"mine" == objects()["d/b.txt"]


@pytest.mark.parametrize("shell", ["sh", "bash"])
def test_hostile_names_in_both_directions(sides: Project, lake: Lake, shell: str) -> None:
    up, down = (HOSTILE[::2], HOSTILE[1::2]) if shell == "sh" else (HOSTILE[1::2], HOSTILE[::2])
    put_local(sides.folder / "copy", {name: name.encode() for name in up})
    lake.put(BUCKET, {f"d/{name}": name.encode() for name in down})
    result = check(sides, shell)
    assert result["without_command"] == [] and len(result["commands"]) == len(HOSTILE)
    assert files(sides.folder / "copy") == {name: name.encode() for name in HOSTILE}
    assert objects() == {f"d/{name}": name.encode() for name in HOSTILE}


def test_local_names_without_a_key_of_their_own(sides: Project, lake: Lake) -> None:
    """Names that are not UTF-8, or that another file or key has in other letters, are not uploaded."""
    copy = sides.folder / "copy"
    deep = "/".join(["p" * 250] * 4) + "/" + "q" * 30
    put_local(copy, dict.fromkeys(["Twin", "twin", NFC, NFD, "Other", "line\n", deep, "fine", "-"], b"x"))
    put_local(copy, {os.fsdecode(b"bad\xff"): b"x", os.fsdecode(b"bad\xfe/inner"): b"x"})
    lake.put(BUCKET, {"d/other": b"x", "d/fine/inner": b"x", "d/Fine2/x": b"x"})
    result = check(sides)
    listed = reasons(result)
    assert listed.keys() == {"Twin", "twin", NFC, NFD, "Other", "other", "line\n", deep, "fine", "fine/inner"} | {
        *("bad\\xff", "bad\\xfe/inner")
    }
    assert "not UTF-8" in listed["bad\\xff"] and "1,024 bytes" in listed[deep]
    assert {"d/-", "d/Fine2/x"} <= objects().keys()


def test_archived_objects(sides: Project, lake: Lake) -> None:
    """An archived object has a command only after it is restored. Other cold classes can be read."""
    client = boto3.client("s3", endpoint_url=lake.url)
    for kind in ("STANDARD", "GLACIER", "DEEP_ARCHIVE", "GLACIER_IR", "INTELLIGENT_TIERING"):
        for name in ("only", "other"):
            client.put_object(Bucket=BUCKET, Key=f"d/{kind}/{name}", Body=b"x", StorageClass=kind)
        put_local(sides.folder / "copy", {f"{kind}/other": b"longer"})
    client.put_object(Bucket=BUCKET, Key="d/GLACIER/restored", Body=b"x", StorageClass="GLACIER")
    client.restore_object(Bucket=BUCKET, Key="d/GLACIER/restored", RestoreRequest={"Days": 9})
    client.close()
    result = check(sides)
    listed = reasons(result)
    assert listed.keys() == {f"{kind}/{name}" for kind in ("GLACIER", "DEEP_ARCHIVE") for name in ("only", "other")}
    assert "archived in DEEP_ARCHIVE: restore" in listed["DEEP_ARCHIVE/only"]
    assert {each["key"] for each in result["overwrite"]} == {
        f"d/{kind}/other" for kind in ("STANDARD", "GLACIER_IR", "INTELLIGENT_TIERING")
    }
    assert files(sides.folder / "copy")["GLACIER/restored"] == b"x"


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        ({"StorageClass": "INTELLIGENT_TIERING", "ArchiveStatus": "DEEP_ARCHIVE_ACCESS"}, "tier DEEP_ARCHIVE_ACCESS"),
        ({"StorageClass": "GLACIER", "Restore": 'ongoing-request="true"'}, "has not ended yet"),
        ({"StorageClass": "GLACIER", "Restore": 'ongoing-request="false", expiry-date="Fri, 2 Jan 2027"'}, None),
        ({"StorageClass": "INTELLIGENT_TIERING"}, None),
    ],
)
def test_the_state_of_an_archived_object(
    sides: Project, monkeypatch: pytest.MonkeyPatch, answer: Mapping[str, str], reason: str | None
) -> None:
    class Client:
        def head_object(self, **_: str) -> Mapping[str, str]:
            return answer

        def close(self) -> None:
            """Close nothing."""

    monkeypatch.setattr(archived, "s3_client", lambda *_: Client())
    config = sides.config
    context = WorkflowContext(config, datetime.now(UTC), Deadline.after(timedelta(seconds=9)))
    source = config.sources["lake"]
    assert isinstance(source, S3Source)
    difference = KeyDifference("only_s3", "d/a", "/copy/a", None, 1, answer["StorageClass"])
    found = archived.archived_keys(context, source, [difference])
    assert (found == {}) if reason is None else (reason in found["d/a"])
    assert context.api_calls == 1


def test_pairs_that_share_a_place(sides: Project, lake: Lake) -> None:
    """Two keys with the same local path, and two files with the same key, have no command."""
    pairs = (
        '[{folder: "", prefix: d/}, {folder: sub, prefix: e/}, {folder: sub, prefix: d/sub}, {folder: z, prefix: e/}]'
    )
    sides.write({"dims.yaml": CONFIG.replace('[{folder: "", prefix: d/}]', pairs)})
    put_local(sides.folder / "copy", {"sub/new": b"1", "z/new": b"2", "z/own": b"3", "sub/mine": b"4"})
    lake.put(BUCKET, {"d/sub/x": b"one", "e/x": b"two", "d/sub/y": b"fine"})
    before = compare(sides)
    listed = {each["key"] for each in before["without_command"]}
    assert listed >= {"d/sub/x", "e/x", "e/new"}
    run_commands(sides, before)
    now = files(sides.folder / "copy")
    assert "sub/x" not in now and now["sub/y"] == b"fine" and now["z/x"] == b"two"
    assert "e/new" not in objects() and objects()["d/sub/new"] == b"1" and objects()["e/own"] == b"3"


def test_the_data_directory_of_dims_is_not_overwritten(sides: Project, lake: Lake) -> None:
    sides.env["DIMS_HOME"] = str(sides.folder / "copy" / ".dims")
    put_local(sides.folder / "copy" / ".dims", {"keep": b"mine"})
    lake.put(BUCKET, {"d/.dims/keep": b"theirs", "d/.dims/new": b"x"})
    listed = reasons(check(sides))
    assert listed.keys() == {".dims/keep", ".dims/new"} and "data directory of DIMS" in listed[".dims/new"]


def test_the_prefix_itself_with_content(sides: Project, lake: Lake) -> None:
    """An object whose key is the prefix is no file, so it counts and has no command. An empty one is a folder."""
    lake.put(BUCKET, {"d/": b"content", "d/a": b"1"})
    assert reasons(check(sides)).keys() == {""}
    lake.put(BUCKET, {"d/": b""})
    assert compare(sides)["status"] == "synced"
