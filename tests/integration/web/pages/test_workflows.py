"""The pages of workflows, and the button that requests a run by an event."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Any

import pytest
from redis import Redis
from sqlalchemy import Engine, text
from starlette.testclient import TestClient

from dims_worker.config import Config, load_config
from dims_worker.domain.plan import Planner
from dims_worker.pipeline.ingest import ingest_stream, register_config
from dims_worker.pipeline.verify import measure_due
from dims_worker.store.engine import clock, transaction
from dims_worker.store.runs import insert_run
from tests.conftest import Project
from tests.integration.web.conftest import Visit, form_token

CONFIG = """
sources:
  project: {type: files, path: code}
metrics:
  code: {files: {source: project, measure: count}}
rules:
  nightly: {schedule: "30 2 * * *", workflows: [file-inventory]}
workflows:
  file_inventory: {source: project, report: FILES.md}
"""
HOSTILE = "<script>alert(1)</script>\"'\u202e"


@pytest.fixture
def config(project: Project, engine: Engine) -> Config:
    """A project with two files, one with a hostile name, and a workflow that lists them."""
    project.write({"dims.yaml": CONFIG, "code/a.py": '"""Adds."""\n', 'code/<b onclick="x">.md': "# T\n"})
    loaded = load_config(None, project.env, project.folder)
    with transaction(engine) as connection:
        register_config(connection, loaded)
    return loaded


def insert_workflow_run(engine: Engine, name: str, **parts: Any) -> int:
    """Record a run of a workflow with these parts of its result."""
    with transaction(engine) as connection:
        now = clock(connection)
        result = {"workflow": name, "generated_at": now.isoformat(), "quick": False, "unreached": {}, **parts}
        number, _ = insert_run(
            connection,
            {
                "trigger": "event",
                "source": f"workflow.{name}",
                "status": "ok",
                "worker": "w@h",
                "readings": 1,
                "failed": int(bool(result["unreached"])),
                "held": 0,
                "api_calls": 7,
                "result": result,
                "started_at": now - timedelta(seconds=2),
            },
        )
    return number


def audit_result(**parts: Any) -> dict[str, Any]:
    """Return the result of an audit."""
    return {"sections": [], "summary": [["file-inventory", "ok"]], "attention": [], **parts}


def start(client: TestClient, name: str = "file-inventory") -> tuple[str, str]:
    """Return the CSRF token and the event id of a workflow's form."""
    page = client.get(f"/workflows/{name}").text
    match = re.search(r'name="event_id" value="([^"]+)"', page)
    assert match
    return form_token(page), match[1]


def test_a_workflow_that_has_never_run_shows_how_to_run_it(config: Config, visit: Visit) -> None:
    client = visit(config, "ada")
    for path in ("/workflows", "/workflows/file-inventory"):
        page = client.get(path)
        assert page.status_code == 200
        assert "never run" in page.text and " <code>dims workflow file-inventory</code>" in page.text
        assert "List the files of a tree: type, lines" in page.text
        assert re.search(r'next <time datetime="[^"]+T02:30:00\+00:00">[^<]+</time>, by the rule nightly', page.text)
    assert "/workflows/audit" in client.get("/workflows").text


def test_a_real_run_is_shown_with_its_report(
    config: Config, engine: Engine, broker_url: str, project: Project, visit: Visit
) -> None:
    """From the click to the report: the event is stored, planned and served, and the page shows the result."""
    client = visit(config, "ada", broker_url=broker_url)
    token, event_id = start(client)
    answer = client.post("/workflows/file-inventory/start", data={"form_token": token, "event_id": event_id})
    assert (answer.status_code, answer.headers["location"]) == (303, f"/workflows/file-inventory?event={event_id}")
    assert "Requested. A worker will start it soon" in client.get(answer.headers["location"]).text

    with Redis.from_url(broker_url) as redis:
        assert ingest_stream(redis, engine, Planner(config)).stored == 1
    with engine.connect() as connection:
        row = connection.execute(text("SELECT seq, producer, event_id, data, metrics FROM dims_event_log")).one()
    assert (row.producer, row.event_id) == ("dims:web", event_id)
    assert row.data == {"workflow": "file-inventory", "by": "ada"} and row.metrics == ["workflow.file-inventory"]
    stored = client.get(answer.headers["location"]).text
    assert "Waiting for a worker since <time" in stored and "requested</span>" in stored
    assert f'requested by <a href="/events/{row.seq}">event {row.seq}</a>' in stored and event_id not in stored

    run = measure_due(engine, config, "workflow.file-inventory")
    assert run is not None
    done = client.get(answer.headers["location"]).text
    assert f'Done: <a href="/runs/{run.run_id}">run {run.run_id}</a>, requested by' in done
    assert '<span class="chip ok">ok</span>' in done and "a.py" in done
    assert "<h2" in done and '<div class="scroll" tabindex="0" role="region" aria-label="Table 1">' in done
    assert "<b onclick" not in done and "&lt;b onclick=&quot;x&quot;&gt;.md" in done
    assert done.count("<h1") == 1 and "style=" not in done


def test_a_double_click_is_one_event(config: Config, engine: Engine, broker_url: str, visit: Visit) -> None:
    client = visit(config, "ada", broker_url=broker_url)
    token, event_id = start(client)
    for _ in range(2):
        client.post("/workflows/file-inventory/start", data={"form_token": token, "event_id": event_id})
    assert start(client)[1] != event_id  # a new page has a new event id
    with Redis.from_url(broker_url) as redis:
        expected = ingest_stream(redis, engine, Planner(config))
    assert (expected.stored, expected.known) == (1, 1)


def test_an_old_form_sent_again_says_that_nothing_was_started(
    config: Config, engine: Engine, broker_url: str, visit: Visit
) -> None:
    client = visit(config, "ada", broker_url=broker_url)
    token, event_id = start(client)
    form = {"form_token": token, "event_id": event_id}
    with Redis.from_url(broker_url) as redis:
        client.post("/workflows/file-inventory/start", data=form)
        ingest_stream(redis, engine, Planner(config))
        run = measure_due(engine, config, "workflow.file-inventory")
        answer = client.post("/workflows/file-inventory/start", data=form)  # Back, then the button again
        assert run is not None and redis.xlen("dims:events") == 0
    page = client.get(answer.headers["location"]).text
    assert "Nothing new was started. You sent this form before" in page and "Done:" not in page
    assert f'<a href="/runs/{run.run_id}">run {run.run_id}</a> was the result' in page


@pytest.mark.parametrize(
    ("outcome", "expected"),
    [
        ("planned", "no rule and no workflow of the worker matches"),
        ("unmatched", "no rule and no workflow of the worker matches"),
        ("rejected", "was rejected: &lt;b&gt;no&lt;/b&gt;."),
    ],
)
def test_an_event_that_started_nothing_is_not_reported_as_done(
    config: Config, engine: Engine, broker_url: str, visit: Visit, outcome: str, expected: str
) -> None:
    """A worker with another configuration ingests the event without a run, or rejects it."""
    client = visit(config, "ada", broker_url=broker_url)
    token, event_id = start(client)
    client.post("/workflows/file-inventory/start", data={"form_token": token, "event_id": event_id})
    with Redis.from_url(broker_url) as redis:
        ingest_stream(redis, engine, Planner(config))
    with transaction(engine) as connection:
        connection.execute(text("UPDATE dims_metrics SET measured_gen = requested_gen"))
        change = "UPDATE dims_event_log SET metrics = '{}', outcome = :outcome, reason = '<b>no</b>'"
        connection.execute(text(change), {"outcome": outcome})
    page = client.get(f"/workflows/file-inventory?event={event_id}").text
    assert "Nothing was started, because " in page and expected in page and "Done:" not in page


def test_attention_and_unreached_sources_are_named(config: Config, engine: Engine, visit: Visit) -> None:
    client = visit(config, "ada")
    insert_workflow_run(
        engine, "audit", **audit_result(attention=[f"file-inventory: look {number}" for number in range(7)])
    )
    single, all_ = client.get("/workflows/audit").text, client.get("/workflows").text
    assert '<span class="chip warn">attention</span>' in single and "look 6" in single
    assert "look 4" in all_ and "look 5" not in all_ and "and 2 more" in all_

    insert_workflow_run(engine, "audit", unreached={"lake": "no answer within 60 s"})
    for page in (client.get("/workflows/audit").text, client.get("/workflows").text):
        assert '<span class="chip lost">failed</span>' in page
        assert "<b>lake</b> could not be reached: no answer within 60 s" in page
    assert "failed before it could write a report" in client.get("/workflows/audit").text


def test_a_hostile_text_of_a_result_is_text(config: Config, engine: Engine, visit: Visit) -> None:
    parts = audit_result(attention=[HOSTILE], summary=[[HOSTILE, HOSTILE]])
    insert_workflow_run(engine, "audit", **parts, unreached={HOSTILE: HOSTILE})
    client = visit(config, "ada")
    for path in ("/workflows", "/workflows/audit"):
        page = client.get(path).text
        assert "<script>alert" not in page and "\u202e" not in page
        assert "&lt;script&gt;alert(1)&lt;/script&gt;&#34;" in page and "\\x202e" in page


def test_past_runs_are_linked_newest_first(config: Config, engine: Engine, visit: Visit) -> None:
    numbers = [insert_workflow_run(engine, "audit", **audit_result()) for _ in range(11)]
    page = visit(config, "ada").get("/workflows/audit").text
    table = page.split('id="past"', 1)[1]
    assert re.findall(r'<td><a href="/runs/(\d+)">', table) == [str(n) for n in reversed(numbers[1:])]
    assert 'href="/runs?source=workflow.audit"' in table


def test_only_signed_in_people_may_start_a_workflow(config: Config, broker_url: str, visit: Visit) -> None:
    form = {"form_token": "made up", "event_id": "20261126T101500Z-0123456789abcdef"}
    stranger = visit(config, broker_url=broker_url, read="anyone")
    assert "<form" not in stranger.get("/workflows").text and "to start a workflow" in stranger.get("/workflows").text
    turned_away = stranger.post("/workflows/file-inventory/start", data=form)
    assert turned_away.status_code == 403 and "You are signed out" in turned_away.text

    ada = visit(config, "ada", broker_url=broker_url)
    assert ada.post("/workflows/file-inventory/start", data=form).status_code == 403
    bobs = start(visit(config, "bob", broker_url=broker_url))[0]
    assert ada.post("/workflows/file-inventory/start", data={**form, "form_token": bobs}).status_code == 403
    for unfit in ("", "no id of ours", "20269926T101500Z-0123456789abcdef"):
        form = {"form_token": start(ada)[0], "event_id": unfit}
        assert ada.post("/workflows/file-inventory/start", data=form).status_code == 400
    with Redis.from_url(broker_url) as redis:
        assert redis.xlen("dims:events") == 0


def test_an_unconfigured_or_unreachable_broker_is_503(config: Config, broker_url: str, visit: Visit) -> None:
    unknown, away = visit(config, "ada"), visit(config, "ada", broker_url="redis://127.0.0.1:1/0")
    assert "no broker is configured" in unknown.get("/workflows").text
    token, event_id = start(away)
    for client, why in ((unknown, "no broker is configured"), (away, "is unreachable or refuses")):
        answer = client.post("/workflows/file-inventory/start", data={"form_token": token, "event_id": event_id})
        assert answer.status_code == 503 and why in answer.text


def test_an_unknown_workflow_is_not_found(config: Config, broker_url: str, visit: Visit) -> None:
    client = visit(config, "ada", broker_url=broker_url)
    token, event_id = start(client)
    for name in ("gap-analysis", "nothing", "%3Cscript%3E"):
        assert client.get(f"/workflows/{name}").status_code == 404
        answer = client.post(f"/workflows/{name}/start", data={"form_token": token, "event_id": event_id})
        assert answer.status_code == 404 and "<script>" not in answer.text.replace('<script src="/static', "")
    with Redis.from_url(broker_url) as redis:
        assert redis.xlen("dims:events") == 0


def test_a_project_without_workflows_says_what_to_do(project: Project, visit: Visit) -> None:
    project.write({"dims.yaml": CONFIG.split("rules:", maxsplit=1)[0]})
    page = visit(load_config(None, project.env, project.folder), "ada").get("/workflows")
    assert page.status_code == 200 and "No workflows are configured in" in page.text
