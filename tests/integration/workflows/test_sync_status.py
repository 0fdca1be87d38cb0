"""sync-status against moto: two real listings, every difference by name, and commands that a shell can run."""

from __future__ import annotations

import csv
import shlex
import subprocess
from pathlib import Path

import pytest

from dims_worker import workflows
from tests.conftest import Lake, Project
from tests.integration.workflows.helpers import BUCKET, CONFIG, real_place

HOSTILE = ["a b.txt", "it's `$(x)`.txt", "100%+🏀.txt", "tab\there.txt", "line\nbreak.txt", "back\\slash.txt", "-rf"]


@pytest.fixture
def sides(project: Project, lake: Lake, monkeypatch: pytest.MonkeyPatch) -> Project:
    """A project with an empty bucket and an empty folder to compare."""
    for name, value in lake.env.items():
        monkeypatch.setenv(name, value)
    project.env |= lake.env
    lake.put(BUCKET, {})
    (project.folder / "local" / "bbref").mkdir(parents=True)
    project.write({"dims.yaml": CONFIG})
    return project


def listing(side: str) -> dict[str, str]:
    """Map paths to hashes of blobs, which represent the content."""
    with (real_place() / "sync_listings" / f"{side}.tsv").open(encoding="utf-8", newline="") as file:
        return {row[0]: row[1] for row in csv.reader(file, delimiter="\t") if len(row) > 1}


def test_the_real_pair(sides: Project, lake: Lake) -> None:
    local, there = listing("local"), listing("s3")
    if "path" in local:
        local.pop("path"), there.pop("path")
    sides.write({f"local/bbref/{path}": content for path, content in local.items()})
    lake.put(BUCKET, {f"bbref/{path}": content.encode() for path, content in there.items()})
    outcome = workflows.run_workflow(sides.config, "sync-status")
    result = outcome.result
    assert outcome.unreached == {} and len(lake.lists) == outcome.scanned.api_calls == 1
    named = {
        kind: {each["key"].removeprefix("bbref/") for each in result[kind]}
        for kind in ("only_local", "only_s3", "different")
    }
    assert named == {
        "only_local": local.keys() - there.keys(),
        "only_s3": there.keys() - local.keys(),
        "different": {path for path in local.keys() & there.keys() if local[path] != there[path]},
    }
    assert [len(each) for each in named.values()] == [2, 102, 6] and result["same"] == 109
    assert result["drift_pct"] == pytest.approx(100 * 110 / 219)
    assert (result["status"], result["synced"]) == ("major_drift", False)
    assert len(result["commands"]) == 104 and len(result["overwrite"]) == 6
    own, reading = outcome.scanned.readings
    assert (own.value, reading.metric, reading.value) == ("attention", "sync_status.local_s3", "major_drift")
    text = workflows.render_report(result)
    assert all(f"`{each['key']}`" in text for kind in named for each in result[kind])


def test_synced(sides: Project, lake: Lake) -> None:
    sides.write({"local/bbref/a": "1", "local/bbref/b/c": "2"})
    lake.put(BUCKET, {"bbref/a": b"1", "bbref/b/c": b"2", "elsewhere": b"3"})
    outcome = workflows.run_workflow(sides.config, "sync-status")
    assert (outcome.result["status"], outcome.result["synced"], outcome.result["commands"]) == ("synced", True, [])
    assert outcome.scanned.readings[0].value == "ok"


def test_two_empty_sides_are_named(sides: Project) -> None:
    """Nothing was compared, for example because the prefix is misspelled."""
    result = workflows.run_workflow(sides.config, "sync-status").result
    assert result["attention"] == ["nothing was compared: bbref and the prefix 'bbref/' are both empty"]


def test_commands_quote_names_for_the_shell(sides: Project, lake: Lake) -> None:
    """bash parses every word of every command as intended, for any name."""
    up, down = HOSTILE[::2], HOSTILE[1::2]
    for name in up:
        (sides.folder / "local" / "bbref" / name).write_bytes(b"x")
    lake.put(BUCKET, {f"bbref/{name}": b"y" for name in down})
    result = workflows.run_workflow(sides.config, "sync-status").result
    words = []
    for command in result["commands"]:
        assert command.isprintable()
        done = subprocess.run(["bash", "-c", f"printf '%s\\0' {command}"], capture_output=True, check=True)
        words.append(done.stdout.decode().split("\0")[:-1])
    folder = sides.folder.resolve() / "local" / "bbref"
    expected = {name: ["aws", "s3", "cp", f"{folder}/{name}", f"s3://{BUCKET}/bbref/{name}"] for name in up}
    expected |= {name: ["aws", "s3", "cp", f"s3://{BUCKET}/bbref/{name}", f"{folder}/{name}"] for name in down}
    assert sorted(words) == sorted(expected.values())


def test_a_name_that_s3_does_not_allow(sides: Project) -> None:
    Path(bytes(sides.folder / "local" / "bbref").decode() + "/bad\udcff.txt").write_bytes(b"x")
    result = workflows.run_workflow(sides.config, "sync-status").result
    assert result["commands"] == [] and len(result["no_object"]) == 1
    assert "\\xff" in workflows.render_report(result)


def test_a_custom_endpoint_is_in_the_commands(sides: Project, lake: Lake) -> None:
    written = CONFIG.replace("bucket: nba-lake}", f"bucket: nba-lake, endpoint_url: '{lake.url}'}}")
    sides.write({"dims.yaml": written, "local/bbref/a": "1"})
    lake.put(BUCKET, {"bbref/b": b"1"})
    result = workflows.run_workflow(sides.config, "sync-status").result
    assert [shlex.split(command)[3:5] for command in result["commands"]] == [["--endpoint-url", lake.url]] * 2


@pytest.mark.parametrize("side", ["local folders", "lake"])
def test_a_missing_side_is_not_in_sync(sides: Project, side: str) -> None:
    if side == "lake":
        sides.write({"dims.yaml": CONFIG.replace("bucket: nba-lake", "bucket: gone")})
    else:
        (sides.folder / "local" / "bbref").rmdir()
    outcome = workflows.run_workflow(sides.config, "sync-status")
    assert set(outcome.unreached) == {side}
    assert (outcome.result["status"], outcome.result["synced"]) == (None, False)
    assert [reading.method for reading in outcome.scanned.readings] == ["failed", "failed"]
    assert "could not be measured" in workflows.render_report(outcome.result)
