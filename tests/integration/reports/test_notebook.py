"""The notebook, run once by a read-only login on a database with long history: cells, charts and sheets."""

from __future__ import annotations

import base64
import os
import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import nbformat
import openpyxl
import pandas as pd
import pytest
from sqlalchemy import Engine, create_engine, text
from sqlalchemy.exc import DBAPIError

from dims_worker import local
from dims_worker.domain.health import metric_health
from dims_worker.errors import DatabaseForbidden, UsageError
from dims_worker.notebook import runner
from dims_worker.notebook.frames import NotebookData
from dims_worker.store.engine import clock, transaction
from dims_worker.store.incidents import open_incidents
from dims_worker.store.metric_states import states_of
from tests.conftest import Project
from tests.fixtures.long_history import fill, fill_incidents
from tests.integration.workflows.helpers import BUCKET, CONFIG, make_tables

MORE = """    lines: {source: here, measure: lines, paths: "*.md", volatility: stable}
    files: {source: here, measure: count, paths: "*.md", critical: true}
    jumpy: {source: here, measure: bytes, paths: "*.md"}
    sleepy: {source: here, measure: count, paths: "*.txt", stale_after: 30m}
    drifted: {source: here, measure: bytes, paths: "*.txt"}
    gone: {source: here, measure: lines, paths: "*.txt"}
    age: {source: here, measure: newest_age, paths: "*.md"}
"""
FIGURES = """
    states incidents changes trend trend trend trend trend trend drift_map volatility runs durations requests deciders
    event_flow event_lag advice gaps sides costs completeness
"""
DAYS = 60


@dataclass
class World:
    """A project with its database and a read-only login."""

    project: Project
    owner: Engine
    reader: Engine

    @property
    def data(self) -> NotebookData:
        return NotebookData(self.project.config, self.reader)


@pytest.fixture(scope="module")
def world(servers: local.ServerUrls, template: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    root = tmp_path_factory.mktemp("notebook")
    url = str(servers.database_url).rpartition("/")[0]
    admin = create_engine(str(servers.database_url), isolation_level="AUTOCOMMIT")
    with admin.connect() as connection:
        connection.execute(text(f"CREATE DATABASE notebook TEMPLATE {template}"))
        connection.execute(text("CREATE ROLE notebook_reader LOGIN PASSWORD 'secret' IN ROLE dims_reader"))
    owner = create_engine(f"{url}/notebook")
    reader = create_engine(owner.url.set(username="notebook_reader", password="secret"))
    project = Project(root, {"DIMS_DATABASE_URL": f"{url}/notebook", "DIMS_HOME": str(root / "home"), **AWS})
    project.env["NBA_DATABASE_URL"] = project.env["DIMS_DATABASE_URL"]
    config = CONFIG.replace("instance: nba-sim-db, ", "").replace("rules:", f"  project:\n{MORE}rules:")
    config = config.replace("sources:", 'sources:\n  here: {type: files, path: "."}')
    project.write({"dims.yaml": config, "a.md": "# A\n", "b.txt": "b\n", "local/bbref/a": "1", "local/bbref/b": "2"})
    now = datetime.now(UTC)
    fill(owner, project.config, until=now - timedelta(hours=2), days=DAYS, log=DAYS)
    fill_incidents(owner)
    with owner.begin() as connection:
        for statement in CHANGES:
            assert connection.execute(text(statement)).rowcount
    _workflows(project)
    yield World(project, owner, reader)
    for engine in (owner, reader):
        engine.dispose()
    with admin.connect() as connection:
        connection.execute(text("DROP DATABASE notebook WITH (FORCE)"))
        connection.execute(text("DROP ROLE notebook_reader"))
    admin.dispose()


AWS = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_DEFAULT_REGION": "us-east-1"}
CHANGES = (
    "UPDATE dims_metrics_history SET value = to_jsonb(1000 + 700 * (generation % 3)) "
    "WHERE metric = 'project.jumpy' AND outcome <> 'failed'",
    "UPDATE dims_metrics_history SET value = '5' WHERE metric = 'project.sleepy' AND outcome <> 'failed'",
    "UPDATE dims_metrics SET error = 'no such folder', failures = 2 WHERE metric = 'project.gone'",
    "UPDATE dims_metrics SET drift_pct = 18.7, status = 'major' WHERE metric = 'project.drifted'",
    "UPDATE dims_metrics_history SET outcome = 'rejected', status = 'major', drift_pct = 30, "
    "value = to_jsonb((value #>> '{}')::numeric * 1.3) WHERE metric = 'project.files' AND generation = 30",
    "UPDATE dims_event_log SET producer = '=cmd|<b>x</b>', reason = '<script>alert(1)</script>' "
    "WHERE outcome = 'rejected'",
)


def _workflows(project: Project) -> None:
    """Run one audit of a simulated lake and warehouse: gap-analysis, aws-inventory, sync-status."""
    from moto.moto_api._internal import moto_api_backend
    from moto.s3.models import s3_backends
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    project.env["AWS_ENDPOINT_URL"] = f"http://{host}:{port}"
    backend = s3_backends["123456789012"]["aws"]
    backend.create_bucket(BUCKET, "us-east-1")
    for key in ("espn_play_by_play/1.json", "espn_box_scores/1.json", "espn_team_stats/1.json", "bbref/a", "bbref/c"):
        backend.put_object(BUCKET, key, b"x")
    engine = create_engine(project.env["NBA_DATABASE_URL"])
    make_tables(engine, [("1", "2013-03-16", 3), ("2", "2013-12-16", 3), ("3", "2013-12-17", 3)], ["1", "2"], [1, 3])
    engine.dispose()
    try:
        done = project.dims("workflow", "all")
    finally:
        server.stop()
        moto_api_backend.reset()
    assert done.returncode == 0, done.stdout + done.stderr


@dataclass
class Run:
    document: Any
    workbook: Path
    before: str
    after: str


def contents(engine: Engine) -> str:
    """Return a digest of all rows in the tables of DIMS."""
    with engine.connect() as connection:
        query = "SELECT relname FROM pg_class WHERE relkind = 'r' AND relname LIKE 'dims\\_%'"
        names = connection.execute(text(query))
        tables = sorted(row.relname for row in names)
        digest = "SELECT md5(string_agg(t::text, '|' ORDER BY t::text)) FROM {} t"
        digests = [connection.scalar(text(digest.format(name))) for name in tables]
    assert len(tables) >= 8
    return " ".join(map(str, digests))


@pytest.fixture(scope="module")
def run(world: World, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Run every cell once as a member of dims_reader."""
    folder = tmp_path_factory.mktemp("run")
    env = {
        **world.project.env,
        "DIMS_DATABASE_URL": world.reader.url.render_as_string(hide_password=False),
        "DIMS_CONFIG": str(world.project.folder / "dims.yaml"),
        "IPYTHONDIR": str(folder / "ipython"),
        runner.WORKBOOK: str(folder / "book.xlsx"),
    }
    before = contents(world.owner)
    document = runner.run_notebook(runner.notebook_path(), folder, env)
    return Run(document, folder / "book.xlsx", before, contents(world.owner))


def shown(document: Any) -> list[dict[str, Any]]:
    return [
        output.data["application/vnd.plotly.v1+json"]
        for cell in document.cells
        if cell.cell_type == "code"
        for output in cell.outputs
        if "application/vnd.plotly.v1+json" in output.get("data", {})
    ]


def length(values: Any) -> int:
    """Return the length of a trace's axis, which is a list or packed."""
    if isinstance(values, dict):
        return len(base64.b64decode(values["bdata"]))
    return sum(value is not None for value in values or ())


# --- the file ---------------------------------------------------------------------------------------------


def test_the_notebook_has_its_thirteen_sections_and_no_outputs() -> None:
    document = nbformat.read(runner.notebook_path(), as_version=4)
    nbformat.validate(document)
    titles = [cell.source.splitlines()[0] for cell in document.cells if cell.source.startswith("## ")]
    assert [title.split(".")[0] for title in titles] == [f"## {number}" for number in range(1, 14)]
    code = [cell for cell in document.cells if cell.cell_type == "code"]
    assert len(document.cells) >= 46
    assert all(cell.outputs == [] and cell.execution_count is None for cell in code)
    pairs = zip(document.cells, document.cells[1:], strict=False)
    assert all(before.cell_type == "markdown" for before, cell in pairs if cell.cell_type == "code")
    assert "spreadsheet.save_frames" in code[-1].source


def test_no_path_and_no_date_is_hard_coded() -> None:
    code = "\n".join(cell.source for cell in nbformat.read(runner.notebook_path(), as_version=4).cells)
    assert not re.findall(r"\b20\d\d-\d\d|postgresql|localhost|['\"]/|~/", code)


# --- the run ----------------------------------------------------------------------------------------------


def test_every_cell_runs_and_prints_nothing(run: Run) -> None:
    code = [cell for cell in run.document.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
    printed = [output for cell in code for output in cell.outputs if output.output_type == "stream"]
    assert printed == []


def test_every_chart_has_data(run: Run) -> None:
    figures = shown(run.document)
    assert [figure["layout"]["meta"]["dims"] for figure in figures] == FIGURES.split()
    for figure in figures:
        assert figure["data"], figure["layout"]["title"]
        for trace in figure["data"]:
            assert length(trace.get("x")) and (trace["type"] == "box" or length(trace.get("y"))), trace
    (drift,) = [figure for figure in figures if figure["layout"]["meta"]["dims"] == "drift_map"]
    assert any(value for row in drift["data"][0]["z"] for value in row)
    kinds = {
        trace["name"] for figure in figures if figure["layout"]["meta"]["dims"] == "trend" for trace in figure["data"]
    }
    assert kinds >= {"accepted", "held", "rejected", "baseline"}


def test_every_sheet_has_the_rows_of_the_database(run: Run, world: World) -> None:
    book = openpyxl.load_workbook(run.workbook)
    data = world.data
    expected = {
        "latest": data.latest(),
        "incidents": data.incidents(days=90),
        "changes": data.changes(days=90),
        "runs": data.runs(days=90),
        "approvals": data.requests(),
        "history": data.history(days=90),
        "events": data.events(days=90),
        "gaps": data.gaps(),
        "costs": data.costs(),
        "local and lake": data.local_and_lake(),
        "completeness": data.completeness(),
    }
    assert len(book.sheetnames) == 17
    for sheet in book:
        assert sheet.max_row > 1, sheet.title
        assert sheet.freeze_panes == "B2" and sheet.auto_filter.ref
        assert not [cell for row in sheet.iter_rows() for cell in row if cell.data_type == "f"], sheet.title
    for name, frame in expected.items():
        rows = list(book[name].iter_rows(min_row=2, values_only=True))
        assert len(rows) == len(frame), name
        for column, header in enumerate(frame.columns):
            if header in ("hours", "age_hours", "number", "baseline_number", "sentence"):
                continue  # these grow with time
            for row, value in zip(rows, frame[header].tolist(), strict=True):
                if value is None or pd.isna(value):
                    assert row[column] is None
                elif isinstance(value, pd.Timestamp):
                    assert abs(pd.Timestamp(row[column], tz="UTC") - value) < pd.Timedelta(seconds=0.01)
                elif isinstance(value, int | float):
                    assert type(row[column]) in (int, float, bool)
                    assert row[column] == pytest.approx(value)
                else:
                    assert row[column] == str(value)


def test_the_notebook_changes_nothing(run: Run, world: World) -> None:
    assert run.before == run.after
    with pytest.raises(DBAPIError), world.reader.begin() as connection:
        connection.execute(text("UPDATE dims_metrics SET value = '1'"))


def test_the_page_loads_nothing_from_elsewhere_and_shows_hostile_text_as_text(run: Run, tmp_path: Path) -> None:
    page = runner.as_html(run.document)
    assert not re.findall(r"<(?:script|link|img|iframe)[^>]*\s(?:src|href)=['\"]?(?:https?:)?//", page)
    assert "import('http" not in page and "Plotly.newPlot" in page
    assert "<script>alert(1)" not in page and "&lt;script&gt;alert(1)" in page
    if keep := os.environ.get("DIMS_KEEP"):
        Path(keep).write_text(page, encoding="utf-8")


# --- the frames on the database -----------------------------------------------------------------------------


def test_integers_stay_integers_and_times_are_aware(world: World) -> None:
    latest = world.data.latest()
    counts = latest[latest["metric"].isin(["project.files", "project.lines"])]
    assert [type(value) for value in counts["value"]] == [int, int]
    assert str(latest["as_of"].dt.tz) == "UTC"
    assert str(world.data.history("project.lines")["number"].dtype) == "Int64"
    ages = latest[latest["metric"] == "project.age"]["number"]
    assert 5 < float(ages.iloc[0]) < 8  # 5 hours at its reading, two hours ago


def test_each_kind_has_its_recommendations(world: World) -> None:
    table = world.data.recommendations()
    by_kind = {kind: set(rows["metric"]) for kind, rows in table.groupby("kind")}
    assert "project.jumpy" in by_kind["volatile"] and "project.files" not in by_kind["volatile"]
    assert by_kind["drift"] == {"project.drifted", "sync_status.local_s3"}  # the audit measured a difference
    assert by_kind["stale"] == {"project.sleepy"}
    assert by_kind["never changed"] == {"project.sleepy"}
    assert by_kind["held"] and by_kind["failed"]
    assert table["what_to_do"].str.len().min() > 10


def test_the_state_of_a_metric_is_its_health(world: World) -> None:
    latest = world.data.latest()
    with transaction(world.owner) as connection:
        states, incidents = states_of(connection, latest["metric"]), open_incidents(connection)
        health = {
            name: metric_health(world.project.config, state, incidents, clock(connection))
            for name, state in states.items()
        }
    for row in latest.itertuples():
        shown = health[row.metric]
        assert (row.state, row.flag, row.sentence) == (shown.label, shown.worst, shown.sentence)
    assert {"failing", "waits for approval", "stale", "ok"} <= set(latest["state"])
    assert set(world.data.latest(state="stale")["metric"]) == {"project.sleepy"}
    assert set(world.data.latest(state="waiting")["state"]) == {"waits for approval"}


def test_incidents_are_those_of_the_database_with_their_drift(world: World) -> None:
    incidents = world.data.incidents(days=90)
    with world.owner.connect() as connection:
        numbers = connection.execute(text("SELECT id FROM dims_incidents ORDER BY id")).scalars().all()
    assert list(incidents["incident"]) == list(numbers)
    assert set(world.data.incidents(days=0.001)["state"]) == {"open", "acknowledged"}
    drifts = incidents[incidents["kind"] == "drift"]
    assert set(drifts["drift_pct"].round(1)) == {18.7}
    assert {"drifted", "drifted, acknowledged", "failing", "waits for approval"} <= set(incidents["label"])
    advice = world.data.recommendations()
    acknowledged = incidents[(incidents["kind"] == "drift") & (incidents["state"] == "acknowledged")]
    assert not set(advice[advice["kind"] == "incident"]["metric"]) & set(acknowledged["metric"])


def test_changes_are_accepted_drifts_with_their_incidents(world: World) -> None:
    changes = world.data.changes(days=90)
    assert set(changes["accepted"]) == {"policy", "approved"}
    assert changes[changes["accepted"] == "approved"]["decided_by"].notna().all()
    assert changes["incident"].notna().all()
    assert changes["drift_pct"].is_monotonic_decreasing


def test_sql_runs_one_select_and_nothing_else(world: World) -> None:
    data = NotebookData(world.project.config, world.owner)  # even the owner
    answer = data.sql("SELECT 1 AS a, '50%' AS b, now() AS c;")
    assert (answer.iloc[0]["a"], answer.iloc[0]["b"]) == (1, "50%") and str(answer["c"].dt.tz) == "UTC"
    assert list(data.sql("SELECT metric FROM dims_metrics WHERE false").columns) == ["metric"]
    before = contents(world.owner)
    for query in (
        "SELECT 1; COMMIT; DELETE FROM dims_metrics",
        "SELECT set_config('transaction_read_only', 'off', false)",
        "COMMIT",
    ):
        with pytest.raises(DBAPIError):
            data.sql(query)
    for query in (
        "DELETE FROM dims_metrics RETURNING metric",
        "WITH gone AS (DELETE FROM dims_metrics RETURNING 1) SELECT * FROM gone",
        "SELECT setval('dims_batch_ids', 1)",
    ):
        with pytest.raises(DatabaseForbidden, match="in a read-only transaction"):
            data.sql(query)
    assert contents(world.owner) == before


# --- the command ------------------------------------------------------------------------------------------


def test_a_cell_that_fails_is_named_and_nothing_is_written(world: World) -> None:
    cells = [
        nbformat.v4.new_markdown_cell("## 1. Fine"),
        nbformat.v4.new_code_cell("1"),
        nbformat.v4.new_markdown_cell("## 2. Broken"),
        nbformat.v4.new_code_cell("1 / 0"),
    ]
    nbformat.write(nbformat.v4.new_notebook(cells=cells), world.project.folder / "broken.ipynb")
    done = world.project.dims("notebook", "export", "--notebook", "broken.ipynb", "-o", "out.html")
    assert done.returncode == 4
    assert done.stderr == "dims: cell 4 of 4 (2. Broken): ZeroDivisionError: division by zero\n"
    assert not (world.project.folder / "out.html").exists()


def test_the_command_writes_the_workbook(world: World) -> None:
    source = (
        "import os\nfrom pathlib import Path\nfrom dims_worker.notebook import frames\n"
        "from dims_worker.reports import spreadsheet\ndata = frames.open_data()\n"
        "spreadsheet.save_frames(Path(os.environ['DIMS_WORKBOOK']), {'latest': data.latest()})"
    )
    nbformat.write(
        nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source)]), world.project.folder / "small.ipynb"
    )
    world.project.dims("notebook", "export", "--excel", "--notebook", "small.ipynb", "-o", "out.xlsx", check=True)
    assert openpyxl.load_workbook(world.project.folder / "out.xlsx")["latest"].max_row > 5


def test_without_jupyterlab_the_error_has_the_fix(world: World) -> None:
    import importlib.util

    if importlib.util.find_spec("jupyterlab"):
        pytest.skip("JupyterLab is installed here")
    done = world.project.dims("notebook")
    assert done.returncode == 2 and "pip install 'dims-worker[notebook]'" in done.stderr


# --- the notebooks of a project -----------------------------------------------------------------------------


OWN = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("1 / 0")])
"""A notebook that another program made. Running it fails."""


def test_the_export_leaves_a_notebook_of_the_same_name_alone(project: Project) -> None:
    project.write(
        {"dims.yaml": "sources: {p: {type: files, path: .}}\nmetrics: {m: {a: {source: p, measure: count}}}\n"}
    )
    folder = project.folder / "notebooks"
    folder.mkdir()
    nbformat.write(OWN, folder / runner.NAME)
    before = (folder / runner.NAME).read_bytes()
    done = project.dims("notebook", "export", "-o", "out.html", check=True)
    assert done.stderr.startswith(f"dims: notebooks/{runner.NAME} is not exported.")
    assert f"`dims notebook export --file notebooks/{runner.NAME}`" in done.stderr
    cells = len(nbformat.read(runner.notebook_path(), as_version=4).cells)
    assert f"{cells} cells run" in done.stdout
    named = project.dims("notebook", "export", "--file", f"notebooks/{runner.NAME}", "-o", "out.html")
    assert (named.returncode, "ZeroDivisionError" in named.stderr) == (4, True)
    refused = project.dims("notebook", "export", "-o", f"notebooks/{runner.NAME}")
    assert refused.returncode == 2 and "is a notebook, which the export would replace" in refused.stderr
    assert (folder / runner.NAME).read_bytes() == before


def test_the_copy_of_a_project_gets_a_free_name(tmp_path: Path) -> None:
    assert runner.own_copy(tmp_path).name == runner.NAME
    shutil.copyfile(runner.notebook_path(), tmp_path / runner.NAME)
    assert runner.own_copy(tmp_path).name == runner.NAME  # a copy that DIMS made, and a person may have edited
    nbformat.write(OWN, tmp_path / runner.NAME)
    assert runner.own_copy(tmp_path).name == runner.OTHER_NAME
    nbformat.write(OWN, tmp_path / runner.OTHER_NAME)
    with pytest.raises(UsageError, match="are not copies of the notebook of DIMS"):
        runner.own_copy(tmp_path)
