"""What every probe keeps to, whatever it measures: one suite, run over each kind."""

from __future__ import annotations

import json
import os
import subprocess
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from dims_worker.config import (
    FilesMetric,
    FilesSource,
    GitMetric,
    GitSource,
    S3Metric,
    S3Source,
    Source,
    SourceMetric,
)
from dims_worker.config.metrics import METRICS
from dims_worker.config.sources import SOURCES
from dims_worker.errors import MeasureError
from dims_worker.probes import probe_for
from dims_worker.probes.base import Change, Deadline, KeysChanged, PathsChanged, Scanned, Surroundings, by_name

if TYPE_CHECKING:
    from conftest import Store


@dataclass
class Case:
    """A kind of source: one that is there, one that is not, a change that concerns it, one that does not."""

    around: Surroundings
    source: Source
    missing: Source
    metrics: dict[str, SourceMetric]
    related: Change
    unrelated: Change

    def scan(self, *names: str, seconds: float = 30, missing: bool = False) -> Scanned:
        metrics = {name: self.metrics[name] for name in names}
        source = self.missing if missing else self.source
        deadline = Deadline.after(timedelta(seconds=seconds))
        return probe_for(source.type).scan(source, metrics, self.around, deadline)


def _every(model: type[SourceMetric]) -> dict[str, SourceMetric]:
    measures = model.model_fields["measure"].annotation.__args__  # type: ignore[union-attr]
    return {f"m.{measure}": model(source="x", measure=measure) for measure in measures}


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
    who = {"GIT_AUTHOR_NAME": "n", "GIT_AUTHOR_EMAIL": "e", "GIT_COMMITTER_NAME": "n", "GIT_COMMITTER_EMAIL": "e"}
    for command in (["init", "-q", "here"], ["-C", "here", "commit", "-q", "--allow-empty", "-m", "one"]):
        subprocess.run(["git", *command], cwd=tmp_path, env=os.environ | who, check=True)
    return {
        "source": GitSource(type="git", path="here"),
        "missing": GitSource(type="git", path="gone"),
        "metrics": _every(GitMetric),
        "related": PathsChanged(str(tmp_path / "here"), ("a.md",), history=True),
        "unrelated": PathsChanged(str(tmp_path / "elsewhere"), history=True),
    }


def s3(_tmp_path: Path, store: Store) -> dict[str, Any]:
    store.fill("here", {"a.md": b"one\n"})
    return {
        "source": S3Source(type="s3", bucket="here", endpoint_url=store.url),
        "missing": S3Source(type="s3", bucket="gone", endpoint_url=store.url),
        "metrics": _every(S3Metric),
        "related": KeysChanged("here", ("a.md",)),
        "unrelated": KeysChanged("elsewhere"),
    }


CASES = {"files": files, "git": git, "s3": s3}


@pytest.fixture(params=sorted(SOURCES))
def case(request: pytest.FixtureRequest, tmp_path: Path, store: Store, monkeypatch: pytest.MonkeyPatch) -> Case:
    for name in [name for name in os.environ if name.startswith("GIT_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", os.devnull)
    return Case(Surroundings(tmp_path, tmp_path / ".dims"), **CASES[request.param](tmp_path, store))


def test_every_kind_has_its_probe() -> None:
    assert SOURCES.keys() == METRICS.keys() == CASES.keys()
    for kind in SOURCES:
        assert probe_for(kind) is probe_for(kind)
    with pytest.raises(KeyError):
        probe_for("abacus")


def test_a_reading_for_each_metric_and_no_other(case: Case) -> None:
    names = list(case.metrics)
    for asked in (names, names[:1], names[::-1]):
        assert [reading.metric for reading in case.scan(*asked).readings] == asked


def test_values_have_their_types_and_units(case: Case) -> None:
    for name, reading in by_name(case.scan(*case.metrics).readings).items():
        metric = case.metrics[name]
        assert (reading.method, reading.error, reading.unit) == ("exact", None, metric.shown_unit)
        if metric.is_age:
            assert datetime.fromisoformat(str(reading.value)).utcoffset() == timedelta(0)
        else:
            assert type(reading.value) is (float if metric.measure == "mean_size" else int)
        json.dumps(asdict(reading), ensure_ascii=False, allow_nan=False).encode()


def test_a_missing_source_is_an_error_that_names_it(case: Case) -> None:
    with pytest.raises(MeasureError, match="gone"):
        case.scan(*case.metrics, missing=True)


def test_a_deadline_that_is_over(case: Case) -> None:
    with pytest.raises(MeasureError, match="timeout"):
        case.scan(*case.metrics, seconds=-1)


def test_touched_says_why_or_none(case: Case) -> None:
    probe = probe_for(case.source.type)
    for metric in case.metrics.values():
        assert probe.touched(case.source, metric, case.related, case.around)
        assert probe.touched(case.source, metric, case.unrelated, case.around) is None
        assert isinstance(case.related, probe.judges)


def test_touched_by_a_change_of_another_kind(case: Case) -> None:
    other: Change = PathsChanged("/") if isinstance(case.related, KeysChanged) else KeysChanged("here")
    for metric in case.metrics.values():
        assert probe_for(case.source.type).touched(case.source, metric, other, case.around) is None
