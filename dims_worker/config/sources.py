"""What can be scanned: each kind of source and how it is reached."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated, Literal

from pydantic import Field, SecretStr

from dims_worker.config.base import Model, Texts
from dims_worker.config.units import Duration


class Source(Model):
    """What can be scanned, in one pass for all its metrics."""

    type: str
    description: str = ""
    timeout: Duration = Field(timedelta(minutes=5), gt=timedelta(0), description="A scan that takes longer is stopped.")
    cooldown: Duration = Field(timedelta(0), description="Not scanned more often than this.")
    queue: str | None = Field(None, description="The Celery queue whose workers can see this source.")

    @property
    def definition(self) -> str:
        """What of it says what is measured; not how long, how often, by whom or at which price."""
        aside = {"description", "timeout", "cooldown", "queue", "shards", "list_price"}
        return self.model_dump_json(exclude=aside, exclude_defaults=True)


class S3Source(Source):
    """A bucket, or anything that speaks S3."""

    type: Literal["s3"]
    bucket: str = Field(min_length=1)
    endpoint_url: str | None = None
    region: str | None = None
    shards: Texts = Field((), description="Prefixes that are listed side by side; at most one LIST more for each.")
    list_price: float = Field(0.005, ge=0, description="USD for 1,000 LIST calls.")


class FilesSource(Source):
    """A tree of files on the worker's machine."""

    type: Literal["files"]
    path: str = Field(min_length=1, description="Relative to the project's folder; `~` is the home folder.")
    ignore: Literal["gitignore"] | None = Field(None, description="Leave out what git ignores.")
    exclude: Texts = Field((), description="Patterns of paths that are left out, such as `data/**`.")


class GitSource(Source):
    """A git repository on the worker's machine."""

    type: Literal["git"]
    path: str = Field(min_length=1, description="Relative to the project's folder.")


class SqlSource(Source):
    """A database, by any URL that SQLAlchemy knows. All queries of a pass see one snapshot."""

    type: Literal["sql"]
    url: SecretStr = Field(description="From the environment: `${NBA_DATABASE_URL:-}`. Empty: not reachable.")

    @property
    def definition(self) -> str:
        """Not the URL: it comes from the environment, and a shell without it must not define the metric anew."""
        return self.type


class AwsSource(Source):
    """An AWS account: RDS, CloudWatch, Cost Explorer."""

    type: Literal["aws"]
    region: str | None = None
    endpoint_url: str | None = None


class CommandSource(Source):
    """Programs of the worker's machine."""

    type: Literal["command"]
    cwd: str = Field(".", description="Relative to the project's folder.")


AnySource = Annotated[
    S3Source | FilesSource | GitSource | SqlSource | AwsSource | CommandSource, Field(discriminator="type")
]
SOURCES: dict[str, type[Source]] = {
    **{"s3": S3Source, "files": FilesSource, "git": GitSource},
    **{"sql": SqlSource, "aws": AwsSource, "command": CommandSource},
}
