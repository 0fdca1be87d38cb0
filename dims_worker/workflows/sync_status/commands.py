"""The copy commands that fix a difference, for a shell such as bash or zsh. Pure."""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterable
from typing import Any

from dims_worker.config import S3Source
from dims_worker.probes.base import printable_path
from dims_worker.probes.boto3_client import hide_user
from dims_worker.probes.s3.sync import KeyDifference
from dims_worker.workflows.markdown import escape_invisible

_SPECIAL = {"\\": "\\\\", "'": "\\'", "\n": "\\n", "\t": "\\t", "\r": "\\r"}


def shell_quote(word: str) -> str:
    r"""Quote a word for the shell: as it is, in '…', or, with invisible characters, in $'…' with escapes.

    Names from `os.fsdecode` keep their bytes.
    """
    if word.isprintable():
        return shlex.quote(word)
    escaped = (_SPECIAL.get(c) or (c if c.isprintable() else _bytes(c)) for c in word)
    return f"$'{''.join(escaped)}'"


def _bytes(character: str) -> str:
    return "".join(f"\\x{byte:02x}" for byte in os.fsencode(character))


def commands(source: S3Source, differences: Iterable[KeyDifference]) -> dict[str, Any]:
    """Return `commands`, which upload what is only local and download what is only in S3.

    `overwrite` has the copy `up` and the copy `down` of files that differ, because only a person knows which side is
    right. `no_object` are files whose names are not UTF-8, so that they cannot exist in S3.
    """
    copy = "aws s3 cp"
    if source.request_payer:
        copy += f" --request-payer {source.request_payer}"
    if source.endpoint_url:
        copy += f" --endpoint-url {shell_quote(hide_user(source.endpoint_url))}"
    repairs, overwrite, no_object = [], [], []
    for each in differences:
        if not _is_text(each.key):
            no_object.append(printable_path(each.path))
            continue
        path, url = shell_quote(each.path), shell_quote(f"s3://{source.bucket}/{each.key}")
        up, down = f"{copy} {path} {url}", f"{copy} {url} {path}"
        if each.kind == "different":
            overwrite.append({"key": escape_invisible(each.key), "up": up, "down": down})
        else:
            repairs.append(up if each.kind == "only_local" else down)
    return {"commands": repairs, "overwrite": overwrite, "no_object": no_object}


def _is_text(key: str) -> bool:
    try:
        key.encode()
    except UnicodeEncodeError:
        return False
    return True
