"""Every problem of a configuration is reported with its file, line and key."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from dims_worker.config import Config, InvalidConfig, load_config

Load = Callable[..., Config]
HEAD = "sources: {p: {type: files, path: .}, g: {type: git, path: .}, lake: {type: s3, bucket: b}}\n"
"""One line, so that the text after it begins on line 2."""


def metric(body: str) -> str:
    return HEAD + f"metrics:\n  c:\n    a: {{{body}}}\n"


# --- every kind of problem: the text from line 1, then the problems -------------------------------------

NAME = "a name has lower-case letters, digits and _, and starts with a letter"
KNOWN = (
    "write one of include, maintenance, metrics, notify, policy, prices, rules, settings, sources, watch, web, "
    "workflows"
)
PROBLEMS: dict[str, tuple[str, list[str]]] = {
    "no YAML": ("sources:\n  a: [1,\n  b: }\n", ["3: is not valid YAML: expected the node content, but found '}'"]),
    "a tab": ("sources:\n\tp: 1\n", ["2: is not valid YAML: found character '\\t' that cannot start any token"]),
    "two documents": ("{}\n---\n{}\n", ["2: is not valid YAML: but found another document"]),
    "an unknown alias": ("\nwatch: *x\n", ["2: is not valid YAML: found undefined alias 'x'"]),
    "a bad merge": (
        "sources:\n  <<: 5\n",
        ["2: is not valid YAML: expected a mapping or list of mappings for merging, but found scalar"],
    ),
    "an unknown tag": (
        metric("source: p, measure: count, description: !env X"),
        [
            "4: metrics.c.a.description: Input should be a valid string",
            "4: metrics.c.a.description: could not determine a constructor for the tag '!env'",
        ],
    ),
    "a list": ("- 1\n", ["1: must be a mapping of sections, such as `sources:`"]),
    "a section that is none": (
        "sources: []\nmetrics: 5\nrules: x\nwatch: {a: 1}\ninclude: 7\n",
        [
            "1: sources: must be a mapping, not list",
            "2: metrics: must be a mapping, not int",
            "3: rules: must be a mapping, not str",
            "4: watch: must be a string or a list of strings",
            "5: include: must be a string or a list of strings",
        ],
    ),
    "an unknown section": (
        "\nmetric: {}\nzebra: 1\n",
        ["2: metric: unknown key; did you mean `metrics`?", f"3: zebra: unknown key; {KNOWN}"],
    ),
    "a key that is a list": ("watch: []\n? [a, b]\n: 1\n", ["2: ?: a key must be a string"]),
    "an unknown key": (
        "sources:\n  p:\n    type: files\n    pth: .\n",
        ["2: sources.p.path: Field required", "4: sources.p.pth: unknown key; did you mean `path`?"],
    ),
    "an unknown type of source": (
        "sources:\n  p:\n    type: ftp\n  q: {}\n  r: 5\n",
        [
            "3: sources.p.type: must be one of s3, files, git, sql, aws, command",
            "4: sources.q.type: must be one of s3, files, git, sql, aws, command",
            "5: sources.r.type: must be one of s3, files, git, sql, aws, command",
        ],
    ),
    "a metric of a source whose type is wrong is not blamed": (
        "sources: {p: {type: ftp}}\nmetrics: {c: {a: {source: p, measure: x}}}\n",
        ["1: sources.p.type: must be one of s3, files, git, sql, aws, command"],
    ),
    "an unknown source": (
        metric("source: lage, measure: count"),
        ["4: metrics.c.a.source: unknown source 'lage'; did you mean `lake`?"],
    ),
    "an unknown source like no other": (
        metric("source: zzz, measure: count"),
        ["4: metrics.c.a.source: unknown source 'zzz'; write one of g, lake, p"],
    ),
    "no source": (
        HEAD + "metrics:\n  c:\n    a: {measure: count}\n    b: 5\n  d: [1]\n",
        [
            "4: metrics.c.a: needs `source` and `measure`, or `derive`",
            "5: metrics.c.b: needs `source` and `measure`, or `derive`",
            "6: metrics.d: must be a mapping, not list",
        ],
    ),
    "a key of another kind": (
        metric("source: p, measure: count, path: x/"),
        ["4: metrics.c.a.path: unknown key; did you mean `paths`?"],
    ),
    "a measure of another kind": (
        metric("source: g, measure: lines"),
        ["4: metrics.c.a.measure: Input should be 'commits', 'tracked_files', 'branches', 'size' or 'newest_age'"],
    ),
    "wrong types": (
        HEAD + "metrics:\n  c:\n    a:\n      source: p\n      measure: count\n      critical: perhaps\n"
        "      precision: 1.5\n      min: low\n      absent: 3\npolicy:\n  tolerance_pct: -1\n  min_abs: .nan\n",
        [
            "7: metrics.c.a.critical: Input should be a valid boolean, unable to interpret input",
            "8: metrics.c.a.precision: Input should be a valid integer, got a number with a fractional part",
            "9: metrics.c.a.min: Input should be a valid number, unable to parse string as a number",
            "10: metrics.c.a.absent: Input should be 0",
            "12: policy.tolerance_pct: Input should be greater than or equal to 0",
            "13: policy.min_abs: Input should be a finite number",
        ],
    ),
    "thresholds that fall": (
        "policy:\n  thresholds:\n    moderate: 20\n",
        ["2: policy.thresholds: must rise: moderate <= major <= extreme"],
    ),
    "a bad duration": (
        "settings:\n  lease: 60\n  sweep: 0s\n",
        [
            "2: settings.lease: write a number and one of ms, s, m, h, d, w, such as 60s",
            "3: settings.sweep: Input should be greater than 0 seconds",
        ],
    ),
    "a duration beyond reckoning": (
        "\nsettings: {lease: 99999999999999w}\n",
        ["2: settings.lease: 99999999999999w is too long; write a shorter duration, such as 365d"],
    ),
    "a bad size": (
        metric("source: lake, measure: count, smaller_than: 1kb"),
        [
            "4: metrics.c.a.smaller_than: write a number and one of bytes, B, kB, KB, MB, GB, TB, KiB, MiB, GiB, TiB, "
            "such as 1KiB"
        ],
    ),
    "a bad regular expression": (
        metric('source: g, measure: commits, message: "fix("'),
        ["4: metrics.c.a.message: is not a valid regular expression: missing ), unterminated subpattern at position 3"],
    ),
    "a branch and all branches": (
        metric("source: g, measure: commits, branch: main, all_branches: true"),
        ["4: metrics.c.a: set branch or all_branches, not both"],
    ),
    "a bad unit": (
        metric("source: p, measure: bytes, unit: Gb"),
        ["4: metrics.c.a: unit of bytes must be one of bytes, B, kB, KB, MB, GB, TB, KiB, MiB, GiB, TiB"],
    ),
    "a bad unit of an age": (
        metric("source: p, measure: newest_age, unit: GB"),
        ["4: metrics.c.a: unit of newest_age must be one of seconds, minutes, hours, days, weeks"],
    ),
    "max_age of a count": (
        metric("source: p, measure: count, max_age: 1h"),
        ["4: metrics.c.a: max_age is for ages (newest_age, oldest_age, age); use max here"],
    ),
    "max_age of a derived metric": (
        metric("source: p, measure: count") + "    b: {derive: c.a + 1, max_age: 1h}\n",
        ["5: metrics.c.b: max_age is for ages (newest_age, oldest_age, age); use max here"],
    ),
    "a bad expression": (
        HEAD + "metrics:\n  c:\n    a: {derive: c.b +}\n    b: {derive: 5}\n",
        [
            "4: metrics.c.a.derive: is not a valid formula: invalid syntax (<unknown>, line 1)",
            "5: metrics.c.b.derive: Input should be a valid string",
        ],
    ),
    "derived from nothing known": (
        metric("source: p, measure: count") + "    b:\n      derive: c.aa + z.q\n",
        [
            "6: metrics.c.b.derive: unknown metric 'c.aa'; did you mean `c.a`?",
            "6: metrics.c.b.derive: unknown metric 'z.q'; write one of c.a, c.b",
        ],
    ),
    "derived from an age": (
        metric("source: p, measure: newest_age") + "    b: {derive: c.a + 1}\n",
        ["5: metrics.c.b.derive: c.a is an age; a formula takes only numbers"],
    ),
    "derived from itself": (
        "metrics:\n  c:\n    a: {derive: c.a + 1}\n",
        ["3: metrics.c.a.derive: depends on itself: c.a -> c.a"],
    ),
    "a cycle of two": (
        "metrics:\n  c:\n    b: {derive: c.a}\n    a: {derive: c.b}\n",
        ["4: metrics.c.a.derive: depends on itself: c.a -> c.b -> c.a"],
    ),
    "a cycle of three, and what hangs on it": (
        "metrics:\n  c:\n    x: {derive: c.z}\n    y: {derive: c.x}\n    z: {derive: c.y}\n    a: {derive: c.x}\n",
        ["3: metrics.c.x.derive: depends on itself: c.x -> c.z -> c.y -> c.x"],
    ),
    "two cycles": (
        "metrics:\n  c:\n    a: {derive: c.b}\n    b: {derive: c.a}\n    d: {derive: c.d}\n",
        [
            "3: metrics.c.a.derive: depends on itself: c.a -> c.b -> c.a",
            "5: metrics.c.d.derive: depends on itself: c.d -> c.d",
        ],
    ),
    "a missing variable": (
        'sources:\n  p:\n    type: files\n    path: "${NOPE}/x"\n',
        ["4: sources.p.path: the variable NOPE is not set; set it or write ${NOPE:-default}"],
    ),
    "an empty variable where a text is needed": (
        'sources:\n  p: {type: files, path: "${EMPTY}"}\n',
        ["2: sources.p.path: String should have at least 1 character"],
    ),
    "half a variable": (
        "sources:\n  p: {type: files, path: '${A'}\n  q: {type: files, path: '${a-b}'}\n",
        [
            f"{line}: sources.{name}.path: has a `${{` without a variable; write ${{NAME}}, ${{NAME:-default}} or $${{"
            for line, name in ((2, "p"), (3, "q"))
        ],
    ),
    "a key twice": (
        "sources:\n  p: {type: files, path: .}\n  p: {type: files, path: x}\n",
        ["3: sources.p: appears twice in the same mapping; keep one"],
    ),
    "a rule without `on`": (
        HEAD + "rules:\n  r: {metrics: '*'}\n  s: {on: []}\n  t:\n",
        [
            f"{line}: rules.{name}: needs `on` (event types) or `schedule` (cron)"
            for line, name in ((3, "r"), (4, "s"), (5, "t"))
        ],
    ),
    "a rule that names no metric": (
        metric("source: p, measure: count") + "rules:\n  r:\n    on: x\n    metrics: [c.*, d.*]\n",
        ["8: rules.r.metrics: unknown metric 'd.*'; write one of c.a"],
    ),
    "a watch of what is no tree of files": (
        HEAD + "watch:\n- p\n- lake\n- que\n",
        [
            "4: watch.1: lake is a source of type s3; name a source of type files",
            "5: watch.2: unknown source 'que'; write one of g, lake, p",
        ],
    ),
    "names with capitals": (
        "sources: {Lake: {type: files, path: .}}\nmetrics:\n  C:\n    aB: {source: Lake, measure: count}\nrules:\n"
        "  git-commit: {on: a}\n",
        [f"{place}: {NAME}" for place in ("1: sources.Lake", "3: metrics.C", "4: metrics.C.aB", "6: rules.git-commit")],
    ),
    "an alias of a parent": (
        "sources: &a\n  p: *a\n",
        [
            "1: sources.p: contains itself; this alias names one of its parents",
            "2: sources.p.type: must be one of s3, files, git, sql, aws, command",
        ],
    ),
}


@pytest.mark.parametrize("case", PROBLEMS)
def test_every_problem_has_its_place(case: str, load_text: Load):
    text, expected = PROBLEMS[case]
    with pytest.raises(InvalidConfig) as invalid:
        load_text(text, {"EMPTY": ""})
    assert str(invalid.value).splitlines() == [f"dims.yaml:{problem}" for problem in expected]
    assert invalid.value.exit_code == 2


def test_problems_of_several_files_are_reported_together(load_text: Load):
    main = "include: [more.yaml, gone.yaml]\nsources:\n  p: {type: files, path: .}\npolicy: {tolerance: 2}\n"
    more = "\nsources:\n  p: {exclude: data}\nmetrics:\n  c: {a: {source: q, measure: count}}\n"
    with pytest.raises(InvalidConfig) as invalid:
        load_text(main, more=more)
    assert str(invalid.value).splitlines() == [
        "dims.yaml:4: policy.tolerance: unknown key; did you mean `tolerance_pct`?",
        "gone.yaml:1: cannot be read: No such file or directory",
        "more.yaml:3: sources.p: is defined in two files; keep one definition",
        "more.yaml:5: metrics.c.a.source: unknown source 'q'; write one of p",
    ]


@pytest.mark.parametrize(
    ("more", "where"),
    [
        ("metrics: {c: {a: {source: p, measure: lines}}}", "1: metrics.c.a"),
        ("rules: {r: {on: y}}", "1: rules.r"),
        ("\nwatch: [p]", "2: watch"),
        ("policy: {tolerance_pct: 3}", "1: policy.tolerance_pct"),
        ("policy: {thresholds: {major: 16}}", "1: policy.thresholds"),
        ("include: x.yaml", "1: include"),
    ],
)
def test_what_two_files_may_not_share(more: str, where: str, load_text: Load):
    main = (
        "include: more.yaml\n" + metric("source: p, measure: count") + "rules: {r: {on: x}}\nwatch: [p]\n"
        "policy: {tolerance_pct: 2, thresholds: {major: 15}}\n"
    )
    with pytest.raises(InvalidConfig) as invalid:
        load_text(main, more=more)
    assert str(invalid.value) == f"more.yaml:{where}: is defined in two files; keep one definition"


def test_a_file_that_is_not_utf8_is_refused(tmp_path: Path):
    (tmp_path / "dims.yaml").write_bytes(b"sources: \xff\n")
    with pytest.raises(InvalidConfig, match=r"^dims\.yaml:1: is not UTF-8 text; save the file as UTF-8$"):
        load_config(None, {}, tmp_path)


@pytest.mark.parametrize(
    ("schedule", "problem"),
    [
        ("0 9 * * *", None),
        ("*/15 0-6,22 1,15 jan-mar mon-fri", None),
        ("99 9 * * *", "schedule '99 9 * * *' is not valid cron: bad minute"),
        ("0 0 9 * * *", "schedule must have five fields: minute, hour, day of month, month, day of week"),
        ("0 9 * *", "schedule must have five fields: minute, hour, day of month, month, day of week"),
        ("0 9 0 * *", "schedule '0 9 0 * *' is not valid cron: bad day-of-month"),
        ("0 9 * * someday", "schedule '0 9 * * someday' is not valid cron: bad day-of-week"),
        ("*/0 9 * * *", "schedule '*/0 9 * * *' is not valid cron: bad minute"),
    ],
)
def test_a_schedule_is_checked_at_load(tmp_path: Path, schedule: str, problem: str | None):
    (tmp_path / "dims.yaml").write_text(f'rules:\n  r: {{schedule: "{schedule}"}}\n')
    if problem is None:
        assert load_config(None, {}, tmp_path).rules["r"].schedule == schedule
    else:
        with pytest.raises(InvalidConfig) as invalid:
            load_config(None, {}, tmp_path)
        assert str(invalid.value) == f"dims.yaml:2: rules.r: {problem}"


def test_a_time_zone_is_checked_at_load(tmp_path: Path):
    (tmp_path / "dims.yaml").write_text('rules:\n  r: {schedule: "0 9 * * *", timezone: Mars/Olympus}\n')
    with pytest.raises(InvalidConfig) as invalid:
        load_config(None, {}, tmp_path)
    problem = "'Mars/Olympus' is not a time zone; write one such as UTC or Europe/Berlin"
    assert str(invalid.value) == f"dims.yaml:2: rules.r.timezone: {problem}"
