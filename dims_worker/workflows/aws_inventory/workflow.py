"""aws-inventory: what the bucket and the database instances hold, and what they cost."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from dims_worker.config import AwsInventoryConfig, AwsSource, SqlSource
from dims_worker.probes.aws.account import AwsAccount, DatabaseInstance
from dims_worker.probes.sql.snapshot import open_snapshot
from dims_worker.workflows.aws_inventory import costs
from dims_worker.workflows.aws_inventory import report as aws_inventory_report
from dims_worker.workflows.aws_inventory.lake import PrefixCollector
from dims_worker.workflows.base import WorkflowContext
from dims_worker.workflows.measure_metrics import measure_metrics

WITH_COSTS = "with-costs"
"""The option that asks Cost Explorer, which charges for each request, for what was paid."""
DAYS = 30
TABLES = (
    "SELECT n.nspname || '.' || c.relname AS name, pg_total_relation_size(c.oid) AS bytes, "
    "greatest(c.reltuples, 0)::bigint AS rows FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace "
    "WHERE c.relkind IN ('r', 'm') AND n.nspname NOT IN ('pg_catalog', 'information_schema') "
    "AND n.nspname NOT LIKE 'pg\\_%' ORDER BY bytes DESC, name"
)
"""Rows are the planner's estimate: counting them would read every table."""
DATABASE = "SELECT current_database() AS name, pg_database_size(current_database()) AS bytes"

Told = dict[str, Any]
T = TypeVar("T")


class AwsInventoryWorkflow:
    """See `dims_worker.workflows.base.Workflow`."""

    def examine(self, bench: WorkflowContext) -> Told:
        """The result: `bucket`, `lake`, `instance`, `database`, `cost`, `paid` (None: not asked for, left out or
        not reached) and `left_out`: what was not to be looked at, and why."""
        declared = bench.config.workflows.aws_inventory
        assert declared is not None
        left_out: list[dict[str, str]] = []
        lake, instance = _lake(bench, declared), _instance(bench, declared, left_out)
        parts: Told = {
            "bucket": getattr(bench.config.sources[declared.lake], "bucket", declared.lake),
            "lake": lake,
            "instance": _told(instance) if instance else None,
            "database": _database(bench, declared, left_out),
            "cost": _cost(bench, declared, lake, instance),
            "paid": _paid(bench, declared, left_out),
            "left_out": left_out,
        }
        measure_metrics(bench, declared.metrics)
        return {**parts, "summary": aws_inventory_report.summary(parts), "attention": _attention(parts)}

    def markdown(self, result: Mapping[str, Any]) -> str:
        return aws_inventory_report.markdown(result)


WORKFLOW = AwsInventoryWorkflow()


def _lake(bench: WorkflowContext, declared: AwsInventoryConfig) -> Told | None:
    """The bucket by prefix, out of one listing of all of it."""
    bench.progress(f"listing {declared.lake}")

    def ask() -> Told:
        return bench.listed(declared.lake, [""], lambda: PrefixCollector(declared.depth, declared.newest)).told()

    return bench.reach(declared.lake, ask)


def _instance(
    bench: WorkflowContext, declared: AwsInventoryConfig, left_out: list[dict[str, str]]
) -> DatabaseInstance | None:
    name = declared.instance
    if name is None:
        left_out.append({"what": "RDS", "why": "no `instance` is configured"})
        return None
    bench.progress(f"asking RDS for {name}")
    return _asked(bench, declared, lambda account: account.instance(name))


def _asked(bench: WorkflowContext, declared: AwsInventoryConfig, question: Callable[[AwsAccount], T]) -> T | None:
    """What the account answers; None, and noted, where it is not reached."""
    source = bench.config.sources[declared.aws]
    assert isinstance(source, AwsSource)

    def ask() -> T:
        with AwsAccount(source, bench.deadline, bench.now.date()) as account:
            try:
                return question(account)
            finally:
                bench.api_calls += account.api_calls

    return bench.reach(declared.aws, ask)


def _told(instance: DatabaseInstance) -> Told:
    return {
        **{"name": instance.name, "class": instance.kind, "engine": instance.engine},
        **{"version": instance.engine_version, "storage_gib": instance.storage, "status": instance.status},
    }


def _database(bench: WorkflowContext, declared: AwsInventoryConfig, left_out: list[dict[str, str]]) -> Told | None:
    """Sizes of the database and its tables; without credentials they are left out, and said to be."""
    what = "sizes of the database and its tables"
    if declared.warehouse is None:
        left_out.append({"what": what, "why": "no `warehouse` is configured"})
        return None
    source = bench.config.sources[declared.warehouse]
    assert isinstance(source, SqlSource)
    if not source.url.get_secret_value():
        left_out.append({"what": what, "why": f"the url of {declared.warehouse} is empty: no credentials are set"})
        return None
    if not source.url.get_secret_value().startswith("postgres"):
        left_out.append({"what": what, "why": f"{declared.warehouse} is no PostgreSQL"})
        return None
    bench.progress(f"asking {declared.warehouse} for the sizes of its tables")

    def ask() -> Told:
        with open_snapshot(source, bench.around, bench.deadline) as asked:
            (name, size), *_ = asked(DATABASE).rows
            tables = asked(TABLES).rows
        told = [{"name": table, "bytes": int(total), "rows": int(rows)} for table, total, rows in tables]
        return {"name": name, "bytes": int(size), "tables": told}

    return bench.reach(declared.warehouse, ask)


def _cost(
    bench: WorkflowContext, declared: AwsInventoryConfig, lake: Told | None, instance: DatabaseInstance | None
) -> Told:
    """The estimate of what a month costs, by the price table."""
    prices, missing = bench.config.prices, []
    lines: list[costs.CostLine] = []
    if lake is None:
        missing.append(declared.lake)
    else:
        lines.append(costs.lake_line(prices, lake["bytes"]))
    if instance is not None:
        price = instance.price(prices)
        lines += costs.instance_lines(prices, instance.name, instance.kind, price, instance.storage)
    elif declared.instance is not None:
        missing.append(declared.aws)
    return costs.estimate(lines, missing)


def _paid(bench: WorkflowContext, declared: AwsInventoryConfig, left_out: list[dict[str, str]]) -> Told | None:
    """What was charged for the days before today, where that is asked for."""
    if WITH_COSTS not in bench.options:
        left_out.append({"what": f"actual cost of {DAYS} days", "why": "ask for it with --with-costs"})
        return None
    bench.progress("asking Cost Explorer")
    cost = _asked(bench, declared, lambda account: account.cost(DAYS))
    if cost is None:
        return None
    return {
        **{"days": DAYS, "start": cost.start.isoformat(), "end": cost.end.isoformat()},
        **{"currency": cost.currency, "total": float(cost.total), "estimated": cost.estimated},
        "services": [{"service": name, "amount": float(amount)} for name, amount in cost.by_service.items()],
    }


def _attention(parts: Mapping[str, Any]) -> list[str]:
    names = ", ".join(parts["cost"]["unpriced"])
    return [f"the configuration has no price for {names}"] if names else []
