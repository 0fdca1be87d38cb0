"""The configuration: YAML and the environment in, one frozen `Config` out, or every error at once."""

from dims_worker.config.config import Config
from dims_worker.config.document import Problem
from dims_worker.config.loading import InvalidConfig, find, load, schema
from dims_worker.config.models import (
    DerivedMetric,
    FilesMetric,
    FilesSource,
    GitMetric,
    GitSource,
    Limits,
    Metric,
    Policy,
    Rule,
    S3Metric,
    S3Source,
    Settings,
    Source,
    SourceMetric,
    Thresholds,
)

__all__ = [
    "Config",
    "DerivedMetric",
    "FilesMetric",
    "FilesSource",
    "GitMetric",
    "GitSource",
    "InvalidConfig",
    "Limits",
    "Metric",
    "Policy",
    "Problem",
    "Rule",
    "S3Metric",
    "S3Source",
    "Settings",
    "Source",
    "SourceMetric",
    "Thresholds",
    "find",
    "load",
    "schema",
]
