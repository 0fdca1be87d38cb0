"""The whole configuration file, for its JSON Schema, and the `prices` section."""

from __future__ import annotations

from pydantic import Field

from dims_worker.config.base import Model, Texts
from dims_worker.config.maintenance import MaintenanceWindow
from dims_worker.config.metrics import AnyMetric
from dims_worker.config.notifications import NotifySection
from dims_worker.config.policy import PolicySection
from dims_worker.config.rules import Rule
from dims_worker.config.settings import Settings
from dims_worker.config.sources import AnySource
from dims_worker.config.web import WebSection
from dims_worker.config.workflows import WorkflowsSection

Prices = dict[str, float | dict[str, float]]
"""Prices in USD by name, with at most one level of nesting: `s3_gib_month: 0.023`, `rds_class: {db.t3.micro: 14.6}`."""


class PriceTable(Model):
    """The prices section."""

    prices: Prices = Field(default_factory=dict)


class ConfigFile(Model):
    """A whole configuration file. DIMS uses only its JSON Schema (`dims config schema`)."""

    include: Texts = Field((), description="Other files to read.")
    settings: Settings = Field(Settings(), description="How the workers work.")
    policy: PolicySection = Field(PolicySection(), description="How DIMS judges readings.")
    sources: dict[str, AnySource] = Field({}, description="What DIMS can scan, by name.")
    metrics: dict[str, dict[str, AnyMetric]] = Field({}, description="What DIMS measures, by category and name.")
    rules: dict[str, Rule] = Field({}, description="Which events concern which metrics, by name.")
    watch: Texts = Field((), description="The `files` sources whose folders `dims watch` watches.")
    prices: Prices = Field({}, description="Prices in USD, by name.")
    workflows: WorkflowsSection = Field(WorkflowsSection(), description="What each workflow reads and writes.")
    notify: NotifySection = Field(NotifySection(), description="Who is notified, and of what.")
    maintenance: dict[str, MaintenanceWindow] = Field({}, description="When DIMS sends no messages, by name.")
    web: WebSection = Field(WebSection(), description="Who may use the dashboard and the HTTP API.")
