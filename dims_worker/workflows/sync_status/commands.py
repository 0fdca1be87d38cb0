"""The copy commands that fix a difference, for any POSIX shell, such as bash, zsh or dash. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from dims_worker.config import S3Source
from dims_worker.formatting import shell_quote
from dims_worker.probes.base import printable_path
from dims_worker.probes.boto3_client import hide_user
from dims_worker.probes.s3.sync import KeyDifference
from dims_worker.workflows.markdown import escape_invisible


def commands(
    source: S3Source, differences: Iterable[KeyDifference], refused: Mapping[KeyDifference, str]
) -> dict[str, Any]:
    """Return `commands`, which upload what is only local and download what is only in S3.

    `overwrite` has the copy `up` and the copy `down` of files that differ, because only a person knows which side is
    right. `without_command` names the `refused` differences and why each has no command. `no_object` are files whose
    names are not UTF-8, so that they cannot exist in S3.
    """
    copy = "aws s3 cp"
    if source.request_payer:
        copy += f" --request-payer {source.request_payer}"
    if source.endpoint_url:
        copy += f" --endpoint-url {shell_quote(hide_user(source.endpoint_url))}"
    repairs, overwrite, without, no_object = [], [], [], []
    for each in dict.fromkeys(differences):  # pairs may overlap
        if each in refused:
            without.append({"key": printable_path(each.key), "kind": each.kind, "reason": refused[each]})
            if not _is_text(each.key):
                no_object.append(printable_path(each.path))
            continue
        path, url = shell_quote(each.path), shell_quote(f"s3://{source.bucket}/{each.key}")
        up, down = f"{copy} {path} {url}", f"{copy} {url} {path}"
        if each.kind == "different":
            overwrite.append({"key": escape_invisible(each.key), "up": up, "down": down})
        else:
            repairs.append(up if each.kind == "only_local" else down)
    return {"commands": repairs, "overwrite": overwrite, "without_command": without, "no_object": no_object}


def _is_text(key: str) -> bool:
    try:
        key.encode()
    except UnicodeEncodeError:
        return False
    return True
