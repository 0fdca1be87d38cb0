"""Translate the errors of boto3: what could not be read, where, why, and the fix."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator

from dims_worker.errors import MeasureError
from dims_worker.probes.boto3_client import CREDENTIALS_FIX, NO_CREDENTIALS, UNREACHABLE, hide_user

_REFUSED = re.compile(r"AccessDenied|UnauthorizedOperation|NotAuthorized|OptInRequired")
_UNKNOWN_KEY = re.compile(
    r"InvalidClientTokenId|UnrecognizedClient|InvalidAccessKeyId|AuthFailure|SignatureDoesNotMatch"
)
_INVALID = "security token included in the request is invalid"
_EXPIRED = re.compile(r"ExpiredToken|RequestExpired")
_THROTTLED = re.compile(r"Throttl|LimitExceeded|TooManyRequests")


@contextlib.contextmanager
def translate_aws_errors(subject: str, action: str, place: str) -> Iterator[None]:
    """Raise errors of boto3 as MeasureError. `subject` is what was requested (`RDS instance nba-sim-db`), with the
    IAM `action` `rds:DescribeDBInstances`, at a `place` (an endpoint, or AWS)."""
    try:
        yield
    except MeasureError:
        raise
    except Exception as error:  # noqa: BLE001 - botocore's errors could not be named without importing it
        raise MeasureError(_translated(error, subject, action, hide_user(place))) from None


def _translated(error: Exception, subject: str, action: str, place: str) -> str:
    # boto3 creates subclasses of ClientError at run time and names them after the error code
    names = [kind.__name__ for kind in type(error).__mro__]
    if "ClientError" in names:
        return _refusal(getattr(error, "response", {}).get("Error", {}), subject, action, place)
    if "NoRegionError" in names:
        return f"{subject}: no region. Set `region` of the source, or AWS_DEFAULT_REGION"
    if NO_CREDENTIALS.search(names[0]):
        return f"{subject} at {place}: no usable credentials. {CREDENTIALS_FIX}"
    if UNREACHABLE.search(names[0]):
        return f"{subject}: {place} is unreachable ({names[0]}). Check `endpoint_url`, `region` and the network"
    return f"{subject} at {place}: {hide_user(str(error))}"


def _refusal(answer: dict[str, str], subject: str, action: str, place: str) -> str:
    code = str(answer.get("Code", ""))
    message = " ".join(str(answer.get("Message") or code).split())
    if code.startswith("DBInstanceNotFound"):
        return f"{subject} does not exist at {place}. Check `instance` and `region`"
    if _REFUSED.search(code):
        return f"{subject} at {place}: access denied. Grant {action} to these credentials"
    if _UNKNOWN_KEY.search(code) or _INVALID in message:  # AWS emulators use other spellings of the code
        return f"{subject} at {place}: unknown access key or wrong secret key. {CREDENTIALS_FIX}"
    if _EXPIRED.search(code):
        return f"{subject} at {place}: the credentials have expired. Log in again"
    if _THROTTLED.search(code):
        return f"{subject} at {place}: too many calls ({code}). DIMS tries again at the next run"
    return f"{subject} at {place}: refused: {message[:300]}"
