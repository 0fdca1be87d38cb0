"""`dims mute` begins, lists and ends mutes, and refuses what does not exist. While muted, nothing is sent."""

from __future__ import annotations

import json

import pytest

from tests.conftest import Project
from tests.fixtures.receivers import Receiver

YAML = """
sources: {disk: {type: files, path: data}, other: {type: files, path: data}}
metrics: {lake: {files: {source: disk, measure: count, critical: true}, lines: {source: other, measure: lines}}}
maintenance: {backup: {cron: "0 0 29 2 *", length: 1h, description: the backup}}
notify: {channels: {ops: {url: "${DIMS_NOTIFY_URL:-}"}}}
"""


@pytest.fixture
def muted(project: Project, receiver: Receiver) -> Project:
    project.write({"dims.yaml": YAML, **{f"data/{n}": "" for n in range(4)}})
    project.env |= {"DIMS_NOTIFY_URL": receiver.url}
    return project


def test_a_mute_is_listed_keeps_messages_back_and_ends(muted: Project, receiver: Receiver) -> None:
    muted.dims("verify", "--update", check=True)
    done = muted.dims("mute", "lake", "--for", "2h", "--reason", "the bucket moves", "--as", "ada", check=True)
    assert done.stdout.startswith("mute 1: lake.* (2 metrics) until ")
    muted.write({"data/more": "", "data/most": ""})
    assert muted.dims("verify", "--update").returncode == 1  # still measured, judged and held
    assert muted.dims("notify", "send", check=True).stdout == "ops: nothing to send; waiting: 1 muted\n"
    assert "waits to be sent (end of mute)" in muted.dims("notify", "list", check=True).stdout
    listed = muted.dims("mute", "list", check=True).stdout
    assert all(
        words in listed for words in ("lake.*", "ada", "the bucket moves", "maintenance window backup: not open")
    )
    document = json.loads(muted.dims("mute", "list", "--json", check=True).stdout)
    (mute,) = document["mutes"]
    assert (mute["pattern"], mute["metrics"], mute["active"], mute["muted_by"], mute["known_by"]) == (
        "lake.*",
        ["lake.files", "lake.lines"],
        True,
        "ada",
        "option",
    )
    assert [window["name"] for window in document["maintenance"]] == ["backup"]
    assert receiver.received == []
    assert muted.dims("mute", "end", "1", check=True).stdout.startswith("mute 1 of lake.* ended.")
    assert muted.dims("notify", "send", check=True).stdout == "ops: 1 notification sent in 1 message\n"
    again = muted.dims("mute", "end", "1")
    assert (again.returncode, "mute 1 ended at " in again.stderr) == (2, True)
    unknown = muted.dims("mute", "end", "9")
    assert (unknown.returncode, "there is no mute 9" in unknown.stderr) == (2, True)
    assert "nothing is muted by a person" in muted.dims("mute", "list", check=True).stdout
