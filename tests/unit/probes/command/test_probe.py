"""CommandProbe with real processes: what they print, how they end, and that none is left behind."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import psutil
import pytest

from dims_worker.config import CommandMetric, CommandSource
from dims_worker.errors import MeasureError
from dims_worker.probes.base import Deadline, Reading, ScanContext, readings_by_name
from dims_worker.probes.command.probe import CommandProbe
from dims_worker.probes.json_path import resolve_pointer

Scan = Callable[..., dict[str, Reading]]


@pytest.fixture
def scan(context: ScanContext) -> Scan:
    def run(seconds: float = 30, cwd: str = ".", **metrics: CommandMetric) -> dict[str, Reading]:
        deadline = Deadline.after(timedelta(seconds=seconds))
        where = CommandSource(type="command", cwd=cwd)
        return readings_by_name(CommandProbe().scan(where, metrics, context, deadline).readings)

    return run


def metric(*words: str, **more: Any) -> CommandMetric:
    return CommandMetric(source="tools", command=words, **more)


def shell(text: str, **more: Any) -> CommandMetric:
    return CommandMetric(source="tools", command=text, shell=True, **more)


def python(code: str, **more: Any) -> CommandMetric:
    return metric(sys.executable, "-c", code, **more)


def values(readings: dict[str, Reading]) -> dict[str, Any]:
    assert [reading.error for reading in readings.values() if reading.error] == []
    return {name: reading.value for name, reading in readings.items()}


def test_output_is_parsed(scan: Scan) -> None:
    printed = '{"totals": [{"files": 7, "part": 0.5, "name": "é", "ok": true, "half": "\\ud800"}]}'
    json = {name: metric("echo", printed, parse="json", pointer=f"totals.0.{name}") for name in ("files", "part", "ok")}
    results = values(
        scan(
            integer=metric("echo", " 42 ", unit="files"),
            below=metric("echo", "-7"),
            number=metric("echo", "1.5e3", parse="number"),
            whole=metric("echo", "12", parse="number"),
            text=metric("printf", "ready\nsteady\n\n", parse="text"),
            silent=metric("true", parse="text"),
            raw=metric("printf", r"a\377\0b", parse="text"),
            name=metric("printf", "%s", printed, parse="json", pointer="totals.0.name"),
            half=metric("printf", "%s", printed, parse="json", pointer="totals.0.half"),
            **json,
        )
    )
    assert results == {
        "integer": 42,
        "below": -7,
        "number": 1500.0,
        "whole": 12,
        "text": "ready\nsteady",
        "silent": "",
        "files": 7,
        "part": 0.5,
        "ok": True,
        "name": "é",
        "half": r"\ud800",
        "raw": r"a\xff\x00b",
    }
    assert type(results["whole"]) is int and results["ok"] is True


@pytest.mark.parametrize(
    ("words", "more", "text"),
    [
        (("true",), {}, "printed nothing, which is not an integer"),
        (("echo", "1.5"), {}, "printed '1.5', which is not an integer"),
        (("echo", "1_000"), {}, "printed '1_000', which is not an integer"),
        (("echo", "٣"), {}, "is not an integer"),
        (("echo", "nan"), {"parse": "number"}, "printed 'nan', which is not a number"),
        (("echo", "1e999"), {"parse": "number"}, "is not a number"),
        (("echo", "{"), {"parse": "json", "pointer": "a"}, "printed '{', which is not JSON"),
        (("echo", '{"a": NaN}'), {"parse": "json", "pointer": "a"}, "is not JSON"),
        (("echo", '{"a": 1e999}'), {"parse": "json", "pointer": "a"}, "too large"),
        (("echo", '{"a": [1]}'), {"parse": "json", "pointer": "b"}, "the JSON has no b: there is no 'b'"),
        (("echo", '{"a": [1]}'), {"parse": "json", "pointer": "a.1"}, "the JSON has no a.1: there is no '1' in a"),
        (
            ("echo", '{"a": [1]}'),
            {"parse": "json", "pointer": "a"},
            "the JSON has a list or an object at a, not a single value",
        ),
        (("echo", '{"a": [1, 2]}'), {"parse": "json", "pointer": "a.*"}, "2 values at a.*"),
        (("echo", '{"a": null}'), {"parse": "json", "pointer": "a"}, "the JSON has null at a"),
        (("no-such-program",), {}, "no-such-program was not found"),
        (("./data.txt",), {}, "./data.txt is not executable for this user"),
        (("./empty-shebang",), {}, "./empty-shebang cannot be run: Exec format error"),
        (("./lost-shebang",), {}, "./lost-shebang was not found (or the interpreter in its #! line)"),
        (("echo", "a\0b"), {}, "echo cannot be run: embedded null byte"),
        (("false",), {}, "false ended with exit code 1"),
    ],
)
def test_output_that_cannot_be_parsed_fails(
    words: tuple[str, ...], more: dict[str, Any], text: str, scan: Scan, tmp_path: Path
) -> None:
    (tmp_path / "data.txt").write_text("7")
    for name, content in (("empty-shebang", "\x7f7"), ("lost-shebang", "#!/no/such/shell\n")):
        (tmp_path / name).write_text(content)
        (tmp_path / name).chmod(0o755)
    reading = scan(m=metric(*words, **more))["m"]
    assert reading.method == "failed" and text in str(reading.error)


def test_null_gives_the_value_of_absent(scan: Scan) -> None:
    reading = scan(m=metric("echo", '{"a": null}', parse="json", pointer="a", absent=None))["m"]
    assert (reading.value, reading.error, reading.details) == (None, None, {"absent": "the JSON has null at a"})


def test_the_error_shows_the_error_output_of_a_program(scan: Scan) -> None:
    long = "seq 1 90000 >&2; echo one >&2; echo two >&2; echo three >&2; echo 5; exit 3"
    readings = scan(
        good=metric("echo", "1"),
        code=shell(long),
        killed=shell("kill -9 $$"),
        gone=shell("no-such-program"),
    )
    assert readings["good"].value == 1
    assert str(readings["code"].error).endswith("ended with exit code 3: one / two / three")
    assert readings["killed"].error == "kill -9 $$ was ended by SIGKILL"
    assert "ended with exit code 127" in str(readings["gone"].error)


def test_a_list_of_arguments_is_not_run_in_a_shell(scan: Scan, tmp_path: Path) -> None:
    readings = scan(
        words=metric("echo", "$HOME", "*", ";", "touch", "made", parse="text"),
        text=shell("seq 1 3 | wc -l"),
    )
    assert readings["words"].value == "$HOME * ; touch made" and readings["text"].value == 3
    assert not (tmp_path / "made").exists()


def test_the_folder_and_the_environment(scan: Scan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "tools").mkdir()
    script = tmp_path / "tools" / "here.sh"
    script.write_text("#!/bin/sh\npwd -P\n")
    script.chmod(0o755)
    monkeypatch.setenv("DIMS_DATABASE_URL", "postgresql://me:s3cret@host/db")
    monkeypatch.setenv("DIMS_BROKER_URL", "redis://:s3cret@host")
    monkeypatch.setenv("DIMS_HOME", "/of/dims")
    monkeypatch.setenv("OTHER", "kept")
    show = "import os, sys; print(sys.stdin.read(), *[os.environ.get(n) for n in {!r}])"
    names = ("DIMS_DATABASE_URL", "DIMS_BROKER_URL", "DIMS_HOME", "OTHER")
    readings = scan(cwd="tools", where=metric("./here.sh", parse="text"), env=python(show.format(names), parse="text"))
    assert readings["where"].value == str((tmp_path / "tools").resolve())
    assert readings["env"].value == "None None /of/dims kept"


def test_a_missing_folder(scan: Scan) -> None:
    with pytest.raises(MeasureError, match="gone is not a folder"):
        scan(cwd="gone", m=metric("echo", "1"))
    assert scan(cwd="gone", m=metric("echo", "1", absent=0))["m"].value == 0


def test_equal_commands_run_once_and_others_in_parallel(scan: Scan, tmp_path: Path) -> None:
    log = "echo x >> log; touch one; until [ -e two ]; do sleep 0.01; done; wc -l < log"
    other = "touch two; until [ -e one ]; do sleep 0.01; done; echo 1"  # each waits until the other runs
    readings = scan(a=shell(log), b=shell(log, unit="lines"), c=shell(log, parse="text"), d=shell(other))
    assert [reading.value for reading in readings.values()] == [1, 1, "1", 1]
    assert (tmp_path / "log").read_text() == "x\n"


def _left(folder: Path) -> list[int]:
    """Return the running processes whose pid is in a file of the folder."""
    numbers = [int(file.read_text()) for file in folder.glob("*.pid")]
    alive = [n for n in numbers if psutil.pid_exists(n) and psutil.Process(n).status() != psutil.STATUS_ZOMBIE]
    assert numbers
    return alive


@pytest.mark.parametrize(
    "command",
    [
        "echo $$ > a.pid; sleep 60 & echo $! > b.pid; wait",
        "(sleep 60 & echo $! > b.pid); trap '' TERM INT; while :; do sleep 1; done",
        "sleep 60 & echo $! > b.pid; echo 5",  # it ends, but its child keeps the output open
        "exec >&- 2>&-; echo $$ > a.pid; sleep 60",  # it closes its output and keeps running
    ],
)
def test_a_timeout_ends_grandchildren_too(command: str, scan: Scan, tmp_path: Path) -> None:
    begun = time.monotonic()
    readings = scan(seconds=1, slow=shell(command), quick=metric("echo", "1"))
    assert time.monotonic() - begun < 30  # the commands take a minute or do not end
    assert readings["slow"].error == "the scan took longer than its timeout of 1 s"
    assert readings["quick"].value == 1
    end = time.monotonic() + 5
    while _left(tmp_path) and time.monotonic() < end:
        time.sleep(0.02)
    assert _left(tmp_path) == []


def test_output_is_limited(scan: Scan) -> None:
    readings = scan(
        endless=metric("yes"),
        full=python("print('x' * 2**16)", parse="text"),
        long=python("print('x' * (2**16 + 1))", parse="text"),
        json=python("print(' ' * 2**19 + '[7]')", parse="json", pointer="0"),
        over=python("print('x' * 2**20)", parse="text"),
    )
    assert readings["endless"].error == "yes printed more than 1 MiB and was stopped"
    assert len(str(readings["full"].value)) == 2**16
    assert readings["json"].value == 7
    assert str(readings["long"].error).startswith("printed a text of 65,537 bytes, more than 64 KiB")
    assert "more than 1 MiB" in str(readings["over"].error)


def _open() -> int:
    return psutil.Process().num_fds()


def test_nothing_stays_open(scan: Scan) -> None:
    scan(warm=metric("echo", "1"))
    before = _open()
    scan(a=metric("echo", "1"), b=metric("false"), c=metric("no-such-program"), d=metric("yes"))
    scan(seconds=0.2, e=metric("sleep", "30"))
    assert _open() == before


def test_json_pointers() -> None:
    document = {"games": [{"id": 1}, {"id": 2}], "by": {"a": {"n": 3}, "b": {"n": 4}}, "1": 5}
    assert list(resolve_pointer(document, "games.*.id")) == [1, 2]
    assert list(resolve_pointer(document, "by.*.n")) == [3, 4]
    assert list(resolve_pointer(document, "games.1.id")) == [2]
    assert list(resolve_pointer(document, "1")) == [5]
    assert list(resolve_pointer({"a": []}, "a.*.id")) == []
    for gone in ("games.2", "games.-1", "games.x", "by.c", "1.*", "", "games.*.name"):
        with pytest.raises(LookupError):
            list(resolve_pointer(document, gone))


def test_numbers_keep_all_their_digits(scan: Scan) -> None:
    digits = "12345678901234567890.1234567890123456789"
    readings = scan(
        number=python(f"print('{digits}')", parse="number"),
        zeros=python("print('12.50')", parse="number"),
        plain=python("print('1e5')", parse="number"),
        json=python(f"print('[{digits}, \"x\"]')", parse="json", pointer="0"),
        many=python("print('0.' + '1' * 1001)", parse="number"),
        text=python("print('[\"' + 'x' * 70000 + '\"]')", parse="json", pointer="0"),
    )
    assert (readings["number"].value, readings["json"].value) == (Decimal(digits), Decimal(digits))
    assert str(readings["zeros"].value) == "12.50" and readings["plain"].value == 100000.0
    assert "more than 1,000 digits" in str(readings["many"].error)
    assert "a text of 70,000 bytes" in str(readings["text"].error)


def test_programs_that_hang_fail_alone(scan: Scan) -> None:
    slow = {f"slow{n}": metric("sleep", "60", str(n)) for n in range(5)}
    quick = {f"quick{n}": metric("expr", "0", "+", str(n)) for n in range(1, 4)}
    readings = scan(seconds=5, **slow, **quick)
    assert [readings[name].value for name in quick] == [1, 2, 3]
    assert all("timeout" in str(readings[name].error) for name in slow)
