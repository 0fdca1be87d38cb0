"""`dims mute` refuses what does not exist, and `dims config` shows owners and maintenance windows. No database."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from dims_worker.cli.main import main

YAML = """
sources: {disk: {type: files, path: data}, other: {type: files, path: data}}
metrics: {lake: {files: {source: disk, measure: count, critical: true}, lines: {source: other, measure: lines}}}
rules: {nightly: {schedule: "0 1 * * *"}}
"""
WINDOW = 'maintenance: {backup: {cron: "0 0 29 2 *", length: 1h}}\n'
CHANNEL = 'notify: {channels: {ops: {url: "", metrics: "*"}}}\n'
Dims = Callable[..., tuple[int, str]]


@pytest.fixture
def dims(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Dims:
    """Return a function that runs `dims` with a configuration, and returns the exit code and what it prints."""
    for name in os.environ:
        if name.startswith("DIMS_"):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str, config: str = YAML) -> tuple[int, str]:
        (tmp_path / "dims.yaml").write_text(config)
        with pytest.raises(SystemExit) as ended:
            main(list(arguments))
        printed = capsys.readouterr()
        return int(ended.value.code or 0), printed.out + printed.err

    return run


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (("lake.fils", "--for", "2h", "--reason", "x"), "Did you mean lake.files?"),
        (("nothing.*", "--for", "2h", "--reason", "x"), "there is no metric that matches the pattern nothing.*"),
        (("lake", "--for", "2 hours", "--reason", "x"), "write a number and one of ms, s, m, h, d, w, such as 60s"),
        (("lake", "--for", "0s", "--reason", "x"), "write a duration of more than 0s and at most 366d"),
        (("lake", "--for", "-2h", "--reason", "x"), "write a number and one of"),
        (("lake", "--for", "99999999w", "--reason", "x"), "at most 366d"),
        (("lake", "--for", "2h", "--reason", " "), "write why you mute it"),
        (("lake", "--for", "2h"), "Missing option '--reason'"),
        (("lake", "--reason", "x"), "Missing option '--for'"),
        (("--for", "2h", "--reason", "x"), "Missing argument 'TARGET...'"),
        (("end", "nine"), "'nine' is not a valid integer range"),
    ],
)
def test_what_cannot_be_muted_is_refused_with_the_fix(dims: Dims, arguments: tuple[str, ...], problem: str) -> None:
    code, printed = dims("mute", *arguments)
    assert code == 2
    assert problem in printed


def test_the_help_of_mute_needs_no_configuration(dims: Dims) -> None:
    code, printed = dims("mute", "--help", config="")
    assert code == 0
    assert "Muted means recorded but not sent" in printed


def test_config_check_warns_about_an_owner_without_a_channel(dims: Dims) -> None:
    owned = YAML.replace("critical: true", "critical: true, owner: ada")
    code, printed = dims("config", "check", config=owned + CHANNEL)
    assert code == 0
    assert "warning: no channel is called ada, the owner of lake.files\n" in printed
    assert "fix: add `notify: {channels: {ada: {url: ...}}}`, or name a channel as the owner\n" in printed
    for fine in (owned, YAML + CHANNEL, owned.replace("ada", "ops") + CHANNEL):
        assert "owner" not in dims("config", "check", config=fine)[1]


def test_config_show_has_windows_and_limits(dims: Dims) -> None:
    shown = json.loads(dims("config", "show", config=YAML + WINDOW)[1])
    assert shown["maintenance"]["backup"]["length"] == "3600s"
    assert (shown["notify"]["max_messages_per_day"], shown["notify"]["quiet_period"]) == (4, "21600s")


@pytest.mark.parametrize(
    ("section", "problem"),
    [
        (WINDOW.replace("length: 1h", "metrics: nope.*, length: 1h"), "maintenance.backup.metrics: unknown metric"),
        (WINDOW.replace("length: 1h", "sources: dsk, length: 1h"), "maintenance.backup.sources: unknown source 'dsk'"),
        (
            WINDOW.replace("length: 1h", "categories: lak, length: 1h"),
            "maintenance.backup.categories: unknown category",
        ),
        (WINDOW.replace("length: 1h", "lenght: 1h"), "maintenance.backup.lenght: unknown key; did you mean `length`?"),
        (WINDOW.replace("0 0 29 2 *", "0 0 1 2"), "maintenance.backup: cron must have five fields"),
        (WINDOW.replace("length: 1h", "length: 1h, timezone: Mars"), "maintenance.backup.timezone: 'Mars' is not"),
        ("maintenance: [1]\n", "maintenance: must be a mapping, not list"),
        ("notify: {max_messages_per_day: 0}\n", "notify.max_messages_per_day: Input should be greater than"),
        ("notify: {quiet_period: 6}\n", "notify.quiet_period: write a number and one of"),
    ],
)
def test_a_wrong_section_is_reported_with_its_key(dims: Dims, section: str, problem: str) -> None:
    code, printed = dims("config", "check", config=YAML + section)
    assert code == 2
    assert problem in printed


@pytest.mark.parametrize("keys", ["metrics: lake.*", "metrics: rule:nightly", "sources: disk", "categories: [lake]"])
def test_a_window_names_metrics_rules_sources_and_categories(dims: Dims, keys: str) -> None:
    section = WINDOW.replace("length: 1h", f"length: 1h, {keys}")
    assert dims("config", "check", config=YAML + section)[0] == 0
