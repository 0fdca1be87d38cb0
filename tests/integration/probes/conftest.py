"""A moto server in this process. Buckets are filled without HTTP, and LIST calls are recorded."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs

import pytest
from moto.s3.models import s3_backends
from moto.server import ThreadedMotoServer

ACCOUNT = "123456789012"


@dataclass
class Store:
    """The address of the server and the LIST calls it received, each as its query."""

    url: str
    lists: list[dict[str, list[str]]] = field(default_factory=list)

    def fill(self, bucket: str, objects: Mapping[str, bytes]) -> Any:
        """Create a bucket with these objects and return the bucket of moto."""
        backend = s3_backends[ACCOUNT]["aws"]
        made = backend.create_bucket(bucket, "us-east-1")
        for key, content in objects.items():
            backend.put_object(bucket, key, content)
        return made


@pytest.fixture(scope="session")
def server() -> Iterator[Store]:
    moto = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    moto.start()
    store = Store("http://{}:{}".format(*moto.get_host_and_port()))
    http: Any = moto._server
    app = http.app

    def counting(environ: dict[str, Any], start: Callable[..., Any]) -> Any:
        query = parse_qs(environ["QUERY_STRING"])
        if "list-type" in query:
            store.lists.append(query)
        return app(environ, start)

    http.app = counting
    yield store
    moto.stop()
    http.server_close()


@pytest.fixture
def store(server: Store, monkeypatch: pytest.MonkeyPatch) -> Store:
    for name in ("AWS_PROFILE", "AWS_SESSION_TOKEN", "AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "a-secret")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.setenv("AWS_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/dev/null")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    s3_backends[ACCOUNT]["aws"].buckets.clear()
    s3_backends.bucket_accounts.clear()
    server.lists.clear()
    return server
