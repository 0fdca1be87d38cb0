"""Quoting for the shell, checked with bash."""

from __future__ import annotations

import os
import subprocess

from hypothesis import given, settings
from hypothesis import strategies as st

from dims_worker.config import S3Source
from dims_worker.probes.s3.sync import KeyDifference
from dims_worker.workflows.sync_status.commands import commands, shell_quote

LAKE = S3Source(type="s3", bucket="lake", endpoint_url="http://me:secret@127.0.0.1:9000")


@settings(max_examples=40, deadline=None)
@given(st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1))
def test_bash_parses_the_word(word: str) -> None:
    text = shell_quote(word)
    assert text.isprintable()
    done = subprocess.run(["bash", "-c", f"printf %s {text}"], capture_output=True, check=True)
    assert done.stdout == word.encode()


def test_bytes_that_are_not_text_are_kept() -> None:
    word = os.fsdecode(b"/data/\xff'\\\n.txt")
    done = subprocess.run(["bash", "-c", f"printf %s {shell_quote(word)}"], capture_output=True, check=True)
    assert done.stdout == b"/data/\xff'\\\n.txt"


def test_commands_for_each_kind_of_difference() -> None:
    text = commands(
        LAKE,
        [
            KeyDifference("only_local", "a/1", "/data/1", 1, None),
            KeyDifference("only_s3", "a/2 x", "/data/2 x", None, 2),
            KeyDifference("different", "a/3", "/data/3", 1, 2),
            KeyDifference("only_local", "a/\udcff", "/data/\udcff", 1, None),
        ],
    )
    copy = "aws s3 cp --endpoint-url http://127.0.0.1:9000"
    assert text == {
        "commands": [f"{copy} /data/1 s3://lake/a/1", f"{copy} 's3://lake/a/2 x' '/data/2 x'"],
        "overwrite": [{"key": "a/3", "up": f"{copy} /data/3 s3://lake/a/3", "down": f"{copy} s3://lake/a/3 /data/3"}],
        "no_object": ["/data/\\xff"],
    }


def test_commands_name_the_requester_who_pays() -> None:
    source = S3Source(type="s3", bucket="lake", request_payer="requester")
    (command,) = commands(source, [KeyDifference("only_local", "a", "/l/a", 1, None)])["commands"]
    assert command == "aws s3 cp --request-payer requester /l/a s3://lake/a"
