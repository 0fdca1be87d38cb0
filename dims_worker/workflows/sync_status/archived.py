"""Find the differing objects that cannot be read, because they are archived and not restored."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Mapping
from typing import Any

from dims_worker.config import S3Source
from dims_worker.errors import MeasureError
from dims_worker.probes.s3.errors import translate_s3_errors
from dims_worker.probes.s3.probe import s3_client
from dims_worker.probes.s3.sync import KeyDifference
from dims_worker.workflows.base import WorkflowContext

ARCHIVED = ("GLACIER", "DEEP_ARCHIVE")
"""Storage classes whose objects cannot be read before they are restored."""
TIERED = "INTELLIGENT_TIERING"
"""A storage class with archive tiers, which a listing does not show."""
MAX_HEADS = 1000
"""The most objects whose state is read, with one API call each."""

_RESTORE = "restore the object first, then copy it"


def archived_keys(context: WorkflowContext, source: S3Source, differences: Iterable[KeyDifference]) -> dict[str, str]:
    """Return the keys of archived objects, and why each cannot be copied.

    Reads the state of at most MAX_HEADS objects. An object whose state is unknown counts as archived if its class is
    one of ARCHIVED.
    """
    classes = {each.key: each.storage_class for each in differences if each.s3 is not None}
    reasons = {key: f"it is archived in {kind}: {_RESTORE}" for key, kind in classes.items() if kind in ARCHIVED}
    unclear = [key for key, kind in classes.items() if kind in (*ARCHIVED, TIERED)][:MAX_HEADS]
    if not unclear:
        return reasons
    with translate_s3_errors(source):
        client = s3_client(source, context.deadline)
    with contextlib.closing(client):
        for number, key in enumerate(unclear, 1):
            context.deadline.check()
            context.progress(f"reading the state of archived objects: {number:,} of {len(unclear):,}")
            reason = _state_of(context, client, source, key, classes[key] == TIERED)
            if reason is None:
                reasons.pop(key, None)
            else:
                reasons[key] = reason
    return reasons


def _state_of(context: WorkflowContext, client: Any, source: S3Source, key: str, is_tiered: bool) -> str | None:
    """Return why an object cannot be read, or None if it can."""
    context.api_calls += 1
    payer = {"RequestPayer": source.request_payer} if source.request_payer else {}
    try:
        with translate_s3_errors(source, key):
            answer: Mapping[str, Any] = client.head_object(Bucket=source.bucket, Key=key, **payer)
    except MeasureError as error:
        return f"its state is unknown: {error}"
    restore, tier = str(answer.get("Restore", "")), answer.get("ArchiveStatus")
    if 'ongoing-request="true"' in restore:
        return "it is archived, and its restore has not ended yet"
    if is_tiered:
        return f"it is archived in the tier {tier}: {_RESTORE}" if tier else None
    return None if restore else f"it is archived in {answer.get('StorageClass', 'an archive')}: {_RESTORE}"
