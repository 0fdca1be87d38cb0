"""Quoting for the shell, checked with every shell of this host."""

from __future__ import annotations

import os
import shutil
import subprocess

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from dims_worker.config import S3Source
from dims_worker.probes.s3.sync import KeyDifference
from dims_worker.workflows.sync_status.commands import commands, shell_quote

LAKE = S3Source(type="s3", bucket="lake", endpoint_url="http://me:secret@127.0.0.1:9000")
SHELLS = [shell for shell in ("sh", "dash", "bash", "zsh") if shutil.which(shell)]


def parse(shell: str, *words: str) -> bytes:
    return subprocess.run([shell, "-c", f"printf '%s\\0' {' '.join(words)}"], capture_output=True, check=True).stdout


@settings(max_examples=60, deadline=None)
@given(st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"])))
@example("-n\t")
@example("%s\t%d\\n")
@example("it's !here\t!!")
@example("cafe\u0301's 1!\u202e")
@example("a\n b\\012\n\rc")
def test_every_shell_parses_the_word(word: str) -> None:
    if word.endswith("\n"):
        with pytest.raises(ValueError, match="no shell command"):
            shell_quote(word)
        return
    text = shell_quote(word)
    assert text.isprintable()
    for shell in SHELLS:
        assert parse(shell, text) == word.encode() + b"\0", shell


def test_bytes_that_are_not_text_are_kept() -> None:
    word = os.fsdecode(b"/data/\xff'\\\n.txt")
    for shell in SHELLS:
        assert parse(shell, shell_quote(word)) == b"/data/\xff'\\\n.txt\0"


def test_what_a_terminal_or_the_history_of_a_shell_changes_is_escaped() -> None:
    assert "!" not in shell_quote("it's me!") and "\u0301" not in shell_quote("cafe\u0301")
    assert "\u00a0" not in shell_quote("a\u00a0b") and "\x1b" not in shell_quote("\x1b[201~x")
    assert shell_quote("caf\u00e9 (1)!.txt") == "'caf\u00e9 (1)!.txt'"


@pytest.mark.parametrize("word", ["a\n", "\n", "a\0b"])
def test_a_word_that_no_command_can_contain_is_refused(word: str) -> None:
    with pytest.raises(ValueError, match="no shell command can contain"):
        shell_quote(word)


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
