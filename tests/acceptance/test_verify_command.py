"""Test `dims verify` as a user runs it, on real servers."""

from __future__ import annotations

import http.server
import json
import subprocess
import threading
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from sqlalchemy import Engine, text

from dims_worker.cli.main import main
from tests.conftest import REPO, Lake, Project

LAKE = REPO.parent / "shared" / "nba_lake_2013"

KEYS = {"metric", "value", "unit", "baseline", "drift_pct", "status", "severity", "tier", "method", "as_of", "error"}


def document(project: Project, *arguments: str, code: int = 0) -> dict[str, Any]:
    """Return the document that `dims verify --json` prints. Nothing else is on standard output."""
    done = project.dims("verify", "--json", *arguments)
    assert done.returncode == code, done.stdout + done.stderr
    parsed: dict[str, Any] = json.loads(done.stdout)
    return parsed


def readings(verified: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {item["metric"]: item for item in verified["metrics"]}


def values(verified: dict[str, Any]) -> dict[str, Any]:
    return {item["metric"]: item["value"] for item in verified["metrics"]}


class Endpoint:
    """A proxy in front of the S3 server. A test can close it, or make it stop answering."""

    def __init__(self, lake: Lake) -> None:
        self.silent = False
        self.closed = threading.Event()
        endpoint = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                if endpoint.silent:
                    endpoint.closed.wait(30)
                    return
                with urllib.request.urlopen(f"{lake.url}{self.path}") as answer:
                    body = answer.read()
                self.send_response(200)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: Any) -> None:
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        self.thread = threading.Thread(target=self.server.serve_forever, daemon=True)
        self.thread.start()

    def close(self) -> None:
        self.closed.set()
        if self.thread.is_alive():
            self.server.shutdown()
            self.server.server_close()
            self.thread.join()


@pytest.fixture
def endpoints(lake: Lake) -> Iterator[tuple[Endpoint, Endpoint]]:
    pair = (Endpoint(lake), Endpoint(lake))
    yield pair
    for endpoint in pair:
        endpoint.close()


FAILING = """
sources:
  here: {{type: files, path: "."}}
  there: {{type: files, path: there}}
  lake: {{type: s3, bucket: lake}}
  closed: {{type: s3, bucket: lake, endpoint_url: "{closed}", timeout: 20s}}
  silent: {{type: s3, bucket: lake, endpoint_url: "{silent}", timeout: {timeout}}}
metrics:
  m:
    files: {{source: here, measure: count, paths: "*.txt"}}
    folder: {{source: there, measure: count}}
    objects: {{source: lake, measure: count, critical: true}}
    unreachable: {{source: closed, measure: count}}
    silent: {{source: silent, measure: count}}
    both: {{derive: "m.files + m.objects"}}
"""


def test_a_failure_is_a_failed_reading_and_never_a_zero(
    project: Project, engine: Engine, lake: Lake, endpoints: tuple[Endpoint, Endpoint]
) -> None:
    closed, silent = endpoints
    lake.put("lake", {"a": b"1", "b": b"2"})
    project.env |= lake.env
    project.write({"there/x": "1", "a.txt": "a\n"})
    project.write({"dims.yaml": FAILING.format(closed=closed.url, silent=silent.url, timeout="60s")})
    baseline = {"m.files": 1, "m.folder": 1, "m.objects": 2, "m.unreachable": 2, "m.silent": 2, "m.both": 3}
    assert values(document(project)) == baseline

    (project.folder / "there/x").unlink()
    (project.folder / "there").rmdir()
    project.write({"dims.yaml": FAILING.format(closed=closed.url, silent=silent.url, timeout="1500ms")})
    lake.drop("lake")
    closed.close()
    silent.silent = True
    started = time.monotonic()
    verified = document(project, code=3)
    assert time.monotonic() - started < 40  # without the timeout of its source, the silent endpoint would take a minute
    assert verified["status"] == "partial"
    assert len(verified["runs"]) == 1
    assert verified["run"] == verified["runs"][0]
    for item in verified["metrics"]:
        assert item.keys() >= KEYS
    by_name = readings(verified)
    assert (by_name["m.files"]["status"], by_name["m.files"]["value"]) == ("ok", 1)
    reasons = {
        "m.folder": "there",
        "m.objects": ": the bucket does not exist. Check `bucket`",
        "m.unreachable": ": unreachable (",
        "m.silent": "1.5 s",
        "m.both": "m.objects: S3 bucket lake at ",
    }
    for name, reason in reasons.items():
        item = by_name[name]
        assert (item["status"], item["method"], item["value"], item["drift_pct"]) == ("failed", "failed", None, None)
        assert item["baseline"] == baseline[name]
        assert reason in item["error"], item["error"]
    with engine.connect() as connection:
        rows = connection.execute(text("SELECT metric, baseline, value FROM dims_metrics")).fetchall()
        assert {row.metric: row.baseline for row in rows} == {row.metric: row.value for row in rows} == baseline
        (status,) = connection.execute(
            text("SELECT status FROM dims_verification_runs ORDER BY run_id DESC LIMIT 1")
        ).one()
        assert status == "partial"
    table = project.dims("verify", "--update", "-m", "m.objects")
    assert table.returncode == 3
    assert "unavailable" in table.stdout
    assert "S3 bucket lake at " in table.stdout


EXITS = """
sources: {here: {type: files, path: "."}}
metrics:
  m:
    plain: {source: here, measure: count, paths: "plain/*"}
    critical: {source: here, measure: count, paths: "critical/*", critical: true}
    lines: {source: here, measure: lines, paths: "plain/*"}
"""


def fill(project: Project, folder: str, number: int) -> None:
    for old in (project.folder / folder).glob("*"):
        old.unlink()
    project.write({f"{folder}/{index}": "a line\n" for index in range(number)})


def test_the_first_verify_shows_every_value_as_new_the_second_as_ok(project: Project) -> None:
    project.write({"dims.yaml": EXITS})
    fill(project, "plain", 10)
    fill(project, "critical", 100)
    first, second = document(project), document(project)
    assert {item["status"] for item in first["metrics"]} == {"new"}
    assert {item["status"] for item in second["metrics"]} == {"ok"}
    assert values(first) == values(second) == {"m.plain": 10, "m.critical": 100, "m.lines": 10}
    assert [type(value) for value in values(second).values()] == [int, int, int]


@dataclass
class InProcess:
    """Run `dims` in this process, which is faster. Return the exit code, the output and the errors."""

    project: Project
    monkeypatch: pytest.MonkeyPatch
    capsys: pytest.CaptureFixture[str]

    def __call__(self, *arguments: str) -> tuple[int, str, str]:
        with self.monkeypatch.context() as patch:
            patch.chdir(self.project.folder)
            for name, value in self.project.env.items():
                patch.setenv(name, value)
            with pytest.raises(SystemExit) as ended:
                main([*arguments])
        out, err = self.capsys.readouterr()
        return int(ended.value.code or 0), out, err


@pytest.fixture
def dims(project: Project, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> InProcess:
    return InProcess(project, monkeypatch, capsys)


def test_exit_codes_and_quiet_output(project: Project, dims: InProcess) -> None:
    project.write({"dims.yaml": EXITS})
    fill(project, "plain", 10)
    fill(project, "critical", 100)
    assert project.dims("verify").returncode == 0

    fill(project, "plain", 11)  # 10 %: moderate, medium
    assert dims("verify")[0] == 0
    assert dims("verify", "--fail-on", "medium")[0] == 1
    fill(project, "plain", 12)  # 20 %: major, high
    quiet = project.dims("verify", "--quiet")
    assert quiet.returncode == 1
    assert len(quiet.stdout.splitlines()) == 1
    assert "1 ok, 2 drifted; exit code 1: m.plain (drifted: severity high), m.lines (drifted: severity high)" in (
        quiet.stdout.replace("2 drifted, 1 ok", "1 ok, 2 drifted")
    )
    assert dims("verify", "--fail-on", "urgent")[0] == 0
    assert dims("verify", "-m", "m.critical")[0] == 0
    code, out, _ = dims("verify", "-m", "m.plain", "--json")
    assert (code, values(json.loads(out))) == (1, {"m.plain": 12})

    for wrong in (("-m", "m.nothing"), ("--fail-on", "loud"), ("-c", "nowhere"), ("--no-such-option",)):
        code, out, err = dims("verify", *wrong)
        assert (code, out) == (2, "")
        assert err
    assert project.dims("--config", "nowhere.yaml", "verify").returncode == 2

    project.env["DIMS_DATABASE_URL"] = "postgresql://dims:secret@127.0.0.1:1/nowhere"
    unreachable = project.dims("verify")
    assert (unreachable.returncode, unreachable.stdout) == (3, "")
    assert "127.0.0.1:1" in unreachable.stderr
    assert "secret" not in unreachable.stderr


def test_a_value_is_held_by_update_and_approved_from_the_command_line(project: Project, dims: InProcess) -> None:
    project.write({"dims.yaml": EXITS})
    fill(project, "critical", 100)
    fill(project, "plain", 10)
    assert dims("verify")[0] == 0
    fill(project, "critical", 120)
    verified = document(project, "--update", "--fail-on", "urgent", code=1)  # a held value is 1 with any --fail-on
    held = readings(verified)["m.critical"]
    assert (held["outcome"], held["tier"], held["baseline"], held["value"]) == ("held", "approve", 100, 120)
    (request,) = json.loads(dims("approvals", "list", "--json")[1])["requests"]
    assert (request["metric"], request["value"], request["baseline"], request["version"]) == ("m.critical", 120, 100, 1)
    number = str(request["id"])
    assert dims("approvals", "show", "99")[0] == 2
    code, out, _ = dims("approvals", "show", "m.critical")
    assert (code, "proposed     120" in out) == (0, True)
    code, _, err = dims("approvals", "approve", number, "--version", "7", "--as", "ada")
    assert (code, "has changed since version 7" in err) == (1, True)
    done = project.dims("approvals", "approve", number, "--version", "1", "--as", "ada", "--note", "backfill")
    assert (done.returncode, done.stderr) == (0, "")
    code, _, err = dims("approvals", "reject", number)
    assert (code, "approved by ada already" in err) == (1, True)
    code, out, _ = dims("verify", "--update", "--json")
    assert (code, readings(json.loads(out))["m.critical"]["baseline"]) == (0, 120)


MANY = """
sources: {lake: {type: s3, bucket: lake}}
metrics:
  s3:
    objects: {source: lake, measure: count}
    bytes: {source: lake, measure: bytes}
    mean: {source: lake, measure: mean_size}
    newest: {source: lake, measure: newest_age}
    oldest: {source: lake, measure: oldest_age}
    small: {source: lake, measure: count, smaller_than: 2}
    raw: {source: lake, prefix: raw/, measure: count}
    raw_bytes: {source: lake, prefix: raw/, measure: bytes, unit: kB}
    odd: {source: lake, prefix: odd/, measure: count}
    json: {source: lake, match: "*.json", measure: count}
    csv: {source: lake, suffix: .csv, measure: count}
    deep: {source: lake, prefix: raw/, match: "deep/**", measure: count}
"""


def test_a_bucket_of_5300_objects_with_12_metrics_costs_6_api_calls(project: Project, lake: Lake) -> None:
    names = []
    for n in range(5300):
        folder = f"{'odd' if n % 2 else 'raw'}/{'deep/' if n % 53 == 0 else ''}"
        names.append(f"{folder}{n}.{'csv' if n % 4 == 0 else 'json'}")
    lake.put("lake", {name: b"x" * (n % 3 + 1) for n, name in enumerate(names)})
    project.env |= lake.env
    project.write({"dims.yaml": MANY})
    verified = document(project)
    assert len(lake.lists) == 6
    assert verified["api_calls"] == 6
    measured = values(verified)
    assert len(measured) == 12
    counts = [measured[f"s3.{name}"] for name in ("objects", "raw", "odd", "json", "csv")]
    assert counts == [5300, 2650, 2650, 3975, 1325]
    assert measured["s3.deep"] == sum(name.startswith("raw/deep/") for name in names)
    assert measured["s3.bytes"] == sum(n % 3 + 1 for n in range(5300))
    assert measured["s3.small"] == sum(n % 3 == 0 for n in range(5300))


def _true_counts() -> dict[str, tuple[int, int]]:
    """Return the counts in the README of the data set, from lines `files / bytes in FOLDER   N/BYTES`."""
    counts = {}
    for line in (LAKE / "README.md").read_text().splitlines():
        if line.startswith("files / bytes in "):
            folder, numbers = line.removeprefix("files / bytes in ").split()
            files, size = numbers.split("/")
            counts[folder] = (int(files), int(size))
    return counts


@pytest.mark.skipif(not LAKE.is_dir(), reason=f"the real data set is not at {LAKE}")
def test_the_metrics_of_the_real_data_set_equal_its_readme(project: Project, lake: Lake) -> None:
    counts = _true_counts()
    assert sum(files for files, _ in counts.values()) == 716
    lake.put(
        "lake",
        {
            str(path.relative_to(LAKE)): path.read_bytes()
            for folder in counts
            for path in (LAKE / folder).rglob("*")
            if path.is_file()
        },
    )
    project.env |= lake.env
    lines = [
        f"    {folder}_{what}: {{source: lake, prefix: {folder}/, measure: {measure}}}\n"
        for folder in counts
        for what, measure in (("files", "count"), ("bytes", "bytes"))
    ]
    lines += [
        "    files: {source: lake, measure: count}\n",
        "    bytes: {source: lake, measure: bytes}\n",
        "    under_2048: {source: lake, measure: count, smaller_than: 2048}\n",
        "    under_4096: {source: lake, measure: count, smaller_than: 4096}\n",
    ]
    config = "sources: {lake: {type: s3, bucket: lake}}\nmetrics:\n  s3:\n" + "".join(lines)
    project.write({"dims.yaml": config})
    measured = values(document(project))
    for folder, (files, size) in counts.items():
        assert (measured[f"s3.{folder}_files"], measured[f"s3.{folder}_bytes"]) == (files, size)
    readme = (LAKE / "README.md").read_text().split()
    assert f"{measured['s3.files']}/{measured['s3.bytes']}" in readme
    assert (measured["s3.under_2048"], measured["s3.under_4096"]) == (297, 319)
    assert len(lake.lists) == 1


def test_this_repository_has_the_values_that_find_wc_and_git_count(project: Project) -> None:
    clone = project.folder.parent / "clone"
    subprocess.run(["git", "clone", "-q", str(REPO), str(clone)], check=True, capture_output=True)
    project.folder = clone
    (clone / "config" / "dims.yaml").unlink()  # `dims init` does not hide a configuration
    project.dims("init", check=True)
    measured = values(document(project))

    def count(command: str) -> int:
        done = subprocess.run(command, shell=True, cwd=clone, check=True, capture_output=True, text=True)
        return int(done.stdout)

    # A fresh clone contains no ignored file, except what Python compiles while the command runs in it
    everything = "find . -type f -not -path './.git/*' -not -name '*.pyc'"
    assert measured["code_base.python_files"] == count(f"{everything} -name '*.py' | wc -l")
    assert measured["code_base.python_lines"] == count(f"{everything} -name '*.py' -print0 | xargs -0 cat | wc -l")
    assert measured["code_base.python_tests"] == count(
        f"{everything} \\( -name 'test_*.py' -o -name '*_test.py' \\) | wc -l"
    )
    assert measured["project.files"] == count(f"{everything} | wc -l")
    counted = (path for path in clone.rglob("*") if path.is_file() and path.suffix != ".pyc")
    size = sum(path.stat().st_size for path in counted if ".git" not in path.parts)
    assert measured["project.bytes"] * 10**3 == pytest.approx(size, abs=0.5)
    assert measured["git.commits"] == count("git rev-list --count HEAD")
    if "documentation.files" in measured:
        assert measured["documentation.files"] == count(f"{everything} -name '*.md' | wc -l")
        assert measured["documentation.lines"] == count(f"{everything} -name '*.md' -print0 | xargs -0 cat | wc -l")
    assert {item["status"] for item in document(project)["metrics"]} == {"ok"}
