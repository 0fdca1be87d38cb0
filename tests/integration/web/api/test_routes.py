"""Reading over HTTP: what is known, page by page, in the words of `--json`."""

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
from tests.integration.web.conftest import EVENTS_TOKEN, TOKENS, Visit

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
    found: list[dict[str, Any]] = answer.json()["items"]
    return found


def all_pages(api: TestClient, path: str, limit: int) -> list[dict[str, Any]]:
    """Every item of a list, page after page, none longer than `limit`."""
    found: list[dict[str, Any]] = []
    before = ""
    while True:
        page = api.get(f"{path}{'&' if '?' in path else '?'}limit={limit}{before}").json()
        assert 0 < len(page["items"]) <= limit
        found += page["items"]
        if page["next"] is None:
            return found
        before = f"&before={page['next']}"


# --- metrics ------------------------------------------------------------------------------------------


def test_every_metric_as_it_stands(api: TestClient, config: Config, engine: Engine) -> None:
    found = {one["metric"]: one for one in items(api, "/api/metrics")}
    assert list(found) == sorted(config.metrics)
    pages = found["docs.pages"]
    assert (pages["category"], pages["critical"], pages["enabled"]) == ("docs", True, True)
    assert pages["description"] == "Pages <b>of</b> the guide"
    with engine.connect() as connection:
        request = connection.execute(text("SELECT id FROM dims_approval_requests WHERE state = 'open'")).scalar_one()
    assert pages["request"] == request
    assert type(pages["value"]) is int
    assert type(found["lake.half"]["value"]) is float
    failed = [one for one in found.values() if one["failed"]]
    assert [(one["status"], one["error"]) for one in failed] == [("failed", "the bucket did not answer within 60 s")]
    off = found["lake.off"]
    assert (off["value"], off["as_of"], off["status"], off["enabled"]) == (None, None, None, False)


def test_an_age_is_a_number_in_its_unit_beside_its_instant(api: TestClient) -> None:
    (age,) = [one for one in items(api, "/api/metrics") if one["metric"] == "docs.newest"]
    passed = datetime.now(UTC) - datetime.fromisoformat(age["instant"])
    assert age["unit"] == "days"
    assert age["value"] == pytest.approx(passed.total_seconds() / 86400, abs=0.01)


CHOSEN = [
    ("category=lake", ["lake.half", "lake.objects", "lake.off"]),
    ("category=none", []),
    ("state=waiting", ["docs.pages"]),
    ("state=failed", ["lake.objects"]),
    ("state=due", ["lake.objects"]),
    ("state=unmeasured", ["lake.off"]),
    ("state=stale", []),
    ("state=limit", []),
    ("q=PAGES", ["docs.pages"]),
    ("q=%3Cb%3Eof", ["docs.pages"]),
    ("q=lake.O&state=unmeasured", ["lake.off"]),
]


def test_metrics_are_chosen(api: TestClient) -> None:
    for query, names in CHOSEN:
        assert [one["metric"] for one in items(api, f"/api/metrics?{query}")] == names, query


def test_limits_and_age_make_metrics_stand_out(project: Project, engine: Engine, visit: Visit) -> None:
    project.write({"dims.yaml": CONFIG.replace("measure: bytes,", "measure: bytes, max: 1, stale_after: 1s,")})
    fill(engine, project.config, until=datetime.now(UTC) - timedelta(hours=1), days=3)
    api = visit(project.config, "ada")
    assert [one["metric"] for one in items(api, "/api/metrics?state=stale")] == ["docs.bytes"]
    (one,) = items(api, "/api/metrics?state=limit")
    assert one["metric"] == "docs.bytes"
    assert "max" in one["beyond"]


def test_the_page_and_the_api_agree_on_what_drifted_and_what_is_well(flow: Flow, visit: Visit) -> None:
    flow.serve(a=10, c=10)
    flow.serve(a=90, c=10)
    flow.serve(a=Down("away"), c=10)
    client = visit(flow.config, "ada")
    for state, names in (("drifted", ["m.a"]), ("failed", ["m.a"]), ("well", ["m.c"])):
        page = client.get(f"/?state={state}").text.split('id="inventory"')[1]
        assert re.findall(r'class="name[^"]*" href="/metrics/(m\.[a-z]+)"', page) == names, state
        assert [one["metric"] for one in items(client, f"/api/metrics?state={state}")] == names, state


def test_the_number_of_queries_does_not_grow_with_the_metrics(project: Project, engine: Engine, visit: Visit) -> None:
    counts = []
    for more in (1, 200):
        text_ = CONFIG + "".join(f"    m{n}: {{source: here, measure: count}}\n" for n in range(more))
        project.write({"dims.yaml": text_})
        fill_config = project.config
        said: list[str] = []
        counted = create_engine(engine.url)
        listen(counted, "before_cursor_execute", lambda *a, said=said: said.append(a[2]))
        listed = items(visit(fill_config, "ada", on=counted), "/api/metrics")
        counted.dispose()
        assert len(listed) == 6 + more
        counts.append(len(said))
    assert counts[0] == counts[1] <= 6


# --- one metric ---------------------------------------------------------------------------------------


def test_one_metric_with_its_history_and_the_facts_of_its_verdict(api: TestClient, project: Project) -> None:
    found = api.get("/api/metrics/docs.pages?days=30").json()
    (listed,) = [one for one in items(api, "/api/metrics") if one["metric"] == "docs.pages"]
    assert {name: found[name] for name in listed} == listed
    points = found["history"]["points"]
    assert len(points) in (29, 30, 31)
    assert [one["as_of"] for one in points] == sorted(one["as_of"] for one in points)
    assert points[-1]["outcome"] == "held"
    assert points[-1]["baseline"] == listed["baseline"]
    assert not found["history"]["left_off"]
    printed = json.loads(project.dims("explain", "docs.pages", "--json", check=True).stdout)
    assert found["explanation"] == printed
    assert found["explanation"]["request"]["id"] == listed["request"]


def test_a_long_history_is_cut_to_its_newest_points_and_says_so(api: TestClient) -> None:
    whole = api.get("/api/metrics/docs.pages?days=365").json()["history"]
    cut = api.get("/api/metrics/docs.pages?days=365&limit=5").json()["history"]
    assert len(whole["points"]) == 60
    assert cut["points"] == whole["points"][-5:]
    assert (whole["left_off"], cut["left_off"]) == (False, True)


def test_a_metric_that_is_no_longer_configured_is_known_still(api: TestClient, engine: Engine) -> None:
    with engine.begin() as connection:
        connection.execute(
            text("INSERT INTO dims_metrics (metric, definition, value, unit, as_of, retired_at) "
                 "VALUES ('old.one', 'x', '1e22', 'files', now(), now())")
        )  # fmt: skip
    found = api.get("/api/metrics/old.one").json()
    assert (found["value"], found["unit"], found["enabled"]) == (10**22, "files", False)
    assert found["explanation"]["configured"] is False


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
        numbers = [one[number] for one in whole]
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


def test_a_list_is_chosen_from(api: TestClient) -> None:
    for path, query in FROM_LISTS:
        whole = items(api, f"/api/{path}?limit=500")
        asked = dict(part.split("=") for part in query.split("&"))
        chosen = [one for one in whole if all(one[name] == value for name, value in asked.items())]
        assert 0 < len(chosen) < len(whole), query
        assert all_pages(api, f"/api/{path}?{query}", 3) == chosen


def test_the_lists_say_what_the_commands_print(api: TestClient, project: Project) -> None:
    printed = {name: json.loads(project.dims(*words, "--json", check=True).stdout)[name] for name, words in {
        "events": ("events",), "runs": ("runs",), "requests": ("approvals", "list")}.items()}  # fmt: skip
    assert items(api, "/api/events?limit=20") == printed["events"]
    assert items(api, "/api/runs?limit=20") == printed["runs"]
    assert items(api, "/api/requests?state=open") == printed["requests"]
    listed = json.loads(project.dims("metrics", "--json", check=True).stdout)["metrics"]
    told = [one for one in items(api, "/api/metrics") if one["enabled"]]  # the command shows others when they are named
    still = [[{**one, "value": 0, "baseline": 0} if "instant" in one else one for one in each] for each in
             (told, listed)]  # fmt: skip  # an age passes
    assert still[0] == still[1]


def test_what_is_hostile_comes_through_as_it_is(api: TestClient, engine: Engine) -> None:
    with engine.begin() as connection:
        connection.execute(
            text("UPDATE dims_event_log SET subject = :it, type = :it, event_id = :it WHERE seq IN "
                 "(SELECT max(seq) FROM dims_event_log)"), {"it": HOSTILE},
        )  # fmt: skip
        connection.execute(text("UPDATE dims_metrics SET error = :it WHERE metric = 'docs.pages'"), {"it": HOSTILE})
    assert items(api, "/api/events?limit=1")[0]["subject"] == HOSTILE
    answer = api.get("/api/events", params={"type": HOSTILE})
    assert [one["event_id"] for one in answer.json()["items"]] == [HOSTILE]
    assert api.get("/api/metrics/docs.pages").json()["error"] == HOSTILE
    assert answer.headers["x-content-type-options"] == "nosniff"


def test_no_number_is_null_and_times_are_utc(api: TestClient, engine: Engine, config: Config, visit: Visit) -> None:
    with engine.begin() as connection:
        strange = "UPDATE dims_metrics SET drift_pct = 'NaN' WHERE metric = 'lake.half'"
        connection.execute(text(strange))
    elsewhere = create_engine(engine.url, connect_args={"options": "-c timezone=Asia/Tokyo"})
    (one,) = items(visit(config, "ada", on=elsewhere), "/api/metrics?q=lake.half")
    elsewhere.dispose()
    assert one["drift_pct"] is None
    assert one["as_of"].endswith("+00:00")


# --- what is not allowed ------------------------------------------------------------------------------


REFUSED = [
    ("metrics?state=good", "state must be one of waiting, failed, limit, stale, due, unmeasured, drifted, well; not"),
    ("metrics?limit=1", "there is no parameter 'limit' here; known: category, state, q"),
    ("metrics/docs.pages?days=0", "days must be a whole number from 1 to 3650; not '0'"),
    ("metrics/docs.pages?days=1e3", "days must be"),
    ("events?limit=501", "limit must be a whole number from 1 to 500; not '501'"),
    ("events?limit=", "limit must be"),
    ("events?limit=%2B5", "limit must be"),
    ("events?limit=05", "limit must be"),
    ("events?limit=٣", "limit must be"),
    ("events?before=9223372036854775808", "before must be"),
    ("events?before=99999999999999999999999", "before must be"),
    ("events?outcome=fine", "outcome must be one of planned, unmatched, rejected"),
    ("events?type=%00", "type must be 1 to 2048 characters, none of them NUL"),
    ("events?limit=1&limit=2", "limit may be said once"),
    ("runs?status=bad", "status must be one of ok, partial, superseded"),
    ("requests?state=closed", "state must be one of open, approved"),
    ("requests?metric=", "metric must be"),
    ("openapi.json?a=b", "there is no parameter 'a' here; known: none"),
]


def test_a_parameter_that_is_not_allowed_is_named(api: TestClient) -> None:
    for path, says in REFUSED:
        answer = api.get(f"/api/{path}")
        assert answer.status_code == 400, path
        assert answer.headers["content-type"] == "application/problem+json"
        assert answer.json()["detail"].startswith(says), path


def test_the_longest_number_that_may_be_said_is_taken(api: TestClient) -> None:
    assert items(api, f"/api/events?before={2**63 - 1}&limit=1")


PATHS = ["metrics", "metrics/docs.pages", "events", "runs", "requests", "openapi.json"]


def test_a_head_is_answered_without_a_body(api: TestClient) -> None:
    for path in PATHS:
        answer = api.head(f"/api/{path}")
        assert (answer.status_code, answer.content) == (200, b"")


def test_who_reads_says_who_they_are_unless_anyone_may(config: Config, visit: Visit) -> None:
    producer = {"authorization": f"Bearer {EVENTS_TOKEN}"}
    for path in PATHS:
        refused = visit(config).get(f"/api/{path}")
        assert (refused.status_code, refused.headers["www-authenticate"]) == (401, "Bearer")
        assert visit(config).get(f"/api/{path}", headers=producer).status_code == 401
        assert visit(config, "ada").get(f"/api/{path}").status_code == 200
        assert visit(config, read="anyone").get(f"/api/{path}").status_code == 200


def test_only_what_is_done_here_is_done(api: TestClient) -> None:
    for path, method in itertools.product(PATHS, ("PUT", "DELETE", "PATCH", "POST")):
        if (path, method) != ("events", "POST"):
            answer = api.request(method, f"/api/{path}")
            assert answer.status_code == 405
            known = {"GET", "HEAD", *(["POST"] if path == "events" else [])}
            assert set(answer.headers["allow"].split(", ")) == known


def test_a_database_that_is_away_is_said_to_be(config: Config, visit: Visit) -> None:
    away = create_engine("postgresql+psycopg2://dims@127.0.0.1:1/dims")
    answer = visit(config, "ada", on=away).get("/api/metrics")
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "5")
    assert answer.headers["content-type"] == "application/problem+json"
