"""aws-inventory against moto: one listing, exact figures, omitted parts and unreached sources."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Any

import boto3
import pytest
from sqlalchemy import Engine, text

from dims_worker import workflows
from tests.conftest import Lake, Project
from tests.integration.workflows.helpers import BUCKET, CONFIG

HOSTILE = "odd | name/`a`\t\u202e*x* 100%+ 🏀.json"


def with_rds(lake: Lake) -> None:
    rds = boto3.client("rds", endpoint_url=lake.url, region_name="us-east-1")
    rds.create_db_instance(
        DBInstanceIdentifier="nba-sim-db",
        DBInstanceClass="db.t3.small",
        Engine="postgres",
        EngineVersion="15.4",
        AllocatedStorage=20,
        MasterUsername="nba",
        MasterUserPassword="not-a-secret",
    )


@pytest.fixture
def account(project: Project, lake: Lake, monkeypatch: pytest.MonkeyPatch) -> Project:
    """A project with a bucket and an instance. The warehouse is the database of the test."""
    for name, value in lake.env.items():
        monkeypatch.setenv(name, value)
    lake.put(BUCKET, {f"a/{n:04}.csv": b"x" * 10 for n in range(1001)} | {"b/deep/1": b"yy", "top": b"", HOSTILE: b"z"})
    project.env |= {**lake.env, "NBA_DATABASE_URL": project.env["DIMS_DATABASE_URL"]}
    project.write({"dims.yaml": CONFIG})
    with_rds(lake)
    return project


@pytest.fixture
def stored(lake: Lake) -> Callable[[str], Any]:
    """Returns the object of moto for a key."""

    def find(key: str) -> Any:
        from moto.s3.models import s3_backends

        return s3_backends["123456789012"]["aws"].buckets[BUCKET].keys[key]

    return find


def test_the_bucket_by_prefix_from_one_listing(account: Project, lake: Lake, stored: Callable[[str], Any]) -> None:
    stored("a/0007.csv").last_modified = datetime(2030, 1, 2, 3, 4, 5)  # noqa: DTZ001 - moto's are naive
    stored("a/0003.csv").last_modified = datetime(2030, 1, 2, 3, 4, 5)  # noqa: DTZ001
    stored("a/0009.csv").last_modified = datetime(2031, 1, 2, 3, 4, 5)  # noqa: DTZ001
    for number in range(4):
        stored(f"a/{number:04}.csv").set_storage_class("GLACIER")
    outcome = workflows.run_workflow(account.config, "aws-inventory")
    assert outcome.unreached == {}
    assert len(lake.lists) == 2  # 1,004 objects
    assert outcome.scanned.api_calls == 3  # and one call to RDS
    totals = outcome.result["lake"]
    assert (totals["objects"], totals["bytes"]) == (1004, 10013)
    parts = {part["prefix"]: part for part in totals["prefixes"]}
    assert {prefix: (part["objects"], part["bytes"]) for prefix, part in parts.items()} == {
        "a/": (1001, 10010),
        "b/": (1, 2),
        "": (1, 0),
        "odd | name/": (1, 1),
    }
    assert parts["a/"]["classes"] == [
        {"class": "GLACIER", "objects": 4, "bytes": 40},
        {"class": "STANDARD", "objects": 997, "bytes": 9970},
    ]
    newest = parts["a/"]["newest"]
    assert len(newest) == 10
    assert [each["key"] for each in newest[:3]] == ["a/0009.csv", "a/0003.csv", "a/0007.csv"]
    assert newest[0]["uploaded"] == "2031-01-02T03:04:05+00:00"


def test_instance_database_and_cost(account: Project, engine: Engine) -> None:
    with engine.begin() as connection:
        connection.execute(text("CREATE TABLE big AS SELECT generate_series(1, 20000) AS n"))
        size = connection.execute(text("SELECT pg_total_relation_size('big')")).scalar()
    result = workflows.run_workflow(account.config, "aws-inventory").result
    assert result["instance"] == {
        "name": "nba-sim-db",
        "class": "db.t3.small",
        "engine": "postgres",
        "version": "15.4",
        "storage_gib": 20,
        "status": "available",
    }
    assert result["database"]["bytes"] > size
    assert {"name": "public.big", "bytes": size} == {k: result["database"]["tables"][0][k] for k in ("name", "bytes")}
    cost = result["cost"]
    assert [line["usd"] for line in cost["lines"]] == [10013 / 2**30 * 0.023, 29.20, 2.0]
    assert cost["sum_usd"] == pytest.approx(31.2) and cost["unpriced"] == cost["missing"] == []
    assert [each["what"] for each in result["left_out"]] == ["actual cost of 30 days"]
    report = workflows.render_report(result)
    assert "**31.20 USD**" in report and "| nba-sim-db | db.t3.small | postgres | 15.4 | available | 20 |" in report
    assert "public.big" in report


def test_each_storage_class_has_its_price(account: Project, stored: Callable[[str], Any]) -> None:
    """A class without a price is named, and it is not counted as STANDARD."""
    for number in range(4):
        stored(f"a/{number:04}.csv").set_storage_class("GLACIER")
    stored("b/deep/1").set_storage_class("DEEP_ARCHIVE")
    mapping = "s3_gib_month: {STANDARD: 0.023, GLACIER: 0.0036}"
    account.write({"dims.yaml": CONFIG.replace("s3_gib_month: 0.023", mapping)})
    result = workflows.run_workflow(account.config, "aws-inventory").result
    cost = result["cost"]
    assert [(line["what"], line["usd"]) for line in cost["lines"][:3]] == [
        ("S3 storage: DEEP_ARCHIVE", None),
        ("S3 storage: GLACIER", 40 / 2**30 * 0.0036),
        ("S3 storage: STANDARD", 9971 / 2**30 * 0.023),
    ]
    assert (cost["sum_usd"], cost["unpriced"]) == (None, ["s3_gib_month.DEEP_ARCHIVE"])
    report = workflows.render_report(result)
    assert "`prices.s3_gib_month.DEEP_ARCHIVE`" in report and "Old versions of objects" in report
    account.write({"dims.yaml": CONFIG})
    result = workflows.run_workflow(account.config, "aws-inventory").result
    assert result["cost"]["sum_usd"] is not None
    assert "for every storage class, also for DEEP_ARCHIVE (2 bytes), GLACIER (40 bytes)" in "\n".join(
        result["cost"]["notes"]
    )


def test_the_storage_of_aurora_is_unknown(account: Project, lake: Lake) -> None:
    """RDS reports 1 GiB for every instance of Aurora, whose storage grows by itself."""
    rds = boto3.client("rds", endpoint_url=lake.url, region_name="us-east-1")
    rds.create_db_cluster(
        DBClusterIdentifier="c", Engine="aurora-postgresql", MasterUsername="nba", MasterUserPassword="not-a-secret"
    )
    rds.create_db_instance(
        DBInstanceIdentifier="aurora",
        DBClusterIdentifier="c",
        DBInstanceClass="db.t3.small",
        Engine="aurora-postgresql",
    )
    account.write({"dims.yaml": CONFIG.replace("instance: nba-sim-db", "instance: aurora")})
    result = workflows.run_workflow(account.config, "aws-inventory").result
    assert result["instance"]["storage_gib"] is None and result["cost"]["sum_usd"] is None
    assert "AWS does not report the storage of aurora" in workflows.render_report(result)


def test_odd_names_do_not_break_the_report(account: Project) -> None:
    report = workflows.render_report(workflows.run_workflow(account.config, "aws-inventory").result)
    (line,) = [line for line in report.split("\n") if "🏀" in line]
    assert "\t" not in line and "\u202e" not in line and r"\t" in line and "100%+" in line
    assert line.replace("\\|", "").count("|") == 4


@pytest.mark.parametrize(
    "depth, prefixes", [(1, ["", "a/", "b/", "odd | name/"]), (2, ["", "a/", "b/deep/", "odd | name/"])]
)
def test_depth(account: Project, depth: int, prefixes: list[str]) -> None:
    account.write({"dims.yaml": CONFIG.replace("aws: account,", f"aws: account, depth: {depth}, newest: 0,")})
    listed = workflows.run_workflow(account.config, "aws-inventory").result["lake"]["prefixes"]
    assert [part["prefix"] for part in listed] == prefixes
    assert all(part["newest"] == [] for part in listed)


def test_without_credentials_the_database_is_left_out(account: Project) -> None:
    del account.env["NBA_DATABASE_URL"]
    outcome = workflows.run_workflow(account.config, "aws-inventory")
    assert outcome.unreached == {} and outcome.result["database"] is None
    assert "is empty: set its credentials" in outcome.result["left_out"][0]["why"]
    report = workflows.render_report(outcome.result)
    assert "sizes of the database and its tables: the url of warehouse is empty" in report
    assert "was not reached" not in report


def test_a_database_that_is_down_is_reported(account: Project) -> None:
    account.env["NBA_DATABASE_URL"] = "postgresql://nba:secret@127.0.0.1:1/nba"
    outcome = workflows.run_workflow(account.config, "aws-inventory")
    assert set(outcome.unreached) == {"warehouse"} and "secret" not in str(outcome.result)
    assert outcome.result["cost"]["sum_usd"] is not None


def test_a_missing_bucket_has_no_price(account: Project) -> None:
    account.write({"dims.yaml": CONFIG.replace("bucket: nba-lake", "bucket: gone")})
    outcome = workflows.run_workflow(account.config, "aws-inventory")
    assert set(outcome.unreached) == {"lake"}
    cost = outcome.result["cost"]
    assert (cost["sum_usd"], cost["known_usd"], cost["missing"]) == (None, 31.2, ["lake"])
    assert "**unknown**" in workflows.render_report(outcome.result)


def test_a_missing_instance_and_a_class_without_a_price(account: Project) -> None:
    account.write({"dims.yaml": CONFIG.replace("instance: nba-sim-db", "instance: gone")})
    outcome = workflows.run_workflow(account.config, "aws-inventory")
    assert set(outcome.unreached) == {"account"} and outcome.result["cost"]["missing"] == ["account"]
    account.write({"dims.yaml": CONFIG.replace(", db.t3.small: 29.20", "")})
    outcome = workflows.run_workflow(account.config, "aws-inventory")
    assert outcome.unreached == {} and outcome.result["cost"]["sum_usd"] is None
    assert outcome.result["attention"] == ["the configuration has no price for rds_class.db.t3.small"]


def test_actual_costs_are_read_only_on_request(account: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    from dims_worker.probes.aws.account import AwsAccount

    asked: list[int] = []

    def cost(self: AwsAccount, days: int) -> Any:
        from datetime import date
        from decimal import Decimal

        from dims_worker.probes.aws.account import Cost

        asked.append(days)
        by_service = {"Amazon RDS": Decimal("29.2"), "Amazon S3": Decimal("2.81")}
        return Cost(date(2026, 10, 23), date(2026, 11, 22), "USD", by_service, estimated=True)

    monkeypatch.setattr(AwsAccount, "cost", cost)
    assert workflows.run_workflow(account.config, "aws-inventory").result["paid"] is None
    assert asked == []
    result = workflows.run_workflow(account.config, "aws-inventory", options=frozenset({"with-costs"})).result
    assert asked == [30] and result["paid"]["total"] == 32.01
    assert "**32.01 USD**. AWS may still change the amount." in workflows.render_report(result)
