"""Which metrics a mute covers, until when and why, and how a person names them."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest

from dims_worker.config import Config, load_config
from dims_worker.domain.mutes import mutes_at, names_covered, pattern_of_target
from dims_worker.errors import NotFound, UsageError
from dims_worker.store.mutes import MuteRow

NOW = datetime(2026, 11, 22, 3, tzinfo=UTC)
HOUR = timedelta(hours=1)
TEXT = """
sources:
  disk: {type: files, path: a}
  bucket: {type: files, path: b}
  code: {type: files, path: c}
metrics:
  lake:
    objects: {source: bucket, measure: count}
    size: {source: bucket, measure: bytes}
    share: {derive: "lake.size / code.files"}
  code:
    files: {source: code, measure: count}
  home:
    files: {source: disk, measure: count, enabled: false}
    twice: {derive: "lake.share * 2"}
rules:
  nightly: {schedule: "0 1 * * *"}
workflows: {file_inventory: {source: disk}}
"""
WINDOWS = """
maintenance:
  night: {cron: "0 2 * * *", length: 2h, categories: code, description: the backup}
  early: {cron: "0 2 * * *", length: 90m, metrics: "code.f*", sources: [disk]}
  later: {cron: "0 9 * * *", length: 2h}
"""
LAKE = {"lake.objects", "lake.size", "lake.share", "home.twice"}


@pytest.fixture
def load(tmp_path: object) -> Callable[[str], Config]:
    def read(text: str) -> Config:
        (tmp_path / "dims.yaml").write_text(text)  # type: ignore[operator]
        return load_config(None, {}, tmp_path)  # type: ignore[arg-type]

    return read


@pytest.fixture
def config(load: Callable[[str], Config]) -> Config:
    return load(TEXT)


def mute(number: int, pattern: str, hours: float, ended: bool = False) -> MuteRow:
    times = {"created_at": NOW - HOUR, "until": NOW + hours * HOUR, "ended_at": NOW if ended else None}
    return MuteRow(number, pattern, "the move", "ada", "option", **times)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("pattern", "names"),
    [
        ("lake.objects", {"lake.objects"}),
        ("lake.*", LAKE - {"home.twice"}),
        ("*.files", {"code.files", "home.files"}),
        ("source:bucket", LAKE),
        ("source:code", {"code.files", "lake.share", "home.twice"}),
        ("source:disk", {"home.files"}),
        ("workflow.*", {"workflow.file-inventory", "workflow.audit"}),
        ("rule:nightly", {"rule:nightly"}),
        ("source:gone", set()),
        ("gone.*", set()),
    ],
)
def test_a_mute_covers_what_matches_its_pattern(config: Config, pattern: str, names: set[str]) -> None:
    assert names_covered(config, [pattern]) - {"workflow.audit"} == names - {"workflow.audit"}


def test_a_star_covers_everything(config: Config) -> None:
    covered = names_covered(config, ["*"])
    assert covered >= {*config.metrics, "rule:nightly", "workflow.file-inventory"}


@pytest.mark.parametrize(
    ("target", "pattern"),
    [
        ("lake.objects", "lake.objects"),
        ("lake", "lake.*"),
        ("bucket", "source:bucket"),
        ("source:code", "source:code"),
        ("code.*", "code.*"),
        ("*", "*"),
        ("workflow.file-inventory", "workflow.file-inventory"),
        ("rule:nightly", "rule:nightly"),
    ],
)
def test_a_person_names_a_metric_a_pattern_a_category_or_a_source(config: Config, target: str, pattern: str) -> None:
    assert pattern_of_target(config, target) == pattern


@pytest.mark.parametrize(
    ("target", "problem"),
    [
        ("lake.objcts", "there is no metric, category or source lake.objcts. Did you mean lake.objects?"),
        ("buckt", "there is no metric, category or source buckt. Did you mean bucket?"),
        ("source:cod", "there is no metric, category or source source:cod. Did you mean code?"),
        ("zzz", "there is no metric, category or source zzz. List the metrics with `dims metrics`."),
        ("zzz.*", "there is no metric that matches the pattern zzz.*. List the metrics with `dims metrics`."),
    ],
)
def test_an_unknown_name_is_refused_with_the_fix(config: Config, target: str, problem: str) -> None:
    with pytest.raises(NotFound) as refused:
        pattern_of_target(config, target)
    assert str(refused.value) == problem
    assert refused.value.exit_code == 2


def test_a_name_that_is_a_category_and_a_source_is_refused_with_both_fixes(config: Config) -> None:
    with pytest.raises(UsageError, match=r"code is a category and a source. Write 'code\.\*' or source:code\."):
        pattern_of_target(config, "code")


def test_the_mute_that_lasts_longest_counts(config: Config) -> None:
    muted = mutes_at(config, [mute(1, "lake.*", 2), mute(2, "lake.size", 1), mute(3, "lake.objects", 3)], NOW)
    assert {name: each.number for name, each in muted.items()} == {
        "lake.objects": 3,
        "lake.size": 1,
        "lake.share": 1,
    }
    assert (muted["lake.size"].until, muted["lake.size"].reason) == (NOW + 2 * HOUR, "the move")
    assert muted["lake.size"].origin == "mute 1 by ada"


def test_a_mute_that_is_over_or_ended_covers_nothing(config: Config) -> None:
    assert mutes_at(config, [mute(1, "*", 0), mute(2, "*", -1), mute(3, "*", 5, ended=True)], NOW) == {}


def test_maintenance_windows_mute_what_they_cover(load: Callable[[str], Config]) -> None:
    config = load(TEXT + WINDOWS)
    muted = mutes_at(config, [], NOW)
    assert {name: (each.window, each.reason) for name, each in muted.items()} == {
        "code.files": ("night", "the backup"),
        "home.files": ("early", "planned"),
    }
    assert muted["code.files"].until == NOW + HOUR
    assert muted["code.files"].origin == "maintenance window night"
    everything = mutes_at(config, [], NOW + 7 * HOUR)
    assert everything.keys() >= {*config.metrics, "rule:nightly"}
    assert mutes_at(config, [mute(9, "code.*", 5)], NOW)["code.files"].number == 9
