"""The tables of keys name every key of the configuration with its default, and no other key."""

from __future__ import annotations

import re
from typing import Annotated, Any, get_args

import pytest
import yaml
from pydantic import BaseModel, SecretStr, TypeAdapter

from dims_worker.broker.queues import VERIFY
from dims_worker.config import (
    file,
    maintenance,
    metrics,
    notifications,
    policy,
    rules,
    settings,
    sources,
    web,
    workflows,
)
from tests.docs.pages import SPAN, TEXTS, generate, generated, rows, sections, spans

REFERENCE = ("docs/configuration.md", "docs/metrics.md")
TABLES = {part: body for page in REFERENCE for part, body in generated(TEXTS[page]).items()}


def own(model: type[BaseModel], *without: type[BaseModel]) -> set[str]:
    return set(model.model_fields).difference(*(other.model_fields for other in without))


KEYS: dict[type[BaseModel], set[str]] = {
    file.ConfigFile: own(file.ConfigFile),
    settings.Settings: own(settings.Settings),
    rules.Rule: own(rules.Rule),
    policy.PolicySection: own(policy.PolicySection),
    policy.Thresholds: own(policy.Thresholds),
    sources.Source: own(sources.Source),
    **{model: own(model, sources.Source) for model in sources.SOURCES.values()},
    metrics.Metric: own(metrics.Metric, policy.Policy),
    metrics.SourceMetric: own(metrics.SourceMetric, metrics.Metric),
    **{model: own(model, metrics.SourceMetric) for model in metrics.METRICS.values()},
    metrics.ExpectedQuery: own(metrics.ExpectedQuery),
    metrics.ExpectedObjects: own(metrics.ExpectedObjects),
    metrics.Pair: own(metrics.Pair),
    metrics.DerivedMetric: own(metrics.DerivedMetric, metrics.Metric),
    notifications.Channel: own(notifications.Channel),
    notifications.NotifySection: own(notifications.NotifySection),
    maintenance.MaintenanceWindow: own(maintenance.MaintenanceWindow),
    web.WebSection: own(web.WebSection),
    web.ProxySignIn: own(web.ProxySignIn),
    workflows.WorkflowsSection: own(workflows.WorkflowsSection),
    workflows.WorkflowConfig: own(workflows.WorkflowConfig),
    workflows.FileInventoryConfig: own(workflows.FileInventoryConfig, workflows.WorkflowConfig),
    workflows.LocalInventoryConfig: own(workflows.LocalInventoryConfig, workflows.WorkflowConfig),
    workflows.LocalFolder: own(workflows.LocalFolder),
    workflows.GapAnalysisConfig: own(workflows.GapAnalysisConfig, workflows.WorkflowConfig),
    workflows.Feed: own(workflows.Feed),
    workflows.AwsInventoryConfig: own(workflows.AwsInventoryConfig, workflows.WorkflowConfig),
    workflows.SyncStatusConfig: own(workflows.SyncStatusConfig, workflows.WorkflowConfig),
    workflows.AuditConfig: {"timeout"},  # its default differs from the one of every workflow
}
IN_OTHER_TABLES = {policy.Policy, file.PriceTable}
"""Their keys are those of `PolicySection`, or have a section of prose."""
MEASURES: dict[str, type[metrics.SourceMetric]] = {
    "Of files": metrics.FilesMetric,
    "Of objects": metrics.S3Metric,
    "Of commits": metrics.GitMetric,
    "Of databases": metrics.SqlMetric,
    "Of an account": metrics.AwsMetric,
    "Of programs": metrics.CommandMetric,
}
each_model = pytest.mark.parametrize("model", KEYS, ids=[model.__name__ for model in KEYS])


def table(model: type[BaseModel]) -> list[list[str]]:
    return rows(TABLES[f"keys of {model.__name__}"], "key")


def test_every_model_of_the_configuration_has_a_table() -> None:
    assert set(KEYS) | IN_OTHER_TABLES == set(generate.models().values())
    assert {f"keys of {model.__name__}" for model in KEYS} == set(TABLES)


@each_model
def test_each_table_names_every_key_and_no_other(model: type[BaseModel]) -> None:
    assert sorted(key for row in table(model) for key in SPAN.findall(row[0])) == sorted(KEYS[model])


@each_model
def test_each_key_has_a_type_and_a_meaning(model: type[BaseModel]) -> None:
    for _, kind, default, meaning in table(model):
        assert kind and default and meaning.endswith(".")


@each_model
def test_the_defaults_in_a_table_are_the_defaults(model: type[BaseModel]) -> None:
    for key, _, shown, _ in table(model):
        field = model.model_fields[key.strip("`")]
        default = field.get_default(call_default_factory=True)
        if re.fullmatch(r"`[^`]+`", shown):
            kind: Any = Annotated[field.annotation, *field.metadata] if field.metadata else field.annotation
            assert TypeAdapter(kind).validate_python(yaml.safe_load(shown.strip("`"))) == default
        elif shown == "required":
            assert field.is_required()
        elif shown == "none":
            assert isinstance(default, BaseModel) or default in (None, "", (), {}, ("",), SecretStr(""))
        else:
            assert shown == f"<code>{str(default).replace('|', '&#124;')}</code>"  # a `|` would end the cell


@pytest.mark.parametrize("title", MEASURES)
def test_each_kind_names_every_measure_with_its_unit(title: str) -> None:
    model = MEASURES[title]
    section = sections(TEXTS["docs/metrics.md"], 3)[title]
    named = {measure: row[1].strip("`") for row in rows(section, "measure") for measure in SPAN.findall(row[0])}
    measures = get_args(model.model_fields["measure"].annotation)
    assert named == {measure: model.default_units.get(measure, "") for measure in measures}


def test_the_default_queue_is_the_one_of_the_workers() -> None:
    assert VERIFY in spans(sections(TEXTS["docs/configuration.md"], 3)["Every source"])
