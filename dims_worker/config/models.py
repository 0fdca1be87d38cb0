"""What a configuration may say, as pydantic models: sources, metrics by kind, rules, policy, settings."""

from __future__ import annotations

import re
from datetime import date, timedelta
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema, model_validator

from dims_worker.config.expression import expression
from dims_worker.config.quantities import AGES, BYTES, Duration, Size


class Model(BaseModel):
    """Frozen, and an unknown key is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=False, allow_inf_nan=False)


def _listed(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


def _regex(value: str) -> str:
    try:
        re.compile(value)
    except re.error as error:
        raise ValueError(f"is not a regular expression: {error}") from None
    return value


Texts = Annotated[
    tuple[str, ...],
    BeforeValidator(_listed),
    WithJsonSchema({"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}]}),
]
"""One text or a list of texts."""
Regex = Annotated[str, AfterValidator(_regex)]


# --- policy -----------------------------------------------------------------------------------------


class Thresholds(Model):
    """From which drift, in percent, a reading is moderate, major, extreme (DESIGN section 7)."""

    moderate: float = Field(5, gt=0)
    major: float = Field(15, gt=0)
    extreme: float = Field(25, gt=0)

    @model_validator(mode="after")
    def _rising(self) -> Self:
        if not self.moderate <= self.major <= self.extreme:
            raise ValueError("must rise: moderate <= major <= extreme")
        return self


class Policy(Model):
    """How a reading is judged. A metric's own keys stand before the `policy` section's."""

    thresholds: Thresholds = Thresholds()
    require_approval_pct: float = Field(15, gt=0, description="Critical drift that waits for a person, in %.")
    tolerance_pct: float = Field(2, ge=0, description="A request's band: % of the value first proposed.")
    direction: Literal["up", "down", "both"] = "both"
    min_abs: float = Field(0, ge=0, description="Changes smaller than this, in the metric's unit, are noise.")
    stale_after: Duration | None = Field(timedelta(days=7), description="Unmeasured for longer is stale.")


class Limits(Model):
    """Absolute limits beside drift; `max_age` is for ages alone."""

    min: float | None = None
    max: float | None = None
    max_age: Duration | None = None


# --- sources ----------------------------------------------------------------------------------------


class Source(Model):
    """What can be scanned, in one pass for all its metrics."""

    type: str
    description: str = ""
    timeout: Duration = Field(timedelta(minutes=5), gt=timedelta(0), description="A scan that takes longer is stopped.")
    cooldown: Duration = Field(timedelta(0), description="Not scanned more often than this.")
    queue: str | None = Field(None, description="The Celery queue whose workers can see this source.")


class S3Source(Source):
    """A bucket, or anything that speaks S3."""

    type: Literal["s3"]
    bucket: str = Field(min_length=1)
    endpoint_url: str | None = None
    region: str | None = None


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


AnySource = Annotated[S3Source | FilesSource | GitSource, Field(discriminator="type")]
SOURCES: dict[str, type[Source]] = {"s3": S3Source, "files": FilesSource, "git": GitSource}


# --- metrics ----------------------------------------------------------------------------------------


class Metric(Model):
    """What every metric may say, whatever it measures."""

    default_units: ClassVar[dict[str, str]] = {}

    description: str = ""
    unit: str | None = Field(None, description="GB is 10^9 bytes, GiB 2^30; ages: hours, days.")
    precision: int | None = Field(None, ge=0, le=12, description="Decimals shown; what is kept is unrounded.")
    volatility: Literal["volatile", "stable"] = "volatile"
    critical: bool = False
    enabled: bool = True
    absent: Literal[0] | None = Field(None, description="What a missing folder, file or prefix means here.")

    # Policy, where this metric differs from the `policy` section
    thresholds: Thresholds | None = None
    require_approval_pct: float | None = Field(None, gt=0)
    tolerance_pct: float | None = Field(None, ge=0)
    direction: Literal["up", "down", "both"] | None = None
    min_abs: float | None = Field(None, ge=0)
    stale_after: Duration | None = None
    min: float | None = None
    max: float | None = None
    max_age: Duration | None = None

    @property
    def limits(self) -> Limits:
        return Limits(min=self.min, max=self.max, max_age=self.max_age)

    @property
    def says_absent(self) -> bool:
        """Whether `absent:` is written; its value may be null."""
        return "absent" in self.model_fields_set

    @property
    def is_age(self) -> bool:
        return False

    @property
    def shown_unit(self) -> str:
        return self.unit or ""


class SourceMetric(Metric):
    """An aggregate over one source."""

    source: str
    measure: str

    @property
    def is_age(self) -> bool:
        return self.measure in ("newest_age", "oldest_age")

    @property
    def shown_unit(self) -> str:
        return self.unit or self.default_units.get(self.measure, "")

    @model_validator(mode="after")
    def _unit_fits(self) -> Self:
        if self.max_age is not None and not self.is_age:
            raise ValueError("max_age is for ages (newest_age, oldest_age); use max here")
        if self.is_age and self.absent == 0 and self.says_absent:
            raise ValueError("absent: 0 is no instant; an age can be absent: null")
        for family, default in ((BYTES, "bytes"), (AGES, "hours")):
            if self.default_units.get(self.measure) == default and self.unit not in (None, *family):
                raise ValueError(f"unit of {self.measure} must be one of {', '.join(family)}")
        return self


class FilesMetric(SourceMetric):
    """Over the files of a tree whose paths match. Patterns are of the path from the source's folder:
    `*` within a name, `**/` any folders (also none); `docs/**/*.md`, `**/test_*.py`."""

    default_units: ClassVar[dict[str, str]] = {
        **{"count": "files", "lines": "lines", "bytes": "bytes"},
        **{"newest_age": "hours", "oldest_age": "hours"},
    }
    measure: Literal["count", "lines", "bytes", "newest_age", "oldest_age"]
    paths: Texts = Field(("**",), min_length=1)
    exclude: Texts = ()


class S3Metric(SourceMetric):
    """Over the objects of a bucket. `match` without a `/` is of the key's last part, else of the key after
    the prefix."""

    default_units: ClassVar[dict[str, str]] = {
        **{"count": "objects", "bytes": "bytes", "mean_size": "bytes"},
        **{"newest_age": "hours", "oldest_age": "hours"},
    }
    measure: Literal["count", "bytes", "mean_size", "newest_age", "oldest_age"]
    prefix: Texts = ("",)
    match: Texts = ()
    suffix: Texts = ()
    smaller_than: Size | None = None


class GitMetric(SourceMetric):
    """Over the commits that HEAD, a branch or all branches reach, or over the tracked files."""

    default_units: ClassVar[dict[str, str]] = {"commits": "commits", "tracked_files": "files"}
    measure: Literal["commits", "tracked_files"]
    branch: str | None = Field(None, pattern=r"^[^-\s]\S*$", description="Without one: HEAD.")
    all_branches: bool = False
    since: date | None = Field(None, description="Commits of this day (UTC) and later.")
    until: date | None = Field(None, description="Commits before this day (UTC).")
    message: Regex | None = Field(None, description="A regular expression found in the subject.")
    ignore_case: bool = False
    paths: Texts = Field(("**",), min_length=1, description="Of tracked files.")

    @model_validator(mode="after")
    def _one_place(self) -> Self:
        if self.branch and self.all_branches:
            raise ValueError("say branch or all_branches, not both")
        return self


def _arithmetic(value: str) -> str:
    expression(value)
    return value


class DerivedMetric(Metric):
    """Arithmetic over other metrics, such as `code.python_lines + code.sql_lines`."""

    derive: Annotated[str, AfterValidator(_arithmetic)]

    @model_validator(mode="after")
    def _no_age(self) -> Self:
        if self.max_age is not None:
            raise ValueError("max_age is for ages (newest_age, oldest_age); use max here")
        return self

    @property
    def inputs(self) -> frozenset[str]:
        return expression(self.derive).inputs


METRICS: dict[str, type[SourceMetric]] = {"s3": S3Metric, "files": FilesMetric, "git": GitMetric}
AnyMetric = S3Metric | FilesMetric | GitMetric | DerivedMetric


# --- rules and settings -----------------------------------------------------------------------------


class Rule(Model):
    """Which events may concern which metrics; what one concerns in fact is what it can have changed."""

    description: str = ""
    on: Texts = Field((), description="Event types; `*` stands for anything.")
    metrics: Texts = Field((), description="Patterns of metrics. None: whatever reads what changed.")

    @model_validator(mode="after")
    def _has_trigger(self) -> Self:
        if not self.on:
            raise ValueError("needs `on`: the event types it waits for")
        return self


class Settings(Model):
    """How the workers work."""

    lease: Duration = Field(
        timedelta(seconds=60), gt=timedelta(0), description="A claim not renewed for this long is lost."
    )
    sweep: Duration = Field(
        timedelta(seconds=5), gt=timedelta(0), description="How often what still waits is rung for again."
    )


class ConfigFile(Model):
    """A configuration file as a whole; only its JSON Schema is used (`dims config schema`)."""

    include: Texts = ()
    settings: Settings = Settings()
    policy: Policy = Policy()
    sources: dict[str, AnySource] = {}
    metrics: dict[str, dict[str, AnyMetric]] = {}
    rules: dict[str, Rule] = {}
    watch: Texts = ()
