"""A stand-in for the `aws` command that does `s3 cp` against a local server, and nothing else.

Usage: aws s3 cp [--endpoint-url URL] SOURCE TARGET

It refuses other arguments. It treats paths as the real command does: it makes missing folders, follows links, and puts
a file into a target that is a folder.
"""

from __future__ import annotations

import http.client
import os
import sys
from pathlib import Path
from urllib.parse import quote, urlsplit

S3 = "s3://"
SIGNED = "AWS4-HMAC-SHA256 Credential=test/20260101/us-east-1/s3/aws4_request"
"""A header that a server for tests accepts, because it does not check the signature."""


def main(arguments: list[str]) -> None:
    if arguments[:2] != ["s3", "cp"]:
        sys.exit(f"aws: unknown command {arguments[:2]}")
    rest = arguments[2:]
    endpoint = os.environ.get("AWS_ENDPOINT_URL", "")
    if rest[:1] == ["--endpoint-url"]:
        endpoint, rest = rest[1], rest[2:]
    if len(rest) != 2 or any(each.startswith("-") for each in rest):
        sys.exit(f"aws: expected a source and a target, but found {rest}")
    source, target = rest
    if source.startswith(S3) == target.startswith(S3):
        sys.exit("aws: exactly one of source and target is in S3")
    if source.startswith(S3):
        download(endpoint, source, Path(target))
    else:
        request(endpoint, "PUT", target, Path(source).read_bytes())


def download(endpoint: str, url: str, target: Path) -> None:
    content = request(endpoint, "GET", url)
    if target.is_dir():
        target /= url.rpartition("/")[2]
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(content)


def request(endpoint: str, method: str, url: str, body: bytes | None = None) -> bytes:
    server = http.client.HTTPConnection(urlsplit(endpoint).netloc, timeout=30)
    server.request(method, f"/{quote(url.removeprefix(S3), safe='/')}", body, {"Authorization": SIGNED})
    answer = server.getresponse()
    content = answer.read()
    if answer.status != 200:
        sys.exit(f"aws: {method} {url}: {answer.status} {content[:200]!r}")
    return content


if __name__ == "__main__":
    main(sys.argv[1:])
