"""The `sources` section: each type of source and how a worker reaches it."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated, Literal

from pydantic import Field, SecretStr

from dims_worker.config.base import Model, Patterns, Texts
from dims_worker.config.units import Duration


class Source(Model):
    """A thing that DIMS scans, in one pass for all its metrics."""

    type: str = Field(description="The kind of source.")
    description: str = Field("", description="A note for people.")
    timeout: Duration = Field(timedelta(minutes=5), gt=timedelta(0), description="DIMS stops a scan that takes longer.")
    cooldown: Duration = Field(timedelta(0), description="The shortest time between two scans.")
    queue: str | None = Field(None, description="The Celery queue of the workers that can reach this source.")

    @property
    def definition(self) -> str:
        """The keys that decide what is measured, as JSON. Time limits, queues and prices are not among them."""
        ignored = {"description", "timeout", "cooldown", "queue", "shards", "ordered", "request_payer", "list_price"}
        return self.model_dump_json(exclude=ignored, exclude_defaults=True)


class S3Source(Source):
    """A bucket of AWS S3 or of a compatible service."""

    type: Literal["s3"]
    bucket: str = Field(min_length=1, description="The name of the bucket.")
    endpoint_url: str | None = Field(None, description="The URL of a service other than AWS.")
    region: str | None = Field(None, description="The bucket's region. Without it, boto3 decides.")
    shards: Texts = Field((), description="Prefixes to list in parallel. Each costs one more LIST call at most.")
    ordered: bool = Field(True, description="`false`: the store does not list keys in order.")
    request_payer: Literal["requester"] | None = Field(None, description="`requester`: you pay for the requests.")
    list_price: float = Field(0.005, ge=0, description="The price of 1,000 LIST calls, in USD.")


class FilesSource(Source):
    """A tree of files on the worker's machine."""

    type: Literal["files"]
    path: str = Field(min_length=1, description="A folder, relative to the project; `~` is your home folder.")
    ignore: Literal["gitignore"] | None = Field(None, description="`gitignore` leaves out what git ignores.")
    exclude: Patterns = Field((), description="Path patterns to leave out, such as `data/**`.")


class GitSource(Source):
    """A git repository on the worker's machine."""

    type: Literal["git"]
    path: str = Field(min_length=1, description="A folder of the repository, relative to the project.")


class SqlSource(Source):
    """A database that SQLAlchemy can reach. All queries of a pass see one snapshot."""

    type: Literal["sql"]
    url: SecretStr = Field(description="A database URL from the environment. Empty: readings fail.")

    @property
    def definition(self) -> str:
        """The type without the URL: a shell in which its variable is not set must not change the definition."""
        return self.type


class AwsSource(Source):
    """An AWS account: RDS, CloudWatch and Cost Explorer."""

    type: Literal["aws"]
    region: str | None = Field(None, description="The region to read. Without it, boto3 decides.")
    endpoint_url: str | None = Field(None, description="The URL of a service other than AWS.")


class CommandSource(Source):
    """Programs on the worker's machine."""

    type: Literal["command"]
    cwd: str = Field(".", description="The folder that programs run in, relative to the project.")


AnySource = Annotated[
    S3Source | FilesSource | GitSource | SqlSource | AwsSource | CommandSource, Field(discriminator="type")
]
SOURCES: dict[str, type[Source]] = {
    "s3": S3Source,
    "files": FilesSource,
    "git": GitSource,
    "sql": SqlSource,
    "aws": AwsSource,
    "command": CommandSource,
}
