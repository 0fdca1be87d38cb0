"""The metrics that each type of source offers, and their keys."""

from __future__ import annotations

import re
from datetime import date, timedelta
from typing import Annotated, ClassVar, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from dims_worker.config.base import KEY_ID, Model, Patterns, Regex, Texts, TimeZone
from dims_worker.config.formula import parse_formula
from dims_worker.config.policy import Thresholds
from dims_worker.config.units import AGES, BYTES, Duration, Size


class Metric(Model):
    """The keys of every metric."""

    default_units: ClassVar[dict[str, str]] = {}

    description: str = Field("", description="A note for people.")
    unit: str | None = Field(None, description="The unit to show. Sizes and ages are converted to it.")
    precision: int | None = Field(None, ge=0, le=12, description="Decimals to show. Stored values are never rounded.")
    enabled: bool = Field(True, description="`false`: measured only if you give its full name.")
    absent: Literal[0] | None = Field(None, description="The value if the folder, file or prefix is missing.")

    # Policy keys. A key that is set here overrides the category's policy and the general policy.
    volatility: Literal["volatile", "stable"] | None = None
    critical: bool | None = None
    thresholds: Thresholds | None = None
    require_approval_pct: float | None = Field(None, gt=0)
    tolerance_pct: float | None = Field(None, ge=0)
    direction: Literal["up", "down", "both"] | None = None
    min_abs: float | None = Field(None, ge=0)
    approvers: Patterns | None = None
    expire_after: Duration | None = Field(None, gt=timedelta(0))
    stale_after: Duration | None = None
    min: float | None = None
    max: float | None = None
    max_age: Duration | None = None
    expect: Literal["history", "drift"] | None = None
    close_after: Duration | None = Field(None, gt=timedelta(0))
    owner: str | None = Field(None, min_length=1)

    @property
    def has_absent(self) -> bool:
        """Whether `absent:` is set. Its value may be null."""
        return "absent" in self.model_fields_set

    @property
    def is_age(self) -> bool:
        return False

    @property
    def shown_unit(self) -> str:
        return self.unit or ""


class SourceMetric(Metric):
    """A metric that DIMS measures on one source."""

    source: str = Field(description="The name of a source.")
    measure: str = Field(description="What to measure of it.")

    @property
    def sources(self) -> frozenset[str]:
        """The sources that a measurement reads: its own, and any other that it compares with."""
        return frozenset({self.source})

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
        if self.is_age and self.absent == 0 and self.has_absent:
            raise ValueError("an age cannot have absent: 0; write absent: null")
        for family, default in ((BYTES, "bytes"), (AGES, "hours")):
            if self.default_units.get(self.measure) == default and self.unit not in (None, *family):
                raise ValueError(f"unit of {self.measure} must be one of {', '.join(family)}")
        return self


class FilesMetric(SourceMetric):
    """A metric over the files whose paths match.

    Patterns match the path relative to the source's folder. `*` stays within a name, and `**/` matches any number
    of folders, including none: `docs/**/*.md`, `**/test_*.py`.
    """

    default_units: ClassVar[dict[str, str]] = {
        "count": "files",
        "lines": "lines",
        "bytes": "bytes",
        "entries": "entries",
        "newest_age": "hours",
        "oldest_age": "hours",
    }
    measure: Literal["count", "lines", "bytes", "entries", "newest_age", "oldest_age"]
    paths: Patterns = Field(("**",), min_length=1, description="Path patterns of the files to count.")
    exclude: Patterns = Field((), description="Path patterns of files that do not count.")
    entry: Regex = Field("^- ", description="For `entries`: finds a line that begins an entry.")


class Pair(Model):
    """A local folder and the prefix of the bucket that should hold the same data."""

    folder: str = Field(description="A folder below `local`.")
    prefix: str = Field(description="The prefix of the same data in the bucket.")


class ExpectedQuery(Model):
    """The expected ids are in the first column of a query."""

    source: str = Field(description="A source of type `sql`.")
    query: str = Field(description="A query whose first column holds the ids.")


class ExpectedObjects(Model):
    """The expected ids are in JSON objects of the same bucket, such as schedule files."""

    prefix: str = Field(min_length=1, description="DIMS reads the `.json` objects below it.")
    pointer: str = Field(description="The path to the ids, such as `games.*.id`. `*` is every item of a list.")


class S3Metric(SourceMetric):
    """A metric over the objects of a bucket."""

    default_units: ClassVar[dict[str, str]] = {
        "count": "objects",
        "bytes": "bytes",
        "mean_size": "bytes",
        "newest_age": "hours",
        "oldest_age": "hours",
        "missing_days": "days",
        "completeness": "%",
    }
    measure: Literal[
        "count", "bytes", "mean_size", "newest_age", "oldest_age", "missing_days", "completeness", "sync_status"
    ]
    prefix: Texts = Field(("",), description="How keys begin.")
    match: Patterns = Field(
        (), description="Patterns of the last part of the key. With a `/`: of the key after the prefix."
    )
    suffix: Texts = Field((), description="How keys end.")
    smaller_than: Size | None = Field(None, description="Only objects smaller than this.")
    storage_class: Texts = Field((), description="Only objects of these classes, such as `GLACIER`.")
    names: int = Field(20, ge=0, description="How many names of missing, unreadable or different items DIMS keeps.")
    date: Regex = Field(r"(?<!\d)(\d{8})(?!\d)", description="For `missing_days`: group 1 is the day.")
    id: Regex = Field(KEY_ID, description="For `completeness`: the first group that matches is the id.")
    min_size: Size = Field(1, description="For `completeness`: a smaller object has no content.")
    expected: ExpectedQuery | ExpectedObjects | None = Field(None, description="For `completeness`: the expected ids.")
    local: str | None = Field(None, description="For `sync_status`: the local folder.")
    pairs: tuple[Pair, ...] = Field((), description="For `sync_status`: which folder should equal which prefix.")
    checksum: bool = Field(True, description="For `sync_status`: compare MD5 with the ETag if the ETag is an MD5.")

    @property
    def sources(self) -> frozenset[str]:
        expected = self.expected
        return super().sources | ({expected.source} if isinstance(expected, ExpectedQuery) else set())

    @model_validator(mode="after")
    def _has_required_keys(self) -> Self:
        if self.measure == "completeness" and self.expected is None:
            raise ValueError("completeness needs `expected`: `source` and `query`, or `prefix` and `pointer`")
        if self.measure == "sync_status" and (self.local is None or not self.pairs):
            raise ValueError("sync_status needs `local` and `pairs`")
        if self.measure == "sync_status" and (self.smaller_than is not None or self.storage_class):
            raise ValueError("sync_status compares all objects; remove smaller_than and storage_class")
        if re.compile(self.date).groups < 1 or re.compile(self.id).groups < 1:
            raise ValueError(r"date and id need a group in parentheses, such as (\d+)")
        return self

    @property
    def listed(self) -> tuple[str, ...]:
        """The prefixes that a worker lists to measure the metric."""
        if self.measure == "sync_status":
            return tuple(pair.prefix for pair in self.pairs)
        if isinstance(self.expected, ExpectedObjects):
            return (*self.prefix, self.expected.prefix)
        return self.prefix


class GitMetric(SourceMetric):
    """A metric over the commits that HEAD, a branch or all branches reach, or over the tracked files."""

    default_units: ClassVar[dict[str, str]] = {
        "commits": "commits",
        "tracked_files": "files",
        "branches": "branches",
        "size": "bytes",
        "newest_age": "hours",
    }
    measure: Literal["commits", "tracked_files", "branches", "size", "newest_age"]
    branch: str | None = Field(None, pattern=r"^[^-\s]\S*$", description="Commits of this branch. Without it: HEAD.")
    all_branches: bool = Field(False, description="Commits of every local branch.")
    since: date | None = Field(None, description="Commits of this day (UTC) and later.")
    until: date | None = Field(None, description="Commits before this day (UTC).")
    message: Regex | None = Field(None, description="Commits whose subject line matches.")
    author: Regex | None = Field(None, description="Commits whose author matches: `Name <mail>`, after `.mailmap`.")
    ignore_case: bool = Field(False, description="Ignore case in `message` and `author`.")
    paths: Patterns = Field(("**",), min_length=1, description="Path patterns of tracked or changed files.")

    @model_validator(mode="after")
    def _branch_or_all_branches(self) -> Self:
        if self.branch and self.all_branches:
            raise ValueError("set branch or all_branches, not both")
        return self


class SqlMetric(SourceMetric):
    """The value in the only row of a query. A pass runs equal queries once."""

    default_units: ClassVar[dict[str, str]] = {"age": "hours"}
    measure: Literal["value", "age"] = Field("value", description="`age`: the column is a time.")
    query: str = Field(min_length=1, description="One statement that reads.")
    column: str | None = Field(None, description="The column to take, if the query returns several.")
    rows: str | None = Field(None, description="A query whose first column names what the value counts.")
    names: int = Field(20, ge=0, description="How many of `rows` DIMS keeps with the reading.")
    tables: Texts = Field(
        (), description="The tables that the query reads, as a note for people. DIMS finds them itself."
    )
    timezone: TimeZone = Field("UTC", description="For `age`: the time zone of a time that is stored without one.")


class AwsMetric(SourceMetric):
    """A figure of an AWS account."""

    default_units: ClassVar[dict[str, str]] = {"rds_storage": "GiB", "bucket_bytes": "bytes", "cost": "USD"}
    measure: Literal["rds_storage", "rds_class", "bucket_bytes", "cost"]
    instance: str | None = Field(None, description="For `rds_storage` and `rds_class`: the instance.")
    bucket: str | None = Field(None, description="For `bucket_bytes`: the bucket.")
    storage_type: Texts = Field(
        ("StandardStorage",), min_length=1, description="For `bucket_bytes`: CloudWatch's storage types to add up."
    )
    days: int = Field(30, ge=1, le=365, description="For `cost`: how many days before today (UTC).")
    part: Literal["paid", "usage", "credits"] = Field(
        "paid", description="For `cost`: what is paid, the usage without credits and refunds, or only these."
    )

    @model_validator(mode="after")
    def _has_required_keys(self) -> Self:
        if self.measure.startswith("rds") and not self.instance:
            raise ValueError(f"{self.measure} needs `instance`")
        if self.measure == "bucket_bytes" and not self.bucket:
            raise ValueError("bucket_bytes needs `bucket`")
        if self.measure == "rds_storage" and self.unit not in (None, *BYTES):
            raise ValueError(f"unit of rds_storage must be one of {', '.join(BYTES)}")
        return self


class CommandMetric(SourceMetric):
    """The output of a program. No shell reads the command unless `shell: true` is set."""

    measure: Literal["output"] = Field("output", description="What the program prints.")
    command: tuple[str, ...] | str = Field(description="A list of words. With `shell: true`: one text for `/bin/sh`.")
    shell: bool = Field(False, description="Let a shell read the command.")
    parse: Literal["integer", "number", "text", "json"] = Field("integer", description="How to read the output.")
    pointer: str | None = Field(None, description="For `json`: the path to the value, such as `totals.0.files`.")

    @model_validator(mode="after")
    def _command_fits(self) -> Self:
        if isinstance(self.command, str) != self.shell:
            raise ValueError("command must be a list of words; with `shell: true` it must be one string")
        if not self.command or (self.parse == "json") != (self.pointer is not None):
            raise ValueError("command must not be empty; set `pointer` if, and only if, `parse: json` is set")
        return self


def _check_formula(value: str) -> str:
    parse_formula(value)
    return value


class DerivedMetric(Metric):
    """A formula over other metrics, such as `code.python_lines + code.sql_lines`."""

    derive: Annotated[str, AfterValidator(_check_formula)] = Field(description="The formula.")

    @model_validator(mode="after")
    def _no_age(self) -> Self:
        if self.max_age is not None:
            raise ValueError("max_age is for ages (newest_age, oldest_age, age); use max here")
        return self

    @property
    def inputs(self) -> frozenset[str]:
        return parse_formula(self.derive).inputs


METRICS: dict[str, type[SourceMetric]] = {
    "s3": S3Metric,
    "files": FilesMetric,
    "git": GitMetric,
    "sql": SqlMetric,
    "aws": AwsMetric,
    "command": CommandMetric,
}
AnyMetric = S3Metric | FilesMetric | GitMetric | SqlMetric | AwsMetric | CommandMetric | DerivedMetric
