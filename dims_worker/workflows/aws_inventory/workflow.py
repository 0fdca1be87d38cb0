"""aws-inventory: what the bucket and the database instance store, and what they cost."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import Any, TypeVar

from dims_worker.config import WITH_COSTS, AwsInventoryConfig, AwsSource, SqlSource
from dims_worker.probes.aws.account import AwsAccount, DatabaseInstance
from dims_worker.probes.base import Deadline
from dims_worker.workflows.aws_inventory import costs, report
from dims_worker.workflows.aws_inventory.database import read_database
from dims_worker.workflows.aws_inventory.lake import PrefixCollector
from dims_worker.workflows.base import Workflow, WorkflowContext
from dims_worker.workflows.measure_metrics import measure_metrics

DAYS = 30
COUNTING_SHARE = 0.5
"""The most of the time left that counting rows may take."""

Document = dict[str, Any]
T = TypeVar("T")


def run(context: WorkflowContext) -> Document:
    """Return `bucket`, `lake`, `instance`, `database`, `cost`, `paid` (None: not requested, left out or not
    reached) and `left_out`: the parts that were not measured, and why."""
    declared = context.config.workflows.aws_inventory
    assert declared is not None
    left_out: list[dict[str, str]] = []
    lake, instance = _lake(context, declared), _instance(context, declared, left_out)
    parts: Document = {
        "bucket": getattr(context.config.sources[declared.lake], "bucket", declared.lake),
        "lake": lake,
        "instance": _to_json(instance) if instance else None,
        "database": _database(context, declared, left_out),
        "cost": _cost(context, declared, lake, instance),
        "paid": _paid(context, declared, left_out),
        "left_out": left_out,
    }
    measure_metrics(context, declared.metrics)
    return {**parts, "summary": report.summary(parts), "attention": _attention(parts)}


WORKFLOW = Workflow(run, report.markdown)


def _lake(context: WorkflowContext, declared: AwsInventoryConfig) -> Document | None:
    """List the whole bucket, and return its totals by prefix."""
    context.progress(f"listing {declared.lake}")

    def read() -> Document:
        return context.list_bucket(
            declared.lake, [""], lambda: PrefixCollector(declared.depth, declared.newest)
        ).to_json()

    return context.reach(declared.lake, read)


def _instance(
    context: WorkflowContext, declared: AwsInventoryConfig, left_out: list[dict[str, str]]
) -> DatabaseInstance | None:
    name = declared.instance
    if name is None:
        left_out.append({"what": "RDS", "why": "no `instance` is configured"})
        return None
    context.progress(f"reading RDS instance {name}")
    return _query_account(context, declared, lambda account: account.instance(name))


def _query_account(
    context: WorkflowContext, declared: AwsInventoryConfig, read_account: Callable[[AwsAccount], T]
) -> T | None:
    """Return the answer of the account, or None if it was not reached."""
    source = context.config.sources[declared.aws]
    assert isinstance(source, AwsSource)

    def read() -> T:
        with AwsAccount(source, context.deadline, context.now.date()) as account:
            try:
                return read_account(account)
            finally:
                context.api_calls += account.api_calls

    return context.reach(declared.aws, read)


def _to_json(instance: DatabaseInstance) -> Document:
    return {
        "name": instance.name,
        "class": instance.kind,
        "engine": instance.engine,
        "version": instance.engine_version,
        "storage_gib": instance.storage,
        "status": instance.status,
    }


def _database(
    context: WorkflowContext, declared: AwsInventoryConfig, left_out: list[dict[str, str]]
) -> Document | None:
    """Return the sizes of the database and its tables. Without credentials, record that they are left out."""
    part = "sizes of the database and its tables"
    if declared.warehouse is None:
        left_out.append({"what": part, "why": "no `warehouse` is configured"})
        return None
    source = context.config.sources[declared.warehouse]
    assert isinstance(source, SqlSource)
    if not source.url.get_secret_value():
        left_out.append({"what": part, "why": f"the url of {declared.warehouse} is empty: set its credentials"})
        return None
    if not source.url.get_secret_value().startswith("postgres"):
        left_out.append({"what": part, "why": f"{declared.warehouse} is not PostgreSQL"})
        return None
    context.progress(f"reading the sizes of the tables in {declared.warehouse}")
    share = timedelta(seconds=context.deadline.left * COUNTING_SHARE)
    counting = Deadline.after(min(declared.count_timeout, share))
    return context.reach(
        declared.warehouse, lambda: read_database(source, context.scan_context, context.deadline, counting)
    )


def _cost(
    context: WorkflowContext, declared: AwsInventoryConfig, lake: Document | None, instance: DatabaseInstance | None
) -> Document:
    """Estimate the cost of a month from the configured prices."""
    prices, missing, unknown = context.config.prices, [], []
    lines: list[costs.CostLine] = []
    if lake is None:
        missing.append(declared.lake)
    else:
        lines += costs.lake_lines(prices, lake)
    if instance is not None:
        price = instance.price(prices)
        lines += costs.instance_lines(prices, instance.name, instance.kind, price, instance.storage)
        if instance.storage is None:
            unknown.append(f"the storage of {instance.name}")
    elif declared.instance is not None:
        missing.append(declared.aws)
    return costs.estimate(lines, missing, unknown, costs.lake_notes(prices, lake) if lake else ())


def _paid(context: WorkflowContext, declared: AwsInventoryConfig, left_out: list[dict[str, str]]) -> Document | None:
    """Return the actual cost of the days before today, if it was requested."""
    if WITH_COSTS not in context.options:
        left_out.append({"what": f"actual cost of {DAYS} days", "why": "request it with --with-costs"})
        return None
    context.progress("reading Cost Explorer")
    cost = _query_account(context, declared, lambda account: account.cost(DAYS))
    if cost is None:
        return None
    return {
        "days": DAYS,
        "start": cost.start.isoformat(),
        "end": cost.end.isoformat(),
        "currency": cost.currency,
        "total": float(cost.total),
        "usage": float(cost.usage),
        "credits": float(cost.credits),
        "estimated": cost.estimated,
        "estimated_days": list(cost.estimated_days),
        "missing_days": list(cost.missing_days),
        "services": [
            {
                "service": name,
                "amount": float(cost.by_service[name]),
                "usage": float(usage),
                "credits": float(cost.credits_by_service.get(name, 0)),
            }
            for name, usage in cost.usage_by_service.items()
        ],
    }


def _attention(parts: Mapping[str, Any]) -> list[str]:
    names = ", ".join(parts["cost"]["unpriced"])
    return [f"the configuration has no price for {names}"] if names else []
