"""What boto3 raises, in plain words and with the remedy."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator, Mapping

from dims_worker.config import S3Source
from dims_worker.errors import MeasureError
from dims_worker.probes.base import printable_path

_CREDENTIALS = "set AWS_PROFILE, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or give the machine a role"
_REFUSALS = {
    "NoSuchBucket": "bucket {bucket} does not exist at {place}; check `bucket`, `region` and `endpoint_url`",
    "AccessDenied": "bucket {bucket} at {place} may not be listed: the credentials need s3:ListBucket on it",
    "InvalidAccessKeyId": "{place} does not know the access key for bucket {bucket}: " + _CREDENTIALS,
    "SignatureDoesNotMatch": "{place} refuses the secret key for bucket {bucket}: " + _CREDENTIALS,
    "ExpiredToken": "the credentials for bucket {bucket} have expired: log in again",
    "PermanentRedirect": "bucket {bucket} is in another region: set `region`",
    "AuthorizationHeaderMalformed": "bucket {bucket} is in another region: set `region`",
}
_ALIASES = {
    **{"404": "NoSuchBucket", "403": "AccessDenied", "AllAccessDisabled": "AccessDenied"},
    **{"InvalidToken": "ExpiredToken", "ExpiredTokenException": "ExpiredToken", "301": "PermanentRedirect"},
}
_NO_CREDENTIALS = re.compile(r"Credential|Token|SSO|ProfileNotFound|Unauthorized|LoginRefresh")
_UNREACHABLE = re.compile(r"Connect|Timeout|HTTPClient|SSL|Proxy|ResponseStreaming")
_USER = re.compile(r"//[^/@\s]*@")


@contextlib.contextmanager
def translate_s3_errors(source: S3Source, key: str | None = None) -> Iterator[None]:
    """What boto3 raises, as MeasureError; with a key it was asked for that object, else for a listing."""
    try:
        yield
    except MeasureError:
        raise
    except Exception as error:  # noqa: BLE001 - botocore's errors could not be named without importing it
        raise _translated(error, source, key) from None


def _translated(error: Exception, source: S3Source, key: str | None) -> MeasureError:
    """An error of boto3 in plain words, with the remedy; never with anything secret."""
    place = _USER.sub("//", source.endpoint_url) if source.endpoint_url else "AWS"
    kind = next((c.__name__ for c in type(error).__mro__ if c.__name__ in _KINDS), type(error).__name__)
    said = _USER.sub("//", str(error))
    if kind == "ClientError":
        return MeasureError(_refused(getattr(error, "response", {}).get("Error", {}), source, place, key))
    if kind == "NoRegionError":
        return MeasureError(f"no region for bucket {source.bucket}: set `region`")
    if _NO_CREDENTIALS.search(kind):
        return MeasureError(f"no usable credentials for bucket {source.bucket} at {place}: {_CREDENTIALS}")
    if _UNREACHABLE.search(kind):
        return MeasureError(
            f"{place} cannot be reached for bucket {source.bucket} ({kind}): check `endpoint_url` and the network"
        )
    what, done = (f"{printable_path(key)} in ", "read") if key is not None else ("", "listed")
    return MeasureError(f"{what}bucket {source.bucket} at {place} cannot be {done}: {said}")


def _refused(answer: Mapping[str, str], source: S3Source, place: str, key: str | None) -> str:
    """What a store's refusal says; of an object, that it is gone or may not be read."""
    code = str(answer.get("Code", ""))
    code = _ALIASES.get(code, code)
    said = answer.get("Message") or code
    if key is not None and (code == "AccessDenied" or code not in _REFUSALS):
        return f"{printable_path(key)} in bucket {source.bucket} at {place} cannot be read (needs s3:GetObject): {said}"
    text = _REFUSALS.get(code, "{place} refused to list bucket {bucket}: {said}")
    return text.format(bucket=source.bucket, place=place, said=said)


_KINDS = frozenset({"ClientError"})
"""Errors whose subclasses are made at run time."""
