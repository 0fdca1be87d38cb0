"""What can be measured of each kind of source."""

from __future__ import annotations

import re
from datetime import date, timedelta
from typing import Annotated, ClassVar, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from dims_worker.config.base import Model, Regex, Texts
from dims_worker.config.formula import parse_formula
from dims_worker.config.policy import Thresholds
from dims_worker.config.units import AGES, BYTES, Duration, Size


class Metric(Model):
    """What every metric may say, whatever it measures."""

    default_units: ClassVar[dict[str, str]] = {}

    description: str = ""
    unit: str | None = Field(None, description="GB is 10^9 bytes, GiB 2^30; ages: hours, days.")
    precision: int | None = Field(None, ge=0, le=12, description="Decimals shown; what is kept is unrounded.")
    enabled: bool = True
    absent: Literal[0] | None = Field(None, description="What a missing folder, file or prefix means here.")

    # Policy, where this metric differs from its category's and the general one
    volatility: Literal["volatile", "stable"] | None = None
    critical: bool | None = None
    thresholds: Thresholds | None = None
    require_approval_pct: float | None = Field(None, gt=0)
    tolerance_pct: float | None = Field(None, ge=0)
    direction: Literal["up", "down", "both"] | None = None
    min_abs: float | None = Field(None, ge=0)
    approvers: Texts | None = None
    expire_after: Duration | None = Field(None, gt=timedelta(0))
    stale_after: Duration | None = None
    min: float | None = None
    max: float | None = None
    max_age: Duration | None = None

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
        return self.measure in ("newest_age", "oldest_age", "age")

    @property
    def shown_unit(self) -> str:
        return self.unit or self.default_units.get(self.measure, "")

    @model_validator(mode="after")
    def _unit_fits(self) -> Self:
        if self.max_age is not None and not self.is_age:
            raise ValueError("max_age is for ages (newest_age, oldest_age, age); use max here")
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
        **{"count": "files", "lines": "lines", "bytes": "bytes", "entries": "entries"},
        **{"newest_age": "hours", "oldest_age": "hours"},
    }
    measure: Literal["count", "lines", "bytes", "entries", "newest_age", "oldest_age"]
    paths: Texts = Field(("**",), min_length=1)
    exclude: Texts = ()
    entry: Regex = Field("^- ", description="Of `entries`: a line that begins an entry of a document.")


class Pair(Model):
    """A folder that a prefix of the bucket should equal."""

    folder: str = Field(description="Below the metric's `local`.")
    prefix: str


class ExpectedQuery(Model):
    """Expected ids out of the first column of a query."""

    source: str
    query: str


class ExpectedObjects(Model):
    """Expected ids out of JSON objects of the same bucket: the schedule files."""

    prefix: str = Field(min_length=1)
    pointer: str = Field(description="The way to the ids; `*` is every item of a list: `games.*.id`.")


class S3Metric(SourceMetric):
    """Over the objects of a bucket. `match` without a `/` is of the key's last part, else of the key after
    the prefix."""

    default_units: ClassVar[dict[str, str]] = {
        **{"count": "objects", "bytes": "bytes", "mean_size": "bytes"},
        **{"newest_age": "hours", "oldest_age": "hours"},
        **{"missing_days": "days", "completeness": "%"},
    }
    measure: Literal[
        "count", "bytes", "mean_size", "newest_age", "oldest_age", "missing_days", "completeness", "sync_status"
    ]
    prefix: Texts = ("",)
    match: Texts = ()
    suffix: Texts = ()
    smaller_than: Size | None = None
    storage_class: Texts = Field((), description="Only objects of these classes, such as GLACIER.")
    names: int = Field(20, ge=0, description="So many names of what is missing or different are kept.")
    # missing_days
    date: Regex = Field(r"(?<!\d)(\d{8})(?!\d)", description="Of missing_days: YYYYMMDD in the key's last part.")
    # completeness
    id: Regex = Field(r"^0*(\d+)", description="Of completeness: the id in the key's last part.")
    min_size: Size = Field(1, description="Of completeness: an object with fewer bytes has no content.")
    expected: ExpectedQuery | ExpectedObjects | None = None
    # sync_status
    local: str | None = Field(None, description="Of sync_status: the local side's folder.")
    pairs: tuple[Pair, ...] = ()
    checksum: bool = Field(True, description="Compare MD5 with the ETag, where the ETag is one.")

    @model_validator(mode="after")
    def _has_its_parts(self) -> Self:
        if self.measure == "completeness" and self.expected is None:
            raise ValueError("completeness needs `expected`: a query, or the schedule's objects")
        if self.measure == "sync_status" and (self.local is None or not self.pairs):
            raise ValueError("sync_status needs `local` and `pairs`")
        if self.measure == "sync_status" and (self.smaller_than is not None or self.storage_class):
            raise ValueError("sync_status compares all objects: without smaller_than and storage_class")
        if re.compile(self.date).groups < 1 or re.compile(self.id).groups < 1:
            raise ValueError("date and id need a group: (…)")
        return self

    @property
    def listed(self) -> tuple[str, ...]:
        """Every prefix that must be listed to measure it."""
        if self.measure == "sync_status":
            return tuple(pair.prefix for pair in self.pairs)
        if isinstance(self.expected, ExpectedObjects):
            return (*self.prefix, self.expected.prefix)
        return self.prefix


class GitMetric(SourceMetric):
    """Over the commits that HEAD, a branch or all branches reach, or over the tracked files."""

    default_units: ClassVar[dict[str, str]] = {
        **{"commits": "commits", "tracked_files": "files", "branches": "branches", "size": "bytes"},
        **{"newest_age": "hours"},
    }
    measure: Literal["commits", "tracked_files", "branches", "size", "newest_age"]
    branch: str | None = Field(None, pattern=r"^[^-\s]\S*$", description="Without one: HEAD.")
    all_branches: bool = False
    since: date | None = Field(None, description="Commits of this day (UTC) and later.")
    until: date | None = Field(None, description="Commits before this day (UTC).")
    message: Regex | None = Field(None, description="A regular expression found in the subject.")
    author: Regex | None = Field(None, description="A regular expression found in `Name <mail>`.")
    ignore_case: bool = Field(False, description="Of message and author.")
    paths: Texts = Field(("**",), min_length=1, description="Tracked files, or what a commit changed.")

    @model_validator(mode="after")
    def _one_place(self) -> Self:
        if self.branch and self.all_branches:
            raise ValueError("say branch or all_branches, not both")
        return self


class SqlMetric(SourceMetric):
    """The value of a query's first row: its only column, or a named one. Equal queries run once a pass."""

    default_units: ClassVar[dict[str, str]] = {"age": "hours"}
    measure: Literal["value", "age"] = Field("value", description="age: the column is a time.")
    query: str = Field(min_length=1)
    column: str | None = None
    rows: str | None = Field(None, description="A query whose first column names what the value counts.")
    names: int = Field(20, ge=0, description="So many of `rows` are kept with the reading.")
    tables: Texts = Field((), description="What it reads, for people.")


class AwsMetric(SourceMetric):
    """A figure of an AWS account."""

    default_units: ClassVar[dict[str, str]] = {"rds_storage": "GiB", "bucket_bytes": "bytes", "cost": "USD"}
    measure: Literal["rds_storage", "rds_class", "bucket_bytes", "cost"]
    instance: str | None = Field(None, description="Of rds_storage and rds_class.")
    bucket: str | None = Field(None, description="Of bucket_bytes.")
    storage_type: Texts = Field(
        ("StandardStorage",), min_length=1, description="Of bucket_bytes: CloudWatch's names, which are summed."
    )
    days: int = Field(30, ge=1, le=365, description="Of cost: the days before today (UTC).")

    @model_validator(mode="after")
    def _has_its_parts(self) -> Self:
        if self.measure.startswith("rds") and not self.instance:
            raise ValueError(f"{self.measure} needs `instance`")
        if self.measure == "bucket_bytes" and not self.bucket:
            raise ValueError("bucket_bytes needs `bucket`")
        if self.measure == "rds_storage" and self.unit not in (None, *BYTES):
            raise ValueError(f"unit of rds_storage must be one of {', '.join(BYTES)}")
        return self


class CommandMetric(SourceMetric):
    """What a program prints. A list of words, and no shell, unless `shell: true` is written."""

    measure: Literal["output"] = "output"
    command: tuple[str, ...] | str
    shell: bool = False
    parse: Literal["integer", "number", "text", "json"] = "integer"
    pointer: str | None = Field(None, description="Of json: the way to the value, such as `totals.0.files`.")

    @model_validator(mode="after")
    def _shell_is_said(self) -> Self:
        if isinstance(self.command, str) != self.shell:
            raise ValueError("command is a list of words; with `shell: true` it is one text")
        if not self.command or (self.parse == "json") != (self.pointer is not None):
            raise ValueError("command must not be empty, and `pointer` goes with `parse: json`")
        return self


def _arithmetic(value: str) -> str:
    parse_formula(value)
    return value


class DerivedMetric(Metric):
    """Arithmetic over other metrics, such as `code.python_lines + code.sql_lines`."""

    derive: Annotated[str, AfterValidator(_arithmetic)]

    @model_validator(mode="after")
    def _no_age(self) -> Self:
        if self.max_age is not None:
            raise ValueError("max_age is for ages (newest_age, oldest_age, age); use max here")
        return self

    @property
    def inputs(self) -> frozenset[str]:
        return parse_formula(self.derive).inputs


METRICS: dict[str, type[SourceMetric]] = {
    **{"s3": S3Metric, "files": FilesMetric, "git": GitMetric},
    **{"sql": SqlMetric, "aws": AwsMetric, "command": CommandMetric},
}
AnyMetric = S3Metric | FilesMetric | GitMetric | SqlMetric | AwsMetric | CommandMetric | DerivedMetric
