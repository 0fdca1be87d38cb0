"""Words of commands to paste, checked with every shell of this host."""

from __future__ import annotations

import os
import shutil
import subprocess

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from dims_worker.formatting import shell_quote

SHELLS = [shell for shell in ("sh", "dash", "bash", "zsh") if shutil.which(shell)]


def parse(shell: str, *words: str) -> bytes:
    return subprocess.run([shell, "-c", f"printf '%s\\0' {' '.join(words)}"], capture_output=True, check=True).stdout


@settings(max_examples=60, deadline=None)
@given(st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"])))
@example("-n\t")
@example("%s\t%d\\n")
@example("it's !here\t!!")
@example("cafe\u0301's 1!\u202e")
@example("\n")
@example("\t\n\n")
@example("a\n b\\012\n\rc")
def test_every_shell_parses_the_word(word: str) -> None:
    text = shell_quote(word)
    assert text.isprintable() or word.endswith("\n")
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


def test_nul_is_refused() -> None:
    with pytest.raises(ValueError, match="no shell command can contain"):
        shell_quote("a\0b")
