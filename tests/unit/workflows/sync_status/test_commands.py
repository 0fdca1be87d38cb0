"""The commands for each kind of difference."""

from __future__ import annotations

from dims_worker.config import S3Source
from dims_worker.probes.s3.sync import KeyDifference
from dims_worker.workflows.sync_status.commands import commands

LAKE = S3Source(type="s3", bucket="lake", endpoint_url="http://me:secret@127.0.0.1:9000")


def test_commands_for_each_kind_of_difference() -> None:
    bad = KeyDifference("only_local", "a/\udcff", "/data/\udcff", 1, None)
    nested = KeyDifference("only_s3", "a//4", "/data//4", None, 2)
    first = KeyDifference("only_local", "a/1", "/data/1", 1, None)
    text = commands(
        LAKE,
        [
            first,
            KeyDifference("only_s3", "a/2 x", "/data/2 x", None, 2),
            KeyDifference("different", "a/3", "/data/3", 1, 2),
            bad,
            nested,
            first,
        ],
        {bad: "it is not UTF-8", nested: "it has an empty part"},
    )
    copy = "aws s3 cp --endpoint-url http://127.0.0.1:9000"
    assert text == {
        "commands": [f"{copy} /data/1 s3://lake/a/1", f"{copy} 's3://lake/a/2 x' '/data/2 x'"],
        "overwrite": [{"key": "a/3", "up": f"{copy} /data/3 s3://lake/a/3", "down": f"{copy} s3://lake/a/3 /data/3"}],
        "without_command": [
            {"key": "a/\\xff", "kind": "only_local", "reason": "it is not UTF-8"},
            {"key": "a//4", "kind": "only_s3", "reason": "it has an empty part"},
        ],
        "no_object": ["/data/\\xff"],
    }


def test_a_requester_pays_for_the_copies() -> None:
    lake = S3Source(type="s3", bucket="lake", request_payer="requester")
    text = commands(lake, [KeyDifference("only_local", "a/1", "/data/1", 1, None)], {})
    assert text["commands"] == ["aws s3 cp --request-payer requester /data/1 s3://lake/a/1"]
