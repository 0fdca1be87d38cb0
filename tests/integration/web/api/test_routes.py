"""Reading over HTTP: the same documents as `--json`, page by page."""

from __future__ import annotations

import itertools
import json
import re
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import Engine, create_engine, text
from sqlalchemy.event import listen
from starlette.testclient import TestClient

from dims_worker.config import Config
from tests.conftest import Project
from tests.fixtures.long_history import fill
from tests.integration.helpers import Down, Flow
from tests.integration.web.conftest import EVENTS_TOKEN, TOKENS, Visit, hold_requests

CONFIG = """
sources:
  here: {type: files, path: "."}
metrics:
  docs:
    pages: {source: here, measure: count, description: "Pages <b>of</b> the guide", critical: true}
    newest: {source: here, measure: newest_age, unit: days}
    bytes: {source: here, measure: bytes, unit: GB, precision: 2}
  lake:
    objects: {source: here, measure: count, critical: true}
    half: {derive: "docs.pages / 2", unit: pages, precision: 1}
    off: {source: here, measure: count, enabled: false}
"""
HOSTILE = "<script>alert(1)</script> ' \" \u202etxt.exe"


@pytest.fixture
def config(project: Project, engine: Engine) -> Config:
    project.write({"dims.yaml": CONFIG})
    fill(engine, project.config, until=datetime.now(UTC), days=60)
    hold_requests(engine)
    return project.config


@pytest.fixture
def api(config: Config, visit: Visit) -> TestClient:
    client = visit(config)
    client.headers["authorization"] = f"Bearer {TOKENS['ada']}"
    return client


def items(api: TestClient, path: str) -> list[dict[str, Any]]:
    answer = api.get(path)
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == "application/json"
    metrics: list[dict[str, Any]] = answer.json()["items"]
    return metrics


def all_pages(api: TestClient, path: str, limit: int) -> list[dict[str, Any]]:
    """Read all pages of a list. No page is longer than `limit`."""
    metrics: list[dict[str, Any]] = []
    before = ""
    while True:
        page = api.get(f"{path}{'&' if '?' in path else '?'}limit={limit}{before}").json()
        assert 0 < len(page["items"]) <= limit
        metrics += page["items"]
        if page["next"] is None:
            return metrics
        before = f"&before={page['next']}"


# --- metrics ------------------------------------------------------------------------------------------


def test_every_metric_has_its_current_state(api: TestClient, config: Config, engine: Engine) -> None:
    metrics = {item["metric"]: item for item in items(api, "/api/metrics")}
    assert list(metrics) == sorted(config.metrics)
    pages = metrics["docs.pages"]
    assert (pages["category"], pages["critical"], pages["enabled"]) == ("docs", True, True)
    assert pages["description"] == "Pages <b>of</b> the guide"
    with engine.connect() as connection:
        request = connection.execute(text("SELECT id FROM dims_approval_requests WHERE state = 'open'")).scalar_one()
    assert pages["request"] == request
    assert type(pages["value"]) is int
    assert type(metrics["lake.half"]["value"]) is float
    failed = [item for item in metrics.values() if item["failed"]]
    assert [(item["status"], item["error"]) for item in failed] == [("failed", "the bucket did not answer within 60 s")]
    off = metrics["lake.off"]
    assert (off["value"], off["as_of"], off["status"], off["enabled"]) == (None, None, None, False)


def test_an_age_is_a_number_in_its_unit_beside_its_instant(api: TestClient) -> None:
    (age,) = [item for item in items(api, "/api/metrics") if item["metric"] == "docs.newest"]
    passed = datetime.now(UTC) - datetime.fromisoformat(age["instant"])
    assert age["unit"] == "days"
    assert age["value"] == pytest.approx(passed.total_seconds() / 86400, abs=0.01)


CHOSEN = [
    ("category=lake", ["lake.half", "lake.objects", "lake.off"]),
    ("category=none", []),
    ("state=waiting", ["docs.pages"]),
    ("state=failed", ["lake.objects"]),
    ("state=due", ["lake.objects"]),
    ("state=unmeasured", []),  # a disabled metric is in no state, as on the dashboard
    ("state=stale", []),
    ("state=limit", []),
    ("q=PAGES", ["docs.pages"]),
    ("q=%3Cb%3Eof", ["docs.pages"]),
    ("q=lake.O", ["lake.objects", "lake.off"]),
    ("q=lake.O&state=due", ["lake.objects"]),
]


def test_metrics_are_filtered(api: TestClient) -> None:
    for query, names in CHOSEN:
        assert [item["metric"] for item in items(api, f"/api/metrics?{query}")] == names, query


def test_a_metric_beyond_its_limit_or_too_old_is_marked(project: Project, engine: Engine, visit: Visit) -> None:
    project.write({"dims.yaml": CONFIG.replace("measure: bytes,", "measure: bytes, max: 1, stale_after: 1s,")})
    fill(engine, project.config, until=datetime.now(UTC) - timedelta(hours=1), days=3)
    api = visit(project.config, "ada")
    assert [item["metric"] for item in items(api, "/api/metrics?state=stale")] == ["docs.bytes"]
    (item,) = items(api, "/api/metrics?state=limit")
    assert item["metric"] == "docs.bytes"
    assert "max" in item["beyond"]


def test_the_dashboard_and_the_api_agree_on_drifted_and_well_metrics(flow: Flow, visit: Visit) -> None:
    flow.serve(a=10, c=10)
    flow.serve(a=90, c=10)
    flow.serve(a=Down("away"), c=10)
    client = visit(flow.config, "ada")
    for state, names in (("drifted", ["m.a"]), ("failed", ["m.a"]), ("well", ["m.c"])):
        page = client.get(f"/?state={state}").text.split('id="inventory"')[1]
        assert re.findall(r'class="name[^"]*" href="/metrics/(m\.[a-z]+)"', page) == names, state
        assert [item["metric"] for item in items(client, f"/api/metrics?state={state}")] == names, state


def test_the_number_of_queries_does_not_grow_with_the_metrics(project: Project, engine: Engine, visit: Visit) -> None:
    counts = []
    for more in (1, 200):
        text_ = CONFIG + "".join(f"    m{n}: {{source: here, measure: count}}\n" for n in range(more))
        project.write({"dims.yaml": text_})
        fill_config = project.config
        statements: list[str] = []
        counted = create_engine(engine.url)
        listen(counted, "before_cursor_execute", lambda *a, statements=statements: statements.append(a[2]))
        listed = items(visit(fill_config, "ada", on=counted), "/api/metrics")
        counted.dispose()
        assert len(listed) == 6 + more
        counts.append(len(statements))
    assert counts[0] == counts[1] <= 6


# --- one metric ---------------------------------------------------------------------------------------


def test_one_metric_has_its_history_and_its_explanation(api: TestClient, project: Project) -> None:
    metrics = api.get("/api/metrics/docs.pages?days=30").json()
    (listed,) = [item for item in items(api, "/api/metrics") if item["metric"] == "docs.pages"]
    assert {name: metrics[name] for name in listed} == listed
    points = metrics["history"]["points"]
    assert len(points) in (29, 30, 31)
    assert [item["as_of"] for item in points] == sorted(item["as_of"] for item in points)
    assert points[-1]["outcome"] == "held"
    assert points[-1]["baseline"] == listed["baseline"]
    assert not metrics["history"]["left_off"]
    printed = json.loads(project.dims("explain", "docs.pages", "--json", check=True).stdout)
    assert metrics["explanation"] == printed
    assert metrics["explanation"]["request"]["id"] == listed["request"]


def test_a_long_history_is_cut_to_its_newest_points_and_says_so(api: TestClient) -> None:
    whole = api.get("/api/metrics/docs.pages?days=365").json()["history"]
    cut = api.get("/api/metrics/docs.pages?days=365&limit=5").json()["history"]
    assert len(whole["points"]) == 60
    assert cut["points"] == whole["points"][-5:]
    assert (whole["left_off"], cut["left_off"]) == (False, True)


def test_a_metric_that_is_no_longer_configured_can_still_be_read(api: TestClient, engine: Engine) -> None:
    with engine.begin() as connection:
        connection.execute(
            text(
                "INSERT INTO dims_metrics (metric, definition, value, unit, as_of, retired_at) "
                "VALUES ('old.one', 'x', '1e22', 'files', now(), now())"
            )
        )
    metrics = api.get("/api/metrics/old.one").json()
    assert (metrics["value"], metrics["unit"], metrics["enabled"]) == (10**22, "files", False)
    assert metrics["explanation"]["configured"] is False


def test_an_unknown_metric_is_a_problem(api: TestClient) -> None:
    for name in ("docs.nothing", "%00", "a%2Fb", "x" * 1000, "%3Cscript%3E"):
        answer = api.get(f"/api/metrics/{name}")
        assert answer.status_code == 404
        assert answer.headers["content-type"] == "application/problem+json"
        assert answer.json()["status"] == 404


# --- lists --------------------------------------------------------------------------------------------


def test_a_list_is_read_page_by_page_newest_first(api: TestClient) -> None:
    for path, number, limit in (("events", "seq", 7), ("runs", "run_id", 7), ("requests", "id", 1)):
        whole = items(api, f"/api/{path}?limit=500")
        assert len(whole) > 1
        numbers = [item[number] for item in whole]
        assert numbers == sorted(numbers, reverse=True)
        assert all_pages(api, f"/api/{path}", limit) == whole


FROM_LISTS = [
    ("events", "type=dims.git.commit"),
    ("events", "outcome=rejected"),
    ("events", "outcome=unmatched&type=dims.schedule.tick"),
    ("runs", "source=derived"),
    ("runs", "status=partial"),
    ("requests", "state=open"),
    ("requests", "metric=docs.pages"),
]


def test_a_list_is_filtered(api: TestClient) -> None:
    for path, query in FROM_LISTS:
        whole = items(api, f"/api/{path}?limit=500")
        expected = dict(part.split("=") for part in query.split("&"))
        matching = [item for item in whole if all(item[name] == value for name, value in expected.items())]
        assert 0 < len(matching) < len(whole), query
        assert all_pages(api, f"/api/{path}?{query}", 3) == matching


def test_the_lists_have_what_the_commands_print(api: TestClient, project: Project) -> None:
    printed = {
        name: json.loads(project.dims(*words, "--json", check=True).stdout)[name]
        for name, words in {"events": ("events",), "runs": ("runs",), "requests": ("approvals", "list")}.items()
    }
    assert items(api, "/api/events?limit=20") == printed["events"]
    assert items(api, "/api/runs?limit=20") == printed["runs"]
    assert items(api, "/api/requests?state=open") == printed["requests"]
    listed = json.loads(project.dims("metrics", "--json", check=True).stdout)["metrics"]
    enabled = [item for item in items(api, "/api/metrics") if item["enabled"]]  # the command lists only enabled metrics
    still = [
        [{**item, "value": 0, "baseline": 0} if "instant" in item else item for item in each]
        for each in (enabled, listed)
    ]  # ages change
    assert still[0] == still[1]


def test_hostile_text_is_returned_unchanged(api: TestClient, engine: Engine) -> None:
    with engine.begin() as connection:
        connection.execute(
            text(
                "UPDATE dims_event_log SET subject = :it, type = :it, event_id = :it WHERE seq IN "
                "(SELECT max(seq) FROM dims_event_log)"
            ),
            {"it": HOSTILE},
        )
        connection.execute(text("UPDATE dims_metrics SET error = :it WHERE metric = 'docs.pages'"), {"it": HOSTILE})
    assert items(api, "/api/events?limit=1")[0]["subject"] == HOSTILE
    answer = api.get("/api/events", params={"type": HOSTILE})
    assert [item["event_id"] for item in answer.json()["items"]] == [HOSTILE]
    assert api.get("/api/metrics/docs.pages").json()["error"] == HOSTILE
    assert answer.headers["x-content-type-options"] == "nosniff"


def test_nan_becomes_null_and_times_are_utc(api: TestClient, engine: Engine, config: Config, visit: Visit) -> None:
    with engine.begin() as connection:
        strange = "UPDATE dims_metrics SET drift_pct = 'NaN' WHERE metric = 'lake.half'"
        connection.execute(text(strange))
    elsewhere = create_engine(engine.url, connect_args={"options": "-c timezone=Asia/Tokyo"})
    (item,) = items(visit(config, "ada", on=elsewhere), "/api/metrics?q=lake.half")
    elsewhere.dispose()
    assert item["drift_pct"] is None
    assert item["as_of"].endswith("+00:00")


# --- what is refused ----------------------------------------------------------------------------------


REFUSED = [
    (
        "metrics?state=good",
        "state must be one of failing, waiting, limit, drifted, stale, overdue, new, ok, off, failed, due",
    ),
    ("metrics?limit=1", "unknown parameter 'limit'. Known here: category, state, q"),
    ("metrics/docs.pages?days=0", "days must be a whole number from 1 to 3650, not '0'"),
    ("metrics/docs.pages?days=1e3", "days must be"),
    ("events?limit=501", "limit must be a whole number from 1 to 500, not '501'"),
    ("events?limit=", "limit must be"),
    ("events?limit=%2B5", "limit must be"),
    ("events?limit=05", "limit must be"),
    ("events?limit=٣", "limit must be"),
    ("events?before=9223372036854775808", "before must be"),
    ("events?before=99999999999999999999999", "before must be"),
    ("events?outcome=fine", "outcome must be one of planned, unmatched, rejected"),
    ("events?type=%00", "type must be 1 to 2048 characters without NUL"),
    ("events?limit=1&limit=2", "limit may be given only once"),
    ("runs?status=bad", "status must be one of ok, partial, superseded"),
    ("requests?state=closed", "state must be one of open, approved"),
    ("requests?metric=", "metric must be"),
    ("openapi.json?a=b", "unknown parameter 'a'. Known here: none"),
]


def test_a_parameter_that_is_not_allowed_is_named(api: TestClient) -> None:
    for path, expected in REFUSED:
        answer = api.get(f"/api/{path}")
        assert answer.status_code == 400, path
        assert answer.headers["content-type"] == "application/problem+json"
        assert answer.json()["detail"].startswith(expected), path


def test_the_largest_allowed_number_is_accepted(api: TestClient) -> None:
    assert items(api, f"/api/events?before={2**63 - 1}&limit=1")


PATHS = ["metrics", "metrics/docs.pages", "events", "runs", "requests", "openapi.json"]


def test_a_head_is_answered_without_a_body(api: TestClient) -> None:
    for path in PATHS:
        answer = api.head(f"/api/{path}")
        assert (answer.status_code, answer.content) == (200, b"")


def test_reading_needs_a_token_unless_anyone_may_read(config: Config, visit: Visit) -> None:
    producer = {"authorization": f"Bearer {EVENTS_TOKEN}"}
    for path in PATHS:
        refused = visit(config).get(f"/api/{path}")
        assert (refused.status_code, refused.headers["www-authenticate"]) == (401, "Bearer")
        assert visit(config).get(f"/api/{path}", headers=producer).status_code == 401
        assert visit(config, "ada").get(f"/api/{path}").status_code == 200
        assert visit(config, read="anyone").get(f"/api/{path}").status_code == 200


def test_other_methods_are_refused(api: TestClient) -> None:
    for path, method in itertools.product(PATHS, ("PUT", "DELETE", "PATCH", "POST")):
        if (path, method) != ("events", "POST"):
            answer = api.request(method, f"/api/{path}")
            assert answer.status_code == 405
            known = {"GET", "HEAD", *(["POST"] if path == "events" else [])}
            assert set(answer.headers["allow"].split(", ")) == known


def test_an_unreachable_database_is_503(config: Config, visit: Visit) -> None:
    away = create_engine("postgresql+psycopg2://dims@127.0.0.1:1/dims")
    answer = visit(config, "ada", on=away).get("/api/metrics")
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "5")
    assert answer.headers["content-type"] == "application/problem+json"
