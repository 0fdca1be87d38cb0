"""Every output shows the same word for the health of a metric, in every state that a metric can be in.

One project has a metric in each state. Each output is a function that returns what it shows for each metric. To test
another output, add a function to `OUTPUTS`.
"""

from __future__ import annotations

import csv
import io
import json
import os
import re
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from xml.etree import ElementTree

import openpyxl
import pytest
from prometheus_client import CollectorRegistry
from sqlalchemy import Engine, text

from dims_worker.approvals.decisions import decide_request
from dims_worker.cli.main import main
from dims_worker.domain.approvers import Decider
from dims_worker.incidents.decisions import acknowledge_incident
from dims_worker.notebook.frames import NotebookData
from dims_worker.reports.prometheus import PrometheusCollector
from dims_worker.store.engine import transaction
from dims_worker.store.incidents import Incident, open_incidents
from tests.conftest import Project
from tests.integration.web.conftest import Visit, visit  # noqa: F401 - a fixture

LABELS = {
    "m.failing": "failing",
    "m.waiting": "waits for approval",
    "m.limit": "beyond its limit",
    "m.future": "in the future",
    "m.lost": "lost",
    "m.drifted": "drifted",
    "m.flapping": "lost",
    "m.acknowledged": "lost, acknowledged",
    "m.rejected": "lost, acknowledged",
    "m.checked": "lost",
    "m.stale": "stale",
    "m.overdue": "overdue",
    "m.new": "new",
    "m.unmeasured": "not measured yet",
    "m.ok": "ok",
    "m.off": "off",
}
"""The label of each metric, which is named for its state. `m.checked` has a loss that only a check has found."""
TIMELESS = LABELS.keys() - {"m.stale", "m.new", "m.unmeasured", "m.off"}
"""The metrics whose state a check does not change."""
LATER = ("new", "unmeasured")
"""The metrics that the configuration gets after the others were measured."""


def config_text(*, later: tuple[str, ...]) -> str:
    """Return a configuration with the metrics of LABELS, without those of LATER that are not in `later`."""
    names = [name.partition(".")[2] for name in LABELS]
    critical = dict.fromkeys(("waiting", "rejected"), ", critical: true")
    more = critical | {"off": ", enabled: false", "limit": ", max: 5"}
    counted = [name for name in names if name not in ("failing", "future", *LATER) or name in later]
    return """
sources: {here: {type: files, path: data}, gone: {type: files, path: gone}}
policy: {stale_after: 7d}
metrics:
  m:
    failing: {source: gone, measure: count}
    future: {source: here, measure: newest_age, paths: "future/*"}
""" + "".join(
        f'    {name}: {{source: here, measure: count, paths: "{name}/*"{more.get(name, "")}}}\n' for name in counted
    )


ADA = Decider("ada", "option")


@dataclass
class World:
    """The project with a metric in each state, and `dims` in this process."""

    project: Project
    engine: Engine
    monkeypatch: pytest.MonkeyPatch
    capsys: pytest.CaptureFixture[str]
    visit: Visit

    def dims(self, *arguments: str) -> tuple[int, str]:
        """Run a command in the folder of the project. Return its exit code and output."""
        with self.monkeypatch.context() as patch:
            patch.chdir(self.project.folder)
            for name, value in {**self.project.env, "COLUMNS": "300"}.items():
                patch.setenv(name, value)
            with pytest.raises(SystemExit) as ended:
                main([*arguments])
        out, err = self.capsys.readouterr()
        assert "Traceback" not in err, err
        return int(ended.value.code or 0), out

    def fill(self, **numbers: int) -> None:
        """Leave this many files in these folders."""
        for name, number in numbers.items():
            folder = self.project.folder / "data" / name
            folder.mkdir(parents=True, exist_ok=True)
            for old in folder.iterdir():
                old.unlink()
            for n in range(number):
                (folder / str(n)).touch()

    def measure(self, *names: str) -> None:
        """Measure metrics and move their baselines."""
        self.dims("verify", "--update", "--quiet", *(part for name in names for part in ("-m", f"m.{name}")))

    def incident(self, name: str, kind: str) -> Incident:
        with transaction(self.engine) as connection:
            (found,) = (each for each in open_incidents(connection, [f"m.{name}"]) if each.kind == kind)
        return found

    def execute(self, statement: str) -> None:
        with transaction(self.engine) as connection:
            connection.execute(text(statement))


@pytest.fixture
def world(
    project: Project,
    engine: Engine,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    visit: Visit,  # noqa: F811
    broker_url: str,
) -> World:
    project.write({"dims.yaml": config_text(later=()), "gone/file": ""})
    project.env["DIMS_BROKER_URL"] = broker_url
    world = World(project, engine, monkeypatch, capsys, visit)
    names = {name.partition(".")[2] for name in LABELS} - {*LATER, "off", "future"}
    first = {"limit": 6, "future": 1, "new": 3, "unmeasured": 3, "off": 3}
    world.fill(**(dict.fromkeys(names, 10) | first))
    world.measure(*names, "future")

    (project.folder / "gone/file").unlink()
    (project.folder / "gone").rmdir()
    ahead = datetime(2031, 1, 1, tzinfo=UTC).timestamp()
    os.utime(project.folder / "data/future/0", (ahead, ahead))
    world.fill(waiting=4, lost=4, drifted=20, acknowledged=4, rejected=4, flapping=4, checked=4)
    changed = ("failing", "waiting", "limit", "future", "lost", "drifted", "acknowledged", "rejected", "flapping")
    world.measure(*changed, "ok")
    project.write({"dims.yaml": config_text(later=("new",))})
    world.measure("new")
    world.fill(flapping=10)
    world.measure("flapping")
    world.fill(flapping=4)
    world.measure("flapping")
    world.dims("verify", "-m", "m.checked")

    config, drift = project.config, world.incident("acknowledged", "drift")
    acknowledge_incident(engine, config, drift.id, version=None, person=ADA, note="known")
    decide_request(engine, config, "m.rejected", "rejected", version=1, person=ADA, note="no")
    past = "as_of = as_of - interval '30 days', baseline_as_of = baseline_as_of - interval '30 days'"
    world.execute(f"UPDATE dims_metrics SET {past} WHERE metric = 'm.stale'")
    due = "requested_gen = measured_gen + 1, due_since = clock_timestamp() - interval '1 day'"
    world.execute(f"UPDATE dims_metrics SET {due} WHERE metric = 'm.overdue'")
    others = "due_since = NULL, requested_gen = measured_gen"
    world.execute(f"UPDATE dims_metrics SET {others} WHERE metric <> 'm.overdue'")
    project.write({"dims.yaml": config_text(later=LATER)})
    return world


Shown = Mapping[str, str]
"""What an output shows for each metric: a text that begins with the label."""


def last_cells(table: str) -> Shown:
    """Return the last cell of each row that begins with the name of a metric."""
    rows = [re.split(r" {2,}", line.strip()) for line in table.splitlines()]
    return {row[0]: row[-1] for row in rows if row[0] in LABELS}


def verify_table(world: World) -> Shown:
    return last_cells(world.dims("verify")[1])


def verify_json(world: World) -> Shown:
    document = json.loads(world.dims("verify", "--json")[1])
    return {row["metric"]: row["health"]["label"] for row in document["metrics"]}


def verify_github(world: World) -> Shown:
    """Return what the annotations show. A metric that is fine has none."""
    _, out = world.dims("verify", "--format", "github")
    annotations = re.findall(r"^::(?:error|warning) title=(m\.\w+)::(.*)$", out, re.MULTILINE)
    return {"m.ok": "ok"} | {name: without_value(line) for name, line in annotations}


def verify_junit(world: World) -> Shown:
    root = ElementTree.fromstring(world.dims("verify", "--format", "junit")[1])
    shown = {}
    for case in root.iterfind("testsuite/testcase"):
        problem = case.find("failure") if case.find("failure") is not None else case.find("error")
        line = case.findtext("system-out") or ""
        shown[f"m.{case.get('name')}"] = str(problem.get("type")) if problem is not None else without_value(line)
    return shown


def without_value(line: str) -> str:
    """Return an annotation without the value: `4 files, baseline 10 files, -60.0 %: lost` becomes `lost`."""
    return re.sub(r"^-?\d[^:]*: |^in \d[^:]*: |^NO_VALUE: ", "", line)


def metrics_table(world: World) -> Shown:
    return last_cells(world.dims("metrics")[1] + world.dims("metrics", "m.off")[1])


def metrics_json(world: World) -> Shown:
    documents = [json.loads(world.dims("metrics", pattern, "--json")[1]) for pattern in ("*", "m.off")]
    return {row["metric"]: row["health"]["label"] for document in documents for row in document["metrics"]}


def status_lines(world: World) -> Shown:
    """Return the labels by the lines that name metrics. Only metrics that are not fine are named."""
    _, out = world.dims("status")
    shown = {name: LABELS[name] for name in ("m.ok", "m.new", "m.off")}
    for line in out.splitlines():
        for label in sorted(set(LABELS.values()), key=len, reverse=True):
            if line.startswith(f"{label}  ") or line.startswith(f"{label} m."):
                names = line.removeprefix(label).split(", ")
                shown |= {name.strip(): label for name in names}
                break
    return shown


def status_json(world: World) -> Shown:
    document = json.loads(world.dims("status", "--json")[1])
    shown = {name: LABELS[name] for name in ("m.ok", "m.new", "m.off")}
    return shown | {name: label for label, names in document["labels"].items() for name in names}


def explain_headline(world: World) -> Shown:
    shown = {}
    for name in LABELS:
        first = world.dims("explain", name)[1].splitlines()[0].removeprefix(f"{name}: ")
        shown[name] = re.sub(r"^(?:\d+ \w+|(?:in )?\d[\d.,]* \w+), ", "", first)
    return shown


def explain_json(world: World) -> Shown:
    return {name: json.loads(world.dims("explain", name, "--json")[1])["health"]["label"] for name in LABELS}


def report_csv(world: World) -> Shown:
    rows = csv.DictReader(io.StringIO(world.dims("report", "csv")[1]))
    return {"m.off": "off"} | {row["metric"]: row["state"] for row in rows}


def report_json(world: World) -> Shown:
    document = json.loads(world.dims("report", "json")[1])
    rows = (row for category in document["categories"] for row in category["metrics"])
    return {"m.off": "off"} | {row["metric"]: row["health"]["label"] for row in rows}


def report_html(world: World) -> Shown:
    """Return the first chip of each row of the categories."""
    page = world.dims("report", "html")[1]
    row = r'<tr><td><span class="name[^>]*>([^<]*)</span>(?:(?!</tr>).)*?<td class="s"><span class="chip[^>]*>(.*?)<'
    named = dict(re.findall(row, page, re.DOTALL))
    return {"m.off": "off"} | {f"m.{name.removeprefix('m.')}": label for name, label in named.items()}


def report_excel(world: World) -> Shown:
    world.dims("report", "excel", "-o", "book.xlsx")
    head, *rows = openpyxl.load_workbook(world.project.folder / "book.xlsx")["latest"].iter_rows(values_only=True)
    metric, state = head.index("metric"), head.index("state")
    return {"m.off": "off"} | {str(row[metric]): str(row[state]) for row in rows}


def notebook_frame(world: World) -> Shown:
    latest = NotebookData(world.project.config, world.engine).latest()
    return {"m.off": "off"} | dict(zip(latest["metric"], latest["state"], strict=True))


def exporter(world: World) -> Shown:
    registry = CollectorRegistry()
    url, broker = world.project.env["DIMS_DATABASE_URL"], world.project.env["DIMS_BROKER_URL"]
    registry.register(PrometheusCollector(world.project.config, url, broker))
    (family,) = [family for family in registry.collect() if family.name == "dims_metric_health"]
    return {sample.labels["metric"]: sample.labels["label"] for sample in family.samples}


def api(world: World) -> Shown:
    with world.visit(world.project.config, "ada") as client:
        documents = client.get("/api/metrics").json()["items"]
    return {document["metric"]: document["health"]["label"] for document in documents}


def pages(world: World) -> Shown:
    """Return the first chip of the page of each metric."""
    shown = {}
    with world.visit(world.project.config, "ada") as client:
        for name in LABELS:
            page = client.get(f"/metrics/{name}").text
            found = re.search(r'<span class="chips">.*?<span class="chip[^>]*>(.*?)</span>', page, re.DOTALL)
            shown[name] = found[1] if found else ""
    return shown


OUTPUTS: Mapping[str, Callable[[World], Shown]] = {
    "dims metrics": metrics_table,
    "dims metrics --json": metrics_json,
    "dims status": status_lines,
    "dims status --json": status_json,
    "dims explain": explain_headline,
    "dims explain --json": explain_json,
    "dims report csv": report_csv,
    "dims report json": report_json,
    "dims report html": report_html,
    "dims report excel": report_excel,
    "the notebook": notebook_frame,
    "the exporter": exporter,
    "the API": api,
    "the page of a metric": pages,
}
"""The outputs that measure nothing."""
CHECKS: Mapping[str, Callable[[World], Shown]] = {
    "dims verify": verify_table,
    "dims verify --json": verify_json,
    "dims verify --format github": verify_github,
    "dims verify --format junit": verify_junit,
}
"""The outputs that measure first, and so end some states."""


def label_of(shown: str) -> str:
    """Return the first label of what an output shows: `lost: down 60 %, incident 4; stale` becomes `lost`."""
    return re.split(r"[:;]| \(fails", shown)[0].strip()


def test_every_output_shows_the_same_word_for_every_state(world: World) -> None:
    for output, show in OUTPUTS.items():
        shown = show(world)
        assert {name: label_of(shown.get(name, "")) for name in LABELS} == LABELS, output

    code, status = world.dims("status")
    assert code in (1, 3), status  # 3: this test runs no workers
    assert "not healthy: " in status and "m.waiting (waits for approval, request " in status

    expected = {name: LABELS[name] for name in TIMELESS}
    for output, show in CHECKS.items():
        shown = show(world)
        assert {name: label_of(shown.get(name, "")) for name in TIMELESS} == expected, output


def test_the_summary_of_verify_counts_the_words_and_names_the_reason(world: World) -> None:
    code, out = world.dims("verify", "--quiet")
    assert (code, len(out.splitlines())) == (3, 1)
    for label, number in Counter(LABELS[name] for name in TIMELESS - {"m.ok"}).items():
        assert re.search(rf": .*\b{number} {label}\b", out), (label, out)
    assert out.rstrip().endswith("; exit code 3: m.failing (failing)")


REASONS = {
    "m.waiting": r"m\.waiting \(waits for approval: severity urgent, request \d+\)",
    "m.limit": r"m\.limit \(beyond its limit: severity high, high incident \d+ is open\)",
    "m.lost": r"m\.lost \(lost: urgent incident \d+ is open\)",
    "m.acknowledged": r"m\.acknowledged \(lost, acknowledged: urgent incident \d+ is acknowledged\)",
    "m.checked": r"m\.checked \(lost: severity urgent\)",
}


def test_exit_code_1_has_its_reason_in_every_format(world: World) -> None:
    for metric, reason in REASONS.items():
        for form in ("text", "github", "junit", "json"):
            code, out = world.dims("verify", "-m", metric, "--format", form)
            assert code == 1 and re.search(rf"exit code 1: {reason}", out), (form, out)
            assert not re.search(rf"{metric}\b.*: ok\b", out)
    code, out = world.dims("verify", "-m", "m.ok")
    assert code == 0 and "exit code" not in out


def test_a_run_shows_the_words_of_its_readings(world: World) -> None:
    """The run in which the values changed. A later decision changes what the run shows of a held value."""
    runs = json.loads(world.dims("runs", "--json")[1])["runs"]
    number = next(run["run_id"] for run in reversed(runs) if run["held"])
    shown = last_cells(world.dims("runs", str(number))[1])
    assert re.fullmatch(r"waits for approval: request \d+", shown["m.waiting"])
    assert shown["m.lost"] == "lost; accepted" and shown["m.drifted"] == "drifted; accepted"
    assert shown["m.limit"].startswith("beyond its limit: 6 is above max = 5")
    assert shown["m.ok"] == "ok" and shown["m.rejected"] == "lost; rejected, baseline kept"
    documents = json.loads(world.dims("runs", str(number), "--json")[1])["metrics"]
    labels = {document["metric"]: document["label"] for document in documents}
    assert labels == {name: label_of(text) for name, text in shown.items()}
    listed = world.dims("approvals", "list")[1]
    assert "waits for approval" in listed
