"""Loading the configuration: where DIMS finds it, the environment, and what `Config` derives from it."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import pytest

from dims_worker.config import (
    Config,
    FilesMetric,
    InvalidConfig,
    PolicySection,
    Thresholds,
    config_schema,
    find_config,
    load_config,
)
from dims_worker.errors import ConfigError

Load = Callable[..., Config]
HEAD = "sources: {p: {type: files, path: .}, g: {type: git, path: .}, lake: {type: s3, bucket: b}}\n"
"""One line, so that the text after it begins on line 2."""


def metric(body: str) -> str:
    return HEAD + f"metrics:\n  c:\n    a: {{{body}}}\n"


# --- includes and the environment -----------------------------------------------------------------------


def test_included_files_share_sections_and_categories(load_text: Load):
    config = load_text(
        "include: [more.yaml, empty.yaml]\n" + metric("source: p, measure: count") + "rules:\n",
        more="metrics: {c: {b: {source: q, measure: lines}}, d: {a: {source: p, measure: lines}}}\n"
        "sources: {q: {type: files, path: q}}\n",
        empty="sources:\nmetrics:\n",
    )
    assert list(config.metrics) == ["c.a", "c.b", "d.a"]
    assert set(config.sources) == {"p", "g", "lake", "q"}


def test_an_empty_file_is_a_valid_configuration(load_text: Load):
    config = load_text("")
    assert (config.metrics, config.sources, config.rules, config.watch) == ({}, {}, {}, ())
    assert config.policy == PolicySection()


def test_a_key_overrides_a_merged_key(load_text: Load):
    config = load_text("sources:\n  p: &p {type: files, path: .}\n  q: {<<: *p, path: q}\n")
    assert (config.sources["q"].type, config.sources["q"].path) == ("files", "q")  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("written", "filled"),
    [
        ('"${A}"', "one"),
        ("${A}", "one"),
        ('"${A}/${B:-two}/x"', "one/two/x"),
        ('"${EMPTY:-default}"', "default"),  # as in a shell, `:-` also replaces an empty value
        ('"x${EMPTY}y"', "xy"),
        ('"${GONE:-}x"', "x"),
        ('"${GONE:-a-b:c d}"', "a-b:c d"),
        ("'${GONE:-{a\\}}'", "{a}"),
        ('"$${A}"', "${A}"),
        ('"$$${A}"', "$${A}"),
        ('"$A $"', "$A $"),
        ('"${A}$${A}"', "one${A}"),
        ('"${TRICK}"', "${A}"),  # the value of a variable is not expanded again
        ('"${NUMBER}"', "12"),  # quoted, so a string
    ],
)
def test_environment_variables_are_filled_in(written: str, filled: str, load_text: Load):
    env = {"A": "one", "EMPTY": "", "NUMBER": "12", "TRICK": "${A}"}
    config = load_text(f"sources:\n  d:\n    type: files\n    path: {written}\n", env)
    assert config.sources["d"].path == filled  # type: ignore[attr-defined]


def test_an_unquoted_number_from_a_variable_is_a_number(load_text: Load):
    text = "policy:\n  tolerance_pct: ${N}\n  thresholds:\n    major: ${GONE:-16}\n"
    config = load_text(text, {"N": "3"})
    assert (config.policy.tolerance_pct, config.policy.thresholds.major) == (3, 16)
    with pytest.raises(InvalidConfig, match=r"^dims\.yaml:4: sources\.p\.path: Input should be a valid string$"):
        load_text("sources:\n  p:\n    type: files\n    path: ${N}\n", {"N": "3"})


def test_dates_and_texts_or_lists(load_text: Load):
    config = load_text(
        metric("source: g, measure: commits, since: 2026-01-31") + "rules: {r: {on: [a, b]}, s: {on: a}}\n"
    )
    assert config.metrics["c.a"].since == date(2026, 1, 31)  # type: ignore[attr-defined]
    assert (config.rules["r"].on, config.rules["s"].on) == (("a", "b"), ("a",))


# --- where DIMS finds it ----------------------------------------------------------------------------------


def test_the_configuration_is_searched_in_order(tmp_path: Path):
    repo = tmp_path / "repo"
    deep = repo / "a" / "b"
    deep.mkdir(parents=True)
    (repo / "config").mkdir()

    def touch(name: str) -> Path:
        path = tmp_path / name
        path.write_text("")
        return path

    outside = touch("dims.yaml")
    assert find_config(None, {}, deep) == outside  # no repository: any folder above
    (repo / ".git").mkdir()
    with pytest.raises(ConfigError, match=r"no dims\.yaml in this folder or above it\. Create one with `dims init`"):
        find_config(None, {}, deep)  # the search ends at the repository
    inside_config = touch("repo/config/dims.yaml")
    assert find_config(None, {}, deep) == inside_config
    at_root = touch("repo/dims.yaml")
    assert find_config(None, {}, deep) == at_root
    below = touch("repo/a/dims.yaml")
    assert find_config(None, {}, deep) == below
    assert find_config(None, {"DIMS_CONFIG": ""}, deep) == below
    assert find_config(None, {"DIMS_CONFIG": "../../other.yaml"}, deep).resolve() == repo / "other.yaml"
    assert find_config(Path("x.yaml"), {"DIMS_CONFIG": "other.yaml"}, deep) == deep / "x.yaml"
    assert find_config(outside, {}, deep) == outside


def test_a_named_file_that_is_missing(tmp_path: Path):
    with pytest.raises(ConfigError, match=r"x\.yaml: no such file\. Check --config and DIMS_CONFIG, or create one"):
        load_config(Path("x.yaml"), {}, tmp_path)


@pytest.mark.parametrize(("place", "project"), [("dims.yaml", "."), ("config/dims.yaml", "."), ("etc/d.yaml", "etc")])
def test_the_project_is_the_folder_of_the_file(place: str, project: str, tmp_path: Path):
    file = tmp_path / place
    file.parent.mkdir(exist_ok=True)
    file.write_text("sources: {p: {type: files, path: data}}")
    config = load_config(Path(place), {}, tmp_path)
    folder = (tmp_path / project).resolve()
    assert (config.file, config.project, config.home) == (file.resolve(), folder, folder / ".dims")
    assert config.path_of("data") == folder / "data"
    assert config.path_of("/data") == Path("/data")
    assert config.path_of("~/x") == Path.home() / "x"


def test_includes_are_relative_to_the_file(tmp_path: Path):
    (tmp_path / "config").mkdir()
    (tmp_path / "config" / "dims.yaml").write_text("include: metrics.yaml\n" + HEAD)
    (tmp_path / "config" / "metrics.yaml").write_text("\nmetrics: {c: {a: {source: p}}}\n")
    with pytest.raises(InvalidConfig, match=r"^config/metrics\.yaml:2: metrics\.c\.a\.measure: Field required$"):
        load_config(None, {}, tmp_path)


@pytest.mark.parametrize(
    ("env", "home"),
    [({}, ".dims"), ({"DIMS_HOME": ""}, ".dims"), ({"DIMS_HOME": "h"}, "h"), ({"DIMS_HOME": "/h"}, "/h")],
)
def test_the_data_directory_comes_from_dims_home(env: dict[str, str], home: str, load_text: Load, tmp_path: Path):
    assert load_text("", env).home == tmp_path / home


@pytest.mark.parametrize(
    ("url", "translated"),
    [
        ("postgresql://u:p@h:5432/d?x=1", "postgresql+psycopg2://u:p@h:5432/d?x=1"),
        ("postgres://u@h/d", "postgresql+psycopg2://u@h/d"),
        ("postgresql+psycopg2://h/d", "postgresql+psycopg2://h/d"),
        ("", None),
    ],
)
def test_the_database_url_gets_its_driver(url: str, translated: str | None, load_text: Load):
    assert load_text("", {"DIMS_DATABASE_URL": url}).database_url == translated


@pytest.mark.parametrize(
    "url", ["postgresql://u:ge@heim@h/d", "postgresql://u:1/ge@heim@h/d", "postgresql://u:geheim@h:x/d"]
)
def test_an_ambiguous_database_url_is_refused_and_not_shown(load_text: Load, url: str):
    with pytest.raises(ConfigError, match="special characters of a password as %XX") as caught:
        load_text("", {"DIMS_DATABASE_URL": url})
    assert "heim" not in str(caught.value)


def test_secrets_are_not_shown(load_text: Load):
    env = {"DIMS_DATABASE_URL": "postgresql://u:geheim@h/d", "DIMS_BROKER_URL": "redis://:geheim@h/0"}
    config = load_text(HEAD, env)
    assert config.database_url and "geheim" in config.database_url
    assert config.broker_url == "redis://:geheim@h/0"
    assert "geheim" not in repr(config)
    assert "geheim" not in str(config)


# --- what Config derives ---------------------------------------------------------------------------

TREE = (
    HEAD
    + """
metrics:
  c:
    top: {derive: c.mid + c.a}
    mid: {derive: c.a + d.b}
    alone: {derive: d.off + 1}
    a: {source: p, measure: count}
  d:
    b: {source: g, measure: commits}
    off: {source: p, measure: lines, enabled: false}
    gone: {derive: c.a, enabled: false}
    late: {derive: d.gone}
"""
)


def test_derived_metrics_are_in_topological_order(load_text: Load):
    config = load_text(TREE)
    order = list(config.derived)
    assert sorted(order) == ["c.alone", "c.mid", "c.top", "d.gone", "d.late"]
    assert order.index("c.mid") < order.index("c.top")
    assert order.index("d.gone") < order.index("d.late")
    assert config.metrics_by_source == {"p": ("c.a", "d.off"), "g": ("d.b",), "lake": ()}


@pytest.mark.parametrize(
    ("names", "inputs", "dependents"),
    [
        (["c.a"], {"c.a"}, ("c.mid", "c.top")),
        (["d.b"], {"d.b"}, ("c.mid", "c.top")),
        (["d.off"], {"d.off"}, ("c.alone",)),
        (["c.top"], {"c.top", "c.mid", "c.a", "d.b"}, ()),
        (["d.late"], {"d.late", "d.gone", "c.a"}, ()),
        ([], set(), ()),
    ],
)
def test_inputs_and_dependents(names: list[str], inputs: set[str], dependents: tuple[str, ...], load_text: Load):
    config = load_text(TREE)
    assert config.with_inputs(names) == inputs
    assert config.dependents(names) == dependents


@pytest.mark.parametrize(
    ("patterns", "selected"),
    [
        (["c.*"], {"c.top", "c.mid", "c.alone", "c.a"}),
        (["d.*"], {"d.b", "d.late"}),  # a disabled metric needs its full name
        (["d.off"], {"d.off"}),
        (["*.a", "d.o*", "d.gone"], {"c.a", "d.gone"}),
        (["C.A", "nope"], set()),
        ([], set()),
    ],
)
def test_select(patterns: list[str], selected: set[str], load_text: Load):
    assert load_text(TREE).select(patterns) == selected


def test_a_metrics_own_policy_overrides_the_general_one(load_text: Load):
    text = (
        HEAD
        + """
policy: {tolerance_pct: 7, min_abs: 3, direction: up, stale_after: 2d, thresholds: {moderate: 1}}
metrics:
  c:
    plain: {source: p, measure: count}
    own: {source: p, measure: count, min_abs: 0, direction: both, thresholds: {extreme: 50}, require_approval_pct: 40}
    never_stale: {source: p, measure: count, stale_after: null}
    null_is_nothing: {source: p, measure: count, min_abs: null, direction: null, thresholds: null, tolerance_pct: null}
"""
    )
    config = load_text(text)
    assert config.policy_of("c.plain") == config.policy
    own = config.policy_of("c.own")
    assert (own.min_abs, own.direction, own.require_approval_pct) == (0, "both", 40)
    assert (own.tolerance_pct, own.stale_after) == (7, timedelta(days=2))
    assert own.thresholds == Thresholds(moderate=5, major=15, extreme=50)
    assert config.policy_of("c.never_stale").stale_after is None
    assert config.policy_of("c.null_is_nothing") == config.policy


BASE = "source: p, measure: count, paths: '**/*.py'"


@pytest.mark.parametrize(
    ("body", "same"),
    [
        (f"{BASE}, description: new words", True),
        (f"{BASE}, critical: true, volatility: stable, precision: 2, enabled: false", True),
        (f"{BASE}, min: 1, max: 2, min_abs: 3, direction: up, tolerance_pct: 9, stale_after: 1h", True),
        (f"{BASE}, thresholds: {{extreme: 90}}, require_approval_pct: 9", True),
        ("paths: ['**/*.py'], measure: count, source: p", True),
        (f"{BASE}, exclude: x/**", False),
        (f"{BASE}, unit: modules", False),
        (f"{BASE}, absent: 0", False),
        ("source: p, measure: lines, paths: '**/*.py'", False),
        ("source: p, measure: count", False),
        ("derive: c.z + 1", False),
    ],
)
def test_a_definition_depends_on_what_is_measured_and_how(body: str, same: bool, load_text: Load):
    more = "    z: {source: p, measure: lines}\n"
    before = load_text(metric(BASE) + more).definition("c.a")
    assert (load_text(metric(body) + more).definition("c.a") == before) is same


@pytest.mark.parametrize(
    ("source", "same"),
    [
        ("{type: files, path: ., description: x, timeout: 9s, cooldown: 1h, queue: q}", True),
        ("{type: files, path: src}", False),
        ("{type: files, path: ., exclude: data}", False),
        ("{type: files, path: ., ignore: gitignore}", False),
    ],
)
def test_a_definition_depends_on_its_source(source: str, same: bool, load_text: Load):
    body = "metrics: {c: {a: {source: p, measure: count}}}\n"
    before = load_text("sources: {p: {type: files, path: .}}\n" + body).definition("c.a")
    assert (load_text(f"sources: {{p: {source}}}\n" + body).definition("c.a") == before) is same


def test_shown_units(load_text: Load):
    config = load_text(
        HEAD + "metrics: {c: {a: {source: p, measure: count}, b: {source: p, measure: bytes, unit: GiB}, "
        "d: {source: lake, measure: newest_age}, e: {derive: c.a}, f: {derive: c.a, unit: files}}}\n"
    )
    units = {name: one.shown_unit for name, one in config.metrics.items()}
    assert units == {"c.a": "files", "c.b": "GiB", "c.d": "hours", "c.e": "", "c.f": "files"}
    assert [name for name, one in config.metrics.items() if one.is_age] == ["c.d"]
    assert isinstance(config.metrics["c.a"], FilesMetric)


def test_absent_null_differs_from_no_absent(load_text: Load):
    config = load_text(metric("source: p, measure: count, absent: null") + "    b: {source: p, measure: count}\n")
    assert [config.metrics[name].has_absent for name in ("c.a", "c.b")] == [True, False]


# --- the JSON Schema ------------------------------------------------------------------------------------


def test_the_schema_is_json_and_names_its_draft():
    made = json.loads(json.dumps(config_schema()))
    assert made["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    assert set(made["properties"]) == {
        "include",
        "maintenance",
        "prices",
        "web",
        "workflows",
        "notify",
        "settings",
        "policy",
        "sources",
        "metrics",
        "rules",
        "watch",
    }
    assert made["additionalProperties"] is False


def test_the_schema_accepts_valid_and_refuses_invalid_files():
    jsonschema = pytest.importorskip("jsonschema")
    made = config_schema()
    jsonschema.Draft202012Validator.check_schema(made)
    judge = jsonschema.Draft202012Validator(made)
    good = {
        "include": "metrics.yaml",
        "sources": {"p": {"type": "files", "path": ".", "cooldown": "60s"}},
        "metrics": {
            "c": {
                "a": {"source": "p", "measure": "count", "paths": ["**"], "stale_after": "1d"},
                "b": {"derive": "c.a + 1"},
            }
        },
        "rules": {"r": {"on": ["a", "b"], "metrics": ["c.*"]}},
        "watch": ["p"],
    }
    judge.validate(good)
    for part, wrong in (
        ("sources", {"p": {"type": "ftp", "path": "."}}),
        ("sources", {"p": {"type": "files", "path": ".", "cooldown": 60}}),
        ("metrics", {"c": {"a": {"source": "p", "measure": "count", "typo": 1}}}),
        ("rules", {"r": {"on": 5}}),
        ("zebra", {}),
    ):
        assert list(judge.iter_errors({**good, part: wrong})), (part, wrong)


PATTERN_KEYS = {
    "metrics.c.f.paths": "files",
    "metrics.c.f.exclude": "files",
    "metrics.c.g.paths": "git",
    "metrics.c.s.match": "s3",
    "sources.p.exclude": "",
    "rules.r.on": "",
    "policy.approvers": "",
}


def with_patterns(key: str, patterns: object) -> dict[str, Any]:
    """Return a configuration in which a key has these patterns."""
    tree: dict[str, Any] = {
        "sources": {
            "p": {"type": "files", "path": "."},
            "g": {"type": "git", "path": "."},
            "b": {"type": "s3", "bucket": "b"},
        },
        "metrics": {
            "c": {
                "f": {"source": "p", "measure": "count"},
                "g": {"source": "g", "measure": "tracked_files"},
                "s": {"source": "b", "measure": "count"},
            }
        },
        "rules": {"r": {"on": "x"}},
        "policy": {},
    }
    *above, last = key.split(".")
    part = tree
    for name in above:
        part = part[name]
    part[last] = patterns
    return tree


BOUNDS = {
    "x" * 1024: None,
    "x" * 1025: "has 1,025 characters; the limit of a pattern is 1,024",
    "*?[" * 21 + "*": None,
    "*?[" * 21 + "**": "has 65 wildcards",
    "*" * 64 + "\n": None,
}


@pytest.mark.parametrize("key", PATTERN_KEYS)
def test_the_schema_and_the_check_agree_about_the_bounds_of_patterns(key: str, load_text: Load) -> None:
    judge = pytest.importorskip("jsonschema").Draft202012Validator(config_schema())
    cases: list[tuple[object, str | None]] = [*BOUNDS.items(), *(([text, "a"], why) for text, why in BOUNDS.items())]
    cases += [(["a"] * 1000, None), (["a"] * 1001, "has 1,001 patterns; the limit is 1,000")]
    for patterns, why in cases:
        tree = with_patterns(key, patterns)
        assert judge.is_valid(tree) is (why is None)
        if why is None:
            load_text(json.dumps(tree))
            continue
        with pytest.raises(InvalidConfig) as caught:
            load_text(json.dumps(tree))
        (problem,) = caught.value.problems
        assert problem.key == key and why in problem.message


def test_every_pattern_that_is_too_long_is_reported(load_text: Load) -> None:
    tree = with_patterns("metrics.c.f.paths", ["a" * 1025, "b" * 1026, "*" * 70])
    tree["rules"]["r"]["on"] = ["c" * 2000]
    with pytest.raises(InvalidConfig) as caught:
        load_text(json.dumps(tree))
    found = "\n".join(map(str, caught.value.problems))
    assert all(text in found for text in ("1,025 characters", "1,026 characters", "70 wildcards", "2,000 characters"))


LAYERS = """
sources: {p: {type: files, path: .}}
policy:
  require_approval_pct: 20
  critical: true
  categories:
    c: {require_approval_pct: 10, volatility: stable, approvers: [ada], max: 100, expire_after: 7d}
metrics:
  c:
    plain: {source: p, measure: count}
    own: {source: p, measure: count, require_approval_pct: 5, critical: false, max: null, approvers: [ben, 'c*']}
  d:
    plain: {source: p, measure: count, volatility: stable}
"""


def test_a_metrics_policy_overrides_its_categorys_and_the_general_one(load_text: Load):
    config = load_text(LAYERS)
    plain, own, other = (config.policy_of(name) for name in ("c.plain", "c.own", "d.plain"))
    assert (plain.require_approval_pct, own.require_approval_pct, other.require_approval_pct) == (10, 5, 20)
    assert (plain.critical, own.critical, other.critical) == (True, False, True)
    assert (plain.volatility, own.volatility, other.volatility) == ("stable", "stable", "stable")
    assert (plain.max, own.max, other.max) == (100, None, None)
    assert (plain.approvers, own.approvers, other.approvers) == (("ada",), ("ben", "c*"), ())
    assert (plain.expire_after, other.expire_after) == (timedelta(days=7), None)


def test_policy_does_not_change_a_definition(load_text: Load):
    other = LAYERS.replace("critical: false", "critical: true").replace("max: null", "min: 3").replace("10, v", "11, v")
    before, after = load_text(LAYERS), load_text(other)
    assert before.definitions == after.definitions


def test_a_category_that_has_no_metric_is_refused(load_text: Load):
    with pytest.raises(InvalidConfig, match="unknown category 'e'"):
        load_text(LAYERS.replace("    c: {require", "    e: {require"))


def test_a_formula_can_name_a_price_in_a_mapping(load_text: Load):
    prices = "prices: {plain: 2, by_class: {STANDARD: 0.023, GLACIER_IR: 0.004, db.t3.micro: 14.6}}\n"
    config = load_text(HEAD + prices)
    assert config.price_of == {
        "prices.plain": 2,
        "prices.by_class.standard": 0.023,
        "prices.by_class.glacier_ir": 0.004,
    }
    metric = "metrics:\n  c:\n    cost: {derive: c.n * prices.by_class.standard}\n    n: {source: p, measure: count}\n"
    assert load_text(HEAD + prices + metric).derived
    with pytest.raises(ConfigError, match=r"prices\.by_class"):
        load_text(HEAD + prices + metric.replace(".standard", ""))
