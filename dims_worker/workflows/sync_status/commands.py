"""The copy commands that would mend a difference, for a shell such as bash or zsh. Pure."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Iterable
from typing import Any

from dims_worker.config import S3Source
from dims_worker.probes.base import printable_path
from dims_worker.probes.s3.sync import KeyDifference
from dims_worker.workflows.markdown import escape_invisible

_SPECIAL = {"\\": "\\\\", "'": "\\'", "\n": "\\n", "\t": "\\t", "\r": "\\r"}
_USER = re.compile(r"//[^/@\s]*@")


def shell_quote(word: str) -> str:
    r"""A word for the shell: as it is, in '…', or, where it has what is not to be seen, in $'…' with escapes.

    Names as `os.fsdecode` gives them keep their bytes.
    """
    if word.isprintable():
        return shlex.quote(word)
    escaped = (_SPECIAL.get(c) or (c if c.isprintable() else _bytes(c)) for c in word)
    return f"$'{''.join(escaped)}'"


def _bytes(character: str) -> str:
    return "".join(f"\\x{byte:02x}" for byte in os.fsencode(character))


def commands(source: S3Source, differences: Iterable[KeyDifference]) -> dict[str, Any]:
    """`commands`: what is only local goes up, what is only in S3 comes down. `overwrite`: of what is different,
    the copy `up` and the copy `down`; which one is right, only people know. `no_object`: files whose names are
    no UTF-8, which no object can have."""
    copy = "aws s3 cp"
    if source.endpoint_url:
        copy += f" --endpoint-url {shell_quote(_USER.sub('//', source.endpoint_url))}"
    mend, overwrite, no_object = [], [], []
    for each in differences:
        if not _is_text(each.key):
            no_object.append(printable_path(each.path))
            continue
        path, url = shell_quote(each.path), shell_quote(f"s3://{source.bucket}/{each.key}")
        up, down = f"{copy} {path} {url}", f"{copy} {url} {path}"
        if each.kind == "different":
            overwrite.append({"key": escape_invisible(each.key), "up": up, "down": down})
        else:
            mend.append(up if each.kind == "only_local" else down)
    return {"commands": mend, "overwrite": overwrite, "no_object": no_object}


def _is_text(key: str) -> bool:
    try:
        key.encode()
    except UnicodeEncodeError:
        return False
    return True
