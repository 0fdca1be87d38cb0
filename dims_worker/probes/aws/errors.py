"""What boto3 raises, in plain words: what was asked, what stands in the way, and the remedy."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator

from dims_worker.errors import MeasureError

_CREDENTIALS = "set AWS_PROFILE, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or give the machine a role"
_REFUSED = re.compile(r"AccessDenied|UnauthorizedOperation|NotAuthorized|OptInRequired")
_UNKNOWN_KEY = re.compile(
    r"InvalidClientTokenId|UnrecognizedClient|InvalidAccessKeyId|AuthFailure|SignatureDoesNotMatch"
)
_INVALID = "security token included in the request is invalid"
_EXPIRED = re.compile(r"ExpiredToken|RequestExpired")
_THROTTLED = re.compile(r"Throttl|LimitExceeded|TooManyRequests")
_NO_CREDENTIALS = re.compile(r"Credential|Token|SSO|ProfileNotFound|Unauthorized|LoginRefresh")
_UNREACHABLE = re.compile(r"Connect|Timeout|HTTPClient|SSL|Proxy|ResponseStreaming")
_USER = re.compile(r"//[^/@\s]*@")


@contextlib.contextmanager
def translate_aws_errors(what: str, action: str, place: str) -> Iterator[None]:
    """Errors of boto3 as MeasureError. `what` was asked for (`RDS instance nba-sim-db`), by an IAM `action`
    (`rds:DescribeDBInstances`), at a `place` (an endpoint, or AWS)."""
    try:
        yield
    except MeasureError:
        raise
    except Exception as error:  # noqa: BLE001 - botocore's errors could not be named without importing it
        raise MeasureError(_translated(error, what, action, _USER.sub("//", place))) from None


def _translated(error: Exception, what: str, action: str, place: str) -> str:
    # Errors of an answer are subclasses made at run time, called after their code
    names = [kind.__name__ for kind in type(error).__mro__]
    if "ClientError" in names:
        return _refusal(getattr(error, "response", {}).get("Error", {}), what, action, place)
    if "NoRegionError" in names:
        return f"no region for {what}: set `region` of the source, or AWS_DEFAULT_REGION"
    if _NO_CREDENTIALS.search(names[0]):
        return f"no usable credentials for {what} at {place}: {_CREDENTIALS}"
    if _UNREACHABLE.search(names[0]):
        return f"{place} cannot be reached for {what} ({names[0]}): check `endpoint_url`, `region` and the network"
    return f"{what} cannot be asked for at {place}: {_USER.sub('//', str(error))}"


def _refusal(answer: dict[str, str], what: str, action: str, place: str) -> str:
    code = str(answer.get("Code", ""))
    said = " ".join(str(answer.get("Message") or code).split())
    if code.startswith("DBInstanceNotFound"):
        return f"there is no {what} at {place}; check `instance` and `region`"
    if _REFUSED.search(code):
        return f"{place} does not give {what} to these credentials: they need {action}"
    if _UNKNOWN_KEY.search(code) or _INVALID in said:  # imitations of AWS get the code's form wrong
        return f"{place} does not know the access key, or refuses its secret, for {what}: {_CREDENTIALS}"
    if _EXPIRED.search(code):
        return f"the credentials for {what} have expired: log in again"
    if _THROTTLED.search(code):
        return f"{place} refuses more API calls for now ({code}), asked for {what}"
    return f"{place} refused to give {what}: {said[:300]}"
