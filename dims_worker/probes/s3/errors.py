"""Translate the errors of boto3: which bucket or object, where, why, and the fix."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping

from dims_worker.config import S3Source
from dims_worker.errors import MeasureError
from dims_worker.probes.base import printable_path
from dims_worker.probes.boto3_client import CREDENTIALS_FIX, NO_CREDENTIALS, UNREACHABLE, hide_user

_REFUSALS = {
    "NoSuchBucket": "the bucket does not exist. Check `bucket`, `region` and `endpoint_url`",
    "AccessDenied": "access denied. Grant s3:ListBucket on the bucket",
    "InvalidAccessKeyId": "unknown access key. " + CREDENTIALS_FIX,
    "SignatureDoesNotMatch": "wrong secret key. " + CREDENTIALS_FIX,
    "ExpiredToken": "the credentials have expired. Log in again",
    "PermanentRedirect": "the bucket is in another region. Set `region`",
    "AuthorizationHeaderMalformed": "the bucket is in another region. Set `region`",
}
_ALIASES = {
    "404": "NoSuchBucket",
    "403": "AccessDenied",
    "AllAccessDisabled": "AccessDenied",
    "InvalidToken": "ExpiredToken",
    "ExpiredTokenException": "ExpiredToken",
    "301": "PermanentRedirect",
}


@contextlib.contextmanager
def translate_s3_errors(source: S3Source, key: str | None = None) -> Iterator[None]:
    """Raise errors of boto3 as MeasureError: those of reading the object `key`, or else those of a listing."""
    try:
        yield
    except MeasureError:
        raise
    except Exception as error:  # noqa: BLE001 - botocore's errors could not be named without importing it
        raise _translated(error, source, key) from None


def _translated(error: Exception, source: S3Source, key: str | None) -> MeasureError:
    """Return what could not be read, where, why, and the fix. Never contains a secret."""
    place = hide_user(source.endpoint_url) if source.endpoint_url else "AWS"
    subject = f"S3 bucket {source.bucket} at {place}"
    if key is not None:
        subject = f"{printable_path(key)} in {subject}"
    # boto3 creates subclasses of ClientError at run time
    names = [kind.__name__ for kind in type(error).__mro__]
    if "ClientError" in names:
        reason = _refusal(getattr(error, "response", {}).get("Error", {}), key)
    elif "NoRegionError" in names:
        reason = "no region. Set `region`"
    elif NO_CREDENTIALS.search(names[0]):
        reason = f"no usable credentials. {CREDENTIALS_FIX}"
    elif UNREACHABLE.search(names[0]):
        reason = f"unreachable ({names[0]}). Check `endpoint_url` and the network"
    else:
        reason = hide_user(str(error))
    return MeasureError(f"{subject}: {reason}")


def _refusal(answer: Mapping[str, str], key: str | None) -> str:
    """Return why a store refused to list the bucket, or to return the object `key`."""
    code = str(answer.get("Code", ""))
    code = _ALIASES.get(code, code)
    message = answer.get("Message") or code
    if key is not None and (code == "AccessDenied" or code not in _REFUSALS):
        return f"cannot be read: {message}. Check that it exists, and grant s3:GetObject"
    return _REFUSALS.get(code, f"refused: {message}")
