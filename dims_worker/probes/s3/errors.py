"""Translate the errors of boto3: which bucket or object, where, why, and the fix."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from dims_worker.config import S3Source
from dims_worker.errors import MeasureError
from dims_worker.probes.base import printable_path
from dims_worker.probes.boto3_client import CREDENTIALS_FIX, NO_CREDENTIALS, UNREACHABLE, hide_user
from dims_worker.probes.s3.page_body import BrokenPage

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
_PROXY_FIX = "Check `endpoint_url`, and whether a proxy answers in place of the store"
_REQUESTER_FIX = "If its requesters pay, set `request_payer: requester`"


@dataclass(frozen=True, slots=True)
class PagePlace:
    """A page of a listing: its number, from 1, the prefix that was requested, and the key after which the listing
    begins."""

    number: int
    prefix: str
    after: str = ""

    def __str__(self) -> str:
        place = f"prefix {printable_path(self.prefix)}" if self.prefix else "the whole bucket"
        return f"page {self.number} of {place}{f' after {printable_path(self.after)}' if self.after else ''}"


@contextlib.contextmanager
def translate_s3_errors(source: S3Source, key: str | None = None, page: PagePlace | None = None) -> Iterator[None]:
    """Raise errors of boto3 as MeasureError: those of reading the object `key`, or else those of listing a page."""
    try:
        yield
    except BrokenPage as error:
        raise MeasureError(f"{_bucket(source)}: {page} {error}. {_PROXY_FIX}") from None
    except MeasureError:
        raise
    except Exception as error:  # noqa: BLE001 - botocore's errors could not be named without importing it
        raise _translated(error, source, key, page) from None


def error_code(error: Exception) -> str:
    """Return the code of a refusal of S3, such as `NoSuchBucket`, or an empty text."""
    answer = getattr(error, "response", None)
    return str(answer.get("Error", {}).get("Code", "")) if isinstance(answer, Mapping) else ""


def _bucket(source: S3Source) -> str:
    place = hide_user(source.endpoint_url) if source.endpoint_url else "AWS"
    return f"S3 bucket {source.bucket} at {place}"


def _translated(error: Exception, source: S3Source, key: str | None, page: PagePlace | None) -> MeasureError:
    """Return what could not be read, where, why, and the fix. Never contains a secret."""
    subject = _bucket(source)
    if key is not None:
        subject = f"{printable_path(key)} in {subject}"
    # boto3 creates subclasses of ClientError at run time
    names = [kind.__name__ for kind in type(error).__mro__]
    answer = getattr(error, "response", {}) if "ClientError" in names else {}
    if page is not None and (page.number > 1 or "NoS3Answer" in answer):
        subject = f"{subject}: {page}"
    if "ClientError" in names:
        reason = _refusal(answer, source, key)
    elif "NoRegionError" in names:
        reason = "no region. Set `region`"
    elif NO_CREDENTIALS.search(names[0]):
        reason = f"no usable credentials. {CREDENTIALS_FIX}"
    elif UNREACHABLE.search(names[0]):
        reason = f"unreachable ({names[0]}). Check `endpoint_url` and the network"
    else:
        reason = hide_user(str(error))
    return MeasureError(f"{subject}: {reason}")


def _refusal(answer: Mapping[str, Any], source: S3Source, key: str | None) -> str:
    """Return why a store refused to list the bucket, or to return the object `key`."""
    error, metadata = answer.get("Error", {}), answer.get("ResponseMetadata", {})
    code = str(error.get("Code", ""))
    code = _ALIASES.get(code, code)
    message = error.get("Message") or code or f"HTTP {metadata.get('HTTPStatusCode')}"
    payer = "" if source.request_payer or code != "AccessDenied" else f". {_REQUESTER_FIX}"
    if location := metadata.get("HTTPHeaders", {}).get("location"):
        return f"it redirects to {hide_user(location).partition('?')[0]}. Correct `endpoint_url` or `region`"
    if "NoS3Answer" in answer:  # botocore makes a 500 of an answer with status 200 that is not XML
        status = "" if code == "500" else f"{message}, and "
        return f"{status}the answer {answer['NoS3Answer']}. {_PROXY_FIX}"
    if key is not None and (code == "AccessDenied" or code not in _REFUSALS):
        return f"cannot be read: {message}. Check that it exists, and grant s3:GetObject{payer}"
    return _REFUSALS[code] + payer if code in _REFUSALS else f"refused: {message}"
