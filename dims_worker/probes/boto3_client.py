"""A boto3 client with a deadline, and what the errors of boto3 mean. Loads boto3 only when a client is created."""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import urlsplit

from dims_worker.config import AwsSource, S3Source
from dims_worker.errors import MeasureError
from dims_worker.probes.base import Deadline

_CONNECT = 5.0
_READ = 30.0
"""Seconds without a byte after which a call is retried."""

CREDENTIALS_FIX = "Set AWS_PROFILE, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or use an instance role"
NO_CREDENTIALS = re.compile(r"Credential|Token|SSO|ProfileNotFound|Unauthorized|LoginRefresh")
UNREACHABLE = re.compile(r"Connect|Timeout|HTTPClient|SSL|Proxy|ResponseStreaming")
"""Names of botocore's exceptions, which cannot be caught by class without importing it."""

_AWS = re.compile(r"(^|\.)amazonaws\.com(\.cn)?$")
_USER = re.compile(r"//[^/@\s]*@")


def create_client(source: AwsSource | S3Source, deadline: Deadline, service: str) -> Any:
    """Create a boto3 client that starts no call after the deadline. Raises MeasureError without boto3."""
    try:
        import boto3
        from botocore.config import Config
    except ImportError:
        raise MeasureError("boto3 is not installed. Run: pip install 'dims-worker[s3]'") from None
    client = boto3.session.Session().client(
        service,
        endpoint_url=source.endpoint_url,
        region_name=source.region,
        config=Config(
            connect_timeout=min(_CONNECT, deadline.left),
            read_timeout=min(_READ, deadline.left),
            retries={"mode": "standard", "max_attempts": 4},
            s3={"disable_s3_express_session_auth": True} if _is_not_aws(source.endpoint_url) else None,
        ),
    )
    # Checked before every attempt, so that retries end with the deadline too
    event = f"before-send.{client.meta.service_model.service_id.hyphenize()}"
    client.meta.events.register(event, lambda **_: deadline.check())
    return client


def _is_not_aws(url: str | None) -> bool:
    """Return whether a URL is that of a service other than AWS, which has no sessions for directory buckets."""
    return url is not None and not _AWS.search(urlsplit(url).hostname or "")


def hide_user(text: str) -> str:
    """Remove the user and password from the URLs in a text."""
    return _USER.sub("//", text)
