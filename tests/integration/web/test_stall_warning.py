"""The warning on every page when no worker ingests or measures."""

from __future__ import annotations

import re
import socket
import threading
from datetime import UTC, datetime

import pytest
from redis import Redis

from dims_worker.broker import event_stream
from dims_worker.events import FIELD, STREAM
from dims_worker.store.engine import transaction
from dims_worker.store.processes import ProcessIdentity, record_sign_of_life
from tests.conftest import wait_for
from tests.integration.helpers import Down, Flow, event
from tests.integration.web.conftest import Visit

LONG_AGO = "UPDATE dims_metrics SET due_since = due_since - interval '10 min' WHERE requested_gen > measured_gen"


def warning(visit: Visit, flow: Flow, path: str = "/", broker_url: str | None = None) -> str:
    """Return the text of the warning, or an empty text."""
    page = visit(flow.config, "ada", broker_url=broker_url).get(path).text
    match = re.search(r'<div id="stall-warning" data-live>(.*?)</div>', page, re.S)
    assert match
    return re.sub("<[^>]+>", "", match[1])


def test_every_page_warns_about_metrics_that_stay_due(flow: Flow, visit: Visit) -> None:
    flow.ask("m.a", "m.b")
    assert warning(visit, flow) == ""  # within the patience
    flow.do(LONG_AGO)
    for path in ("/", "/metrics/m.a", "/requests", "/events", "/events/1", "/runs", "/workflows"):
        message = warning(visit, flow, path)
        assert re.fullmatch(
            r"No worker is measuring: 2 metrics have been due since [-\d]+ [:\d]+\. "
            r"Run dims status to see what is not running\.",
            message,
        ), path
    client = visit(flow.config, "ada")
    assert "No worker is measuring" not in client.get("/nowhere").text + client.get("/sign-in?code=x").text


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE dims_metrics SET not_before = clock_timestamp() + interval '1 hour'",
        "UPDATE dims_sources SET not_before = clock_timestamp() + interval '1 hour'",
        "UPDATE dims_sources SET lease_until = clock_timestamp() + interval '1 min' WHERE source = 'two'",
        "UPDATE dims_metrics SET requested_gen = measured_gen",
    ],
)
def test_backoff_cooldown_and_running_measurements_cause_no_warning(flow: Flow, visit: Visit, change: str) -> None:
    flow.ask("m.a")
    flow.do(LONG_AGO)
    assert warning(visit, flow)
    flow.do(change)
    assert warning(visit, flow) == ""


def test_a_recent_run_causes_no_warning(flow: Flow, visit: Visit) -> None:
    flow.serve(a=Down("no answer"))
    flow.do("UPDATE dims_metrics SET not_before = NULL")
    flow.do("UPDATE dims_sources SET not_before = NULL")
    flow.do(LONG_AGO)
    assert warning(visit, flow) == ""
    flow.do("UPDATE dims_verification_runs SET finished_at = finished_at - interval '10 min'")
    assert "1 metric has been due since" in warning(visit, flow)


def test_every_page_warns_about_events_that_wait(flow: Flow, visit: Visit, broker_url: str, redis: Redis) -> None:
    fields = {FIELD: event("dims.scraper.complete").to_json()}
    redis.xadd(STREAM, fields)
    assert warning(visit, flow, broker_url=broker_url) == ""  # within the patience
    redis.delete(STREAM)
    redis.xadd(STREAM, fields, id="1700000000000-0")
    waits = "1 event has waited since 2023-11-14 22:13. Run dims status to see what is not running."
    assert warning(visit, flow, broker_url=broker_url) == f"No worker is ingesting: {waits}"
    flow.ask("m.a")
    flow.do(LONG_AGO)
    assert (
        "1 metric has been due since" in (message := warning(visit, flow, broker_url=broker_url)) and waits in message
    )
    event_stream.ensure_group(redis)
    flow.do("UPDATE dims_metrics SET requested_gen = measured_gen")
    event_stream.read_new(redis)  # a worker has read it
    assert warning(visit, flow, broker_url=broker_url) == ""


def test_an_unreachable_broker_is_a_warning_and_no_page_fails(flow: Flow, visit: Visit) -> None:
    message = (
        "The broker is unreachable, so DIMS receives no events. Start it with dims up, or correct DIMS_BROKER_URL. "
        "Run dims status to see what is not running."
    )
    assert warning(visit, flow, broker_url="redis://127.0.0.1:1/0") == message


def test_a_broker_user_that_may_only_add_events_causes_no_warning(
    flow: Flow, visit: Visit, broker_url: str, redis: Redis
) -> None:
    redis.execute_command("ACL", "SETUSER", "adder", "on", ">secret", "~*", "+xadd", "+select")
    try:
        theirs = re.sub("//.*@", "//adder:secret@", broker_url)
        assert warning(visit, flow, broker_url=theirs) == ""
    finally:
        redis.execute_command("ACL", "DELUSER", "adder")


def test_the_warning_is_cached_for_some_seconds(flow: Flow, visit: Visit, queries: list[str]) -> None:
    client = visit(flow.config, "ada")
    for _ in range(5):
        client.get("/requests")
    assert sum("min(since)" in query for query in queries) == 1


@pytest.mark.parametrize(
    ("setting", "value", "sentence", "fix"),
    [
        ("maxmemory", "1", "The broker refuses to write: its memory is full.", "Raise its maxmemory"),
        ("min-replicas-to-write", "1", "The broker refuses to write: too few replicas are connected.", "min-replicas"),
    ],
)
def test_a_broker_that_refuses_to_write_is_a_warning_with_its_fix(
    flow: Flow, visit: Visit, broker_url: str, redis: Redis, setting: str, value: str, sentence: str, fix: str
) -> None:
    redis.config_set(setting, value)
    try:
        message = warning(visit, flow, broker_url=broker_url)
    finally:
        redis.config_set(setting, "0")
    assert message.startswith(sentence)
    assert fix in message
    assert warning(visit, flow, broker_url=broker_url) == ""


def test_a_read_only_database_is_a_warning_with_its_fix(flow: Flow, visit: Visit) -> None:
    name = flow.engine.url.database
    flow.do(f"ALTER DATABASE {name} SET default_transaction_read_only = on")
    assert warning(visit, flow).startswith("The database is read-only. Let DIMS_DATABASE_URL name the primary")


def test_processes_that_are_silent_are_a_warning_that_names_no_host(flow: Flow, visit: Visit) -> None:
    now = datetime.now(UTC)
    queues = ("dims.ingest", "dims.verify", "dims.verify.slow")
    with transaction(flow.engine) as connection:
        identity = ProcessIdentity("worker@secret-host", "secret-host", "worker", 7, "1.0", "a", queues, now)
        record_sign_of_life(connection, identity, now=now)
    assert warning(visit, flow) == ""
    flow.do("UPDATE dims_processes SET seen_at = seen_at - interval '5 minutes'")
    message = warning(visit, flow)
    assert "No worker stores events. Start it with dims up" in message
    assert "No worker is measuring. Start it with dims up" in message
    assert "secret-host" not in message


def test_a_server_that_hangs_delays_one_page_only(flow: Flow, visit: Visit) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"redis://127.0.0.1:{silent.getsockname()[1]}/0"
        client = visit(flow.config, "ada", broker_url=url)
        client.get("/requests")
        wait_for(lambda: "The broker accepts connections but does not answer" in client.get("/requests").text)
        names = [thread.name for thread in threading.enumerate()]
        assert names.count("check broker") + names.count("check for stalls") <= 2
