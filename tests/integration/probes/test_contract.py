"""The contract of all probes: one suite, run for each type of source."""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
from contextlib import closing
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from pydantic import SecretStr

from dims_worker.config import (
    AwsMetric,
    AwsSource,
    CommandMetric,
    CommandSource,
    FilesMetric,
    FilesSource,
    GitMetric,
    GitSource,
    S3Metric,
    S3Source,
    Source,
    SourceMetric,
    SqlMetric,
    SqlSource,
)
from dims_worker.config.metrics import METRICS
from dims_worker.config.sources import SOURCES
from dims_worker.errors import MeasureError
from dims_worker.probes import probe_for
from dims_worker.probes.base import (
    Change,
    Deadline,
    KeysChanged,
    PathsChanged,
    ScanContext,
    ScanResult,
    readings_by_name,
)

if TYPE_CHECKING:
    from tests.integration.probes.conftest import Store


@dataclass
class Case:
    """A type of source: one that exists, one that does not, a change that concerns it, and one that does not."""

    context: ScanContext
    source: Source
    metrics: dict[str, SourceMetric]
    missing: Source | None = None
    related: Change | None = None
    unrelated: Change | None = None

    def scan(self, *names: str, seconds: float = 30, missing: bool = False) -> ScanResult:
        metrics = {name: self.metrics[name] for name in names}
        source = self.missing if missing and self.missing else self.source
        deadline = Deadline.after(timedelta(seconds=seconds))
        return probe_for(source.type).scan(source, metrics, self.context, deadline)


def _every(model: type[SourceMetric], **parts: dict[str, Any]) -> dict[str, SourceMetric]:
    """A metric of each measure. `parts` are the other settings that a measure needs."""
    measures = model.model_fields["measure"].annotation.__args__  # type: ignore[union-attr]
    return {f"m.{name}": model(source="x", measure=name, **parts.get(name, {})) for name in measures}


def files(tmp_path: Path, _store: Store) -> dict[str, Any]:
    (tmp_path / "here").mkdir()
    (tmp_path / "here" / "a.md").write_text("one\n")
    return {
        "source": FilesSource(type="files", path="here"),
        "missing": FilesSource(type="files", path="gone"),
        "metrics": _every(FilesMetric),
        "related": PathsChanged(str(tmp_path / "here"), ("a.md",)),
        "unrelated": PathsChanged(str(tmp_path / "elsewhere")),
    }


def git(tmp_path: Path, _store: Store) -> dict[str, Any]:
    identity = {"GIT_AUTHOR_NAME": "n", "GIT_AUTHOR_EMAIL": "e", "GIT_COMMITTER_NAME": "n", "GIT_COMMITTER_EMAIL": "e"}
    for command in (["init", "-q", "here"], ["-C", "here", "commit", "-q", "--allow-empty", "-m", "one"]):
        subprocess.run(["git", *command], cwd=tmp_path, env=os.environ | identity, check=True)
    return {
        "source": GitSource(type="git", path="here"),
        "missing": GitSource(type="git", path="gone"),
        "metrics": _every(GitMetric),
        "related": PathsChanged(str(tmp_path / "here"), ("a.md",), history=True),
        "unrelated": PathsChanged(str(tmp_path / "elsewhere"), history=True),
    }


def s3(tmp_path: Path, store: Store) -> dict[str, Any]:
    store.fill("here", {"a/20130316.json": b'[{"id": "20130316"}]'})
    (tmp_path / "a").mkdir()
    return {
        "source": S3Source(type="s3", bucket="here", endpoint_url=store.url),
        "missing": S3Source(type="s3", bucket="gone", endpoint_url=store.url),
        "metrics": _every(
            S3Metric,
            completeness={"expected": {"prefix": "a/", "pointer": "*.id"}},
            sync_status={"local": str(tmp_path), "pairs": [{"folder": "a", "prefix": "a/"}]},
        ),
        "related": KeysChanged("here", ("a/20130316.json",)),
        "unrelated": KeysChanged("elsewhere"),
    }


def sql(tmp_path: Path, _store: Store) -> dict[str, Any]:
    with closing(sqlite3.connect(tmp_path / "here.db")) as made:
        made.execute("CREATE TABLE games (id INTEGER, at TEXT)")
        made.execute("INSERT INTO games VALUES (1, '2026-01-01 00:00:00')")
        made.commit()
    return {
        "source": SqlSource(type="sql", url=SecretStr("sqlite:///here.db")),
        "missing": SqlSource(type="sql", url=SecretStr("sqlite:///gone.db")),
        "metrics": _every(
            SqlMetric, value={"query": "SELECT count(*) FROM games"}, age={"query": "SELECT max(at) FROM games"}
        ),
    }


def command(tmp_path: Path, _store: Store) -> dict[str, Any]:
    (tmp_path / "here").mkdir()
    return {
        "source": CommandSource(type="command", cwd="here"),
        "missing": CommandSource(type="command", cwd="gone"),
        "metrics": {"m.output": CommandMetric(source="x", command=("echo", "1"))},
    }


def aws(_tmp_path: Path, store: Store) -> dict[str, Any]:
    """Without a missing source, because an account can only lack a single instance or bucket."""
    import boto3

    rds = boto3.client("rds", endpoint_url=store.url, region_name="us-east-1")
    if not rds.describe_db_instances()["DBInstances"]:  # the server serves all tests of the session
        rds.create_db_instance(
            DBInstanceIdentifier="here",
            DBInstanceClass="db.t3.micro",
            Engine="postgres",
            AllocatedStorage=20,
            MasterUsername="u",
            MasterUserPassword="a long password",
        )
    rds.close()
    return {
        "source": AwsSource(type="aws", region="us-east-1", endpoint_url=store.url),
        "metrics": {
            f"m.{measure}": AwsMetric(source="x", measure=measure, instance="here")
            for measure in ("rds_storage", "rds_class")
        },
    }


CASES = {"files": files, "git": git, "s3": s3, "sql": sql, "command": command, "aws": aws}
TEXTS = ("sync_status", "rds_class")
PARTS = ("mean_size", "completeness")


@pytest.fixture(params=sorted(SOURCES))
def case(request: pytest.FixtureRequest, tmp_path: Path, store: Store, monkeypatch: pytest.MonkeyPatch) -> Case:
    for name in [name for name in os.environ if name.startswith("GIT_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", os.devnull)
    return Case(ScanContext(tmp_path, tmp_path / ".dims"), **CASES[request.param](tmp_path, store))


def test_every_type_of_source_has_a_probe() -> None:
    assert SOURCES.keys() == METRICS.keys() == CASES.keys()
    for kind in SOURCES:
        assert probe_for(kind) is probe_for(kind)
    with pytest.raises(KeyError):
        probe_for("abacus")


def test_each_metric_gets_one_reading(case: Case) -> None:
    names = list(case.metrics)
    for asked in (names, names[:1], names[::-1]):
        assert [reading.metric for reading in case.scan(*asked).readings] == asked


def test_values_have_their_types_and_units(case: Case) -> None:
    for name, reading in readings_by_name(case.scan(*case.metrics).readings).items():
        metric = case.metrics[name]
        assert (reading.method, reading.error, reading.unit) == ("exact", None, metric.shown_unit)
        if metric.is_age:
            assert datetime.fromisoformat(str(reading.value)).utcoffset() == timedelta(0)
        else:
            kind = str if metric.measure in TEXTS else float if metric.measure in PARTS else int
            assert type(reading.value) is kind, name
        json.dumps(asdict(reading), ensure_ascii=False, allow_nan=False).encode()


def test_a_missing_source_is_an_error_that_names_it(case: Case) -> None:
    if case.missing is None:
        pytest.skip("an account as a whole cannot be missing")
    with pytest.raises(MeasureError, match="gone"):
        case.scan(*case.metrics, missing=True)


def test_a_deadline_that_is_over(case: Case) -> None:
    with pytest.raises(MeasureError, match="timeout"):
        case.scan(*case.metrics, seconds=-1)


def test_touched_returns_a_reason_or_none(case: Case) -> None:
    probe = probe_for(case.source.type)
    if case.related is None or case.unrelated is None:
        assert probe.change_types == ()  # only rules that name the metrics affect them
        return
    for metric in case.metrics.values():
        assert probe.touched(case.source, metric, case.related, case.context)
        assert probe.touched(case.source, metric, case.unrelated, case.context) is None
        assert isinstance(case.related, probe.change_types)


def test_a_change_of_another_kind_touches_nothing(case: Case) -> None:
    other: Change = PathsChanged("/") if isinstance(case.related, KeysChanged) else KeysChanged("here")
    for metric in case.metrics.values():
        assert probe_for(case.source.type).touched(case.source, metric, other, case.context) is None
