"""What every page says where nobody measures, or takes events in."""

from __future__ import annotations

import re

import pytest
from redis import Redis

from dims_worker.broker import event_stream
from dims_worker.events import FIELD, STREAM
from tests.integration.helpers import Down, Flow, event
from tests.integration.web.conftest import Visit

LONG_AGO = "UPDATE dims_metrics SET due_since = due_since - interval '10 min' WHERE requested_gen > measured_gen"


def said(visit: Visit, flow: Flow, path: str = "/", broker_url: str | None = None) -> str:
    """The line above a page's content, as one reads it."""
    page = visit(flow.config, "ada", broker_url=broker_url).get(path).text
    found = re.search(r'<div id="silence" data-live>(.*?)</div>', page, re.S)
    assert found
    return re.sub("<[^>]+>", "", found[1])


def test_metrics_that_nobody_measures_are_told_on_every_page(flow: Flow, visit: Visit) -> None:
    flow.ask("m.a", "m.b")
    assert said(visit, flow) == ""  # a worker may yet come
    flow.do(LONG_AGO)
    for path in ("/", "/metrics/m.a", "/requests", "/events", "/events/1", "/runs", "/workflows"):
        told = said(visit, flow, path)
        assert re.fullmatch(
            r"Nothing is being measured: 2 metrics are due since [-\d]+ [:\d]+\. dims status says what is away\.", told
        ), path
    client = visit(flow.config, "ada")
    assert "Nothing is being measured" not in client.get("/nowhere").text + client.get("/sign-in?code=x").text


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE dims_metrics SET not_before = clock_timestamp() + interval '1 hour'",
        "UPDATE dims_sources SET not_before = clock_timestamp() + interval '1 hour'",
        "UPDATE dims_sources SET lease_until = clock_timestamp() + interval '1 min' WHERE source = 'two'",
        "UPDATE dims_metrics SET requested_gen = measured_gen",
    ],
)
def test_what_backs_off_cools_down_or_is_being_measured_is_no_silence(flow: Flow, visit: Visit, change: str) -> None:
    flow.ask("m.a")
    flow.do(LONG_AGO)
    assert said(visit, flow)
    flow.do(change)
    assert said(visit, flow) == ""


def test_who_has_just_measured_is_not_silent(flow: Flow, visit: Visit) -> None:
    flow.serve(a=Down("no answer"))
    flow.do("UPDATE dims_metrics SET not_before = NULL")
    flow.do("UPDATE dims_sources SET not_before = NULL")
    flow.do(LONG_AGO)
    assert said(visit, flow) == ""
    flow.do("UPDATE dims_verification_runs SET finished_at = finished_at - interval '10 min'")
    assert "1 metric is due since" in said(visit, flow)


def test_events_that_nobody_takes_in_are_told(flow: Flow, visit: Visit, broker_url: str, redis: Redis) -> None:
    fields = {FIELD: event("dims.scraper.complete").to_json()}
    redis.xadd(STREAM, fields)
    assert said(visit, flow, broker_url=broker_url) == ""  # it came a moment ago
    redis.delete(STREAM)
    redis.xadd(STREAM, fields, id="1700000000000-0")
    waits = "1 event is waiting since 2023-11-14 22:13. dims status says what is away."
    assert said(visit, flow, broker_url=broker_url) == f"No event is taken in: {waits}"
    flow.ask("m.a")
    flow.do(LONG_AGO)
    assert "1 metric is due since" in (told := said(visit, flow, broker_url=broker_url)) and "(1 event waits)." in told
    event_stream.ensure_group(redis)
    flow.do("UPDATE dims_metrics SET requested_gen = measured_gen")
    event_stream.read_new(redis)  # somebody asks: it is in work
    assert said(visit, flow, broker_url=broker_url) == ""


def test_a_broker_that_does_not_answer_is_told_and_no_page_fails(flow: Flow, visit: Visit) -> None:
    told = "The broker does not answer, so no event comes in. dims status says what is away."
    assert said(visit, flow, broker_url="redis://127.0.0.1:1/0") == told


def test_who_may_only_add_events_knows_nothing_of_those_that_wait(
    flow: Flow, visit: Visit, broker_url: str, redis: Redis
) -> None:
    redis.execute_command("ACL", "SETUSER", "adder", "on", ">secret", "~*", "+xadd", "+select")
    try:
        theirs = re.sub("//.*@", "//adder:secret@", broker_url)
        assert said(visit, flow, broker_url=theirs) == ""
    finally:
        redis.execute_command("ACL", "DELUSER", "adder")


def test_the_answer_is_kept_for_some_seconds(flow: Flow, visit: Visit, queries: list[str]) -> None:
    client = visit(flow.config, "ada")
    for _ in range(5):
        client.get("/requests")
    assert sum("min(since)" in query for query in queries) == 1
