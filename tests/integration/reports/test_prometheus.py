"""Prometheus metrics from a real database and broker."""

from __future__ import annotations

import itertools
import json
import os
import re
import socket
import subprocess
import sys
import threading
import urllib.request
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest
import yaml
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.openmetrics.exposition import generate_latest as generate_openmetrics
from prometheus_client.openmetrics.parser import text_string_to_metric_families as openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse
from redis import Redis
from sqlalchemy import Engine, event, text

from dims_worker.config import Config, load_config
from dims_worker.domain.decide import SEVERITIES
from dims_worker.domain.health import metric_health
from dims_worker.events import STREAM
from dims_worker.reports.prometheus import MAX_TYPES, OTHER, PrometheusCollector
from dims_worker.store.engine import clock
from dims_worker.store.incidents import KINDS, close_incident_row, insert_incidents, open_incidents, update_incident
from dims_worker.store.metric_states import states_of
from dims_worker.store.processes import ProcessIdentity, record_sign_of_life
from tests.conftest import REPO, Project, wait_for
from tests.fixtures.long_history import fill

Samples = dict[tuple[str, ...], float]
METRICS = {
    "dims_up": {"part"},
    "dims_metrics": {"state"},
    "dims_metric_value": {"metric", "unit"},
    "dims_metric_baseline": {"metric", "unit"},
    "dims_metric_measured_timestamp_seconds": {"metric"},
    "dims_metric_health": {"metric", "flag", "label", "severity"},
    "dims_metric_stale": {"metric"},
    "dims_metric_failed": {"metric"},
    "dims_metric_beyond_limit": {"metric"},
    "dims_metric_approximate": {"metric"},
    "dims_events_total": {"type", "outcome"},
    "dims_event_lag_seconds": set(),
    "dims_runs_total": {"status"},
    "dims_approvals_pending": set(),
    "dims_incidents_open": {"kind", "severity"},
    "dims_incidents_acknowledged": {"kind", "severity"},
    "dims_queue_length": {"queue"},
    "dims_check_ok": {"check"},
    "dims_process_last_seen_seconds": {"process", "role", "host"},
    "dims_process_clock_offset_seconds": {"process", "role", "host"},
}


@pytest.fixture(scope="module")
def config() -> Config:
    return load_config(REPO / "config" / "dims.yaml", {}, REPO)


@pytest.fixture
def filled(engine: Engine, config: Config) -> Engine:
    fill(engine, config, until=datetime.now(UTC), days=30, log=10)
    return engine


def scraped(registry: CollectorRegistry) -> Samples:
    """Return the samples by name and label values, in the order of the label names."""
    families = parse(generate_latest(registry).decode())
    samples = (sample for family in families for sample in family.samples)
    return {(sample.name, *sample.labels.values()): sample.value for sample in samples}


def registry_of(config: Config, database: str, broker: str) -> CollectorRegistry:
    registry = CollectorRegistry()
    registry.register(PrometheusCollector(config, database, broker))
    return registry


def url_of(engine: Engine) -> str:
    return engine.url.render_as_string(hide_password=False)


def add_events(
    engine: Engine, number: int, kind: str | None = "dims.git.commit", age: timedelta = timedelta(0)
) -> None:
    """Add events and runs to the log, without their effects."""
    with engine.begin() as connection:
        connection.execute(
            text(
                "INSERT INTO dims_event_log (producer, event_id, digest, type, received_at, outcome, batch_id) "
                "SELECT 'p', md5(random()::text), md5(random()::text), :kind, now() - :age, "
                "CASE WHEN CAST(:kind AS text) IS NULL THEN 'rejected' ELSE 'planned' END, 1 "
                "FROM generate_series(1, :number)"
            ),
            {"kind": kind, "number": number, "age": age},
        )
        connection.execute(
            text(
                "INSERT INTO dims_verification_runs (trigger, status, started_at) "
                "SELECT 'event', 'ok', now() FROM generate_series(1, :number)"
            ),
            {"number": number},
        )


def test_a_scrape_has_the_state_of_the_database_and_the_broker(filled: Engine, config: Config, broker_url: str) -> None:
    with Redis.from_url(broker_url) as client:
        client.xadd(STREAM, {"event": "{}"})
        client.lpush("dims.verify", "wake-up", "wake-up")
    found = scraped(registry_of(config, url_of(filled), broker_url))
    with filled.connect() as connection:
        states = connection.execute(text("SELECT * FROM dims_metrics")).mappings().all()
    for state in states:
        name, declared = state["metric"], config.metrics[state["metric"]]
        value = found.get(("dims_metric_value", name, declared.shown_unit))
        if declared.is_age:
            assert value is not None and 4.9 < value * {"hours": 1, "days": 24}[declared.shown_unit] < 30
        elif isinstance(state["value"], str):
            assert value is None
        else:
            assert value == float(state["value"])
        assert found["dims_metric_failed", name] == float(state["error"] is not None)
        assert found["dims_metric_measured_timestamp_seconds", name] == pytest.approx(state["as_of"].timestamp())
    assert sum(value for (name, *_), value in found.items() if name == "dims_metric_failed") == 4
    assert found["dims_approvals_pending",] == 1
    assert found["dims_up", "database"] == found["dims_up", "broker"] == 1
    assert found["dims_queue_length", STREAM] == 1 and found["dims_queue_length", "dims.verify"] == 2
    assert found["dims_event_lag_seconds",] > 0


def open_incident(engine: Engine, metric: str, kind: str, severity: str, **more: object) -> int:
    """Open an incident, as a run or a sweep does. Return its number."""
    now = datetime.now(UTC)
    row = {"metric": metric, "kind": kind, "severity": severity, "reason": "r", "opened_at": now, "updated_at": now}
    with engine.begin() as connection:
        (incident,) = insert_incidents(connection, [row | more])
    return incident.id


def test_incidents_are_counted_by_kind_and_severity_and_end_at_zero(
    filled: Engine, config: Config, broker_url: str
) -> None:
    registry = registry_of(config, url_of(filled), broker_url)

    def counts(name: str) -> Samples:
        return {key[1:]: value for key, value in scraped(registry).items() if key[0] == name}

    every = {(kind, severity): 0.0 for kind in KINDS for severity in ("low", "medium", "high", "urgent")}
    assert counts("dims_incidents_open") == counts("dims_incidents_acknowledged") == every
    first = open_incident(filled, "s3_storage.total_objects", "drift", "urgent", anchor=4_000, value=100)
    open_incident(filled, "s3_storage.hoopr_files", "drift", "urgent")
    open_incident(filled, "rule:nightly", "silence", "high")
    assert counts("dims_incidents_open") == every | {("drift", "urgent"): 2, ("silence", "high"): 1}
    with filled.begin() as connection:
        update_incident(
            connection, first, {"state": "acknowledged", "acknowledged_by": "ada", "note": "known"}, new_version=True
        )
    assert counts("dims_incidents_open") == every | {("drift", "urgent"): 2, ("silence", "high"): 1}
    assert counts("dims_incidents_acknowledged") == every | {("drift", "urgent"): 1}
    with filled.begin() as connection:
        close_incident_row(connection, first, "recovered", datetime.now(UTC), over=True)
    assert counts("dims_incidents_open") == every | {("drift", "urgent"): 1, ("silence", "high"): 1}
    assert counts("dims_incidents_acknowledged") == every


def test_the_gauges_show_the_health_that_every_output_shows(filled: Engine, config: Config, broker_url: str) -> None:
    open_incident(filled, "s3_storage.total_objects", "drift", "urgent", anchor=10**9, value=1)
    number = open_incident(filled, "s3_storage.hoopr_files", "drift", "high", anchor=10**9, value=1)
    with filled.begin() as connection:
        update_incident(connection, number, {"state": "acknowledged", "acknowledged_by": "ada"}, new_version=True)
        states, incidents = states_of(connection, config.metrics), open_incidents(connection)
        now = clock(connection)
    found = scraped(registry_of(config, url_of(filled), broker_url))
    shown = {key[3]: key[1:] for key in found if key[0] == "dims_metric_health"}
    names = {"failing": "dims_metric_failed", "stale": "dims_metric_stale", "limit": "dims_metric_beyond_limit"}
    assert shown.keys() == states.keys()
    for name, state in states.items():
        health = metric_health(config, state, incidents, now)
        assert shown[name] == (health.worst, health.label, name, health.severity)
        for flag, gauge in names.items():
            assert found.get((gauge, name), 0.0) == float(flag in health.flags), (gauge, name)
    assert shown["s3_storage.total_objects"][1] == "lost"
    assert shown["s3_storage.hoopr_files"][1] == "lost, acknowledged"


def test_counters_count_new_events_and_never_fall(filled: Engine, config: Config, broker_url: str) -> None:
    registry = registry_of(config, url_of(filled), broker_url)
    key = ("dims_events_total", "planned", "dims.git.commit")
    began = scraped(registry)
    first = began.get(key, 0.0)
    assert {value for key, value in began.items() if key[0].endswith("_total")} == {0.0}
    add_events(filled, 3)
    assert scraped(registry)[key] == first + 3
    add_events(filled, 2, age=timedelta(minutes=2))  # old enough to be counted for good, with all events before them
    add_events(filled, 1, kind=None)
    again = scraped(registry)
    assert again[key] == first + 5
    assert again["dims_events_total", "rejected", ""] == 1
    assert again["dims_runs_total", "ok"] == 6 and again["dims_runs_total", "partial"] == 0
    later = scraped(registry)
    assert {key: value for key, value in later.items() if key[0].endswith("_total")} == {
        key: value for key, value in again.items() if key[0].endswith("_total")
    }


def test_an_event_that_commits_late_is_counted(filled: Engine, config: Config, broker_url: str) -> None:
    registry = registry_of(config, url_of(filled), broker_url)
    key = ("dims_events_total", "planned", "late")
    insert = text(
        "INSERT INTO dims_event_log (producer, event_id, digest, type, outcome, batch_id) "
        "VALUES ('p', :id, :id, 'late', 'planned', 1)"
    )
    scraped(registry)
    with filled.connect() as slow:
        slow.execute(insert, {"id": "slow"})  # has the smaller number
        with filled.begin() as fast:
            fast.execute(insert, {"id": "fast"})
        assert scraped(registry)[key] == 1
        slow.commit()
    assert scraped(registry)[key] == 2


def test_a_scrape_runs_few_queries_and_reads_only_new_rows(filled: Engine, config: Config, broker_url: str) -> None:
    from dims_worker.store.engine import engine as engine_of

    registry = registry_of(config, url_of(filled), broker_url)
    scraped(registry)
    statements: list[str] = []
    used = engine_of(url_of(filled))

    def note(_c: object, _k: object, statement: str, *_: object) -> None:
        statements.append(statement)

    event.listen(used, "before_cursor_execute", note)
    scraped(registry)
    event.remove(used, "before_cursor_execute", note)
    assert len(statements) <= 10
    log_queries = [query for query in statements if "dims_event_log" in query or "dims_verification_runs" in query]
    assert log_queries and all("seq > " in query or "run_id > " in query for query in log_queries)
    assert not [query for query in statements if "dims_metrics_history" in query]


def test_an_unreachable_part_is_down_and_has_no_metrics(filled: Engine, config: Config, broker_url: str) -> None:
    dead = "redis://127.0.0.1:1/0"
    found = scraped(registry_of(config, url_of(filled), dead))
    assert found["dims_up", "broker"] == 0 and found["dims_up", "database"] == 1
    assert not [key for key in found if key[0] == "dims_queue_length"]
    nowhere = filled.url.set(port=1).render_as_string(hide_password=False)
    found = scraped(registry_of(config, nowhere, broker_url))
    assert found["dims_up", "database"] == 0 and found["dims_up", "broker"] == 1
    assert {key[0] for key in found} == {"dims_up", "dims_queue_length", "dims_check_ok"}
    assert found["dims_check_ok", "database"] == 0 and found["dims_check_ok", "broker"] == 1


def test_a_part_is_down_when_its_query_is_refused_or_waits(
    filled: Engine, config: Config, broker_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dims_worker.reports.prometheus.TIMEOUT", 1.0)
    registry = registry_of(config, url_of(filled), broker_url)
    with filled.begin() as connection:
        connection.execute(text("LOCK TABLE dims_metrics IN ACCESS EXCLUSIVE MODE"))
        assert scraped(registry)["dims_up", "database"] == 0
    wait_for(lambda: scraped(registry)["dims_up", "database"] == 1)
    name = f"stranger_{filled.url.database}"
    with filled.begin() as connection:
        connection.execute(text(f"CREATE ROLE {name} LOGIN PASSWORD 'a long one'"))
    found = scraped(registry_of(config, url_of_login(filled, name), broker_url))
    with filled.begin() as connection:
        connection.execute(text(f"DROP ROLE {name}"))
    assert found["dims_up", "database"] == 0 and found["dims_up", "broker"] == 1


def test_a_server_that_stops_answering_is_down(
    filled: Engine, config: Config, broker_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dims_worker.reports.prometheus.TIMEOUT", 0.5)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        nowhere = filled.url.set(port=silent.getsockname()[1]).render_as_string(hide_password=False)
        registry = registry_of(config, nowhere, broker_url)
        for _ in range(2):
            found = scraped(registry)
            assert found["dims_up", "database"] == 0 and found["dims_up", "broker"] == 1
        waiting = [thread for thread in threading.enumerate() if thread.name == "query database"]
        assert len(waiting) <= 1


def test_parts_are_queried_in_parallel(config: Config) -> None:
    """Two silent parts cost one timeout, not two. Else Prometheus gives up, and no one sees which part is down."""
    exporter = PrometheusCollector(config, "", "")
    meeting = threading.Barrier(2, timeout=3)

    def meet() -> list[Metric]:
        meeting.wait()
        return [GaugeMetricFamily("met", "Met.", 1)]

    exporter._database = exporter._broker = meet  # type: ignore[method-assign]
    registry = CollectorRegistry()
    registry.register(exporter)
    assert {value for key, value in scraped(registry).items() if key[0] == "dims_up"} == {1.0}


def test_values_without_a_number_are_left_out(filled: Engine, config: Config, broker_url: str) -> None:
    with filled.begin() as connection:
        change = text("UPDATE dims_metrics SET value = CAST(:value AS jsonb), unit = :unit WHERE metric = :metric")
        for metric, value, unit in (
            ("s3_storage.total_objects", "1" * 401, "objects"),
            ("espn_data.last_update_hours", '"2026-13-99T00"', "hours"),
            ("s3_storage.hoopr_files", "5", "boxes"),
        ):
            connection.execute(change, {"metric": metric, "value": value, "unit": unit})
    found = scraped(registry_of(config, url_of(filled), broker_url))
    assert found["dims_up", "database"] == 1
    labels = {key[1:] for key in found if key[0] == "dims_metric_value"}
    assert ("s3_storage.hoopr_files", "boxes") in labels and ("s3_storage.hoopr_files", "files") not in labels
    assert not [label for label in labels if label[0] in ("s3_storage.total_objects", "espn_data.last_update_hours")]


def test_hostile_event_types_are_escaped_and_limited(filled: Engine, config: Config, broker_url: str) -> None:
    registry = registry_of(config, url_of(filled), broker_url)
    scraped(registry)
    add_events(filled, 1, 'a"} 1\n# HELP x\\ {')
    for number in range(MAX_TYPES + 20):
        add_events(filled, 1, f"a.{number}")
    add_events(filled, 4, "dims.git.commit")  # after the others in time and in the alphabet
    found = scraped(registry)
    kinds = {key[2] for key in found if key[0] == "dims_events_total"}
    assert 'a"} 1\n# HELP x\\ {' in kinds
    assert len(kinds - {"", "dims.git.commit"}) == MAX_TYPES + 1 and OTHER in kinds
    assert found["dims_events_total", "planned", "dims.git.commit"] == 4
    assert sum(value for key, value in found.items() if key[0] == "dims_events_total") >= MAX_TYPES + 21


def report_process(engine: Engine, name: str, **columns: object) -> None:
    """Write the row of a process on another host, as it does itself at each sweep."""
    role, _, host = name.partition("@")
    now = datetime.now(UTC)
    identity = ProcessIdentity(
        name, host, role, 7, "1.0", "abc", ("dims.ingest", "dims.verify", "dims.verify.slow"), now
    )
    with engine.begin() as connection:
        record_sign_of_life(connection, identity, now=now)
        for column, value in columns.items():
            connection.execute(text(f"UPDATE dims_processes SET {column} = :value"), {"value": value})


def test_a_check_and_a_process_have_series(filled: Engine, config: Config, broker_url: str) -> None:
    registry = registry_of(config, url_of(filled), broker_url)
    assert "ingest" not in {key[1] for key in scraped(registry) if key[0] == "dims_check_ok"}  # none has ever run
    report_process(filled, "worker@a")
    found = scraped(registry)
    checks = {key[1]: value for key, value in found.items() if key[0] == "dims_check_ok"}
    assert (checks["ingest"], checks["workers"], checks["broker"], checks["database"]) == (1, 1, 1, 1)
    assert found["dims_process_last_seen_seconds", "a", "worker@a", "worker"] < 30
    report_process(filled, "worker@a", seen_at=datetime.now(UTC) - timedelta(minutes=10), clock_offset=600.0)
    found = scraped(registry)
    assert (found["dims_check_ok", "ingest"], found["dims_check_ok", "workers"]) == (0, 0)
    assert found["dims_process_last_seen_seconds", "a", "worker@a", "worker"] > 590
    assert found["dims_process_clock_offset_seconds", "a", "worker@a", "worker"] == 600


def test_names_follow_the_rules_of_prometheus(filled: Engine, config: Config, broker_url: str) -> None:
    """Check what promtool's linter checks of names and help texts."""
    add_events(filled, 1)
    report_process(filled, "worker@a")
    registry = registry_of(config, url_of(filled), broker_url)
    scraped(registry)
    add_events(filled, 1)
    labels: dict[str, set[str]] = {}
    for family in parse(generate_latest(registry).decode()):
        assert family.documentation, family.name
        for sample in family.samples:
            labels.setdefault(sample.name, set()).update(sample.labels)
        assert not re.search(r"_(count|sum|bucket|info)$|[A-Z:]|__", family.name)
        assert not re.search(r"milli|micro|nano|minutes|hours|days|kilo|mega|giga|percent|gauge|counter", family.name)
        for sample in family.samples:
            assert sample.name.endswith("_total") == (family.type == "counter")
    assert labels == METRICS
    assert list(openmetrics(generate_openmetrics(registry).decode()))


def test_the_guide_the_dashboard_and_the_alerts_use_existing_metrics() -> None:
    folder = REPO / "docs"
    guide = (folder / "operations.md").read_text(encoding="utf-8")
    listed = {
        name: set(filter(None, labels.split(",")))
        for name, labels in re.findall(r"^\| `(dims_\w+)(?:\{([\w,]+)\})?`", guide, re.MULTILINE)
    }
    assert listed == METRICS
    dashboard = json.loads((folder / "monitoring" / "dashboard.json").read_text(encoding="utf-8"))
    queries = [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]
    rules = yaml.safe_load((folder / "monitoring" / "alerts.yml").read_text(encoding="utf-8"))["groups"][0]["rules"]
    queries += [rule["expr"] for rule in rules]
    assert len(queries) > 20
    for query in queries:
        names = re.findall(r"\bdims_\w+", query)
        assert names and set(names) <= METRICS.keys(), query
        used = set(re.findall(r"(\w+)=~?\"", query)) | {
            label.strip() for group in re.findall(r"by \(([\w, ]+)\)", query) for label in group.split(",")
        }
        assert used <= set().union(*(METRICS[name] for name in names)), query
        assert query.count("(") == query.count(")") and query.count("{") == query.count("}")
    commands = [rule["annotations"]["description"] for rule in rules]
    assert all("dims " in command for command in commands)
    legends = {
        label
        for panel in dashboard["panels"]
        for target in panel["targets"]
        for label in re.findall(r"\{\{(\w+)\}\}", target["legendFormat"])
    }
    assert legends <= set().union(*METRICS.values())


def test_each_incident_raises_one_alert() -> None:
    rules = yaml.safe_load((REPO / "docs" / "monitoring" / "alerts.yml").read_text(encoding="utf-8"))
    raised: Counter[tuple[str, str]] = Counter()
    for rule in rules["groups"][0]["rules"]:
        for selector in re.findall(r"dims_incidents_open\{([^}]*)\}", rule["expr"]):
            conditions = re.findall(r'(\w+)(=~|!=|=)"([^"]*)"', selector)
            for kind, severity in itertools.product(KINDS, SEVERITIES[1:]):
                labels = {"kind": kind, "severity": severity}
                raised[kind, severity] += all(
                    (re.fullmatch(value, labels[label]) is None) == (operator == "!=")
                    for label, operator, value in conditions
                )
        # What these gauges show has an incident, except `overdue`
        assert not re.search(r"dims_metric_(failed|stale|beyond_limit)", rule["expr"])
        assert set(re.findall(r"dims_metric_health\{([^}]*)\}", rule["expr"])) <= {'flag="overdue"'}
    assert raised == dict.fromkeys(itertools.product(KINDS, SEVERITIES[1:]), 1)


ONE = """
sources: {p: {type: files, path: d}}
metrics: {lake: {files: {source: p, measure: count}}}
"""


@pytest.fixture
def served(project: Project, engine: Engine) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """Run `dims exporter` with a read-only login. Yield its address and process."""
    project.write({"dims.yaml": ONE, "d/a": ""})
    project.dims("verify", "--update", check=True)
    name = f"scraper_{engine.url.database}"
    with engine.begin() as connection:
        connection.execute(text(f"CREATE ROLE {name} LOGIN PASSWORD 'a long one' IN ROLE dims_reader"))
    reader = url_of_login(engine, name)
    process = subprocess.Popen(
        [sys.executable, "-m", "dims_worker", "exporter", "--port", "0"],
        cwd=project.folder,
        env={**os.environ, **project.env, "DIMS_DATABASE_URL": reader},
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr
    line = process.stderr.readline()
    yield line.split()[-1], process
    process.terminate()
    process.wait(10)
    process.stderr.close()
    with engine.begin() as connection:
        connection.execute(text(f"DROP ROLE {name}"))


def url_of_login(engine: Engine, name: str) -> str:
    return engine.url.set(username=name, password="a long one").render_as_string(hide_password=False)


def test_the_command_serves_until_it_is_stopped(served: tuple[str, subprocess.Popen[str]]) -> None:
    url, process = served
    assert url.startswith("http://127.0.0.1:") and url.endswith("/metrics")
    with urllib.request.urlopen(url, timeout=20) as answer:
        assert 'dims_metric_value{metric="lake.files",unit="files"} 1.0' in answer.read().decode()
    process.terminate()
    wait_for(lambda: process.poll() is not None)


def test_a_port_in_use_is_an_error(project: Project, served: tuple[str, subprocess.Popen[str]]) -> None:
    port = served[0].rpartition(":")[2].partition("/")[0]
    done = project.dims("exporter", "--port", port)
    assert done.returncode == 3 and f"cannot listen on 127.0.0.1:{port}: Address already in use" in done.stderr
