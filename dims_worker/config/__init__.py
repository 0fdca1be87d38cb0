"""Load the configuration: YAML and environment variables in, one frozen `Config` out, or every error at once."""

from dims_worker.config.load import DEFAULT_FILES, InvalidConfig, config_schema, find_config, load_config, project_of
from dims_worker.config.maintenance import MaintenanceWindow
from dims_worker.config.metrics import (
    AwsMetric,
    CommandMetric,
    DerivedMetric,
    ExpectedObjects,
    ExpectedQuery,
    FilesMetric,
    GitMetric,
    Metric,
    Pair,
    S3Metric,
    SourceMetric,
    SqlMetric,
)
from dims_worker.config.notifications import Channel, NotifySection
from dims_worker.config.policy import Policy, PolicySection, Thresholds
from dims_worker.config.rules import Rule
from dims_worker.config.runtime import Config
from dims_worker.config.settings import Settings
from dims_worker.config.sources import (
    AwsSource,
    CommandSource,
    FilesSource,
    GitSource,
    S3Source,
    Source,
    SqlSource,
)
from dims_worker.config.web import ProxySignIn, WebSection
from dims_worker.config.workflows import (
    WITH_COSTS,
    WORKFLOW_NAMES,
    WORKFLOW_OPTIONS,
    AuditConfig,
    AwsInventoryConfig,
    Feed,
    FileInventoryConfig,
    GapAnalysisConfig,
    LocalFolder,
    LocalInventoryConfig,
    SyncStatusConfig,
    WorkflowConfig,
    WorkflowName,
    WorkflowsSection,
)
from dims_worker.config.yaml_document import Problem

__all__ = [
    "DEFAULT_FILES",
    "WITH_COSTS",
    "WORKFLOW_NAMES",
    "WORKFLOW_OPTIONS",
    "AuditConfig",
    "AwsInventoryConfig",
    "AwsMetric",
    "AwsSource",
    "Channel",
    "CommandMetric",
    "CommandSource",
    "Config",
    "DerivedMetric",
    "ExpectedObjects",
    "ExpectedQuery",
    "Feed",
    "FileInventoryConfig",
    "FilesMetric",
    "FilesSource",
    "GapAnalysisConfig",
    "GitMetric",
    "GitSource",
    "InvalidConfig",
    "LocalFolder",
    "LocalInventoryConfig",
    "MaintenanceWindow",
    "Metric",
    "NotifySection",
    "Pair",
    "Policy",
    "PolicySection",
    "Problem",
    "ProxySignIn",
    "Rule",
    "S3Metric",
    "S3Source",
    "Settings",
    "Source",
    "SourceMetric",
    "SqlMetric",
    "SqlSource",
    "SyncStatusConfig",
    "Thresholds",
    "WebSection",
    "WorkflowConfig",
    "WorkflowName",
    "WorkflowsSection",
    "config_schema",
    "find_config",
    "load_config",
    "project_of",
]
